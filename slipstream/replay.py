"""Runs a version over the recorded requests before anybody is exposed to it.

The stream's rows stand in for traffic and the ledger for labels; comparison and gates are those of
a rollout's shadow.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import numpy as np
import redis

from models.contract import keys, wire
from models.contract.records import ID_BYTES, SCHEMA, Entry, Outcome, Rows, Tally
from models.errors import NotFound, SlipstreamError
from models.latency import bucket
from models.policy import Policy
from models.repository import Repository
from models.rollout import Route
from models.sessions import LoadedVersion
from models.signature import Tensors
from models.version import ModelVersion, Role
from monitoring import gates
from monitoring.fold import Fold
from monitoring.gates import ArmCounts, Evidence, Verdict
from monitoring.rollouts import pair_counts
from monitoring.slices import Slice, slices
from monitoring.stream import Store
from monitoring.window import PAIR, Layout, PairLayout, Vector, Window

#: Entries that are read at a time.
BATCH = 100


@dataclass
class Replayed:
    """What came of a replay, and what it covered (milliseconds since 1970)."""

    verdict: Verdict
    evidence: Evidence
    slices: list[Slice]
    first_ms: int
    last_ms: int
    sentences: Counter[str] = field(default_factory=Counter)


def replay(
    client: redis.Redis,
    repository: Repository,
    route: Route,
    version: int,
    since_ms: int,
    policy: Policy,
    progress: Callable[[int], object],
) -> Replayed:
    """Judge `version` on what the champion was asked since `since_ms`.

    Raises BadModel or RepositoryError where the version cannot be used, and NotFound where nothing
    that the champion answered is on record.
    """
    candidate = LoadedVersion(repository.open(ModelVersion(route.model, version)))
    run = _Run(Store(client), repository, route, candidate)
    for rows, at_ms in _recorded(client, route, since_ms):
        run.add(rows, at_ms)
        progress(len(rows.ids) // ID_BYTES)
    if not run.requests:
        raise NotFound(
            f"nothing that v{route.champion} of {route.model} answered in that time is on record; "
            f"send it requests first, or look further back (--last 7d)"
        )
    return run.judged(policy)


def _recorded(client: redis.Redis, route: Route, since_ms: int) -> Iterator[tuple[Rows, int]]:
    """The champion's recorded rows, and when they were recorded."""
    cursor = f"{since_ms}-0"
    while True:
        found = cast(Any, client.xrange(keys.facts(route.model), cursor, "+", count=BATCH))
        for name, fields in found:
            try:
                entry = wire.unpack(fields[wire.FIELD])
            except wire.UnreadableEntry:
                continue
            for rows in entry.rows:
                if rows.version == route.champion and rows.inputs and rows.role != Role.SHADOW:
                    yield rows, int(name.split(b"-")[0])
        if len(found) < BATCH:
            return
        cursor = f"({found[-1][0].decode()}"


class _Run:
    """Folds the candidate's answers beside the champion's, as the monitor folds a shadow's."""

    def __init__(
        self, store: Store, repository: Repository, route: Route, candidate: LoadedVersion
    ) -> None:
        self._store = store
        self._route = route
        self._candidate = candidate
        self._champion = repository.open(ModelVersion(route.model, route.champion))
        package = candidate.package
        self._layout = Layout(package.manifest, package.profile)
        self._layouts = {
            candidate.version.number: self._layout,
            route.champion: Layout(self._champion.manifest, self._champion.profile),
        }
        self._pair, self._rows = PairLayout().zeros(), self._layout.zeros()
        self._sentences: Counter[str] = Counter()
        self._errors = 0
        self._span = (0, 0)
        self.requests = 0

    def add(self, rows: Rows, at_ms: int) -> None:
        self._span = (self._span[0] or at_ms, at_ms)
        self.requests += len(rows.ids) // ID_BYTES
        for part in self._parts(rows):
            self._fold(part)

    def _parts(self, rows: Rows) -> Iterator[Rows]:
        """The candidate's rows: all at once where it takes them so, else request by request."""
        inputs = wire.arrays(rows.inputs)
        counts = np.frombuffer(rows.rows, "<u4").astype(int)
        whole = self._answer(inputs)
        if whole is not None:
            outputs, seconds = whole
            yield self._shadow(rows, slice(0, len(counts)), counts, outputs, seconds / len(counts))
            return
        ends = np.cumsum(counts)
        for i, (start, end) in enumerate(zip(ends - counts, ends, strict=True)):
            alone = self._answer({name: array[start:end] for name, array in inputs.items()}, True)
            if alone is None:
                self._errors += 1
            else:
                yield self._shadow(rows, slice(i, i + 1), counts, *alone)

    def _answer(self, inputs: Tensors, tell: bool = False) -> tuple[Tensors, float] | None:
        started = time.perf_counter()
        try:
            self._candidate.signature.check(inputs)
            return self._candidate.run(inputs), time.perf_counter() - started
        except SlipstreamError as error:
            if tell:
                self._sentences[str(error)] += 1
            return None

    def _shadow(
        self, rows: Rows, requests: slice, counts: Any, outputs: Tensors, seconds: float
    ) -> Rows:
        """Some requests of the champion's rows as the shadow's, with what it says instead."""
        start = int(counts[: requests.start].sum())
        end = start + int(counts[requests].sum())
        said, inputs = wire.arrays(rows.outputs), wire.arrays(rows.inputs)
        count = requests.stop - requests.start
        model_us = np.full(count, seconds * 1e6, "<u4").tobytes()
        recorded = self._candidate.manifest.recorded_outputs

        def part(data: bytes, width: int) -> bytes:
            return data[requests.start * width : requests.stop * width]

        return Rows(
            version=self._candidate.version.number,
            role=Role.SHADOW,
            ids=part(rows.ids, ID_BYTES),
            rows=part(rows.rows, 4),
            event_ms=part(rows.event_ms, 8),
            latency_us=model_us,
            traces=b"",
            inputs={name: wire.column([a[start:end]]) for name, a in inputs.items()},
            outputs={n: wire.column([outputs[n]]) for n in recorded if n in outputs},
            primary_version=rows.version,
            primary_outputs={name: wire.column([a[start:end]]) for name, a in said.items()},
            primary_latency_us=part(rows.latency_us, 4),
        )

    def _fold(self, rows: Rows) -> None:
        ids = [rows.ids[at : at + ID_BYTES] for at in range(0, len(rows.ids), ID_BYTES)]
        pages = {
            i: _champions(page) for i, page in self._store.pages(self._route.model, ids).items()
        }
        fold = Fold(self._layouts, pages)
        folded = fold.run([Entry(SCHEMA, "replay", 1, 0, [rows], [_tally(rows)], [])])
        for key, vector in folded.panes.items():
            self._add(key.role, vector)

    def _add(self, role: str, vector: Vector) -> None:
        if role == PAIR:
            self._pair += vector
        elif role == Role.SHADOW:
            self._rows += vector

    def judged(self, policy: Policy) -> Replayed:
        # What it costs a worker is seen where a worker has loaded it.
        resources = msgspec.structs.replace(policy.resources, blocks=False)
        policy = msgspec.structs.replace(policy, resources=resources)
        shadow = ArmCounts(self.requests, self._errors)
        window = Window(PairLayout(), self._pair)
        pairs = msgspec.structs.replace(
            pair_counts(window, shadow, ArmCounts(self.requests), 100),
            latency_champion={},  # of whole requests: no match for a model that runs in batches
            latency_candidate={},
        )
        evidence = Evidence(
            model=self._route.model,
            rollout="replay",
            champion=self._route.champion,
            candidate=self._candidate.version.number,
            revision=self._route.revision,
            step=0,
            stage="replay",
            weight=0,
            next_weight=100,
            at_ms=int(time.time() * 1000),
            seconds=policy.evidence.seconds,
            workers=1,
            applied=1,
            champion_arm=ArmCounts(self.requests),
            candidate_arm=shadow,
            champion_whole=ArmCounts(self.requests),
            candidate_whole=shadow,
            pairs=pairs,
        )
        found = slices(Window(self._layout, self._rows))
        verdict = gates.evaluate(evidence, policy)
        return Replayed(verdict, evidence, found, *self._span, self._sentences)


def _champions(page: Outcome) -> Outcome:
    """The ledger's page without what other shadows said."""
    said = [one for one in page.said if one.role != Role.SHADOW]
    return msgspec.structs.replace(page, said=said)


def _tally(rows: Rows) -> Tally:
    latency = Counter(bucket(np.frombuffer(rows.latency_us, "<u4")).tolist())
    count = len(rows.latency_us) // 4
    hour = int(np.frombuffer(rows.event_ms, "<i8")[0]) // 3_600_000
    return Tally(rows.version, rows.role, "ok", hour, count, count, dict(latency))
