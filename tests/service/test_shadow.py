"""Shadows: their process, what they are spared, and what they can do to nobody."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import pytest
import pytest_asyncio
import redis

from models import rollout, routes
from models.manifest import Manifest, Score, digest_of
from models.repository import Repository
from models.version import ModelVersion
from service import metrics, shadow, shadow_policy
from service.block import Fact
from service.recorder import Recorder
from service.settings import Settings
from service.shadow import Job, Shadow
from service.shadow_policy import BUSY, CLOSED, FAULTS, LATE, OPEN, Breaker, Load, next_share
from service.telemetry import Tracing
from slipstream.embedded import EmbeddedRedis
from tests import onnx_models
from tests.service import more_models
from tests.serving import Gateway, eventually

# --- decisions ------------------------------------------------------------------------------------

CALM, LATE_LOOKS, BUSY_LOOP = Load([0.0], 0.1), Load([LATE * 2] * 5, 0.1), Load([0.0], BUSY + 0.01)


@pytest.mark.parametrize(
    ("share", "load", "expected"),
    [
        (1.0, CALM, 1.0),
        (0.5, CALM, 0.52),
        (0.99, CALM, 1.0),
        (1.0, LATE_LOOKS, 0.5),
        (1.0, BUSY_LOOP, 0.5),
        (0.15, BUSY_LOOP, 0.1),
        (0.1, LATE_LOOKS, 0.1),
        (1.0, Load([LATE * 100, 0.0, LATE * 100], 0.1), 1.0),
        (1.0, Load([], 0.0), 1.0),
    ],
    ids=["calm", "back", "all", "late", "busy", "floor", "at the floor", "a burst", "no look"],
)
def test_the_share_halves_in_congestion_and_comes_back(
    share: float, load: Load, expected: float
) -> None:
    """A tenth is the floor here; a loop that was on time once has no standing queue."""
    assert next_share(share, load, 0.1) == pytest.approx(expected)


TRIPPED = Breaker(FAULTS, OPEN)


@pytest.mark.parametrize(
    ("breaker", "now", "expected"),
    [
        (CLOSED, 0.0, (True, CLOSED)),
        (Breaker(FAULTS - 1, OPEN), 0.0, (True, Breaker(FAULTS - 1, OPEN))),
        (TRIPPED, OPEN - 1, (False, TRIPPED)),
        (TRIPPED, OPEN, (True, Breaker(FAULTS, 2 * OPEN))),
        (Breaker(FAULTS, 2 * OPEN), OPEN + 1, (False, Breaker(FAULTS, 2 * OPEN))),
    ],
    ids=["closed", "one fault short", "open", "half-open", "one try only"],
)
def test_the_breaker_lets_one_try(
    breaker: Breaker, now: float, expected: tuple[bool, Breaker]
) -> None:
    """Open after FAULTS in a row; after OPEN seconds one request may try."""
    assert breaker.ask(now) == expected


@pytest.mark.parametrize(
    ("breaker", "good", "expected"),
    [
        (TRIPPED, True, CLOSED),
        (TRIPPED, False, Breaker(FAULTS + 1, 7 + OPEN)),
        (Breaker(FAULTS - 1), False, Breaker(FAULTS, 7 + OPEN)),
        (Breaker(FAULTS - 1), True, CLOSED),
    ],
    ids=["try succeeded", "try failed", "trips", "a row is broken"],
)
def test_the_breaker_counts_faults_in_a_row(
    breaker: Breaker, good: bool, expected: Breaker
) -> None:
    """One good answer closes it."""
    assert breaker.after(good, 7.0) == expected


# --- a queue with a real process behind it --------------------------------------------------------

HARMLESS, HARMFUL = 0.0, 20.0


class Sink:
    """Where facts go instead of Redis."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def record(self, fact: Fact) -> None:
        self.facts.append(fact)


def shelf(root: Path) -> Path:
    """A repository: each model's version 1 answers, version 2 is what its name says."""
    for kind in (*more_models.HOSTILE, "good"):
        for number in (1, 2):
            file = root / f"{kind}-{number}.onnx"
            if kind == "good" or number == 1:
                onnx_models.softmax(file)
            else:
                more_models.hostile(file, kind)
            manifest = Manifest(kind, number, digest_of(file), score=Score("y", 1))
            Repository(root / "repository").push(file, manifest, None)
    return root / "repository"


@pytest.fixture(scope="module")
def hostile_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shelf(tmp_path_factory.mktemp("hostile"))


class Bench:
    """A queue, offered jobs by hand."""

    def __init__(self, repository: Path, **settings: Any) -> None:
        self.sink = Sink()
        self.settings = Settings(repository=repository, **settings)
        self.shadow = Shadow(cast("Recorder", self.sink), Tracing(self.settings), self.settings)
        self._start = self._counts()

    def offer(self, kind: str, number: float = HARMLESS, size: int = 100) -> None:
        tensors = {"x": np.full((1, 4), number, np.float32)}
        fact = Fact(kind, 1, "champion", "ok", 0, 1.0, identifier=7, rows=1, bytes=size)
        fact.inputs, fact.outputs = tensors, {"y": np.zeros((1, 2), np.float32)}
        version = ModelVersion(kind, 2)
        manifest = Manifest(kind, 2, "", score=Score("y", 1))
        self.shadow.offer(Job(version, manifest, tensors, fact))

    async def until(self, condition: Callable[[], bool], seconds: float = 15) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.outcomes
            await asyncio.sleep(0.01)

    async def asked(self, kind: str, number: float, outcome: str) -> None:
        before = self.outcomes.get(outcome, 0)
        self.offer(kind, number)
        await self.until(lambda: self.outcomes.get(outcome, 0) > before)

    def _counts(self) -> dict[str, float]:
        metrics.publish()
        counts: dict[str, float] = {}
        for sample in next(iter(metrics.SHADOWS.collect())).samples:
            if sample.name.endswith("_total"):
                outcome = sample.labels["outcome"]
                counts[outcome] = counts.get(outcome, 0) + sample.value
        return counts

    @property
    def outcomes(self) -> dict[str, int]:
        counts = self._counts().items()
        new = {outcome: int(n - self._start.get(outcome, 0)) for outcome, n in counts}
        return {outcome: n for outcome, n in new.items() if n}


Benches = Callable[..., Bench]


@pytest_asyncio.fixture
async def bench(hostile_repository: Path) -> AsyncIterator[Benches]:
    made: list[Bench] = []

    def make(**settings: Any) -> Bench:
        made.append(Bench(hostile_repository, **settings))
        return made[-1]

    yield make
    for each in made:
        await each.shadow.stop(0)


async def test_an_answer_becomes_a_fact_with_its_primary(bench: Benches) -> None:
    """What the model says elsewhere, bit for bit, in the order of the requests."""
    queue = bench()
    for number in range(100):
        queue.offer("good", number)
    await queue.until(lambda: queue.outcomes == {"ran": 100})
    first, last = queue.sink.facts[0], queue.sink.facts[-1]
    assert (first.role, first.kind, first.version, first.rows) == ("shadow", "ok", 2, 1)
    assert first.primary is not None
    assert first.primary.version == 1
    assert first.model_us > 0
    z = np.full((1, 4), 99) @ ((np.arange(8).reshape(4, 2) - 3.5) / 10)
    assert last.outputs is not None
    np.testing.assert_allclose(
        last.outputs["y"], np.exp(z) / np.exp(z).sum(axis=1, keepdims=True), rtol=1e-5
    )


async def test_nan_is_recorded_like_any_answer(bench: Benches) -> None:
    """The comparison counts it; it is no fault of the process."""
    queue = bench()
    await queue.asked("nan", HARMFUL, "ran")
    assert queue.sink.facts[0].outputs is not None
    assert np.isnan(queue.sink.facts[0].outputs["y"]).all()


async def test_a_fault_is_a_fact_of_kind_error(bench: Benches) -> None:
    """No outputs, the primary beside it, and the next request is none the worse."""
    queue = bench()
    await queue.asked("raises", HARMFUL, "failed")
    await queue.asked("raises", HARMLESS, "ran")
    assert [fact.kind for fact in queue.sink.facts] == ["error", "ok"]
    assert queue.sink.facts[0].outputs is None
    assert queue.sink.facts[0].primary is not None


async def test_the_oldest_is_dropped_where_too_many_wait(bench: Benches) -> None:
    """By number, and by bytes."""
    queue = bench(shadow_queue=10)
    for number in range(15):
        queue.offer("good", number)
    await queue.until(lambda: queue.outcomes == {"dropped_full": 5, "ran": 10})
    facts = [fact for fact in queue.sink.facts if fact.primary and fact.primary.inputs]
    assert [fact.primary.inputs["x"][0, 0] for fact in facts] == list(range(5, 15))  # type: ignore
    heavy = bench(shadow_bytes=shadow.QUEUE_BYTES)
    for _ in range(3):
        heavy.offer("good", size=shadow.QUEUE_BYTES // 2)
    assert heavy.outcomes == {"dropped_full": 1}


async def test_a_large_request_is_no_shadows(bench: Benches) -> None:
    """Beyond the limit it is not even queued."""
    queue = bench(shadow_bytes=1000)
    queue.offer("good", size=1001)
    await queue.asked("good", HARMLESS, "ran")
    assert queue.outcomes == {"dropped_oversize": 1, "ran": 1}


async def test_what_waits_too_long_is_dropped(bench: Benches) -> None:
    """The loop stood still, and the deadline is over."""
    queue = bench(shadow_deadline=0.05)
    queue.offer("good")
    queue.offer("good")
    time.sleep(0.1)
    await queue.until(lambda: queue.outcomes == {"dropped_stale": 2})


async def test_a_busy_loop_gives_a_shadow_less(bench: Benches) -> None:
    """Busy for two seconds: the share falls to its floor, then rises again."""
    queue = bench(shadow_floor=0.0)
    await queue.asked("good", HARMLESS, "ran")
    governor = queue.shadow._governor
    assert governor is not None
    assert governor.share == 1.0
    end = time.monotonic() + 2
    while time.monotonic() < end:
        time.sleep(0.011)
        await asyncio.sleep(0)
    low = governor.share
    assert low < 0.1
    for _ in range(200):
        queue.offer("good")
    assert queue.outcomes["dropped_budget"] > 100
    await queue.until(lambda: governor.share > low + 0.1)


async def test_the_breaker_opens_and_closes(
    bench: Benches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five faults in a row: nothing more is tried, until one good answer."""
    monkeypatch.setattr(shadow_policy, "OPEN", 0.5)
    queue = bench()
    for _ in range(FAULTS):
        await queue.asked("raises", HARMFUL, "failed")
    for _ in range(3):
        await queue.asked("raises", HARMLESS, "dropped_breaker")
    await queue.asked("good", HARMLESS, "ran")
    await asyncio.sleep(0.6)
    await queue.asked("raises", HARMFUL, "failed")
    await queue.asked("raises", HARMLESS, "dropped_breaker")
    await asyncio.sleep(0.6)
    for _ in range(3):
        await queue.asked("raises", HARMLESS, "ran")


async def test_a_model_that_hangs_is_killed_at_the_deadline(bench: Benches) -> None:
    """Its request failed; those behind it are run by the next process, once each."""
    queue = bench(shadow_deadline=2.0, shadow_floor=1.0)
    await queue.asked("slow", HARMLESS, "ran")
    assert queue.shadow._child is not None
    first = queue.shadow._child.pid
    queue.offer("slow", HARMFUL)
    for _ in range(3):
        await asyncio.sleep(0.4)
        queue.offer("good")
    await queue.until(
        lambda: queue.outcomes.get("ran", 0) + queue.outcomes.get("dropped_stale", 0) == 4
    )
    assert queue.outcomes["failed"] == 1
    assert [fact.kind for fact in queue.sink.facts].count("error") == 1
    assert queue.shadow._child.pid != first
    assert not psutil.pid_exists(first)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells who waits for a core")
async def test_a_starved_shadow_is_no_failing_one(bench: Benches) -> None:
    """On a core that others take whole it is late, which says nothing about the version."""
    queue = bench(shadow_deadline=0.3)
    await queue.asked("slow", HARMLESS, "ran")
    assert queue.shadow._child is not None
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(queue.shadow._child.pid, {core})
    command = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(command) for _ in range(2)]
    try:
        for other in others:
            os.sched_setaffinity(other.pid, {core})
        queue.offer("slow", HARMFUL)
        await queue.until(lambda: "dropped_stale" in queue.outcomes)
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert queue.outcomes == {"ran": 1, "dropped_stale": 1}
    assert [fact.kind for fact in queue.sink.facts] == ["ok"]


async def test_a_hog_meets_its_ceiling(bench: Benches) -> None:
    """Its process never takes more than it was given, and the next request is answered."""
    given = 256 * 1024 * 1024
    queue = bench(shadow_memory=given)
    await queue.asked("hog", HARMLESS, "ran")
    assert queue.shadow._child is not None
    before = psutil.Process(queue.shadow._child.pid).memory_info().rss
    peak = 0
    queue.offer("hog", HARMFUL)
    while "failed" not in queue.outcomes:
        if queue.shadow._child is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                peak = max(peak, psutil.Process(queue.shadow._child.pid).memory_info().rss)
        await asyncio.sleep(0.002)
    assert peak < before + given
    await queue.asked("good", HARMLESS, "ran")


async def test_a_killed_process_comes_back(bench: Benches) -> None:
    """Killed while it ran one and while it ran none."""
    queue = bench()
    await queue.asked("good", HARMLESS, "ran")
    child = queue.shadow._child
    assert child is not None
    os.kill(child.pid, signal.SIGKILL)
    await queue.until(lambda: child.ended)
    await queue.asked("good", HARMLESS, "ran")
    queue.offer("slow", HARMFUL)
    await asyncio.sleep(0.2)
    os.kill(queue.shadow._child.pid, signal.SIGKILL)
    await queue.until(lambda: queue.outcomes == {"ran": 2, "failed": 1})
    await queue.asked("good", HARMLESS, "ran")


async def test_stopping_finishes_what_is_queued(bench: Benches) -> None:
    """And takes the process along."""
    queue = bench()
    await queue.asked("good", HARMLESS, "ran")
    child = queue.shadow._child
    assert child is not None
    for _ in range(100):
        queue.offer("good")
    await queue.shadow.stop()
    assert queue.outcomes == {"ran": 101}
    await queue.until(lambda: child.ended)


# --- a gateway ------------------------------------------------------------------------------------

ROW = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [HARMFUL] * 4}


def let_them_ride(url: str) -> None:
    """Each model's version 2 sees every request."""
    client = redis.Redis.from_url(url)
    for kind in (*more_models.HOSTILE, "good"):
        routes.change(
            client,
            kind,
            lambda route: rollout.start_shadow(route, 2, 100),
            first=1,
            action="shadow",
            who="test",
            why="",
        )
    client.close()


@pytest.fixture(scope="module")
def besieged(
    tmp_path_factory: pytest.TempPathFactory, hostile_repository: Path, redis_server: EmbeddedRedis
) -> Iterator[Gateway]:
    """A deadline of half a second, 256 MB."""
    url = redis_server.url.replace("/0", "/7")
    let_them_ride(url)
    environment = {
        "SLIPSTREAM_SHADOW_DEADLINE": "0.5",
        "SLIPSTREAM_SHADOW_MEMORY": str(256 * 1024 * 1024),
    }
    folder = tmp_path_factory.mktemp("besieged")
    running = Gateway(folder, hostile_repository, url, **environment)
    eventually(lambda: running.metric('slipstream_route_revision{model="slow"}') == 1)
    yield running
    running.stop()


def shadow_processes(gateway: Gateway) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(gateway.pid).children(recursive=True):
        try:
            if any("shadow_process" in word for word in process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [("slow", "failed"), ("raises", "failed"), ("nan", "ran"), ("hog", "failed")],
)
def test_no_client_notices_a_hostile_shadow(besieged: Gateway, kind: str, outcome: str) -> None:
    """Every request is answered, by version 1, while the shadow does its worst."""
    count = f'slipstream_shadow_total{{model="{kind}",outcome="{outcome}",version="2"}}'
    end = time.monotonic() + 15
    while besieged.metric(count) < 1:
        answer = besieged.infer(kind, [ROW])
        assert (answer.status_code, answer.headers["x-model-version"]) == (200, "1")
        assert answer.elapsed.total_seconds() < 1
        assert time.monotonic() < end


def test_no_client_notices_a_killed_process(besieged: Gateway) -> None:
    """Killed again and again mid-stream: every answer is a 200, and shadows run again."""
    statuses: list[int] = []
    stopping = threading.Event()

    def ask() -> None:
        while not stopping.is_set():
            statuses.append(besieged.infer("good", [ROW]).status_code)

    asker = threading.Thread(target=ask)
    asker.start()
    killed = 0
    end = time.monotonic() + 20
    while killed < 3 and time.monotonic() < end:
        for process in shadow_processes(besieged):
            process.kill()
            killed += 1
        time.sleep(0.3)
    stopping.set()
    asker.join()
    assert killed >= 3
    assert set(statuses) == {200}
    ran = 'slipstream_shadow_total{model="good",outcome="ran",version="2"}'
    before = besieged.metric(ran)

    def runs_again() -> bool:
        besieged.infer("good", [ROW])
        return besieged.metric(ran) > before

    eventually(runs_again)


def test_the_process_ends_with_its_gateway(
    tmp_path: Path, hostile_repository: Path, redis_server: EmbeddedRedis
) -> None:
    """Even where that is killed while a shadow hangs."""
    # A database of its own: a gateway warms up on recorded requests, also those that harm.
    url = redis_server.url.replace("/0", "/6")
    let_them_ride(url)
    gateway = Gateway(tmp_path, hostile_repository, url)
    eventually(lambda: gateway.metric('slipstream_route_revision{model="slow"}') == 1)
    gateway.infer("slow", [ROW])
    eventually(lambda: shadow_processes(gateway))
    children = shadow_processes(gateway)
    assert all(child.nice() == 10 for child in children)
    workers = [child.parent() for child in children]
    for worker in workers:
        assert worker is not None
        worker.kill()
    eventually(lambda: not any(child.is_running() for child in children), 5)
    gateway.stop()
