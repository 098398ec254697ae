"""Drift against scipy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from models.profile import bin_shares, coarser, numeric_bins
from monitoring.stats import drift


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
