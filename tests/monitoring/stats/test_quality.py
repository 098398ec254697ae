"""Exact tests of counts against scipy's, and what they are for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from monitoring.stats import quality
from monitoring.stats.quality import Kind


@st.composite
def kinds(draw: st.DrawFn, most: int = 3_000) -> Kind:
    rows, before_rows = draw(st.integers(1, most)), draw(st.integers(1, most))
    return Kind(draw(st.integers(0, rows)), rows, draw(st.integers(0, before_rows)), before_rows)


def table(kind: Kind) -> list[list[int]]:
    return [
        [kind.now, kind.rows - kind.now],
        [kind.before, kind.before_rows - kind.before],
    ]


@given(kinds())
def test_missing_is_fishers_exact_test(kind: Kind) -> None:
    truth = float(stats.fisher_exact(table(kind))[1])
    assert quality.changed(kind) == pytest.approx(truth, rel=1e-5, abs=1e-290)


@given(kinds())
def test_more_is_the_hypergeometric_tail(kind: Kind) -> None:
    total, rows = kind.now + kind.before, kind.rows + kind.before_rows
    truth = float(stats.hypergeom.sf(kind.now - 1, rows, total, kind.rows))
    assert quality.more(kind) == pytest.approx(truth, rel=1e-6, abs=1e-290)


def test_fishers_tea() -> None:
    """Fisher (1935): 3 of 4 cups right is p = 17/70 one-sided, 34/70 two-sided."""
    tea = Kind(3, 4, 1, 4)
    assert quality.more(tea) == pytest.approx(17 / 70)
    assert quality.changed(tea) == pytest.approx(34 / 70)


@pytest.mark.parametrize(("rows", "before_rows"), [(30, 200), (1_000, 20_000), (100_000, 10**6)])
@pytest.mark.parametrize("rate", [0.0005, 0.02, 0.4])
def test_large_counts_are_no_less_exact(rows: int, before_rows: int, rate: float) -> None:
    """Four deviations above what is expected, at every size."""
    before = round(rate * before_rows)
    now = round(rate * rows + 4 * np.sqrt(rate * rows)) + 1
    kind = Kind(now, rows, before, before_rows)
    truth = float(stats.hypergeom.sf(now - 1, rows + before_rows, now + before, rows))
    assert quality.more(kind) == pytest.approx(truth, rel=1e-5)


@given(kinds(most=300))
def test_one_more_is_never_less_surprising(kind: Kind) -> None:
    if kind.now < kind.rows:
        assert quality.more(kind._replace(now=kind.now + 1)) <= quality.more(kind) * (1 + 1e-9)


@given(kinds(most=300))
def test_missing_does_not_care_which_is_the_window(kind: Kind) -> None:
    swapped = Kind(kind.before, kind.before_rows, kind.now, kind.rows)
    assert quality.changed(swapped) == pytest.approx(quality.changed(kind), rel=1e-5)


def test_p_values_are_valid() -> None:
    """P(p <= alpha) <= alpha, summed exactly over all windows from one urn."""
    rows, before_rows, total = 40, 160, 11
    outcomes = np.arange(0, total + 1)
    chances = stats.hypergeom.pmf(outcomes, rows + before_rows, total, rows)
    for test in (quality.changed, quality.more):
        found = np.array([test(Kind(int(k), rows, int(total - k), before_rows)) for k in outcomes])
        for alpha in (0.001, 0.01, 0.05, 0.2):
            assert chances[found <= alpha].sum() <= alpha + 1e-12


def test_what_cannot_be_surprising_is_not_possible() -> None:
    """Nothing of the kind anywhere, or nothing else, says nothing."""
    for kind in (Kind(0, 50, 0, 900), Kind(50, 50, 900, 900), Kind(0, 0, 3, 9), Kind(3, 9, 0, 0)):
        assert not kind.possible
        assert quality.changed(kind) == quality.more(kind) == 1.0
    assert Kind(1, 50, 0, 900).possible


def test_new_ids_are_expected_where_ids_are_new() -> None:
    """Half of the reference's rows are ids seen once: half of a window may be new, not most."""
    half = Kind(520, 1_000, 0, 10_000)
    assert quality.unseen(half, singletons=5_000) > 0.05
    assert quality.unseen(half, singletons=0) < 1e-100
    assert quality.unseen(half._replace(now=600), singletons=5_000) < 1e-8


def test_unseen_levels_of_a_long_tail_fire_at_their_nominal_rate() -> None:
    """Zipf's ids, of which each window has new ones: at most 1 % of 400 windows, by chance 10."""
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(400):
        reference, window = random.zipf(1.5, 3_000), random.zipf(1.5, 300)
        levels, counts = np.unique(reference, return_counts=True)
        new = int(np.sum(~np.isin(window, levels)))
        kind = Kind(new, len(window), 0, len(reference))
        alarms += quality.unseen(kind, int(np.sum(counts == 1))) < 0.01
    assert alarms <= stats.binom.isf(1e-3, 400, 0.01)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 200)), min_size=2, max_size=30))
def test_a_spike_is_the_smallest_tail_times_the_bins(pairs: list[tuple[int, int]]) -> None:
    now, before = (np.array(side) for side in zip(*pairs, strict=True))
    found = quality.spike(now, before)
    rows, before_rows = int(now.sum()), int(before.sum())
    tails = [
        quality.more(Kind(int(k), rows, int(r), before_rows))
        for k, r in zip(now, before, strict=True)
    ]
    assert found.p_value == pytest.approx(min(1.0, len(now) * min(tails)), rel=1e-9)
    if found.p_value < 1:
        assert tails[found.at] == pytest.approx(min(tails))
        assert (found.now, found.before) == (now[found.at], before[found.at])


def test_a_sentinel_is_found_in_its_bin() -> None:
    """5 % of 1,000 values become one that lies in an ordinary bin of 64."""
    random = np.random.default_rng(0)
    before = random.multinomial(10_000, np.full(64, 1 / 64))
    now = random.multinomial(950, np.full(64, 1 / 64))
    assert quality.spike(now, before).p_value > 0.01
    now[17] += 50
    found = quality.spike(now, before)
    assert (found.at, found.p_value < 1e-10) == (17, True)


def test_volume_is_negative_binomial_or_poisson() -> None:
    """By the moments of the windows before, against scipy's distributions."""
    calm = [100, 101, 99, 100, 100, 101, 99]
    mean = float(np.mean(calm))
    for now in (60, 100, 150):
        tails = stats.poisson.cdf(now, mean), stats.poisson.sf(now - 1, mean)
        assert quality.volume_p_value(now, calm) == pytest.approx(min(1, 2 * min(tails)))
    wild = [900, 1_100, 950, 1_200, 700, 1_000, 1_150]
    mean, variance = float(np.mean(wild)), float(np.var(wild, ddof=1)) * 8 / 7
    size, share = mean**2 / (variance - mean), mean / variance
    for now in (100, 1_000, 2_500):
        tails = stats.nbinom.cdf(now, size, share), stats.nbinom.sf(now - 1, size, share)
        assert quality.volume_p_value(now, wild) == pytest.approx(min(1, 2 * min(tails)))
    assert quality.volume_p_value(0, calm) < 1e-20
