"""Random features against the exact kernel, numpy, and simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import cdist, pdist

from monitoring.stats import kernel
from monitoring.stats.mixture import tail


def rows(n: int, columns: int = 6, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (n, columns))


REFERENCE = kernel.prepare(rows(2_000))


def at(shift: float, n: int = 400, seed: int = 1) -> kernel.Discrepancy:
    found = kernel.compare(REFERENCE, kernel.state(REFERENCE, rows(n, seed=seed, shift=shift)))
    assert found is not None
    return found


@pytest.mark.parametrize("columns", [1, 3, 64, 300])
def test_products_of_features_are_the_gaussian_kernel(columns: int) -> None:
    """Of the mean over 12 seeds: without bias, each pair's error below .1 / sqrt(24)."""
    table = rows(120, columns)
    found = []
    for seed in range(12):
        reference = kernel.prepare(table, seed)
        z = kernel.features(reference, table)
        found.append(z @ z.T)
    points = (table - reference.centre) / reference.scale
    points = np.clip(points, -kernel.FARTHEST, kernel.FARTHEST)
    truth = np.exp(-(cdist(points, points) ** 2) / (2 * reference.bandwidth**2))
    error = (np.mean(found, axis=0) - truth)[np.triu_indices(120, 1)]
    assert abs(error.mean()) < 0.006
    assert np.sqrt(np.mean(error**2)) < 0.02


def test_the_bandwidth_is_the_median_distance() -> None:
    """Of standardised rows, by scipy."""
    table = rows(300)
    reference = kernel.prepare(table)
    points = np.clip((table - reference.centre) / reference.scale, -5, 5)
    assert reference.bandwidth == pytest.approx(np.median(pdist(points)), rel=1e-9)


def test_squared_is_the_mmd_of_the_exact_kernel() -> None:
    """The unbiased estimate of Gretton et al. (2012) with cdist, averaged over seeds."""
    first, second = rows(300), rows(300, seed=1, shift=0.5)
    found = []
    for seed in range(12):
        reference = kernel.prepare(first, seed)
        result = kernel.compare(reference, kernel.state(reference, second))
        assert result is not None
        found.append(result.squared)
    x, y = ((t - reference.centre) / reference.scale for t in (first, second))
    k = [np.exp(-(cdist(a, b) ** 2) / (2 * reference.bandwidth**2)) for a, b in ((x, x), (y, y))]
    within = sum((m.sum() - np.trace(m)) / (300 * 299) for m in k)
    across = np.exp(-(cdist(x, y) ** 2) / (2 * reference.bandwidth**2)).mean()
    assert np.mean(found) == pytest.approx(within - 2 * across, rel=0.05)


def test_moments_are_numpys_and_the_trace_of_the_square_is_unbiased() -> None:
    """Squared eigenvalues of 150 rows add up to those of 10,000, on average; numpy's to more."""
    many = rows(10_000, 20)
    whole = kernel.prepare(many)
    z = kernel.features(whole, many)
    assert whole.mean == pytest.approx(z.mean(axis=0), abs=1e-5)
    truth = np.linalg.eigvalsh(np.cov(z.T))
    assert whole.eigenvalues.sum() == pytest.approx(truth.sum(), rel=1e-6)
    ours, plain = [], []
    for part in many[:4_500].reshape(30, 150, 20):
        _, eigenvalues = kernel._moments(replace(whole, rows=150), part)
        ours.append(np.sum(eigenvalues**2))
        plain.append(np.sum(np.cov(kernel.features(whole, part).T) ** 2))
    wanted = np.sum(truth**2)
    assert np.mean(ours) == pytest.approx(wanted, rel=0.03)
    assert np.mean(plain) > 1.2 * wanted


@pytest.mark.parametrize("weights", [np.full(20, 0.3), np.ones(1), np.full(200, 1e-3)])
def test_the_tail_is_scipys_where_all_weights_are_equal(weights: np.ndarray) -> None:
    """Then the sum is chi-squared: within a tenth of the probability, however small."""
    for share in (0.9, 0.3, 0.05, 0.01, 1e-4, 1e-6):
        value = weights[0] * stats.chi2.isf(share, len(weights))
        assert kernel._tail(weights, value) == pytest.approx(share, rel=0.1)


@pytest.mark.parametrize("ratio", [0.3, 0.8, 0.97])
def test_the_tail_of_a_mixture_is_the_exact_one(ratio: float) -> None:
    """Contour integration (`mixture.tail`) within a tenth; and it never rises."""
    weights = ratio ** np.arange(100)
    values = weights.sum() + np.sqrt(2 * np.sum(weights**2)) * np.linspace(-0.5, 15, 60)
    found = np.array([kernel._tail(weights, value) for value in values])
    assert found == pytest.approx(np.array([tail(weights, value) for value in values]), rel=0.1)
    assert (np.diff(found) <= 0).all()


@pytest.mark.parametrize("size", [50, 300])
def test_false_alarms_are_as_many_as_promised(size: int) -> None:
    """Within four standard errors of 5 % of 900 windows, each reference serving 60."""
    alarms = 0
    random = np.random.default_rng(size)
    mixing = random.normal(size=(8, 8))
    for seed in range(15):
        reference = kernel.prepare(random.normal(size=(1_000, 8)) @ mixing, seed)
        for _ in range(60):
            window = kernel.state(reference, random.normal(size=(size, 8)) @ mixing)
            found = kernel.compare(reference, window)
            assert found is not None
            alarms += found.p_value <= 0.05
    assert 45 - 26 <= alarms <= 45 + 26


def test_a_change_that_no_column_shows_is_found() -> None:
    """Two columns that were one and now are independent: the marginals have not moved."""
    random = np.random.default_rng(0)
    first = random.normal(size=2_000)
    reference = kernel.prepare(np.stack([first, first], axis=1))
    apart = kernel.compare(reference, kernel.state(reference, random.normal(size=(200, 2))))
    again = random.normal(size=200)
    together = kernel.compare(reference, kernel.state(reference, np.stack([again, again], axis=1)))
    assert apart is not None
    assert together is not None
    assert apart.p_value < 1e-6 < 0.01 < together.p_value


def test_the_statistic_grows_with_the_shift() -> None:
    """And the p-value falls; the reference itself is as near as can be."""
    found = [at(shift) for shift in (0.0, 0.2, 0.4, 0.8, 1.6)]
    assert [d.statistic for d in found] == sorted(d.statistic for d in found)
    assert [d.p_value for d in found] == sorted((d.p_value for d in found), reverse=True)
    same = kernel.compare(REFERENCE, kernel.state(REFERENCE, rows(2_000)))
    assert same is not None
    assert same.statistic < 1e-6
    assert same.p_value > 0.999


def test_dispersion_divides_the_statistic() -> None:
    """A larger one never makes a window more suspicious."""
    window = kernel.state(REFERENCE, rows(400, seed=1, shift=0.3))
    found = [kernel.compare(REFERENCE, window, dispersion) for dispersion in (1.0, 2.0, 8.0)]
    p_values = [d.p_value for d in found if d]
    assert p_values == sorted(p_values)
    assert p_values[0] < p_values[2]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(0, 60), st.randoms(use_true_random=False))
def test_windows_add_up_in_any_order(first: int, second: int, shuffle: object) -> None:
    """Parts to the whole but for a millionth a row; sums of parts are integers, so exactly."""
    table = rows(first + second, seed=first)
    parts = kernel.state(REFERENCE, table[:first]) + kernel.state(REFERENCE, table[first:])
    order = list(range(len(table)))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    whole = kernel.state(REFERENCE, table[order])
    assert whole[0] == parts[0] == first + second
    assert np.abs(whole - parts).max() <= 2 * (first + second)


def test_a_missing_value_is_the_median_and_infinity_is_far() -> None:
    """No row is lost, nothing becomes NaN."""
    table = rows(300)
    table[::7, 2] = np.nan
    reference = kernel.prepare(table)
    filled = table.copy()
    filled[np.isnan(table)] = np.nanmedian(table[:, 2])
    assert np.array_equal(kernel.state(reference, table), kernel.state(reference, filled))
    wild = np.array([[np.inf, -np.inf, np.nan, 1e300, -1e300, 0.0]])
    assert np.isfinite(kernel.features(reference, wild)).all()
    empty = kernel.prepare(np.full((200, 2), np.nan))
    assert np.isfinite(empty.eigenvalues).all()


def test_images_are_folded_and_their_distances_kept() -> None:
    """Rows of 12,288 values: a state no larger, and squared distances within a tenth on average."""
    random = np.random.default_rng(0)
    images = random.normal(size=(150, 64, 64, 3)).astype(np.float32)
    reference = kernel.prepare(images)
    assert reference.centre.shape == (kernel.WIDEST,)
    assert kernel.state(reference, images).shape == (1 + kernel.FEATURES,)
    flat = images.reshape(150, -1).astype(np.float64)
    ratio = pdist(kernel._folded(flat, 0)) ** 2 / pdist(flat) ** 2
    assert ratio.mean() == pytest.approx(1, abs=0.02)
    assert ratio.std() < 0.1
    others = random.normal(size=(100, 64, 64, 3))
    bright = kernel.compare(reference, kernel.state(reference, others))
    dark = kernel.compare(reference, kernel.state(reference, others * 0.8))
    assert bright is not None
    assert dark is not None
    assert dark.p_value < 0.001 < 0.01 < bright.p_value


def test_frequencies_are_the_same_everywhere_and_have_the_lengths_of_a_gaussian() -> None:
    """Lengths are chi quantiles; rows of one block are orthogonal; the seed alone decides."""
    found = kernel.frequencies(3, 150)
    kernel.frequencies.cache_clear()
    assert np.array_equal(found, kernel.frequencies(3, 150))
    assert not np.array_equal(found, kernel.frequencies(4, 150))
    lengths = np.linalg.norm(found, axis=1)
    assert stats.kstest(lengths, stats.chi(150).cdf).statistic < 0.02
    block = found[:150].astype(np.float64)
    assert np.abs(block @ block.T - np.diag(lengths[:150] ** 2)).max() < 1e-3
    # Raw bits of PCG64 are promised never to change, so neither may these.
    first = kernel.frequencies(0, 2)[0]
    assert first / np.linalg.norm(first) == pytest.approx([0.197446, -0.980314], abs=1e-5)


def test_nothing_comes_of_nothing_and_wrong_rows_are_refused() -> None:
    """No rows: no statistic. Too few for a reference, or of another width: a sentence."""
    assert kernel.compare(REFERENCE, kernel.state(REFERENCE, np.empty((0, 6)))) is None
    with pytest.raises(ValueError, match="needs at least 100"):
        kernel.prepare(rows(99))
    with pytest.raises(ValueError, match="rows of 5 values; the reference has 6"):
        kernel.features(REFERENCE, rows(3, 5))
    constant = kernel.prepare(np.ones((200, 3)))
    same = kernel.compare(constant, kernel.state(constant, np.ones((20, 3))))
    other = kernel.compare(constant, kernel.state(constant, np.zeros((20, 3))))
    assert same is not None
    assert other is not None
    assert (same.p_value, other.p_value) == (1.0, 0.0)


def test_the_critical_value_is_exceeded_as_often_as_it_says() -> None:
    reference = kernel.prepare(np.random.default_rng(3).normal(size=(2_000, 4)))
    chance = np.random.default_rng(4)
    limit = kernel.critical_value(reference, 0.05)
    weights = reference.eigenvalues
    draws = chance.standard_normal((20_000, len(weights))) ** 2 @ weights
    assert abs(float((draws > limit).mean()) - 0.05) < 0.006
