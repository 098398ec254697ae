"""models.rollout: pure decisions, as tables."""

from __future__ import annotations

import contextlib
import itertools
import math
import random
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import IllegalTransition, InvalidRequest, SlipstreamError, UnknownVersion
from models.rollout import (
    STEPS,
    Arm,
    Rollout,
    Route,
    Rule,
    advance,
    begin,
    decide,
    pause,
    promote,
    resume,
    rollback,
    shadowed,
    slot,
    split,
    start_canary,
    start_shadow,
    target,
)
from models.version import Role

ROUTE = Route("m", champion=3, revision=7, previous=2, shadow=4, shadow_percent=50)
BARE = Route("m", champion=1)


@pytest.mark.parametrize(
    ("asked", "arm"),
    [
        (None, Arm(3, Role.CHAMPION, "champion")),
        ("champion", Arm(3, Role.CHAMPION, "champion")),
        ("challenger", Arm(4, Role.PINNED, "url")),
        ("previous", Arm(2, Role.PINNED, "url")),
        ("9", Arm(9, Role.PINNED, "url")),
        ("3", Arm(3, Role.PINNED, "url")),
    ],
)
def test_decide(asked: str | None, arm: Arm) -> None:
    """No version or `champion` is the champion; a number or another alias pins."""
    assert decide(ROUTE, asked) == arm


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ("challenger", UnknownVersion),
        ("previous", UnknownVersion),
        ("canary", InvalidRequest),
        ("-1", InvalidRequest),
        ("1.0", InvalidRequest),
        ("²", InvalidRequest),
        ("", InvalidRequest),
    ],
)
def test_decide_refuses(asked: str, error: type[SlipstreamError]) -> None:
    """An alias that stands for nothing is unknown; anything else is no version at all."""
    with pytest.raises(error):
        decide(BARE, asked)


def test_a_version_too_long_to_be_one_is_refused() -> None:
    """5,000 digits are beyond what Python turns into a number; the caller is still told so."""
    with pytest.raises(SlipstreamError):
        decide(BARE, "9" * 5_000)


@pytest.mark.parametrize(
    ("before", "version", "after"),
    [
        (BARE, 2, Route("m", champion=2, previous=1)),
        (ROUTE, 4, Route("m", 4, revision=7, previous=3, shadow=None, shadow_percent=100)),
        (ROUTE, 2, Route("m", 2, revision=7, previous=3, shadow=4, shadow_percent=50)),
    ],
)
def test_promote(before: Route, version: int, after: Route) -> None:
    """The old champion is remembered; a shadow that became champion is one no longer."""
    assert promote(before, version) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (ROUTE, Route("m", 2, revision=7, previous=3, shadow=4, shadow_percent=50)),
        (Route("m", 3, previous=4, shadow=4), Route("m", 4, previous=3)),
    ],
)
def test_rollback(before: Route, after: Route) -> None:
    """Champion and previous change places, so a rollback can be rolled back."""
    assert rollback(before) == after
    assert rollback(after).champion == before.champion


@pytest.mark.parametrize(
    ("version", "percent", "after"),
    [
        (5, 10, Route("m", 3, revision=7, previous=2, shadow=5, shadow_percent=10)),
        (5, 0, Route("m", 3, revision=7, previous=2)),
        (3, 0, Route("m", 3, revision=7, previous=2)),
    ],
)
def test_start_shadow(version: int, percent: float, after: Route) -> None:
    """A new shadow replaces the old one; 0 percent takes it away."""
    assert start_shadow(ROUTE, version, percent) == after


@pytest.mark.parametrize(
    "transition",
    [
        lambda: promote(ROUTE, 3),
        lambda: rollback(BARE),
        lambda: start_shadow(ROUTE, 3, 10),
        lambda: start_shadow(ROUTE, 5, 101),
        lambda: start_shadow(ROUTE, 5, -1),
        lambda: start_shadow(ROUTE, 5, math.nan),
    ],
    ids=["champion again", "no previous", "champion as shadow", "101 %", "-1 %", "NaN %"],
)
def test_what_makes_no_sense_from_here_is_refused(transition: object) -> None:
    """An illegal transition is a sentence, never another route."""
    assert callable(transition)
    with pytest.raises(IllegalTransition):
        transition()


@pytest.mark.parametrize("percent", [0.5, 10, 50, 99])
def test_a_share_of_the_requests_is_shadowed(percent: float) -> None:
    """Of 10,000 random ids the shadow sees its share, within five standard deviations."""
    draw = random.Random(1)
    route = Route("m", 1, shadow=2, shadow_percent=percent)
    seen = sum(shadowed(route, 1, draw.getrandbits(128)) == 2 for _ in range(10_000))
    share = percent / 100
    assert abs(seen - 10_000 * share) < 5 * math.sqrt(10_000 * share * (1 - share))


def test_the_ends_of_the_share_are_exact() -> None:
    """100 percent is every request; without a shadow, or served by it, none."""
    keys = range(20_000)
    assert all(shadowed(Route("m", 1, shadow=2), 1, key) == 2 for key in keys)
    assert not any(shadowed(BARE, 1, key) for key in keys)
    assert not any(shadowed(ROUTE, 4, key) for key in keys)


def test_a_wider_share_keeps_the_pairs_of_a_narrower_one() -> None:
    """The same key always gives the same answer, so ids shadowed at 10 % are at 20 % too."""
    narrow, wide = (Route("m", 1, shadow=2, shadow_percent=p) for p in (10, 20))
    assert all(shadowed(wide, 1, key) for key in range(20_000) if shadowed(narrow, 1, key))


def test_a_route_waits_for_champion_and_shadow() -> None:
    """The previous champion need not be ready: nobody is sent there."""
    assert ROUTE.versions() == {3, 4}
    assert BARE.versions() == {1}


# --- canaries and rollouts ------------------------------------------------------------------------

ROLLOUT = Rollout("r1", 4)


def test_the_split_is_even_sticky_and_only_grows() -> None:
    """Shares as measured on 40,000 keys; nobody leaves as the weight grows; a new salt redraws."""
    keys_ = [f"caller {i}" for i in range(40_000)]
    slots = {key: slot("r1", key) for key in keys_}
    for weight in STEPS:
        share = sum(at < weight for at in slots.values()) / len(keys_)
        deviation = math.sqrt(weight * (10_000 - weight)) / 10_000 / 200
        assert abs(share - weight / 10_000) < 4 * deviation
    both = sum(at < 500 and slot("r2", key) < 500 for key, at in slots.items())
    assert abs(both / 40_000 - 0.0025) < 0.001
    for low, high in itertools.pairwise(STEPS):
        narrow, wide = (Route("m", 1, canary=2, weight=w, salt="r1") for w in (low, high))
        inside = {k for k in keys_[:5_000] if split(narrow, {}, k).version == 2}
        assert all(split(wide, {}, key).version == 2 for key in inside)


def test_rules_come_before_the_split() -> None:
    rules = (Rule("X-Team", 5, equals="beta"), Rule("x-region", 6, matches="eu-[a-z]+"))
    route = Route("m", 1, canary=2, weight=10_000, salt="s", rules=rules)
    assert split(route, {b"x-team": b"beta"}, "k") == Arm(5, Role.CANARY, "rule")
    assert split(route, {b"x-region": b"eu-west"}, "k") == Arm(6, Role.CANARY, "rule")
    assert split(route, {b"x-region": b"eu-west-1"}, "k") == Arm(2, Role.CANARY, "split")
    assert route.versions() == {1, 2, 5, 6}


@pytest.mark.parametrize(
    "rule", [Rule("x", 2), Rule("x", 2, equals="a", matches="b"), Rule("x", 2, matches="(")]
)
def test_a_rule_that_cannot_apply_is_refused(rule: Rule) -> None:
    with pytest.raises(IllegalTransition):
        target(BARE, (rule,))


def test_a_rollout_from_shadow_to_champion() -> None:
    """Each step has its weight; the last advance promotes and leaves nothing behind."""
    route = begin(BARE, ROLLOUT)
    assert (route.shadow, route.weight, route.salt) == (4, 0, "r1")
    weights = []
    while route.rollout is not None:
        route = advance(route)
        weights.append(route.weight)
    assert weights == [*STEPS, 0]
    assert route == Route("m", 4, previous=1)


def test_a_rollback_ends_the_rollout_and_keeps_the_champion() -> None:
    """In one change: no weight, no shadow, no rollout."""
    route = advance(advance(begin(ROUTE, ROLLOUT)))
    assert rollback(route) == replace(ROUTE, shadow=None, shadow_percent=100)


@pytest.mark.parametrize(
    ("what", "transition"),
    [
        ("a second rollout", lambda r: begin(r, Rollout("r2", 5))),
        ("another's promotion", lambda r: promote(r, 5)),
        ("another's shadow", lambda r: start_shadow(r, 5, 100)),
        ("a canary by hand", lambda r: start_canary(r, 5, 1, "s")),
        ("resume what runs", resume),
    ],
)
def test_one_rollout_at_a_time(what: str, transition: object) -> None:
    """Whoever comes second is told which rollout is under way, and what is legal."""
    assert callable(transition)
    with pytest.raises(IllegalTransition, match="legal:"):
        transition(begin(BARE, ROLLOUT))


def test_a_paused_rollout_goes_nowhere_but_back() -> None:
    paused = pause(begin(BARE, ROLLOUT))
    with pytest.raises(IllegalTransition, match="resume"):
        advance(paused)
    with pytest.raises(IllegalTransition):
        pause(paused)
    assert resume(paused) == begin(BARE, ROLLOUT)
    assert rollback(paused) == BARE


@pytest.mark.parametrize("steps", [(), (0, 100), (500, 100), (100, 20_000), (100, 100)])
def test_steps_rise(steps: tuple[int, ...]) -> None:
    with pytest.raises(IllegalTransition, match="rise"):
        begin(BARE, replace(ROLLOUT, steps=steps))


VERSIONS = st.integers(1, 5)
PERCENT = st.sampled_from([0.0, 1, 50, 100])
CHANGE = st.one_of(
    st.builds(lambda v, p: partial(start_shadow, version=v, percent=p), VERSIONS, PERCENT),
    st.builds(
        lambda v, p: partial(start_canary, version=v, percent=p, salt="s"), VERSIONS, PERCENT
    ),
    st.builds(lambda v: partial(promote, version=v), VERSIONS),
    st.builds(lambda v: partial(begin, rollout=Rollout("r", v)), VERSIONS),
    st.sampled_from([advance, pause, resume, rollback]),
)


@given(st.lists(CHANGE, max_size=30))
def test_no_sequence_of_changes_breaks_a_route(changes: list[Any]) -> None:
    """Refused or applied: one champion; weights within the whole; a canary is no champion and has
    a salt; a rollout's version is what rides and what answers; nothing is left of what ended."""
    route = BARE
    for change in changes:
        with contextlib.suppress(IllegalTransition):
            route = change(route)
        assert 1 <= route.champion <= 5
        assert 0 <= route.weight <= 10_000
        assert (route.canary is None) == (route.weight == 0)
        assert route.canary != route.champion
        assert route.shadow != route.champion
        if route.canary is not None:
            assert route.salt
        if route.rollout is not None:
            assert route.rollout.version == route.shadow
            assert route.rollout.version in (route.canary, None) or route.canary is None
            assert route.weight == (0, *route.rollout.steps)[route.rollout.step]
        decided = split(route, {}, "key")
        assert decided.version in {route.champion, route.canary}
