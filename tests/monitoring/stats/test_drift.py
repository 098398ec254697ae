"""Drift against scipy and closed forms."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from models.profile import bin_shares, coarser, numeric_bins
from monitoring.stats import drift
from monitoring.stats.mixture import tail


@pytest.mark.parametrize("bins", [10, 20, 50])
def test_psi_of_two_normals_nears_the_square_of_their_distance(bins: int) -> None:
    """N(0,1) against N(1,1): 1 in the limit; .924, .960, .983 with 10, 20, 50 quantile bins."""
    random = np.random.default_rng(0)
    edges = stats.norm.ppf(np.arange(1, bins) / bins)
    counts = [
        np.bincount(np.searchsorted(edges, random.normal(mean, 1, 200_000)), minlength=bins)
        for mean in (0, 1)
    ]
    psi = drift.psi(bin_shares(counts[0]), bin_shares(counts[1]))
    assert psi == pytest.approx({10: 0.924, 20: 0.960, 50: 0.983}[bins], abs=0.02)


def test_homogeneity_is_scipys_contingency_test() -> None:
    """Statistic, degrees of freedom and p-value are those of chi2_contingency."""
    random = np.random.default_rng(0)
    for _ in range(20):
        table = random.integers(0, 40, (2, 8))
        table = table[:, table.sum(axis=0) > 0]
        truth = stats.chi2_contingency(table, correction=False)
        found = drift.homogeneity(table[0], table[1])
        assert (found.statistic, found.df, found.p_value) == pytest.approx(
            (truth.statistic, truth.dof, truth.pvalue)
        )


def test_the_lower_bound_solves_the_noncentral_distribution() -> None:
    """ncx2.sf(X2, df, lambda) is .05 at the bound."""
    for statistic in (30.0, 300.0, 30_000.0):
        test = drift.Homogeneity(statistic, 9, 0.0, 1_000.0)
        noncentrality = drift.psi_lower_bound(test) * 1_000
        assert stats.ncx2.sf(statistic, 9, noncentrality) == pytest.approx(0.05, rel=1e-6)


def test_the_lower_bound_covers_and_is_zero_without_evidence() -> None:
    """At most 5 % of bounds lie above the truth; equal data give no drift."""
    random = np.random.default_rng(0)
    p, q = np.full(8, 1 / 8), np.array([1.2, 0.8] * 4) / 8
    truth = drift.psi(p, q)
    above = 0
    for _ in range(500):
        counts = random.multinomial(4_000, p), random.multinomial(1_000, q)
        above += drift.psi_lower_bound(drift.homogeneity(*counts)) > truth
    assert above <= 40
    same = random.multinomial(1_000, p)
    assert drift.psi_lower_bound(drift.homogeneity(same, same)) == 0


def test_false_alarms_keep_their_nominal_rate() -> None:
    """Data of one distribution are called different in about 1 % of windows at the 1 % level."""
    random = np.random.default_rng(0)
    reference = numeric_bins(random.normal(size=10_000))
    before = np.array(reference.counts)
    groups = coarser(before, 32)
    alarms = 0
    for _ in range(1_000):
        window = groups[reference.index(random.normal(size=500))]
        counts = np.bincount(window, minlength=groups.max() + 1)
        pooled = np.bincount(groups, before).astype(np.int64)
        alarms += drift.homogeneity(pooled, counts).p_value < 0.01
    assert alarms <= 25


def test_ks_is_scipys_on_data_that_sit_on_the_bins() -> None:
    """With one value a bin, the binned distance is the exact one."""
    random = np.random.default_rng(0)
    a, b = random.integers(0, 12, 300), random.integers(2, 14, 200)
    counts = [np.bincount(x, minlength=14) for x in (a, b)]
    assert drift.kolmogorov_smirnov(*counts) == pytest.approx(stats.ks_2samp(a, b).statistic)


def test_holm_on_a_published_example() -> None:
    """Holm's step-down: .01, .02, .03, .04 become .04, .06, .06, .06."""
    assert drift.holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])


counts = st.lists(st.integers(0, 50), min_size=12, max_size=12).map(np.array)


def test_shares_follow_the_rule_of_the_profile() -> None:
    """Half a count, as models.profile has it."""
    table = np.array([0, 3, 70, 1])
    assert drift.shares(table) == pytest.approx(bin_shares(table))


@pytest.mark.parametrize("values", [5, 40, 10_000])
def test_anderson_darling_is_scipys(values: int) -> None:
    """The statistic of `anderson_ksamp` where a bin holds one value.

    scipy divides it by its deviation, eq. 4 of Scholz & Stephens (1987).
    """
    random = np.random.default_rng(values)
    a, b = random.integers(0, values, 900), random.integers(0, values, 300)
    b = np.where(random.random(300) < 0.1, b // 2, b)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its p-value ends at a table's end
        truth = stats.anderson_ksamp([a, b], variant="right")
    reference, current = (np.bincount(x, minlength=values) for x in (a, b))
    both, upper = 1_200, 1 / 900 + 1 / 300
    lower = float(np.sum(1 / np.arange(1, both)))
    inner = np.cumsum(1 / np.arange(both - 1, 1, -1))
    g = float(np.sum(inner / np.arange(2, both)))
    powers = np.array(
        [
            4 * g - 6 + (10 - 6 * g) * upper,
            4 * (2 * g - 4) + 16 * lower + (2 * g - 14 * lower - 4) * upper - 8 * lower + 4 * g - 6,
            4 * (6 * lower + 2 * g - 2)
            + 2 * (4 * lower - 4 * g + 6)
            + (2 * lower - 6) * upper
            + 4 * lower,
            4 * (2 * lower + 6) - 8 * lower,
        ]
    )
    variance = np.polyval(powers, both) / ((both - 1) * (both - 2) * (both - 3))
    found = drift.anderson_darling(reference, current)
    assert (found - 1) / np.sqrt(variance) == pytest.approx(truth.statistic, rel=1e-6)


def test_the_weights_of_fine_bins_are_those_of_the_limit() -> None:
    """1 / (i (i + 1)) for ever finer bins; their sum, the mean, is 1 (Anderson & Darling 1952)."""
    weights = np.sort(drift.anderson_darling_weights(np.full(800, 3)))[::-1]
    i = np.arange(1, 6)
    assert weights[:5] == pytest.approx(1 / (i * (i + 1)), rel=5e-3)
    assert weights.sum() == pytest.approx(1, rel=5e-3)


def test_one_cut_is_a_chi_squared_variable() -> None:
    """Two bins: the statistic is share times X2, and so is its null distribution."""
    reference, current = np.array([300, 700]), np.array([120, 380])
    weights = drift.anderson_darling_weights(reference)
    assert weights == pytest.approx([0.3])
    truth = stats.chi2.sf(drift.anderson_darling(reference, current) / 0.3, 1)
    assert tail(weights, drift.anderson_darling(reference, current)) == pytest.approx(truth)


@pytest.mark.parametrize("shares", [np.full(64, 1 / 64), np.array([0.7, 0.1, 0.1, 0.05, 0.05])])
def test_anderson_darling_keeps_its_nominal_rate(shares: np.ndarray) -> None:
    """2,000 windows of 200 against references of 4,000: 1 % and 10 %, by their binomial spread."""
    random = np.random.default_rng(0)
    weights = drift.anderson_darling_weights(shares * 1e6)
    found = np.array(
        [
            tail(
                weights,
                drift.anderson_darling(
                    random.multinomial(4_000, shares), random.multinomial(200, shares)
                ),
            )
            for _ in range(2_000)
        ]
    )
    for alpha in (0.01, 0.1):
        assert np.sum(found < alpha) <= stats.binom.isf(1e-3, 2_000, alpha)
        assert np.sum(found < alpha) >= stats.binom.ppf(1e-3, 2_000, alpha)


@given(counts, counts)
def test_distances_are_symmetric_and_zero_for_the_same(a: np.ndarray, b: np.ndarray) -> None:
    """Which of the two is the window does not matter; a multiple of the same shares is no drift."""
    edges = np.arange(11.0)
    for distance in (
        drift.anderson_darling,
        drift.kolmogorov_smirnov,
        lambda r, c: drift.wasserstein(r, c, edges),
    ):
        assert distance(a, b) == pytest.approx(distance(b, a), abs=1e-9)
        assert distance(a, 3 * a) == pytest.approx(0, abs=1e-9)
        assert distance(a, b) >= 0


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.5, 2.0])
def test_wasserstein_of_a_shift_is_the_shift(shift: float) -> None:
    """Moving all values by d costs d; scipy on the values says the same."""
    random = np.random.default_rng(0)
    values = random.normal(size=20_000)
    edges = np.linspace(-5, 8, 400)
    table = [
        np.bincount(np.searchsorted(edges, x), minlength=401) for x in (values, values + shift)
    ]
    found = drift.wasserstein(table[0], table[1], edges)
    assert found == pytest.approx(shift, abs=2e-3)
    assert found == pytest.approx(stats.wasserstein_distance(values, values + shift), abs=2e-3)


def test_wasserstein_where_the_shares_cross_inside_a_bin() -> None:
    """F - G goes from +1/2 to -1/2 evenly over a bin of width 2: two triangles, 1/2 in all."""
    edges = np.array([0.0, 2.0])
    assert drift.wasserstein(np.array([2, 0, 2]), np.array([0, 4, 0]), edges) == 0.5


def test_clumps_count_once() -> None:
    """Every row four times: the test of the dispersed counts is that of each row once."""
    random = np.random.default_rng(0)
    reference, current = random.multinomial(50_000, np.full(8, 1 / 8)), np.array([9, 2, *[7] * 6])
    clumped = drift.dispersed(drift.homogeneity(reference * 4, current * 4), 4.0)
    assert clumped == pytest.approx(drift.homogeneity(reference, current))
    assert drift.dispersed(clumped, 1.0) == pytest.approx(clumped)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_benjamini_hochberg_is_scipys(p_values: list[float]) -> None:
    truth = stats.false_discovery_control(p_values)
    assert drift.benjamini_hochberg(p_values) == pytest.approx(truth)
