"""Those around a model: callers that never stop, an operator, an onlooker who notes everything."""

from __future__ import annotations

import http.client
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, cast

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from models import routes
from models.actions import Action
from models.contract import keys
from models.errors import SlipstreamError
from models.repository import Repository
from models.rollout import Route
from monitoring import control
from slipstream.push import push
from slipstream.reference import Reference
from tests import onnx_models
from tests.faults.invariants import Answer, Failure, Seen, Write

MODEL = "m"
#: A version's weight is its number times this, so that an answer betrays who gave it.
PER_VERSION = 0.5
#: The version that can be loaded and answers nothing that is asked here.
BROKEN = 3
#: Seconds after which every worker must apply the route that stood; its heartbeat comes once a
#: second, and a Redis that was away is asked again once a second.
CATCH_UP = 8.0
#: Seconds that a worker may take from its first breath to its first heartbeat.
BOOT = 20.0


class Redis:
    """Whether there is one at the moment, and since when."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.since: float | None = time.monotonic()

    @property
    def up(self) -> bool:
        return self.since is not None

    def connect(self) -> redis.Redis:
        """A client that fails at once."""
        return redis.Redis.from_url(self.url, socket_timeout=2, retry=Retry(NoBackoff(), 0))


@contextmanager
def busy(*people: Callable[[threading.Event], None]) -> Iterator[None]:
    """Each one works in a thread of its own until the end. What they raise is raised."""
    stopping, raised = threading.Event(), list[BaseException]()

    def work(one: Callable[[threading.Event], None]) -> None:
        try:
            one(stopping)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=work, args=(one,)) for one in people]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join(60)
    if raised:
        raise raised[0]


# --- callers --------------------------------------------------------------------------------------


class Caller:
    """Asks at a steady rate over connections that live for a while, and labels what it gets."""

    def __init__(self, port: int, there: Redis, seed: int, rate: float) -> None:
        self._port = port
        self._redis = there
        self._draw = Random(seed)
        self._rate = rate
        self._connect()
        self.answers: Counter[Answer] = Counter()
        self.steps: Counter[tuple[int, int]] = Counter()
        self.failures: list[Failure] = []
        self.labels = 0
        self.slowest = 0.0

    def _connect(self) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        self._good, self._revision, self._left = time.monotonic(), 0, self._draw.randrange(1, 200)

    def __call__(self, stopping: threading.Event) -> None:
        due = time.monotonic()
        while not stopping.is_set():
            due = max(due + 1 / self._rate, time.monotonic())  # late, but never owed twice
            time.sleep(max(0.0, due - time.monotonic()))
            self._left -= 1
            if self._left <= 0:
                self._http.close()
                self._connect()
            self._ask()
        self._http.close()

    def _ask(self) -> None:
        x = [self._draw.uniform(0.5, 1.5) for _ in range(4)]
        tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": x}
        up, start = self._redis.up, time.monotonic()
        got = self._twice(f"/v2/models/{MODEL}/infer", {"inputs": [tensor]})
        self.slowest = max(self.slowest, time.monotonic() - start)
        if got is None:
            return
        status, headers, body = got
        alive = up or self._redis.up
        if status != 200:
            self.answers[Answer(status, 0, "", 0, 0, alive)] += 1
            return
        version, revision = int(headers["x-model-version"]), int(headers["x-route-revision"])
        said = who_said(body, x) if body["model_version"] == str(version) else -1
        answer = Answer(status, version, headers["x-model-role"], revision, said, alive)
        self.answers[answer] += 1
        if self._revision:
            self.steps[self._revision, revision] += 1
        self._revision = revision
        if self._draw.random() < 0.3:
            label = {"prediction_id": headers["x-prediction-id"], "label": "1"}
            labelled = self._twice(f"/v2/models/{MODEL}/feedback", {"feedback": [label]})
            if labelled is not None and labelled[0] != 200:
                self.answers[Answer(labelled[0], 0, "", 0, 0, self._redis.up)] += 1
            self.labels += 1

    def _twice(self, path: str, body: dict[str, Any]) -> tuple[int, Any, Any] | None:
        """An answer; where the connection breaks, that of a new one. None where that breaks too."""
        try:
            return self._once(path, body)
        except (OSError, http.client.HTTPException) as error:
            since, at, what = self._good, time.monotonic(), repr(error)
        self._http.close()
        self._connect()
        again = ""
        try:
            return self._once(path, body)
        except (OSError, http.client.HTTPException) as error:
            again = repr(error)
            self._http.close()
            self._connect()
            return None
        finally:
            self.failures.append(Failure(since, at, what, again))

    def _once(self, path: str, body: dict[str, Any]) -> tuple[int, Any, Any]:
        self._http.request(
            "POST", path, json.dumps(body).encode(), {"content-type": "application/json"}
        )
        answer = self._http.getresponse()
        found = json.loads(answer.read())
        self._good = time.monotonic()
        return answer.status, answer.headers, found


def who_said(body: dict[str, Any], x: list[float]) -> int:
    """The version whose numbers these are; 0 where they are nobody's."""
    low, high = body["outputs"][0]["data"]
    # The columns of a version's weights lie 0.1 times its weight apart: tests.onnx_models.softmax.
    number = math.log(high / low) / (0.1 * PER_VERSION * sum(x))
    return round(number) if abs(number - round(number)) < 0.01 else 0


# --- the operator ---------------------------------------------------------------------------------


class Operator:
    """Starts rollouts, and now and then interferes. Each change is signed with a name used once.

    What is broken is never forced upon callers; that it is rolled back is up to the monitor.
    """

    def __init__(
        self, there: Redis, repository: Path, policy: Path, port: int, seed: int, pushes: int = 6
    ) -> None:
        # As slipstream.places does for the command line.
        self._client = redis.Redis.from_url(there.url, socket_timeout=5, socket_connect_timeout=2)
        self._redis = there
        self._repository = Repository(repository)
        self._policy = str(policy)
        self._http = port
        self._draw = Random(seed)
        self._pushes = pushes
        self.acting = threading.Event()
        self.writes: list[Write] = []
        self.spare: Counter[str] = Counter()
        self.conflicts: list[str] = []

    def __call__(self, stopping: threading.Event) -> None:
        while not stopping.wait(self._draw.uniform(0.2, 1.5)):
            try:
                route = routes.read(self._client, MODEL)
            except (RedisError, OSError):
                continue
            assert route is not None
            if self._draw.random() < 0.06:
                self._keep_house(route)
            action = self._wanted(route)
            if action is not None:
                if self._draw.random() < 0.2:
                    stopping.wait(self._draw.uniform(0.1, 1))  # meanwhile the route may change
                self._act(action)
        self._client.close()

    def _wanted(self, route: Route) -> Action | None:
        """What this route makes one want to do, if it still stands."""
        action = self._change(route, self._draw.random())
        return action and msgspec.structs.replace(action, revision=route.revision, reason="a test")

    def _change(self, route: Route, luck: float) -> Action | None:
        version = self._draw.choice([n for n in self._good() if n != route.champion])
        rollout = route.rollout
        if rollout is None:
            if luck < 0.7:
                number = version if luck < 0.55 else BROKEN
                return Action("start", number, policy=self._policy, steps=(30, 60))
            if luck < 0.8:
                return Action("promote", version)
            return Action("rollback") if luck < 0.85 else None
        if rollout.paused:
            return Action("resume" if luck < 0.7 else "rollback")
        if luck > 0.12:
            return None
        wishes = [Action("pause"), Action("pause"), Action("advance")]
        if rollout.version != BROKEN:
            wishes += [Action("advance", force=True)] * 2
            wishes += [Action("promote", rollout.version, force=True), Action("rollback")]
        return self._draw.choice(wishes)

    def _good(self) -> list[int]:
        return [n for n in self._repository.versions(MODEL) if n != BROKEN]

    def _act(self, action: Action) -> None:
        who = f"operator {len(self.writes) + 1} ({action.action})"
        self.acting.set()
        try:
            route = control.act(self._client, MODEL, action, first=1, who=who)
            self.writes.append(Write(who, "done", route.revision))
        except SlipstreamError as error:
            self.writes.append(Write(who, "refused", sentence=str(error)))
            if "meanwhile" in str(error):
                self.conflicts.append(str(error))
        except (RedisError, OSError) as error:
            self.writes.append(Write(who, "unknown", sentence=repr(error)))
        finally:
            self.acting.clear()

    def _keep_house(self, route: Route) -> None:
        """Push a version, or unload and load one that the route does not need."""
        if self._pushes and self._draw.random() < 0.5:
            self._pushes -= 1
            push_version(self._repository.root, max(self._good()) + 1)
            self.spare["pushed"] += 1
            return
        idle = [n for n in self._good() if n not in {*route.versions(), route.previous}]
        if not idle:
            return
        body = json.dumps({"parameters": {"version": str(self._draw.choice(idle))}}).encode()
        for what in ("unload", "load"):
            connection = http.client.HTTPConnection("127.0.0.1", self._http, timeout=30)
            try:
                connection.request("POST", f"/v2/repository/models/{MODEL}/{what}", body)
                self.spare[f"{what} {connection.getresponse().status}"] += 1
            except (OSError, http.client.HTTPException):
                self.spare[f"{what} broke off"] += 1  # with the worker that was asked
            connection.close()


def push_version(root: Path, number: int, reference: Path | None = None) -> None:
    """Add a version that answers in its own way, though with the same class as every other."""
    file = onnx_models.softmax(root.parent / f"{number}.onnx", PER_VERSION * number)
    data = Reference(reference, "late") if reference else None
    push(Repository(root), MODEL, file, version=number, reference=data)


# --- the onlooker ---------------------------------------------------------------------------------


class Onlooker:
    """Reads the route and the audit in one look, again and again, and the workers' heartbeats."""

    def __init__(self, there: Redis, gateway: int) -> None:
        self._redis = there
        self._client = there.connect()
        self._gateway = gateway
        self.seen: list[Seen] = []
        self.stuck: list[str] = []
        self._born: dict[int, float] = {}
        self._told: set[tuple[int, int]] = set()
        self.changed = threading.Event()

    def __call__(self, stopping: threading.Event) -> None:
        looked = 0.0
        while not stopping.wait(0.02):
            try:
                self._look()
                if time.monotonic() - looked > 1:
                    looked = time.monotonic()
                    self._workers()
            except (RedisError, OSError):
                continue  # it is away
        self._client.close()

    def _look(self) -> None:
        together = self._client.pipeline(transaction=True)
        together.hmget(keys.route(MODEL), ["revision", "document"])
        together.xrevrange(keys.audit(MODEL), count=1)
        (revision, document), newest = together.execute()
        if revision is None:
            seen = Seen(time.monotonic(), 0, {}, 0)
        else:
            told = json.loads(newest[0][1][b"entry"])["after"]["revision"] if newest else 0
            seen = Seen(time.monotonic(), int(revision), json.loads(document), told)
        if not self.seen or self.seen[-1][1:] != seen[1:]:
            self.seen.append(seen)
            self.changed.set()

    @property
    def route(self) -> dict[str, Any]:
        return self.seen[-1].document if self.seen else {}

    def _workers(self) -> None:
        """Every worker that is up long enough applies what stood a while ago."""
        now = time.monotonic()
        for pid in workers_of(self._gateway):
            self._born.setdefault(pid, now)
        since = self._redis.since
        if since is None or now - since < CATCH_UP:
            return
        stood = max((s.revision for s in self.seen if s.at < now - CATCH_UP), default=0)
        applied = applied_by(self._client)
        for pid in workers_of(self._gateway):
            revision = applied.get(pid, -1)
            late = now - self._born[pid] > BOOT
            if late and revision < stood and (pid, stood) not in self._told:
                self._told.add((pid, stood))
                what = f"applies revision {revision}" if revision >= 0 else "gave no sign of life"
                self.stuck.append(
                    f"worker {pid} {what}, {CATCH_UP:g} s after revision {stood} stood"
                )


def applied_by(client: redis.Redis) -> dict[int, int]:
    """Process id of each worker that told of itself lately -> revision that it applies."""
    found = {}
    for name, data in cast("dict[bytes, bytes]", client.hgetall(keys.WORKERS)).items():
        beat = json.loads(data)
        if time.time() * 1000 - beat["at_ms"] < CATCH_UP * 1000:
            found[int(name.decode().split("-")[-2])] = int(beat["routes"].get(MODEL, 0))
    return found


def workers_of(gateway: int) -> list[int]:
    """Process ids of the gateway's workers: children of BentoML's supervisor."""
    found = []
    for tasks in Path(f"/proc/{gateway}/task").glob("*/children"):
        try:
            children = tasks.read_text().split()
        except OSError:
            continue
        found += [int(child) for child in children if _is_worker(child)]
    return found


def _is_worker(pid: str) -> bool:
    try:
        return b"worker.service" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
