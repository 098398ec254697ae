"""Causes against arithmetic done by hand, published tables, and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.stats import causes
from monitoring.stats.causes import Group

cells = st.lists(
    st.tuples(st.integers(0, 500), st.floats(0, 1), st.integers(0, 500), st.floats(0, 1)),
    min_size=1,
    max_size=12,
)


def counts(drawn: list[tuple[int, float, int, float]]) -> tuple[np.ndarray, ...]:
    before, a, now, b = (np.array(column) for column in zip(*drawn, strict=True))
    return before, (before * a).astype(np.int64), now, (now * b).astype(np.int64)


@given(cells)
def test_mix_and_rate_are_the_whole_change(drawn: list[tuple[int, float, int, float]]) -> None:
    """Exactly, whatever cells are empty; and the cells add up to them."""
    before, before_right, now, now_right = counts(drawn)
    found = causes.split(before, before_right, now, now_right)
    if not (before.sum() and now.sum()):
        assert found is None
        return
    assert found is not None
    change = now_right.sum() / now.sum() - before_right.sum() / before.sum()
    assert found.change.value == pytest.approx(change, abs=1e-12)
    assert found.mix.value + found.rate.value == pytest.approx(change, abs=1e-12)
    assert sum(cell.mix for cell in found.cells) == pytest.approx(found.mix.value, abs=1e-12)


@given(cells)
def test_the_other_way_round_is_the_opposite(drawn: list[tuple[int, float, int, float]]) -> None:
    """From now to then, mix and rate change their signs; equal windows have neither."""
    before, before_right, now, now_right = counts(drawn)
    if not (before.sum() and now.sum()):
        return
    there = causes.split(before, before_right, now, now_right)
    back = causes.split(now, now_right, before, before_right)
    same = causes.split(before, before_right, before, before_right)
    assert there is not None
    assert back is not None
    assert same is not None
    assert back.mix.value == pytest.approx(-there.mix.value, abs=1e-12)
    assert back.rate.value == pytest.approx(-there.rate.value, abs=1e-12)
    assert (same.mix.value, same.rate.value) == (0, 0)


def test_the_split_of_an_example_done_by_hand() -> None:
    """Two cells of accuracy .9 and .6, half each; then 1/4 and 3/4, and the second falls to .5.

    wbar = .375, .625; accbar = .9, .55; mix = (.9 - .55)(-.25) = -.0875; rate = .625 (-.1).
    """
    before, before_right = np.array([1_000, 1_000]), np.array([900, 600])
    now, now_right = np.array([500, 1_500]), np.array([450, 750])
    found = causes.split(before, before_right, now, now_right)
    assert found is not None
    assert found.mix.value == pytest.approx(-0.0875)
    assert found.rate.value == pytest.approx(-0.0625)
    assert found.change.value == pytest.approx(-0.15)
    first, second = found.cells
    assert first.rate is not None
    assert second.rate is not None
    assert (first.rate.value, second.rate.value) == pytest.approx((0, -0.0625))
    assert second.rate.high < 0 < first.rate.high
    # Both lost by the mix: the good cell shrank, the bad one grew.
    assert first.mix < 0
    assert second.mix < 0


def test_a_new_cell_is_all_mix() -> None:
    """Nobody knows how good it was before."""
    found = causes.split(
        np.array([100, 0]), np.array([90, 0]), np.array([50, 50]), np.array([45, 5])
    )
    assert found is not None
    assert found.rate.value == 0
    assert found.mix.value == pytest.approx(-0.4)
    assert found.cells[1].rate is None
    assert found.cells[1].accuracy_before is None


def test_the_intervals_of_mix_and_rate_cover() -> None:
    """95 % of 600 pairs of windows, within three and a half standard errors."""
    random = np.random.default_rng(0)
    w0, w1 = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.2, 0.3, 0.2, 0.3])
    a0, a1 = np.array([0.95, 0.9, 0.8, 0.7]), np.array([0.93, 0.9, 0.7, 0.6])
    w, a = (w0 + w1) / 2, (a0 + a1) / 2
    mix, rate = (a - w @ a) @ (w1 - w0), w @ (a1 - a0)
    covered = np.zeros(3)
    for _ in range(600):
        before, now = random.multinomial(3_000, w0), random.multinomial(500, w1)
        found = causes.split(before, random.binomial(before, a0), now, random.binomial(now, a1))
        assert found is not None
        covered += [
            found.change.low <= mix + rate <= found.change.high,
            found.mix.low <= mix <= found.mix.high,
            found.rate.low <= rate <= found.rate.high,
        ]
    assert (np.abs(covered / 600 - 0.95) <= 0.032).all()


def test_causes_are_ranked_by_effect_times_importance() -> None:
    """A small change of what matters beats a large one of what does not."""
    found = causes.causes(
        {"noise": 0.9, "age": 0.2, "steady": 0.0, "unknown": 0.2},
        {"noise": 1.0, "age": 30.0, "steady": 14.0, "elsewhere": 100.0},
    )
    assert [cause.feature for cause in found] == ["age", "unknown", "noise"]
    assert found[0].importance == pytest.approx(30 / 60)
    assert found[1].importance == pytest.approx(15 / 60)  # the average of the known
    assert found[0].weight == pytest.approx(0.2 * 30 / 60)
    plain = causes.causes({"a": 0.1, "b": 0.3}, {})
    assert [cause.feature for cause in plain] == ["b", "a"]
    assert causes.causes({}, {}) == ()


def test_a_gap_is_newcombes_published_interval() -> None:
    """Newcombe (1998), Statistics in Medicine 17:873, table II, method 10: 56/70 - 48/80."""
    groups = [Group("a", 70, 56), Group("b", 80, 48)]
    selection = causes.gaps(groups, against="b")[0]
    assert selection.gap is not None
    assert tuple(selection.gap) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    assert selection.at_least == selection.gap.low
    other = causes.gaps(groups)[0]
    assert other.against == "b"  # the larger
    mirrored = causes.gaps(groups, against="a")[0]
    assert mirrored.at_least == pytest.approx(selection.at_least)


def test_small_groups_are_not_judged() -> None:
    """Each rate has its own rows: 400 labels, of them 49 positive, say nothing of the positives."""
    large = Group("large", 5_000, 1_000, 500, 400, 500, 100)
    small = Group("small", 400, 100, 49, 20, 351, 70)
    selection, true_positive, false_positive = causes.gaps([large, small])
    assert selection.gap is not None
    assert true_positive.gap is None
    assert true_positive.at_least == 0
    assert false_positive.gap is not None
    assert false_positive.gap.value == pytest.approx(70 / 351 - 0.2)
    assert false_positive.at_least == 0  # the interval holds 0
    with pytest.raises(ValueError, match="no group 'huge'; there are large, small"):
        causes.gaps([large, small], against="huge")
    assert causes.gaps([]) == ()


def test_shrunk_rates_are_the_posterior_where_agreement_is_plain() -> None:
    """4,000 slices of Beta(40, 10) rates: the means are those of the conjugate posterior."""
    random = np.random.default_rng(0)
    rows = random.integers(5, 200, 4_000)
    successes = random.binomial(rows, random.beta(40, 10, 4_000))
    found = np.array([estimate.value for estimate in causes.shrunk(successes, rows)])
    assert found == pytest.approx((successes + 40) / (rows + 50), abs=0.015)


@pytest.mark.parametrize("agreement", [20.0, 100.0, 1e9])
def test_shrunk_rates_are_nearer_and_their_intervals_cover(agreement: float) -> None:
    """Less squared error than raw shares; 95 % of 200 x 30 slices, to four points below."""
    random = np.random.default_rng(1)
    shrunk = raw = covered = 0.0
    for _ in range(200):
        rows = random.integers(10, 300, 30)
        rates = random.beta(0.9 * agreement, 0.1 * agreement, 30)
        successes = random.binomial(rows, rates)
        found = np.array(causes.shrunk(successes, rows))
        shrunk += float(np.sum((found[:, 0] - rates) ** 2))
        raw += float(np.sum((successes / rows - rates) ** 2))
        covered += np.mean((found[:, 1] <= rates) & (rates <= found[:, 2]))
    assert shrunk < raw
    assert covered / 200 >= 0.91


@given(st.lists(st.tuples(st.integers(0, 400), st.floats(0, 1)), min_size=1, max_size=15))
def test_a_shrunk_rate_lies_between_its_own_and_the_common_one(
    drawn: list[tuple[int, float]],
) -> None:
    """And within its interval; a slice without rows has the common rate."""
    rows = np.array([n for n, _ in drawn])
    successes = np.array([int(n * share) for n, share in drawn])
    common = (successes.sum() + 0.5) / (rows.sum() + 1)
    for estimate, k, n in zip(causes.shrunk(successes, rows), successes, rows, strict=True):
        own = k / n if n else common
        assert min(own, common) - 1e-9 <= estimate.value <= max(own, common) + 1e-9
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_one_slice_among_its_likes_is_drawn_more_the_fewer_its_rows() -> None:
    """5 of 10 beside nine slices of 90 % are hardly heard, 500 of 1,000 are."""
    rows = np.array([1_000] * 9 + [10])
    successes = np.array([900, 905, 895, 902, 898, 890, 910, 900, 903, 5])
    few = causes.shrunk(successes, rows)[-1]
    rows[-1], successes[-1] = 1_000, 500
    many = causes.shrunk(successes, rows)[-1]
    assert few.value > 0.8
    assert many.value == pytest.approx(0.5, abs=0.01)
