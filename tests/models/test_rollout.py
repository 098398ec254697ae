"""models.rollout: pure decisions, as tables."""

from __future__ import annotations

import math
import random

import pytest

from models.errors import IllegalTransition, InvalidRequest, SlipstreamError, UnknownVersion
from models.rollout import Arm, Route, decide, promote, rollback, shadowed, start_shadow
from models.version import Role

ROUTE = Route("m", champion=3, revision=7, previous=2, shadow=4, shadow_percent=50)
BARE = Route("m", champion=1)


@pytest.mark.parametrize(
    ("asked", "arm"),
    [
        (None, Arm(3, Role.CHAMPION)),
        ("champion", Arm(3, Role.CHAMPION)),
        ("challenger", Arm(4, Role.PINNED)),
        ("previous", Arm(2, Role.PINNED)),
        ("9", Arm(9, Role.PINNED)),
        ("3", Arm(3, Role.PINNED)),
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
