"""models.routes: compare-and-set, against a real Redis."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier

import pytest
import redis
import redis.asyncio

from models import routes
from models.contract import keys
from models.errors import IllegalTransition, RouteConflict
from models.rollout import Route, promote, rollback, start_shadow
from slipstream.embedded import EmbeddedRedis


def change(client: redis.Redis, transition: object, action: str = "promote") -> Route:
    assert callable(transition)
    return routes.change(client, "m", transition, first=1, action=action, who="me", why="test")


def test_a_route_is_written_and_read(client: redis.Redis) -> None:
    """The first change starts from revision 0; each one raises it; the model becomes known."""
    assert routes.read(client, "m") is None
    first = change(client, partial(start_shadow, version=2, percent=25))
    assert first == Route("m", 1, revision=1, shadow=2, shadow_percent=25)
    second = change(client, partial(promote, version=2))
    assert second == routes.read(client, "m") == Route("m", 2, revision=2, previous=1)
    assert client.smembers(keys.MODELS) == {b"m"}


def test_every_change_is_audited(client: redis.Redis) -> None:
    """Who, why, before and after, newest first; the first had nothing before it."""
    change(client, partial(promote, version=2))
    change(client, rollback, "rollback")
    newest, oldest = routes.audit(client, "m")
    assert (newest["action"], newest["who"], newest["why"]) == ("rollback", "me", "test")
    assert (newest["before"]["champion"], newest["after"]["champion"]) == (2, 1)
    assert (oldest["before"], oldest["after"]["revision"]) == (None, 1)
    assert 0 < oldest["at_ms"] <= newest["at_ms"]


def test_one_of_many_writers_wins(client: redis.Redis) -> None:
    """Of 32 who read the same route, one changes it; the others are told and nothing of theirs
    is left."""
    before = change(client, partial(promote, version=2))
    together = Barrier(32)

    def write(version: int) -> int | None:
        together.wait()
        try:
            after = promote(before, version)
            return routes.write(
                client, before, after, action="promote", who=str(version), why=""
            ).champion
        except RouteConflict:
            return None

    with ThreadPoolExecutor(32) as pool:
        winners = [w for w in pool.map(write, range(10, 42)) if w is not None]
    standing = routes.read(client, "m")
    assert standing is not None
    assert ([standing.champion], standing.revision) == (winners, 2)
    assert len(routes.audit(client, "m")) == 2
    assert routes.audit(client, "m")[0]["who"] == str(winners[0])


def test_a_loser_is_told_who_won(client: redis.Redis) -> None:
    before = change(client, partial(promote, version=2))
    routes.write(client, before, promote(before, 3), action="promote", who="first", why="")
    with pytest.raises(RouteConflict, match=r"by first \(promote\)"):
        routes.write(client, before, promote(before, 4), action="promote", who="second", why="")


def test_a_repeated_key_changes_once(client: redis.Redis) -> None:
    """The same idempotency key again: nothing moves, and the answer is that of the first."""
    write = partial(
        routes.change, client, "m", first=1, action="promote", who="me", why="", once="k1"
    )
    first = write(partial(promote, version=2))
    again = write(partial(promote, version=2))
    assert (first, len(routes.audit(client, "m"))) == (again, 1)


def test_a_change_can_insist_on_the_revision_it_saw(client: redis.Redis) -> None:
    change(client, partial(promote, version=2))
    with pytest.raises(RouteConflict, match="revision 1, not 0"):
        routes.change(
            client, "m", rollback, first=1, action="rollback", who="me", why="", revision=0
        )


def test_the_first_write_is_compared_too(client: redis.Redis) -> None:
    """Two who saw no route: the second one conflicts, and reads at which revision it stands."""
    write = partial(routes.write, client, None, action="promote", who="me", why="")
    write(Route("m", 2))
    with pytest.raises(RouteConflict, match="it stands at revision 1, not 0"):
        write(Route("m", 3))


def test_an_illegal_transition_writes_nothing(client: redis.Redis) -> None:
    """A refused change leaves no route and no audit entry."""
    with pytest.raises(IllegalTransition):
        change(client, rollback)
    assert routes.read(client, "m") is None
    assert routes.audit(client, "m") == []


async def test_a_worker_reads_many_at_once(
    client: redis.Redis, redis_server: EmbeddedRedis
) -> None:
    """Models that nobody wrote a route for are left out."""
    change(client, partial(promote, version=2))
    worker = redis.asyncio.Redis.from_url(redis_server.url.replace("/0", "/9"))
    async with worker:
        assert await routes.read_many(worker, ["m", "other"]) == {"m": routes.read(client, "m")}
        assert await routes.read_many(worker, []) == {}
