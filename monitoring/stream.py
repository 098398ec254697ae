"""The monitor's edge to Redis: reads slices of facts, seals what they came to.

Sealing writes windows, ledger pages, totals and the cursor in one transaction that only goes
through where the cursor still stands at the slice's beginning. So a slice counts exactly once:
a monitor killed before the seal folds it again, and one that was overtaken changes nothing.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast
from uuid import UUID

import numpy as np
import redis
from redis.exceptions import WatchError

from models.contract import keys, wire
from models.contract.records import Entry, Outcome
from models.prediction_id import hour as hour_of
from monitoring.fold import Disagreement, Folded
from monitoring.window import Vector

#: Seconds a prediction waits for its label.
LABEL_HORIZON = 7 * 24 * 3600
#: Hours of event time, back from the newest, that are kept hour by hour. Days stay.
HOURS_KEPT = 72
HOURS_A_DAY = 24
#: Days of event time that are kept.
DAYS_KEPT = 400

#: Disagreements that are kept as examples, the newest.
DISAGREEMENTS = 500

START = "0-0"


class WindowKey(NamedTuple):
    """One stored window. `start` counts hours or days since 1970."""

    grain: str
    version: int
    role: str
    start: int


@dataclass
class Progress:
    """How far a model's stream is folded, and what was counted on the way."""

    cursor: str = START
    totals: Counter[str] = field(default_factory=Counter)
    sequences: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)


class Slice(NamedTuple):
    """Consecutive entries of a stream, and the cursor behind them."""

    entries: list[Entry]
    cursor: str
    unreadable: int


class Overtaken(Exception):
    """Another monitor sealed this slice first."""


class Store:
    """What the monitor keeps in Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    def models(self) -> list[str]:
        names = cast("set[bytes]", self.client.smembers(keys.MODELS))
        return sorted(name.decode() for name in names)

    def progress(self, model: str) -> Progress:
        fields = cast("dict[bytes, bytes]", self.client.hgetall(keys.cursor(model)))
        if not fields:
            return Progress()
        state = json.loads(fields[b"state"])
        return Progress(
            fields[b"id"].decode(),
            Counter(state["totals"]),
            state["sequences"],
            state["dropped"],
        )

    def read(self, model: str, cursor: str, count: int) -> Slice | None:
        """At most `count` entries behind the cursor; None where there are none."""
        found = cast(Any, self.client.xrange(keys.facts(model), f"({cursor}", "+", count=count))
        if not found:
            return None
        entries, unreadable = [], 0
        for _, fields in found:
            try:
                entries.append(wire.unpack(fields[wire.FIELD]))
            except (wire.UnreadableEntry, KeyError):
                unreadable += 1
        return Slice(entries, found[-1][0].decode(), unreadable)

    def newest(self, model: str, count: int) -> list[Entry]:
        """The last entries that can be read, the newest first."""
        found = cast(Any, self.client.xrevrange(keys.facts(model), count=count))
        entries = []
        for _, fields in found:
            try:
                entries.append(wire.unpack(fields[wire.FIELD]))
            except (wire.UnreadableEntry, KeyError):
                continue  # counted where it is folded
        return entries

    def lag(self, model: str, cursor: str) -> int:
        """Entries that are not folded yet, counted up to 1,000."""
        return len(cast(Any, self.client.xrange(keys.facts(model), f"({cursor}", "+", count=1_000)))

    def pages(self, model: str, ids: Iterable[bytes]) -> dict[bytes, Outcome]:
        """The ledger's pages on these predictions, where there are any."""
        buckets: dict[int, list[bytes]] = defaultdict(list)
        for identifier in ids:
            buckets[hour_of(identifier)].append(identifier)
        pipeline = self.client.pipeline(transaction=False)
        for hour, wanted in buckets.items():
            pipeline.hmget(keys.ledger(model, hour), cast(Any, wanted))
        found: dict[bytes, Outcome] = {}
        for wanted, answers in zip(buckets.values(), pipeline.execute(), strict=True):
            for identifier, data in zip(wanted, answers, strict=True):
                if data is not None:
                    found[identifier] = wire.unpack_outcome(data)
        return found

    def windows(self, model: str, grain: str, version: int, role: str) -> dict[int, Vector]:
        """Every stored window of one version and role, by start."""
        stored = cast(
            "dict[bytes, bytes]",
            self.client.hgetall(keys.windows(model, grain, version, role)),
        )
        return {int(start): unpack_vector(data) for start, data in stored.items()}

    def groups(self, model: str) -> list[tuple[int, str]]:
        """The (version, role) that have windows."""
        prefix = keys.of(model, "windows", "day") + ":"
        names = self.client.scan_iter(match=_escaped(prefix) + "*", count=1_000)
        parts = [name.decode().removeprefix(prefix).split(":") for name in names]
        return sorted((int(version), role) for version, role in parts)

    def disagreements(self, model: str, count: int = 20) -> list[list[Any]]:
        """Examples, newest first: prediction id, shadow, row, the primary's score, the shadow's."""
        found = cast("list[bytes]", self.client.lrange(keys.disagreements(model), 0, count - 1))
        return [json.loads(record) for record in found]

    def seal(
        self,
        model: str,
        before: Progress,
        after: Progress,
        windows: dict[WindowKey, Vector],
        stale: list[WindowKey],
        folded: Folded,
    ) -> None:
        """Write all of it or nothing. Raises Overtaken where the cursor has moved."""
        with self.client.pipeline(transaction=True) as pipeline:
            pipeline.watch(keys.cursor(model))  # type: ignore[no-untyped-call]
            standing = cast("bytes | None", pipeline.hget(keys.cursor(model), "id"))
            if (standing or START.encode()).decode() != before.cursor:
                raise Overtaken(model)
            pipeline.multi()
            _write_windows(pipeline, model, windows, stale)
            _write_pages(pipeline, model, folded.outcomes)
            _write_disagreements(pipeline, model, folded.disagreements)
            state = {
                "totals": after.totals,
                "sequences": after.sequences,
                "dropped": after.dropped,
            }
            pipeline.hset(
                keys.cursor(model), mapping={"id": after.cursor, "state": json.dumps(state)}
            )
            try:
                pipeline.execute()
            except WatchError:
                raise Overtaken(model) from None


def _write_windows(
    pipeline: Any, model: str, windows: dict[WindowKey, Vector], stale: list[WindowKey]
) -> None:
    for key, vector in windows.items():
        name = keys.windows(model, key.grain, key.version, key.role)
        pipeline.hset(name, str(key.start), pack_vector(vector))
    for key in stale:
        pipeline.hdel(keys.windows(model, key.grain, key.version, key.role), str(key.start))


def _write_pages(pipeline: Any, model: str, outcomes: dict[bytes, Outcome]) -> None:
    buckets: dict[int, dict[bytes, bytes]] = defaultdict(dict)
    for identifier, page in outcomes.items():
        buckets[hour_of(identifier)][identifier] = wire.pack_outcome(page)
    for hour, mapping in buckets.items():
        pipeline.hset(keys.ledger(model, hour), mapping=mapping)
        pipeline.expire(keys.ledger(model, hour), LABEL_HORIZON)


def _write_disagreements(pipeline: Any, model: str, found: list[Disagreement]) -> None:
    if found:
        records = [json.dumps([str(UUID(bytes=one.id)), *one[1:]]) for one in found]
        pipeline.lpush(keys.disagreements(model), *records)
        pipeline.ltrim(keys.disagreements(model), 0, DISAGREEMENTS - 1)


def pack_vector(vector: Vector) -> bytes:
    """Little-endian int64, deflated: windows are mostly zeros."""
    return zlib.compress(vector.astype("<i8").tobytes(), 1)


def unpack_vector(data: bytes) -> Vector:
    return np.frombuffer(zlib.decompress(data), "<i8").astype(np.int64)


def _escaped(pattern: str) -> str:
    return "".join(f"\\{c}" if c in "*?[]\\" else c for c in pattern)
