"""32 promoters at once: one wins, and every other one is told who did."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import httpx
import pytest
import redis

from models import routes
from models.actions import Action
from models.errors import IllegalTransition, RouteConflict
from models.rollout import Route
from monitoring import control
from slipstream.embedded import EmbeddedRedis
from tests import onnx_models
from tests.serving import Monitor, eventually

RACERS = 32
#: Processes in which they run, where they run in several.
PROCESSES = 4
#: What one is told: "won", or why not.
Told = dict[str, str]


def first_route(client: redis.Redis) -> None:
    routes.write(client, None, Route("m", 1), action="push", who="test", why="first version")


def promote(url: str, racer: int, wait: Callable[[], object], revision: int | None) -> str:
    """Promote one's own version over a connection of one's own, once everybody is there."""
    client = redis.Redis.from_url(url)
    client.ping()
    wait()
    try:
        action = Action("promote", 2 + racer, revision=revision)
        control.act(client, "m", action, first=1, who=f"racer {racer}")
        return "won"
    except RouteConflict as error:
        return str(error)
    finally:
        client.close()


def race(url: str, racers: range, wait: Callable[[], object]) -> Told:
    with ThreadPoolExecutor(len(racers)) as pool:
        told = pool.map(lambda racer: promote(url, racer, wait, 1), racers)
        return {f"racer {racer}": said for racer, said in zip(racers, told, strict=True)}


def race_in_a_process(url: str, racers: range) -> Told:
    """Threads of one process; all processes start when a key says so."""
    client = redis.Redis.from_url(url)
    client.incrby("there", len(racers))

    def wait() -> None:
        eventually(lambda: client.exists("go"))

    try:
        return race(url, racers, wait)
    finally:
        client.close()


def check(client: redis.Redis, told: Told) -> None:
    """One won, and the others name that one, what they did and where the route stands."""
    winners = [who for who, said in told.items() if said == "won"]
    assert len(winners) == 1
    (winner,) = winners
    losers = [said for who, said in told.items() if who != winner]
    assert len(losers) == RACERS - 1
    for said in losers:
        assert f"by {winner} (promote)" in said
        assert "it stands at revision 2, not 1" in said
    version = 2 + int(winner.removeprefix("racer "))
    assert routes.read(client, "m") == Route("m", version, revision=2, previous=1)
    assert [entry["who"] for entry in routes.audit(client, "m")] == [winner, "test"]


def test_one_of_32_threads_wins(client: redis.Redis, redis_server: EmbeddedRedis) -> None:
    first_route(client)
    together = Barrier(RACERS)
    url = redis_server.url.replace("/0", "/9")
    check(client, race(url, range(RACERS), together.wait))


def test_one_of_32_in_four_processes_wins(client: redis.Redis, redis_server: EmbeddedRedis) -> None:
    first_route(client)
    url, each = redis_server.url.replace("/0", "/9"), RACERS // PROCESSES
    shares = [(url, range(i * each, (i + 1) * each)) for i in range(PROCESSES)]
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        racing = pool.starmap_async(race_in_a_process, shares, 1)
        eventually(lambda: int(client.get("there") or 0) == RACERS, 60)
        client.set("go", 1)
        told = {who: said for share in racing.get(60) for who, said in share.items()}
    check(client, told)


def test_who_did_not_look_first_is_compared_with_what_they_read(
    client: redis.Redis, redis_server: EmbeddedRedis
) -> None:
    """Without a revision, all asking for the same version: it is promoted once, and whoever came
    too late to conflict is refused because it is the champion."""
    first_route(client)
    together = Barrier(RACERS)
    url = redis_server.url.replace("/0", "/9")

    def run(racer: int) -> str:
        own = redis.Redis.from_url(url)
        own.ping()
        together.wait()
        try:
            control.act(own, "m", Action("promote", 2), first=1, who=f"racer {racer}")
            return "won"
        except (RouteConflict, IllegalTransition) as error:
            return str(error)
        finally:
            own.close()

    with ThreadPoolExecutor(RACERS) as pool:
        told = list(pool.map(run, range(RACERS)))
    winner = routes.audit(client, "m")[0]["who"]
    assert [racer for racer, said in enumerate(told) if said == "won"] == [int(winner[6:])]
    others = [said for said in told if said != "won"]
    assert all(f"by {winner} (promote)" in s or "is the champion already" in s for s in others)
    assert len(routes.audit(client, "m")) == 2


@pytest.fixture
def repository_of_many(tmp_path: Path) -> Path:
    for version in range(1, RACERS + 2):
        onnx_models.identity(tmp_path / f"repository/m/{version}/model.onnx", "FP32")
    return tmp_path / "repository"


def test_one_of_32_wins_over_http(
    client: redis.Redis, redis_server: EmbeddedRedis, repository_of_many: Path, tmp_path: Path
) -> None:
    """The same through the monitor's control API: one 200, the rest 409."""
    first_route(client)
    url = redis_server.url.replace("/0", "/9")
    monitor = Monitor(tmp_path, repository_of_many, url)
    together = Barrier(RACERS)

    def post(racer: int) -> tuple[int, str]:
        body = {"action": "promote", "version": 2 + racer, "revision": 1}
        headers = {"x-slipstream-who": f"racer {racer}"}
        with httpx.Client(base_url=monitor.url, timeout=30) as http:
            http.get("/livez")
            together.wait()
            answer = http.post("/api/v1/models/m/rollout", json=body, headers=headers)
        return answer.status_code, answer.json().get("error", "won")

    try:
        with ThreadPoolExecutor(RACERS) as pool:
            answers = list(pool.map(post, range(RACERS)))
    finally:
        monitor.stop()
    assert sorted(status for status, _ in answers) == [200] + [409] * (RACERS - 1)
    check(client, {f"racer {racer}": said for racer, (_, said) in enumerate(answers)})
    assert all(re.search("look at it", said) for status, said in answers if status == 409)
