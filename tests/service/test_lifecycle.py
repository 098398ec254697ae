"""The life of a version in a real gateway: loaded and unloaded under requests, by an operator."""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import redis
import redis.asyncio

from benchmarks import reloads
from models import routes
from models.errors import BadModel, IllegalTransition, NotFound, UnknownModel, UnknownVersion
from models.repository import Repository
from models.rollout import Route, promote, start_canary, start_shadow
from models.version import ModelVersion, State
from service.fleet import GONE, Fleet
from service.orders import Order
from service.settings import Settings
from slipstream.embedded import EmbeddedRedis
from tests import onnx_models
from tests.service import more_models
from tests.serving import Gateway, eventually

ROW = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0, 2.0, 3.0, 4.0]}
SLOW = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}


# --- a fleet over a real folder and a real Redis --------------------------------------------------


@pytest_asyncio.fixture
async def fleet(
    tmp_path: Path, redis_server: EmbeddedRedis, client: redis.Redis
) -> AsyncIterator[Fleet]:
    """`m` with versions 1 to 3, loaded; nobody wrote a route. `client` has the same database."""
    for number in (1, 2, 3):
        onnx_models.softmax(tmp_path / f"m/{number}/model.onnx")
    worker = redis.asyncio.Redis.from_url(redis_server.url.replace("/0", "/9"))
    fleet = Fleet(Repository(tmp_path), worker, Settings(home=tmp_path / "home", poll=0.01))
    fleet.load_all()
    yield fleet
    await worker.aclose()


async def test_orders_reach_the_other_workers(
    fleet: Fleet, tmp_path: Path, redis_server: EmbeddedRedis
) -> None:
    """What one worker was asked the others do, too, and it does not hear itself."""
    client = redis.asyncio.Redis.from_url(redis_server.url.replace("/0", "/9"))
    other = Fleet(Repository(tmp_path), client, Settings(home=tmp_path / "other", poll=0.01))
    other.load_all()
    for each in (fleet, other):
        await each.read_orders()
    fleet.unload("m", 1)
    assert await fleet.orders.give(Order("unload", "m", 1))
    for each in (fleet, other):
        await each.read_orders()
        assert states(each) == {1: State.RETIRED, 2: State.READY, 3: State.READY}
    fleet.load("m")
    await fleet.orders.give(Order("load", "m", None))
    await fleet.orders.give(Order("unload", "m", 3))  # the champion's: refused, and told
    await other.read_orders()
    assert set(states(other).values()) == {State.READY}
    await client.aclose()


async def test_orders_without_redis_are_done_here_alone(tmp_path: Path) -> None:
    client = redis.asyncio.Redis.from_url("redis://127.0.0.1:1")
    fleet = Fleet(Repository(tmp_path), client, Settings(home=tmp_path / "home"))
    assert not await fleet.orders.give(Order("unload", "m", 1))
    await fleet.read_orders()


def states(fleet: Fleet) -> dict[int, State]:
    return {version.number: state for version, state, _ in fleet.index()}


async def move(fleet: Fleet, client: redis.Redis, transition: Any) -> Route:
    route = routes.change(client, "m", transition, first=3, action="test", who="me", why="")
    await fleet.read_routes()
    return route


async def test_a_version_is_closed_when_the_last_one_lets_go(
    fleet: Fleet, client: redis.Redis
) -> None:
    """Who had it before it was unloaded goes on with it; nobody else gets it."""
    held = fleet.version("m", 1)
    fleet.unload("m", 1)
    assert states(fleet) == {1: State.DRAINING, 2: State.READY, 3: State.READY}
    with pytest.raises(NotFound, match=r"m v1 is not loaded: .*/v2/repository/models/m/load"):
        fleet.version("m", 1)
    fleet.load_all()
    assert states(fleet)[1] == State.DRAINING
    held.warm()
    assert held.seconds > 0
    del held
    fleet.load_all()
    assert states(fleet)[1] == State.RETIRED


async def test_a_version_that_drains_can_come_back(fleet: Fleet) -> None:
    """It is the same one: nothing is opened twice."""
    held = fleet.version("m", 1)
    fleet.unload("m", 1)
    fleet.load("m", 1)
    assert fleet.version("m", 1) is held
    assert states(fleet)[1] == State.READY


async def test_what_was_unloaded_stays_so_until_it_is_loaded(fleet: Fleet) -> None:
    """Looks into the repository bring nothing back; unloading twice is no fault."""
    fleet.unload("m", 1)
    fleet.unload("m", 1)
    fleet.load_all()
    assert fleet.versions("m") == [2, 3]
    fleet.load("m")
    assert fleet.versions("m") == [1, 2, 3]
    assert fleet.route("m") == Route("m", champion=3)


async def test_what_the_route_needs_is_not_unloaded(fleet: Fleet, client: redis.Redis) -> None:
    """Champion, previous one, canary, shadow; the sentence names the role."""
    await move(fleet, client, lambda route: promote(route, 2))
    for number, sentence in ((2, "is the champion"), (3, "is the previous champion")):
        with pytest.raises(IllegalTransition, match=f"m v{number} {sentence}"):
            fleet.unload("m", number)
    await move(fleet, client, lambda route: start_shadow(route, 1, 50))
    with pytest.raises(IllegalTransition, match="m v1 is the shadow"):
        fleet.unload("m", 1)
    await move(fleet, client, lambda route: start_canary(start_shadow(route, 1, 0), 1, 50, ""))
    with pytest.raises(IllegalTransition, match="m v1 is the canary"):
        fleet.unload("m", 1)
    with pytest.raises(IllegalTransition, match="m v2 is the champion"):
        fleet.unload("m")
    await move(fleet, client, lambda route: start_canary(route, 1, 0, ""))
    fleet.unload("m")
    assert fleet.versions("m") == [2, 3]
    assert fleet.route("m").champion == 2


async def test_a_route_brings_back_what_it_names(fleet: Fleet, client: redis.Redis) -> None:
    """A promotion is an operator's newer word than an unload; it waits until all is ready."""
    fleet.unload("m", 1)
    await move(fleet, client, lambda route: promote(route, 1))
    assert (fleet.route("m").champion, fleet.route("m").revision) == (1, 1)
    assert states(fleet)[1] == State.READY


async def test_a_model_without_a_route_goes_and_comes_as_a_whole(fleet: Fleet) -> None:
    """A version that came meanwhile does not answer in the old one's place."""
    with pytest.raises(IllegalTransition, match=r"m v3 is the champion, .* unload the whole"):
        fleet.unload("m", 3)
    fleet.unload("m")
    onnx_models.softmax(fleet._repository.root / "m/4/model.onnx")
    fleet.load_all()
    assert fleet.models() == []
    assert set(states(fleet).values()) == {State.RETIRED, State.REGISTERED}
    with pytest.raises(NotFound, match="m is not loaded: it was unloaded"):
        fleet.route("m")
    fleet.unload("m")
    fleet.load("m")
    assert fleet.versions("m") == [1, 2, 3, 4]
    assert fleet.route("m") == Route("m", champion=3)


async def test_a_first_route_wakes_a_model_that_was_unloaded(
    fleet: Fleet, client: redis.Redis
) -> None:
    """What the route names is loaded; the rest stays as the operator left it."""
    fleet.unload("m")
    await move(fleet, client, lambda route: promote(route, 1))
    assert fleet.route("m").champion == 1
    assert states(fleet) == {1: State.READY, 2: State.RETIRED, 3: State.READY}


async def test_a_failed_version_stays_failed_until_it_is_loaded(fleet: Fleet) -> None:
    """Neither looks nor other loads try it again."""
    file = onnx_models.softmax(fleet._repository.root / "m/4/model.onnx")
    good = file.read_bytes()
    file.write_bytes(b"no model")
    fleet.load_all()
    file.write_bytes(good)
    fleet.load_all()
    fleet.load("m", 1)
    assert states(fleet)[4] == State.FAILED
    with pytest.raises(BadModel, match="m v4 cannot be loaded"):
        fleet.version("m", 4)
    fleet.load("m", 4)
    assert states(fleet)[4] == State.READY
    assert fleet.route("m").champion == 3


async def test_a_load_says_what_cannot_be_loaded(fleet: Fleet) -> None:
    """The others are ready all the same."""
    onnx_models.softmax(fleet._repository.root / "m/4/model.onnx").write_bytes(b"no model")
    fleet.unload("m", 1)
    with pytest.raises(BadModel, match="m v4 cannot be loaded"):
        fleet.load("m")
    assert fleet.versions("m") == [1, 2, 3]


async def test_a_folder_that_goes_takes_its_version_along(fleet: Fleet) -> None:
    """Except where the route needs it; then it is served, and the index says so."""
    for number in (1, 3):
        shutil.rmtree(fleet._repository.root / f"m/{number}")
    fleet.load_all()
    assert fleet.versions("m") == [2, 3]
    reasons = {version.number: reason for version, _, reason in fleet.index()}
    assert set(reasons) == {2, 3}
    assert reasons[3] == GONE
    with pytest.raises(UnknownVersion):
        fleet.version("m", 1)


async def test_a_repository_that_is_away_is_not_empty(fleet: Fleet) -> None:
    """A disk that was not mounted for a moment unloads nothing."""
    root = fleet._repository.root
    root.rename(root.with_name("elsewhere"))
    fleet.load_all()
    assert fleet.versions("m") == [1, 2, 3]


async def test_what_is_not_there(fleet: Fleet) -> None:
    """Nothing to unload is no fault, as with Triton; a version by number has to be there."""
    fleet.unload("q")
    with pytest.raises(UnknownModel):
        fleet.load("q")
    for ask in (fleet.load, fleet.unload):
        with pytest.raises(UnknownVersion, match="no version 9 of m; known: 1, 2, 3"):
            ask("m", 9)


async def test_a_cycle_that_holds_a_version_is_found(fleet: Fleet) -> None:
    """The gateway hardly ever collects garbage; a version that waits too long is looked after."""
    gc.disable()
    try:
        ring: list[object] = [fleet.version("m", 1)]
        ring.append(ring)
        del ring
        fleet.unload("m", 1)
        fleet._retiring[ModelVersion("m", 1)].since = -1e9
        fleet.load_all()
    finally:
        gc.enable()
    assert states(fleet)[1] == State.RETIRED


# --- a real gateway -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, redis_server: EmbeddedRedis
) -> Iterator[Gateway]:
    """`m` with two versions, a slow one of `slow` and a fast one, and `odd`, whose second version
    takes other inputs than its first. A token is set."""
    folder = tmp_path_factory.mktemp("life")
    for number, turns in ((1, 1_500_000), (2, 1)):
        more_models.slow(folder / f"repository/slow/{number}/model.onnx", turns)
    onnx_models.softmax(folder / "repository/odd/1/model.onnx")
    onnx_models.identity(folder / "repository/odd/2/model.onnx", "INT8")
    for number in (1, 2):
        onnx_models.softmax(folder / f"repository/m/{number}/model.onnx")
    url = redis_server.url.replace("/0", "/8")
    running = Gateway(
        folder, folder / "repository", url, SLIPSTREAM_TOKEN="sesame", SLIPSTREAM_DEADLINE="60"
    )
    yield running
    running.stop()


def ask(gateway: Gateway, what: str, model: str, version: str | None = None) -> httpx.Response:
    body = {"parameters": {"version": version}} if version else {}
    path = f"/v2/repository/models/{model}/{what}"
    return gateway.http.post(path, json=body, headers={"x-slipstream-token": "sesame"})


def index(gateway: Gateway, model: str) -> dict[str, tuple[str, str]]:
    entries = gateway.http.post("/v2/repository/index").json()
    return {e["version"]: (e["state"], e["reason"]) for e in entries if e["name"] == model}


def test_a_running_request_is_answered_by_the_version_that_goes(served: Gateway) -> None:
    """Nobody else gets it; when the request ends, it is closed."""
    pinned = "/v2/models/slow/versions/1/infer"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(served.infer, "slow", [SLOW], path=pinned)
        time.sleep(0.5)  # it is on its way, and takes more than a second
        assert ask(served, "unload", "slow", "1").status_code == 200
        assert index(served, "slow")["1"][0] == "UNLOADING"
        assert served.infer("slow", [SLOW], path=pinned).status_code == 404
        answer = running.result()
    assert answer.status_code == 200
    assert answer.json()["outputs"][0]["data"] == [1_500_001]
    eventually(lambda: index(served, "slow")["1"][0] == "UNAVAILABLE")
    assert "load brings it back" in index(served, "slow")["1"][1]


def test_load_and_unload_over_http(served: Gateway) -> None:
    """By our own parameter, one version; the champion stays, and no traffic moves."""
    refused = ask(served, "unload", "m", "2")
    assert refused.status_code == 409
    assert "m v2 is the champion, and is not unloaded" in refused.json()["error"]
    assert ask(served, "unload", "m", "1").content == b""
    assert [state for state, _ in index(served, "m").values()] == ["UNAVAILABLE", "READY"]
    assert served.infer("m", [ROW]).headers["x-model-version"] == "2"
    answer = ask(served, "load", "m")
    assert (answer.status_code, answer.content) == (200, b"")
    assert served.infer("m", [ROW]).headers["x-model-version"] == "2"
    assert served.infer("m", [ROW], path="/v2/models/m/versions/1/infer").status_code == 200


def test_a_whole_model_over_http(served: Gateway) -> None:
    """Unloaded it is a 404 with the way back, also to who asks whether it is ready."""
    assert ask(served, "unload", "m").status_code == 200
    answer = served.infer("m", [ROW])
    assert answer.status_code == 404
    assert "/v2/repository/models/m/load brings it back" in answer.json()["error"]
    assert served.http.get("/v2/models/m/ready").status_code == 404
    assert ask(served, "load", "m").status_code == 200
    assert served.infer("m", [ROW]).headers["x-model-version"] == "2"


@pytest.mark.parametrize("what", ["load", "unload"])
@pytest.mark.parametrize(
    ("body", "token", "status"),
    [
        (b"{}", "wrong", 403),
        (b"", "sesame", 200),
        (b'{"parameters":[1]}', "sesame", 400),
        (b'{"parameters":{"version":"two"}}', "sesame", 400),
        (b'{"parameters":{"version":9}}', "sesame", 404),
    ],
)
def test_what_load_and_unload_take(
    served: Gateway, what: str, body: bytes, token: str, status: int
) -> None:
    """The token, and a version that is there."""
    path = f"/v2/repository/models/m/{what}"
    answer = served.http.post(path, content=body, headers={"x-slipstream-token": token})
    assert answer.status_code == status, answer.text
    assert ask(served, "load", "m").status_code == 200


def test_parameters_of_other_servers(served: Gateway) -> None:
    """What unloading has nothing to do with is passed over; a file to load is not taken."""
    headers = {"x-slipstream-token": "sesame"}
    more = {"parameters": {"unload_dependents": True, "version": "1"}}
    path = "/v2/repository/models/m"
    assert served.http.post(f"{path}/unload", json=more, headers=headers).status_code == 200
    more = {"parameters": {"config": "{}"}}
    assert served.http.post(f"{path}/load", json=more, headers=headers).status_code == 501
    assert ask(served, "load", "m").status_code == 200


def test_failures_hold_no_version(served: Gateway, redis_server: EmbeddedRedis) -> None:
    """Not the requests that a broken canary left to its champion, nor those that were refused."""
    client = redis.Redis.from_url(redis_server.url.replace("/0", "/8"))

    def weigh(percent: float) -> None:
        route = routes.change(
            client,
            "odd",
            lambda route: start_canary(route, 2, percent, "salt"),
            first=1,
            action="test",
            who="me",
            why="",
        )
        eventually(
            lambda: (
                served.infer("odd", [ROW]).headers.get("x-route-revision") == str(route.revision)
            )
        )

    weigh(100)
    assert served.infer("odd", [ROW]).headers["x-route-reason"] == "fallback"
    assert served.infer("odd", [ROW], path="/v2/models/odd/versions/2/infer").status_code == 400
    weigh(0)
    client.close()
    assert ask(served, "unload", "odd", "2").status_code == 200
    eventually(lambda: index(served, "odd")["2"][0] == "UNAVAILABLE")


def test_nobody_notices_reloads(tmp_path: Path, redis_server: EmbeddedRedis) -> None:
    """25 times unload, load, promote under load: no failure, no wrong answer, no version left."""
    url = redis_server.url.replace("/0", "/7")
    report = reloads.run(tmp_path, url, cycles=25, calm=0.5)
    assert report.failures == []
    assert report.requests > 25
    assert {entry["version"]: entry["state"] for entry in report.index} == dict.fromkeys(
        ("1", "2", "3"), "READY"
    )
    assert report.slope < reloads.MEGABYTES * 1024 / 4
