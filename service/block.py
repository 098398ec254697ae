"""What requests leave behind, stacked column by column. Pure.

A request's own objects are soon gone: keeping three hundred of them until the next flush would
push everything else out of the processor's cache.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from models.contract import wire
from models.contract.records import TRACE_BYTES, Column, Rows
from models.latency import bucket
from models.manifest import Manifest
from models.prediction_id import HOUR_MS
from models.signature import DATATYPE_OF, Tensors

_UNTRACED = bytes(TRACE_BYTES)

#: version, role, kind, hour of the event time
TallyKey = tuple[int, str, str, int]


class Fact(msgspec.Struct, gc=False):
    """What one request leaves behind. `kind` is ok, invalid or error; only ok has outputs.

    `latency_us` is the whole request's, `model_us` the model's alone. `inputs` is None where the
    payload is not kept; `bytes` is what the fact takes in memory.
    """

    model: str
    version: int
    role: str
    kind: str
    event_ms: int
    latency_us: float
    model_us: float = 0.0
    manifest: Manifest | None = None
    identifier: int = 0
    rows: int = 0
    trace: bytes = b""
    inputs: Tensors | None = None
    outputs: Tensors | None = None
    primary: Fact | None = None
    reason: str = ""
    agree: bytes = b""
    bytes: int = 0


class Count:
    """A tally while it grows."""

    __slots__ = ("latency", "requests", "rows")

    def __init__(self) -> None:
        self.requests = 0
        self.rows = 0
        self.latency: Counter[int] = Counter()

    def add(self, rows: int, microseconds: list[float]) -> None:
        self.requests += len(microseconds)
        self.rows += rows
        self.latency.update(bucket(microseconds).tolist())


class _Stack:
    """One tensor of several requests, stacked along its first axis."""

    __slots__ = ("data", "dtype", "name", "texts", "trailing")

    def __init__(self, name: str, many: Sequence[Tensors]) -> None:
        first = many[0][name]
        self.name, self.dtype, self.trailing = name, first.dtype, first.shape[1:]
        self.data = bytearray()
        self.texts: list[str] = []
        if self.dtype == object:
            for tensors in many:
                self.texts += tensors[name].ravel().tolist()
        else:
            self.data += b"".join([tensors[name].tobytes() for tensors in many])

    def absorb(self, other: _Stack) -> None:
        self.data += other.data
        self.texts += other.texts

    def column(self, rows: int) -> Column:
        data = wire.pack_texts(self.texts) if self.dtype == object else bytes(self.data)
        return Column(DATATYPE_OF[self.dtype], (rows, *self.trailing), data)


class Block:
    """Answered requests of one model, version, role and shape, as columns.

    `key` says which blocks stack: they have the same columns of the same shape a row.
    """

    def __init__(self, facts: Sequence[Fact]) -> None:
        """Facts that are alike. Whatever raises here leaves no block half stacked."""
        first = facts[0]
        self.model, self.version, self.role = first.model, first.version, first.role
        self._reason = first.reason
        self.bytes = sum([fact.bytes for fact in facts])
        self._rows = sum([fact.rows for fact in facts])
        self._counts = array("I", [fact.rows for fact in facts])
        self._event_ms = array("q", [fact.event_ms for fact in facts])
        self._latency = array("d", [fact.latency_us for fact in facts])
        self._ids = bytearray().join([fact.identifier.to_bytes(16, "big") for fact in facts])
        self._traces = bytearray().join([fact.trace or _UNTRACED for fact in facts])
        self._inputs = _stacks([f.inputs for f in facts if f.inputs], first.rows)
        self._outputs = _stacks([f.outputs for f in facts if f.outputs], first.rows, _names(first))
        primaries = [fact.primary for fact in facts if fact.primary]
        self._primary = primaries[0].version if primaries else 0
        self._primary_latency = array("d", [primary.model_us for primary in primaries])
        said = [p.outputs for p in primaries if p.outputs]
        self._agree = bytearray().join([fact.agree for fact in facts])
        self._said = _stacks(said, first.rows, _names(primaries[0])) if said else []
        stacks = (*self._inputs, *self._outputs, *self._said)
        shapes = tuple([(stack.name, stack.trailing) for stack in stacks])
        kind = (self.model, self.version, self.role, self._reason, bool(self._agree))
        self.key = (*kind, self._primary, shapes)

    @property
    def seconds(self) -> list[float]:
        return [microseconds / 1e6 for microseconds in self._latency]

    def __len__(self) -> int:
        return len(self._counts)

    def absorb(self, other: Block) -> None:
        """Stack a block of the same key below this one."""
        self.bytes += other.bytes
        self._rows += other._rows
        self._counts += other._counts
        self._event_ms += other._event_ms
        self._latency += other._latency
        self._ids += other._ids
        self._traces += other._traces
        self._primary_latency += other._primary_latency
        self._agree += other._agree
        for mine, others in (
            (self._inputs, other._inputs),
            (self._outputs, other._outputs),
            (self._said, other._said),
        ):
            for stack, below in zip(mine, others, strict=True):
                stack.absorb(below)

    def tally(self, into: dict[TallyKey, Count]) -> None:
        """Add the block's requests to the counts of their hours."""
        hours = np.array(self._event_ms) // HOUR_MS
        rows, latency = np.array(self._counts), np.array(self._latency)
        for hour in np.unique(hours).tolist():
            inside = hours == hour
            count = into.setdefault((self.version, self.role, "ok", hour), Count())
            count.add(int(rows[inside].sum()), latency[inside].tolist())

    def rows(self) -> Rows:
        return Rows(
            version=self.version,
            role=self.role,
            ids=bytes(self._ids),
            rows=_uint32(self._counts),
            event_ms=np.array(self._event_ms, "<i8").tobytes(),
            latency_us=_uint32(self._latency),
            traces=bytes(self._traces) if any(self._traces) else b"",
            inputs={stack.name: stack.column(self._rows) for stack in self._inputs},
            outputs={stack.name: stack.column(self._rows) for stack in self._outputs},
            primary_version=self._primary,
            primary_outputs={stack.name: stack.column(self._rows) for stack in self._said},
            primary_latency_us=_uint32(self._primary_latency),
            reason=self._reason,
            agree=bytes(self._agree),
        )


def alike(facts: Iterable[Fact]) -> Iterable[list[Fact]]:
    """Facts that stack: same model, version, role, reason and shapes."""
    groups: dict[tuple[object, ...], list[Fact]] = {}
    for fact in facts:
        primary = fact.primary
        key = (
            fact.model,
            fact.version,
            fact.role,
            fact.reason,
            bool(fact.agree),
            _shapes(fact.inputs),
            _shapes(fact.outputs),
            primary and (primary.version, _shapes(primary.outputs)),
        )
        group = groups.get(key)
        if group is None:
            groups[key] = [fact]
        else:
            group.append(fact)
    return groups.values()


def _shapes(tensors: Tensors | None) -> tuple[tuple[int, ...], ...] | None:
    return None if tensors is None else tuple([t.shape for t in tensors.values()])


def _names(fact: Fact) -> tuple[str, ...]:
    return fact.manifest.recorded_outputs if fact.manifest else ()


def _stacks(
    many: Sequence[Tensors], rows: int, names: tuple[str, ...] | None = None
) -> list[_Stack]:
    """What has one row per row of the request; the rest cannot be told apart by row."""
    if not many:
        return []
    first = many[0]
    wanted = sorted(first) if names is None else names
    return [
        _Stack(name, many) for name in wanted if name in first and first[name].shape[:1] == (rows,)
    ]


def _uint32(values: array[int] | array[float]) -> bytes:
    packed: bytes = np.minimum(np.array(values), 2**32 - 1).astype("<u4").tobytes()
    return packed
