"""service.fleet over a real folder and a real Redis: what is loaded, which route is applied."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import redis
import redis.asyncio

from models import routes
from models.contract import keys
from models.errors import BadModel, UnknownModel, UnknownVersion
from models.manifest import Manifest, Score, digest_of, write_manifest
from models.repository import Repository
from models.rollout import Route, promote, start_shadow
from models.version import State
from service.fleet import Fleet
from service.settings import Settings
from slipstream.embedded import EmbeddedRedis
from tests import onnx_models


@pytest_asyncio.fixture
async def fleet(
    tmp_path: Path, redis_server: EmbeddedRedis, client: redis.Redis
) -> AsyncIterator[Fleet]:
    """`m` with versions 1 and 2, `other` with version 1; `client` has emptied the same database."""
    for name in ("m/1", "m/2", "other/1"):
        onnx_models.softmax(tmp_path / name / "model.onnx")
    worker = redis.asyncio.Redis.from_url(redis_server.url.replace("/0", "/9"))
    yield Fleet(Repository(tmp_path), worker, Settings(home=tmp_path / "home", poll=0.01))
    await worker.aclose()


def change(client: redis.Redis, model: str, route: Route) -> None:
    before = routes.read(client, model)
    routes.write(client, before, route, action="test", who="me", why="")


def test_the_newest_version_answers_where_no_route_stands(fleet: Fleet) -> None:
    """At start; one that comes later waits for its route."""
    fleet.load_all()
    assert fleet.route("m") == Route("m", champion=2)
    onnx_models.softmax(fleet._repository.root / "m/3/model.onnx")
    fleet.load_all()
    assert fleet.versions("m") == [1, 2, 3]
    assert fleet.route("m").champion == 2


async def test_a_route_is_applied_when_its_versions_are_ready(
    fleet: Fleet, client: redis.Redis
) -> None:
    """A route with a version that is not there yet waits; the last good one goes on."""
    fleet.load_all()
    change(client, "m", promote(Route("m", 2), 1))
    await fleet.read_routes()
    assert (fleet.route("m").champion, fleet.revisions["m"]) == (1, 1)
    standing = routes.read(client, "m")
    assert standing is not None
    change(client, "m", start_shadow(standing, 3, 10))
    await fleet.read_routes()
    assert (fleet.route("m").shadow, fleet.revisions["m"]) == (None, 1)
    onnx_models.softmax(fleet._repository.root / "m/3/model.onnx")
    await fleet.read_routes()
    assert (fleet.route("m").shadow, fleet.revisions["m"]) == (3, 2)


def break_model(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"no model")


def break_digest(folder: Path) -> None:
    write_manifest(folder / "manifest.toml", Manifest("m", 3, "sha256:other"))


def break_manifest(folder: Path) -> None:
    (folder / "manifest.toml").write_bytes(b"\xff")


def break_profile(folder: Path) -> None:
    write_manifest(folder / "manifest.toml", Manifest("m", 3, ""))
    (folder / "profile.json").write_bytes(b'{"rows":1,"metrics":{"\xff":1}}')


def break_score(folder: Path) -> None:
    digest = digest_of(folder / "model.onnx")
    write_manifest(folder / "manifest.toml", Manifest("m", 3, digest, score=Score("nowhere")))


@pytest.mark.parametrize(
    "breaking", [break_model, break_digest, break_manifest, break_profile, break_score]
)
def test_a_version_that_cannot_be_used_says_why(fleet: Fleet, breaking: object) -> None:
    """The others are served, the index has the reason, and asking for it is a BadModel."""
    assert callable(breaking)
    breaking(onnx_models.softmax(fleet._repository.root / "m/3/model.onnx").parent)
    fleet.load_all()
    assert fleet.versions("m") == [1, 2]
    (reason,) = [why for version, state, why in fleet.index() if state != State.READY]
    with pytest.raises(BadModel) as refused:
        fleet.version("m", 3)
    assert str(refused.value) == reason != ""


def test_a_repaired_version_is_loaded_on_request(fleet: Fleet) -> None:
    """What failed is not tried again by itself, but by load."""
    file = onnx_models.softmax(fleet._repository.root / "late/1/model.onnx")
    good = file.read_bytes()
    file.write_bytes(b"half")
    fleet.load_all()
    with pytest.raises(BadModel, match="late v1 cannot be loaded"):
        fleet.load("late")
    file.write_bytes(good)
    fleet.load_all()
    with pytest.raises(BadModel):
        fleet.route("late")
    fleet.load("late")
    assert fleet.route("late") == Route("late", champion=1)


def test_what_is_not_there_lists_what_is(fleet: Fleet) -> None:
    """Unknown models and versions."""
    fleet.load_all()
    with pytest.raises(UnknownModel, match="no model 'q'; known: m, other"):
        fleet.route("q")
    with pytest.raises(UnknownVersion, match="no version 9 of m; known: 1, 2"):
        fleet.version("m", 9)


async def test_a_route_that_cannot_be_read_stops_no_other(
    fleet: Fleet, client: redis.Redis
) -> None:
    """Somebody's broken document leaves its model as it is; the others still move."""
    fleet.load_all()
    client.hset(keys.route("other"), mapping={"revision": 1, "document": "{}"})
    change(client, "m", promote(Route("m", 2), 1))
    await fleet.read_routes()
    assert fleet.route("m").champion == 1
    assert fleet.route("other").revision == 0


async def test_routes_stay_while_redis_is_away(tmp_path: Path) -> None:
    """Nothing answers at the address: the newest versions go on."""
    onnx_models.softmax(tmp_path / "m/1/model.onnx")
    worker = redis.asyncio.Redis.from_url("redis://127.0.0.1:1/0")
    fleet = Fleet(Repository(tmp_path), worker, Settings(home=tmp_path / "home", poll=0.01))
    fleet.load_all()
    await fleet.read_routes()
    assert fleet.route("m") == Route("m", champion=1)
    await worker.aclose()
