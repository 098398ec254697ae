"""Leaves a fact behind for every prediction and label, without ever making a request wait.

    record() -> a few facts -> blocks, bounded -> flush every 50 ms: one entry a model -> stream

Redis away: the blocks grow, then the oldest are dropped and counted. Requests are tallied
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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from models.contract import keys, wire
from models.contract.records import SCHEMA, Entry, Feedback, Tally
from models.prediction_id import HOUR_MS
from models.version import Role
from service import metrics
from service.block import Block, Count, Fact, TallyKey, alike
from service.settings import Settings

log = logging.getLogger("slipstream.recorder")

#: What says that Redis is away. A RuntimeError is uvloop's, of a transport that is just closing.
AWAY = (RedisError, OSError, RuntimeError)

#: Requests in one entry, and their bytes in memory, so that no entry grows large.
CHUNK = 1_000
CHUNK_BYTES = 8 * 1024 * 1024
#: Facts that are stacked at once: a loop over them costs a quarter of one now and then, whose
#: code the processor has forgotten meanwhile, and their memory still fits into its cache.
BATCH = 32
#: Bytes of one request's tensors beyond which only its outcome is kept.
PAYLOAD_LIMIT = 64 * 1024
#: Distinct tallies kept between flushes: a caller chooses the event hour.
TALLIES = 10_000
#: Seconds between tries while Redis is away.
PROBE = 1.0


@dataclass(slots=True)
class _Pending:
    """What one model has to say at the next flush."""

    blocks: list[Block] = field(default_factory=list)
    feedback: list[Feedback] = field(default_factory=list)
    tallies: list[Tally] = field(default_factory=list)


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
        self._blocks: deque[Block] = deque()
        self._growing: dict[tuple[object, ...], Block] = {}
        self._facts = self._bytes = 0
        self._fresh: deque[Fact] = deque()
        self._feedback: deque[tuple[str, Feedback]] = deque()
        self._tallies: dict[str, dict[TallyKey, Count]] = {}
        self._sequence: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._known: set[str] = set()
        self._retry_at = 0.0
        self._full = asyncio.Event()
        self.worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.degraded = False

    # --- what the request path calls: an append, nothing that waits --------------------------

    def record(self, fact: Fact) -> None:
        """From the event loop."""
        self._fresh.append(fact)
        if len(self._fresh) >= BATCH:
            self._stack()

    def _stack(self) -> None:
        answered: list[Fact] = []
        for _ in range(len(self._fresh)):
            fact = self._fresh.popleft()
            if fact.outputs is None:
                self._count(fact)
                continue
            if fact.bytes > PAYLOAD_LIMIT or not self._sampled(fact):
                fact.inputs = None
            answered.append(fact)
        for facts in alike(answered):
            try:
                self._keep(Block(facts))
            except Exception:
                # What cannot be stacked must end neither recording nor others' facts.
                model = facts[0].model
                log.exception("what requests of %s leave behind cannot be stacked", model)
                self._drop(model, len(facts), "unpackable")

    def _keep(self, new: Block) -> None:
        if new.role not in (Role.SHADOW, Role.FLOOR):  # those answered nobody
            metrics.took(new.model, new.version, new.role, new.seconds)
        block = self._growing.get(new.key)
        if block is None:
            block = self._growing[new.key] = new
            self._blocks.append(new)
        else:
            block.absorb(new)
        self._facts += len(new)
        self._bytes += new.bytes
        if len(block) >= CHUNK or block.bytes >= CHUNK_BYTES:
            del self._growing[new.key]
            self._full.set()
            self._bound()

    def _count(self, fact: Fact) -> None:
        tallies = self._tallies.setdefault(fact.model, {})
        key = (fact.version, fact.role, fact.kind, fact.event_ms // HOUR_MS)
        if key not in tallies and len(tallies) >= TALLIES:
            self._drop(fact.model, 1, "tallies_full")
            return
        tallies.setdefault(key, Count()).add(fact.rows, [fact.latency_us])

    def feedback(self, model: str, labels: Iterable[Feedback]) -> None:
        self._feedback.extend((model, label) for label in labels)
        while len(self._feedback) > self._settings.buffer_facts:
            model, _ = self._feedback.popleft()
            self._drop(model, 1, "buffer_full")

    def _bound(self) -> None:
        """Drop the oldest blocks beyond the limits; their requests stay counted."""
        settings = self._settings
        while self._facts > settings.buffer_facts or self._bytes > settings.buffer_bytes:
            oldest = self._blocks.popleft()
            self._growing = {k: b for k, b in self._growing.items() if b is not oldest}
            self._facts -= len(oldest)
            self._bytes -= oldest.bytes
            self._tally(oldest)
            self._drop(oldest.model, len(oldest), "buffer_full")

    def _tally(self, block: Block) -> None:
        tallies = self._tallies.setdefault(block.model, {})
        if len(tallies) >= TALLIES:
            self._drop(block.model, len(block), "tallies_full")
        else:
            block.tally(tallies)

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
        self._stack()
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
                lost = sum(map(len, pending.blocks)) + len(pending.feedback)
                self._drop(model, lost, "unpackable")

    async def _back(self) -> bool:
        try:
            await self._client.ping()
        except AWAY:
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
        blocks, self._blocks = self._blocks, deque()
        self._growing.clear()
        self._facts = self._bytes = 0
        for block in blocks:
            self._tally(block)
            pending.setdefault(block.model, _Pending()).blocks.append(block)
        for model, tallies in self._tallies.items():
            pending.setdefault(model, _Pending()).tallies = [
                Tally(*key, count.requests, count.rows, dict(count.latency))
                for key, count in tallies.items()
            ]
        self._tallies = {}
        while self._feedback:
            model, label = self._feedback.popleft()
            pending.setdefault(model, _Pending()).feedback.append(label)
        return pending

    async def _send(self, model: str, pending: _Pending) -> None:
        """One entry for each CHUNK of requests; tallies and labels go with the last."""
        batches = list(_batches(pending.blocks)) or [[]]
        for blocks in batches:
            last = blocks is batches[-1]
            self._sequence[model] += 1
            entry = Entry(
                schema=SCHEMA,
                worker=self.worker,
                sequence=self._sequence[model],
                dropped=self._dropped[model],
                rows=[block.rows() for block in blocks],
                tallies=pending.tallies if last else [],
                feedback=pending.feedback if last else [],
            )
            if not await self._add(model, wire.pack(entry)):
                self._sequence[model] -= 1  # counted as dropped here, so no gap to the monitor
                count = sum(map(len, blocks)) + (len(pending.feedback) if last else 0)
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
        except AWAY as error:
            log.warning("Redis does not take facts (%s); predictions go on without them", error)
            self._degrade(True)
            self._retry_at = time.monotonic() + PROBE
            return False
        self._known.add(model)
        return True

    def _sampled(self, fact: Fact) -> bool:
        """By the id's random end, so that champion, shadow and label agree on who is kept."""
        share = self._settings.sample
        return share >= 1 or fact.identifier % 1_000_000 < share * 1_000_000

    async def heartbeat(
        self, routes: dict[str, int], costs: Mapping[str, Mapping[str, tuple[float, int]]]
    ) -> None:
        """Tell the monitor that this worker lives, which route revisions it applies, and what
        its versions cost."""
        if self.degraded:
            return
        now = int(time.time() * 1000)
        beat = {"at_ms": now, "routes": routes, "costs": costs, "dropped": self.dropped}
        try:
            await self._client.hset(keys.WORKERS, self.worker, json.dumps(beat))
        except AWAY as error:
            log.debug("no heartbeat: %s", error)  # the next flush says so aloud


def _batches(blocks: Iterable[Block]) -> Iterator[list[Block]]:
    batch: list[Block] = []
    for block in blocks:
        batch.append(block)
        if sum(map(len, batch)) >= CHUNK or sum(b.bytes for b in batch) >= CHUNK_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch
