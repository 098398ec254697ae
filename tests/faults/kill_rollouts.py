"""Kill Redis, workers and the monitor in the middle of rollouts, and see what breaks.

    python -m tests.faults.kill_rollouts [kills] [seed]

A gateway with two workers, a monitor and a Redis of their own; callers that never stop; an
operator who starts rollouts and now and then interferes. `tests.faults.invariants` judges what an
onlooker noted.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from subprocess import Popen

import numpy as np
import polars
import redis
from rich.table import Table

from models import routes
from models.rollout import Route
from monitoring import rollouts
from slipstream.embedded import EmbeddedRedis
from slipstream.launch import answers
from slipstream.places import screen
from slipstream.processes import free_port, spawn
from tests import onnx_models
from tests.faults.invariants import History, Kill, broken
from tests.faults.people import (
    BROKEN,
    MODEL,
    Caller,
    Onlooker,
    Operator,
    Redis,
    applied_by,
    busy,
    push_version,
    workers_of,
)
from tests.serving import ROOT, Gateway, eventually

KILLS = 200
KINDS = ("redis", "monitor", "worker")
#: What is killed comes from a shuffled deck of these. Workers are fewer: BentoML takes up to ten
#: seconds to notice that one is gone, and until it is back the other is left alone.
HAND = ("redis", "monitor", "worker", "redis", "monitor")
#: Mean seconds between kills, and the longest time for which Redis stays away.
PAUSE, AWAY = 2.0, 1.5
#: Seconds within which both workers must be back, and everything settled in the end.
PATIENCE = 60.0
CALLERS, RATE = 3, 35.0
WORKERS = 2

#: Little evidence is enough, and the machine may be slow.
POLICY = """
name = "in a hurry"
[evidence]
requests = 30
labels = 40
seconds = 0.3
coverage = 0.5
[errors]
margin = 0.2
[latency]
blocks = false
[agreement]
blocks = false
[outputs]
blocks = false
[accuracy]
margin = 0.3
"""


@dataclass(frozen=True)
class Report:
    """What a run did and found. `during`: kills while a rollout was under way."""

    history: History
    seconds: float
    kills: Counter[str]
    during: int
    ends: Counter[str]
    conflicts: int
    spare: Counter[str]
    labels: int
    slowest: float
    respawn: list[float]
    broken: list[str]

    @property
    def requests(self) -> int:
        return self.history.answers.total() + self.labels

    @property
    def without_redis(self) -> int:
        return sum(count for answer, count in self.history.answers.items() if not answer.redis)


class Victims:
    """The processes, each of which can be killed and comes back."""

    def __init__(self, folder: Path, server: EmbeddedRedis, there: Redis, gateway: Gateway) -> None:
        self._folder = folder
        self._server = server
        self._redis = there
        self._gateway = gateway
        self._redis_due: float | None = None
        self._port = free_port()
        self._monitor = self._spawn_monitor()
        self._gone: float | None = None
        self.respawn: list[float] = []

    def _spawn_monitor(self) -> Popen[bytes]:
        environment = {
            "PYTHONPATH": str(ROOT),
            "SLIPSTREAM_REPOSITORY": str(self._folder / "repository"),
            "SLIPSTREAM_REDIS_URL": self._server.url,
            "SLIPSTREAM_MONITOR_PORT": str(self._port),
        }
        command = [sys.executable, "-m", "monitoring"]
        return spawn(command, self._folder / "monitor/log", environment)

    def monitor_ready(self) -> bool:
        return answers(f"http://127.0.0.1:{self._port}/readyz")

    def available(self, client: redis.Redis) -> list[str]:
        """A worker only while another one lives that can take over."""
        kinds = ["monitor"]
        if self._redis_due is None:
            kinds.append("redis")
            alive = set(workers_of(self._gateway.pid)) & set(applied_by(client))
            if len(alive) == WORKERS:
                if self._gone is not None:
                    self.respawn.append(time.monotonic() - self._gone)
                    self._gone = None
                kinds.append("worker")
        return kinds

    def kill(self, kind: str, draw: Random) -> float:
        """The moment at which it died."""
        if kind == "worker":
            self._gone = time.monotonic()
            os.kill(draw.choice(workers_of(self._gateway.pid)), signal.SIGKILL)
            return self._gone
        if kind == "monitor":
            self._monitor.kill()
            at = time.monotonic()
            self._monitor.wait()
            self._monitor = self._spawn_monitor()
            return at
        self._redis.since = None
        at = time.monotonic()
        os.kill(self._server.pid, signal.SIGKILL)
        self._redis_due = at + draw.uniform(0, AWAY)
        return at

    def mend(self) -> None:
        """Redis comes back on the same data and port once its time is over."""
        if self._redis_due is not None and time.monotonic() >= self._redis_due:
            self._server.stop()  # reaps it and frees the folder
            self._server = EmbeddedRedis(self._server.folder, self._server.port).start()
            self._redis.since = time.monotonic()
            self._redis_due = None

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.mend()
            time.sleep(0.01)

    def stop(self) -> None:
        self._monitor.kill()
        self._monitor.wait()
        self._gateway.stop()
        self._server.stop()


@contextmanager
def house(folder: Path) -> Iterator[tuple[Victims, Redis, Gateway]]:
    """Three good versions, a broken one, and the processes."""
    for number in (1, 2, 4):
        push_version(folder / "repository", number, _reference(folder))
    onnx_models.identity(folder / f"repository/{MODEL}/{BROKEN}/model.onnx", "INT8")
    (folder / "gateway").mkdir()
    server = EmbeddedRedis(folder / "redis").start()
    there = Redis(server.url)
    client = there.connect()
    routes.write(client, None, Route(MODEL, 1), action="push", who="test", why="first version")
    client.close()
    gateway = Gateway(
        folder / "gateway",
        folder / "repository",
        server.url,
        SLIPSTREAM_WORKERS=str(WORKERS),
    )
    victims = Victims(folder, server, there, gateway)
    try:
        yield victims, there, gateway
    finally:
        victims.stop()


def _reference(folder: Path) -> Path:
    """Rows of four normal numbers and what they come to."""
    file = folder / "reference.parquet"
    random = np.random.default_rng(1)
    x = random.normal(size=(2_000, 4)).astype(np.float32)
    late = (x[:, 0] + random.normal(size=len(x)) > 0).astype(int)
    columns = {name: x[:, i] for i, name in enumerate("abcd")}
    polars.DataFrame({**columns, "late": late}).write_parquet(file)
    return file


def run(folder: Path, kills: int, seed: int, pause: float = PAUSE) -> Report:
    """Kill that often at random moments, let everything come back, and judge."""
    policy = folder / "policy.toml"
    policy.write_text(POLICY)
    draw, started = Random(seed), time.monotonic()
    history, during = History(loadable=set()), 0
    with house(folder) as (victims, there, gateway):
        client = there.connect()
        callers = [Caller(gateway.port, there, seed + i, RATE) for i in range(CALLERS)]
        operator = Operator(there, folder / "repository", policy, gateway.port, seed)
        onlooker = Onlooker(there, gateway.pid)
        with busy(*callers, onlooker):
            with busy(operator):
                eventually(victims.monitor_ready)
                left, since = _deck(kills, draw), time.monotonic()
                while left and time.monotonic() - since < PATIENCE:
                    victims.wait(draw.uniform(0.1, 2 * pause - 0.1))
                    kind = _next(left, victims.available(client))
                    if kind is None:
                        continue
                    _await_a_moment(draw, operator, onlooker, victims)
                    history.kills.append(Kill(victims.kill(kind, draw), kind))
                    during += bool(onlooker.route.get("rollout"))
                    since = time.monotonic()
                if left:
                    history.stuck.append(f"{left} could not be killed: they did not come back")
                victims.wait(AWAY)
            history.stuck += _unsettled(client, gateway, victims)
            time.sleep(1)
        _collect(history, client, operator, onlooker, callers)
        client.close()
    return Report(
        history=history,
        seconds=time.monotonic() - started,
        kills=Counter(kill.kind for kill in history.kills),
        during=during,
        ends=_ends(history),
        conflicts=sum("meanwhile by " in sentence for sentence in operator.conflicts),
        spare=operator.spare,
        labels=sum(caller.labels for caller in callers),
        slowest=max(caller.slowest for caller in callers),
        respawn=victims.respawn,
        broken=broken(history),
    )


def _deck(kills: int, draw: Random) -> list[str]:
    """What to kill, shuffled."""
    deck = [HAND[i % len(HAND)] for i in range(kills)]
    draw.shuffle(deck)
    return deck


def _next(left: list[str], available: list[str]) -> str | None:
    """Takes the first kind from the deck that can be killed now."""
    for i, kind in enumerate(left):
        if kind in available:
            return left.pop(i)
    return None


def _await_a_moment(draw: Random, operator: Operator, onlooker: Onlooker, victims: Victims) -> None:
    """Some kills come at any time; others just while, or just after, the route changes."""
    match draw.randrange(3):
        case 0:
            if operator.acting.wait(1.5):
                victims.wait(draw.uniform(0, 0.006))
        case 1:
            onlooker.changed.clear()
            if onlooker.changed.wait(1.5):
                victims.wait(draw.uniform(0, 0.3))


def _unsettled(client: redis.Redis, gateway: Gateway, victims: Victims) -> list[str]:
    """In the end everything is back, and every worker applies the route that stands."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        applied, stands = applied_by(client), routes.read(client, MODEL)
        revisions = {pid: applied.get(pid) for pid in workers_of(gateway.pid)}
        everywhere = stands is not None and [*revisions.values()] == [stands.revision] * WORKERS
        if everywhere and victims.monitor_ready():
            return []
        time.sleep(0.1)
    return [
        f"in the end the workers apply {revisions}, and {stands} stands; or no monitor is ready"
    ]


def _collect(
    history: History,
    client: redis.Redis,
    operator: Operator,
    onlooker: Onlooker,
    callers: list[Caller],
) -> None:
    for caller in callers:
        history.answers += caller.answers
        history.steps += caller.steps
        history.failures += caller.failures
    history.seen = onlooker.seen
    history.stuck += onlooker.stuck
    history.writes = operator.writes
    history.audit = routes.audit(client, MODEL, 10_000)[::-1]
    history.loadable = set(operator._good())
    kept = rollouts.verdicts(client, MODEL, 2_000)
    history.verdicts = [
        f"verdict {name}: {wrong}" for name, one in kept if (wrong := rollouts.verify(one))
    ]
    if not kept:
        history.verdicts.append("no verdict was kept")


def _ends(history: History) -> Counter[str]:
    """How rollouts began and ended, and by whom."""
    found: Counter[str] = Counter()
    for entry in history.audit:
        before, after = entry["before"], entry["after"]
        who = "monitor" if entry["who"] == "monitor" else "operator"
        if after["rollout"] and not (before and before["rollout"]):
            found["started"] += 1
        elif before and before["rollout"] and not after["rollout"]:
            what = "promoted" if after["champion"] != before["champion"] else "rolled back"
            found[f"{what} by the {who}"] += 1
        elif before and before["champion"] != after["champion"]:
            found["champion replaced outside a rollout"] += 1
        else:
            found["other changes"] += 1
    return found


def show(report: Report) -> None:
    history = report.history
    table = Table("what", "how many", title=f"{sum(report.kills.values())} kills of rollouts")
    told = Counter(write.told for write in history.writes)
    rows = [
        *((f"kills of {kind}", f"{report.kills[kind]}") for kind in KINDS),
        ("kills while a rollout was under way", f"{report.during}"),
        ("revisions", f"{len(history.audit)}"),
        *((f"rollouts {what}", f"{count}") for what, count in sorted(report.ends.items())),
        ("conflicts that named the winner", f"{report.conflicts}"),
        ("asked by the operator", ", ".join(f"{n} {what}" for what, n in told.items())),
        ("versions kept house with", ", ".join(f"{n} {w}" for w, n in report.spare.items())),
        ("requests", f"{report.requests:,}"),
        ("answered while Redis was dead", f"{report.without_redis:,}"),
        ("connections that died with their worker", f"{len(history.failures)}"),
        ("failed", f"{sum(bool(failure.again) for failure in history.failures)}"),
        ("slowest request", f"{report.slowest:.2f} s"),
        ("a worker was back after", _range(report.respawn)),
        ("took", f"{report.seconds:.0f} s"),
    ]
    for row in rows:
        table.add_row(*row)
    table.add_row(
        "invariants broken", f"{len(report.broken)}", style="red" if report.broken else ""
    )
    screen.print(table)
    for sentence in report.broken[:20]:
        screen.print(sentence)


def _range(seconds: list[float]) -> str:
    return f"{min(seconds):.0f} to {max(seconds):.0f} s" if seconds else ""


def main(arguments: list[str]) -> int:
    kills = int(arguments[0]) if arguments else KILLS
    seed = int(arguments[1]) if len(arguments) > 1 else 1
    folder = Path(tempfile.mkdtemp(prefix="slipstream-kills-"))
    report = run(folder, kills, seed)
    show(report)
    if report.broken:
        screen.print(f"what the processes said, and the Redis: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
