"""Several monitors share the models, and none is left alone."""

from __future__ import annotations

import redis

from models.contract import keys
from monitoring import leases
from monitoring.leases import Leases

MODELS = [f"m{i}" for i in range(8)]


def look(*monitors: Leases) -> list[set[str]]:
    """Let each look, as often as it takes for the shares to settle."""
    for _ in range(3):
        for monitor in monitors:
            monitor._looked = 0.0
            monitor.share(MODELS)
    return [monitor._held for monitor in monitors]


def test_every_model_has_one_follower_and_shares_are_even(client: redis.Redis) -> None:
    one, two, three = (Leases(client, port) for port in (1, 2, 3))
    assert look(one) == [set(MODELS)]
    shares = look(one, two, three)
    assert sorted(model for share in shares for model in share) == MODELS
    assert sorted(map(len, shares)) == [2, 3, 3]


def test_what_a_dead_monitor_held_is_taken_over(client: redis.Redis) -> None:
    """Nobody renews its leases, so they run out."""
    one, two = Leases(client, 1), Leases(client, 2)
    dead = look(one, two)[0]
    assert len(dead) == 4
    for model in dead:  # as if PATIENCE had passed
        assert 0 < client.pttl(keys.lease(model)) <= leases.PATIENCE * 1_000
        client.delete(keys.lease(model))
    client.zadd(keys.MONITORS, {one.name: 1.0})
    assert look(two) == [set(MODELS)]


def test_a_monitor_that_goes_leaves_nothing_behind(client: redis.Redis) -> None:
    one, two = Leases(client, 1), Leases(client, 2)
    look(one, two)
    one.give_up()
    assert client.zscore(keys.MONITORS, one.name) is None
    assert look(two) == [set(MODELS)]


def test_a_lease_that_was_lost_is_not_renewed(client: redis.Redis) -> None:
    """Another took it while this one slept."""
    one = Leases(client, 1)
    look(one)
    client.set(keys.lease("m3"), "another")
    assert look(one) == [set(MODELS) - {"m3"}]
    assert client.get(keys.lease("m3")) == b"another"
