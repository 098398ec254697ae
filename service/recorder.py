"""Leaves a fact behind for every prediction and label, without ever making a request wait.

    record() -> bounded buffer -> flush every 50 ms: one packed entry a model -> Redis stream

Redis away: the buffer fills, then its oldest facts are dropped and counted. Requests are tallied
exactly whatever happens to their payload, unless the tallies themselves have nowhere to go.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from models.contract import keys, wire
from models.contract.records import SCHEMA, TRACE_BYTES, Column, Entry, Feedback, Rows, Tally
from models.latency import bucket
from models.manifest import Manifest
from models.prediction_id import HOUR_MS
from models.signature import Array, Tensors
from service import metrics
from service.settings import Settings

log = logging.getLogger("slipstream.recorder")

#: Requests in one entry, so that no entry grows large.
CHUNK = 1_000
#: Bytes of one request's tensors beyond which only its outcome is kept.
PAYLOAD_LIMIT = 64 * 1024
#: Distinct tallies kept between flushes: a caller chooses the event hour.
TALLIES = 10_000
#: Seconds between tries while Redis is away.
PROBE = 1.0


class Fact(msgspec.Struct, gc=False):
    """What one request leaves behind. `kind` is ok, invalid or error; only ok has tensors."""

    model: str
    version: int
    role: str
    kind: str
    event_ms: int
    latency_us: float
    manifest: Manifest | None = None
    identifier: int = 0
    rows: int = 0
    trace: bytes = b""
    inputs: Tensors | None = None
    outputs: Tensors | None = None
    primary: Fact | None = None
    bytes: int = 0


@dataclass(slots=True)
class _Pending:
    """What one model has to say at the next flush."""

    facts: list[Fact] = field(default_factory=list)
    feedback: list[Feedback] = field(default_factory=list)
    tallies: list[Tally] = field(default_factory=list)


@dataclass(slots=True)
class _Count:
    """A tally while it grows."""

    requests: int = 0
    rows: int = 0
    latency: Counter[int] = field(default_factory=Counter)


def connect(url: str) -> redis.asyncio.Redis:
    """A client that fails at once instead of waiting; its defaults stall for up to a minute."""
    return redis.asyncio.Redis.from_url(
        url,
        socket_timeout=0.5,
        socket_connect_timeout=0.2,
        retry=Retry(NoBackoff(), 0),
        max_connections=8,
    )


class Recorder:
    """Bounded in facts and bytes; fails open; counts what it drops."""

    def __init__(self, settings: Settings, client: redis.asyncio.Redis) -> None:
        self._settings = settings
        self._client = client
        self._facts: deque[Fact] = deque()
        self._feedback: deque[tuple[str, Feedback]] = deque()
        self._bytes = 0
        self._tallies: dict[str, dict[tuple[int, str, str, int], _Count]] = {}
        self._sequence: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._known: set[str] = set()
        self._retry_at = 0.0
        self._full = asyncio.Event()
        self.worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.degraded = False

    # --- what the request path calls: an append, nothing that waits --------------------------

    def record(self, fact: Fact) -> None:
        self._facts.append(fact)
        self._bytes += fact.bytes
        if len(self._facts) >= CHUNK:
            self._full.set()
            self._bound()

    def feedback(self, model: str, labels: Iterable[Feedback]) -> None:
        self._feedback.extend((model, label) for label in labels)
        while len(self._feedback) > self._settings.buffer_facts:
            model, _ = self._feedback.popleft()
            self._drop(model, 1, "buffer_full")

    def _bound(self) -> None:
        settings = self._settings
        while len(self._facts) > settings.buffer_facts or self._bytes > settings.buffer_bytes:
            oldest = self._facts.popleft()
            self._bytes -= oldest.bytes
            self._tally([oldest])
            self._drop(oldest.model, 1, "buffer_full")

    def _drop(self, model: str, count: int, reason: str) -> None:
        self._dropped[model] += count
        metrics.DROPPED.labels(reason).inc(count)

    @property
    def dropped(self) -> int:
        return self._dropped.total()

    # --- beside it ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Flush until cancelled, then once more."""
        try:
            while True:
                with contextlib.suppress(TimeoutError):  # the usual case: the interval is over
                    await asyncio.wait_for(self._full.wait(), self._settings.flush)
                self._full.clear()
                await self.flush()
        finally:
            self._retry_at = 0
            await self.flush()

    async def flush(self) -> None:
        """Send everything that waits, unless Redis was away a moment ago."""
        metrics.publish()
        if time.monotonic() < self._retry_at:
            self._bound()
            return
        if self.degraded and not await self._back():
            return
        for model, pending in self._drain().items():
            try:
                await self._send(model, pending)
            except Exception:
                # One fact that cannot be packed must end neither recording nor other models'.
                log.exception("what was to be left behind of %s cannot be packed", model)
                self._drop(model, len(pending.facts) + len(pending.feedback), "unpackable")

    async def _back(self) -> bool:
        try:
            await self._client.ping()
        except (RedisError, OSError):
            self._retry_at = time.monotonic() + PROBE
            return False
        log.warning("Redis is back; facts flow again")
        self._degrade(False)
        return True

    def _degrade(self, degraded: bool) -> None:
        self.degraded = degraded
        metrics.DEGRADED.set(int(degraded))

    def _drain(self) -> dict[str, _Pending]:
        pending: dict[str, _Pending] = {}
        facts = [self._facts.popleft() for _ in range(len(self._facts))]
        self._bytes -= sum([fact.bytes for fact in facts])
        self._tally(facts)
        for fact in facts:
            if fact.outputs is not None:
                pending.setdefault(fact.model, _Pending()).facts.append(fact)
        for model, tallies in self._tallies.items():
            pending.setdefault(model, _Pending()).tallies = [
                Tally(*key, count.requests, count.rows, count.latency)
                for key, count in tallies.items()
            ]
        self._tallies = {}
        while self._feedback:
            model, label = self._feedback.popleft()
            pending.setdefault(model, _Pending()).feedback.append(label)
        return pending

    def _tally(self, facts: Iterable[Fact]) -> None:
        """Count requests, rows and latencies of what goes to Redis or is dropped."""
        for fact in facts:
            tallies = self._tallies.setdefault(fact.model, {})
            key = (fact.version, fact.role, fact.kind, fact.event_ms // HOUR_MS)
            count = tallies.get(key)
            if count is None:
                if len(tallies) >= TALLIES:
                    self._drop(fact.model, 1, "tallies_full")
                    continue
                tallies[key] = count = _Count()
            count.requests += 1
            count.rows += fact.rows
            count.latency[bucket(fact.latency_us)] += 1

    async def _send(self, model: str, pending: _Pending) -> None:
        """One entry for each CHUNK of requests; tallies and labels go with the last."""
        facts = pending.facts
        starts = range(0, max(len(facts), 1), CHUNK)
        for start in starts:
            last = start == starts[-1]
            self._sequence[model] += 1
            entry = Entry(
                schema=SCHEMA,
                worker=self.worker,
                sequence=self._sequence[model],
                dropped=self._dropped[model],
                rows=self._rows(facts[start : start + CHUNK]),
                tallies=pending.tallies if last else [],
                feedback=pending.feedback if last else [],
            )
            count = len(facts[start : start + CHUNK]) + (len(pending.feedback) if last else 0)
            if not await self._add(model, wire.pack(entry)):
                self._sequence[model] -= 1  # counted as dropped here, so no gap to the monitor
                self._drop(model, count, "redis")

    async def _add(self, model: str, data: bytes) -> bool:
        """False where Redis did not take the entry. It is not tried again: had only the answer
        been lost, it would count twice."""
        if self.degraded:
            return False
        pipeline = self._client.pipeline(transaction=False)
        if model not in self._known:
            pipeline.sadd(keys.MODELS, model)
        pipeline.xadd(
            keys.facts(model),
            {wire.FIELD: data},
            maxlen=self._settings.stream_entries,
            approximate=True,
        )
        try:
            await pipeline.execute()
        except (RedisError, OSError) as error:
            log.warning("Redis does not take facts (%s); predictions go on without them", error)
            self._degrade(True)
            self._retry_at = time.monotonic() + PROBE
            return False
        self._known.add(model)
        return True

    def _rows(self, facts: list[Fact]) -> list[Rows]:
        groups: dict[tuple[object, ...], list[Fact]] = {}
        for fact in facts:
            groups.setdefault(_group(fact, self._sampled(fact)), []).append(fact)
        return [_pack_rows(group, bool(key[-1])) for key, group in groups.items()]

    def _sampled(self, fact: Fact) -> bool:
        """By the id's random end, so that champion, shadow and label agree on who is kept."""
        share = self._settings.sample
        return fact.bytes <= PAYLOAD_LIMIT and (
            share >= 1 or fact.identifier % 1_000_000 < share * 1_000_000
        )

    async def heartbeat(self, routes: dict[str, int]) -> None:
        """Tell the monitor that this worker lives and which route revisions it applies."""
        if self.degraded:
            return
        beat = {"at_ms": int(time.time() * 1000), "routes": routes, "dropped": self.dropped}
        try:
            await self._client.hset(keys.WORKERS, self.worker, json.dumps(beat))
        except (RedisError, OSError) as error:
            log.debug("no heartbeat: %s", error)  # the next flush says so aloud


def _group(fact: Fact, sampled: bool) -> tuple[object, ...]:
    """Facts of one group stack: same version, role and shapes beyond the first axis."""
    shapes = tuple([a.shape[1:] for a in fact.inputs.values()]) if sampled and fact.inputs else ()
    primary = fact.primary.version if fact.primary else 0
    return fact.version, fact.role, primary, shapes, sampled


def _pack_rows(facts: list[Fact], sampled: bool) -> Rows:
    first = facts[0]
    assert first.manifest is not None
    primaries = [fact.primary for fact in facts if fact.primary is not None]
    rows = [fact.rows for fact in facts]
    traced = any(fact.trace for fact in facts)
    return Rows(
        version=first.version,
        role=first.role,
        ids=b"".join([fact.identifier.to_bytes(16, "big") for fact in facts]),
        rows=_uint32(rows),
        event_ms=np.array([fact.event_ms for fact in facts], "<i8").tobytes(),
        latency_us=_uint32([fact.latency_us for fact in facts]),
        traces=(b"".join([fact.trace or bytes(TRACE_BYTES) for fact in facts]) if traced else b""),
        inputs=_columns([f.inputs for f in facts], rows, tuple(first.inputs or ()))
        if sampled
        else {},
        outputs=_columns([f.outputs for f in facts], rows, first.manifest.recorded_outputs),
        primary_version=primaries[0].version if primaries else 0,
        primary_outputs=_columns(
            [f.outputs for f in primaries],
            rows,
            primaries[0].manifest.recorded_outputs if primaries and primaries[0].manifest else (),
        ),
        primary_latency_us=_uint32([fact.latency_us for fact in primaries]),
    )


def _uint32(values: Sequence[float]) -> bytes:
    packed: bytes = np.minimum(np.array(values), 0xFFFFFFFF).astype("<u4").tobytes()
    return packed


def _columns(
    tensors: list[Tensors | None], rows: list[int], names: Iterable[str]
) -> dict[str, Column]:
    """Stack what has one row per row of the request; the rest cannot be told apart by row."""
    columns = {}
    for name in names:
        arrays: list[Array] = [t[name] for t in tensors if t is not None and name in t]
        stacks = len({a.shape[1:] for a in arrays}) == 1
        if stacks and [a.shape[0] if a.shape else -1 for a in arrays] == rows:
            columns[name] = wire.column(arrays)
    return columns
