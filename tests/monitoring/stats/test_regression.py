"""Regression against scikit-learn, scipy and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from monitoring.stats import regression
from monitoring.stats.regression import Scale

NAMES = ("mae", "rmse", "bias", "r2")


def prices(n: int = 4_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.lognormal(10, 0.5, n)
    return truth, truth * random.normal(1.02, 0.1, n)


def of(truth: np.ndarray, said: np.ndarray, unit: Scale | None = None) -> regression.Regression:
    unit = unit or regression.scale(truth, said)
    found = regression.regression(unit, regression.sums(unit, truth, said))
    assert found is not None
    return found


@pytest.mark.parametrize("offset", [0.0, 1e7])
@pytest.mark.parametrize("factor", [1e-9, 1.0, 1e9])
def test_values_are_scikit_learns(offset: float, factor: float) -> None:
    """To a ten-thousandth, in any unit and far from zero."""
    truth, said = ((v + offset) * factor for v in prices())
    found = of(truth, said)
    assert found.mae is not None
    assert found.rmse is not None
    assert found.bias is not None
    assert found.r2 is not None
    mae = metrics.mean_absolute_error(truth, said)
    assert found.mae.value == pytest.approx(mae, rel=1e-4)
    rmse = metrics.root_mean_squared_error(truth, said)
    assert found.rmse.value == pytest.approx(rmse, rel=1e-4)
    assert found.bias.value == pytest.approx(np.mean(said - truth), abs=1e-4 * mae)
    assert found.r2.value == pytest.approx(metrics.r2_score(truth, said), abs=1e-4)


def test_the_intervals_of_mae_and_bias_are_scipys() -> None:
    """Student's t, as in ttest_1samp."""
    truth, said = prices(200)
    found = of(truth, said)
    for estimate, values in ((found.mae, np.abs(said - truth)), (found.bias, said - truth)):
        expected = stats.ttest_1samp(values, 0).confidence_interval()
        assert estimate is not None
        near = 0.005 * (expected.high - expected.low)
        assert (estimate.low, estimate.high) == pytest.approx(
            (expected.low, expected.high), abs=near
        )


def test_the_interval_of_rmse_is_the_chi_squared_one_where_errors_are_normal() -> None:
    """The sum of squares over sigma^2 is chi-squared with n degrees of freedom, at 2,000 rows."""
    random = np.random.default_rng(0)
    truth = random.normal(size=2_000)
    error = random.normal(size=2_000)
    found = of(truth, truth + error).rmse
    assert found is not None
    sum_of_squares = np.sum(error**2)
    ends = np.sqrt(sum_of_squares / stats.chi2.ppf([0.975, 0.025], 2_000))
    assert (found.low, found.high) == pytest.approx(ends, rel=0.004)
    assert found.high - found.low == pytest.approx(ends[1] - ends[0], rel=0.1)


def test_the_interval_of_r2_is_the_spread_of_r2() -> None:
    """Its half-width is 1.96 standard deviations of R2 over 2,000 samples, within a tenth."""
    samples = [prices(500, seed) for seed in range(2_000)]
    values = [1 - np.sum((s - t) ** 2) / np.sum((t - t.mean()) ** 2) for t, s in samples]
    widths = []
    for truth, said in samples[:300]:
        found = of(truth, said).r2
        assert found is not None
        widths.append(found.high - found.low)
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.std(values), rel=0.1)


@pytest.mark.parametrize(("n", "least"), [(50, 0.88), (400, 0.92)])
def test_intervals_cover(n: int, least: float) -> None:
    """95 % intervals, 600 samples of normal errors and skewed truths; few rows cover a bit less.

    0.92 is 0.95 less three and a half binomial standard errors.
    """
    random = np.random.default_rng(n)
    covered = np.zeros(4)
    unit = Scale(4.0, 2.8, 1.0)
    absolute = stats.foldnorm(0.2).mean()
    truth = {"mae": absolute, "rmse": np.sqrt(1.04), "bias": 0.2, "r2": 1 - 1.04 / 8}
    for _ in range(600):
        y = random.gamma(2, 2, n)
        found = of(y, y + random.normal(0.2, 1, n), unit)
        for i, name in enumerate(NAMES):
            estimate = getattr(found, name)
            covered[i] += estimate.low <= truth[name] <= estimate.high
    assert (covered / 600 >= least).all()
    assert (covered / 600 <= 0.98).all()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12)), min_size=1, max_size=40),
    st.integers(0, 40),
    st.randoms(use_true_random=False),
)
def test_windows_add_up_exactly_in_any_order(
    pairs: list[tuple[float, float]], cut: int, shuffle: object
) -> None:
    """Whole numbers: the sums of the parts are the sums of the whole, to the last digit."""
    unit = Scale(3.0, 10.0, 2.0)
    truth, said = np.array(pairs).T
    parts = [regression.sums(unit, truth[:cut], said[:cut])]
    parts.append(regression.sums(unit, truth[cut:], said[cut:]))
    order = list(range(len(pairs)))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    whole = regression.sums(unit, truth[order], said[order])
    assert np.array_equal(parts[0] + parts[1], whole)
    assert len(whole) == len(regression.SUMS)


def test_the_wildest_window_does_not_overflow() -> None:
    """Every value at the far end, 2^26 times over, still is what it is."""
    unit = Scale(0.0, 1.0, 1.0)
    window = regression.sums(unit, np.array([-5e3, 5e3]), np.array([5e3, -5e3])) * 2**25
    found = regression.regression(unit, window)
    assert found is not None
    assert found.beyond == found.labels == 2**26
    assert found.rmse is not None
    assert found.rmse.value == pytest.approx(1_024)


def test_identity_is_perfect_and_errors_grow_with_the_shift() -> None:
    """Nothing wrong: 0, 0, 0 and 1. Adding a constant moves each the way it must."""
    truth, said = prices(300)
    unit = regression.scale(truth, said)
    same = of(truth, truth, unit)
    assert [getattr(same, name).value for name in NAMES] == [0, 0, 0, 1]
    found = [of(truth, truth + shift, unit) for shift in (0.0, 100.0, 1_000.0, 10_000.0)]
    for name, sign in (("mae", 1), ("rmse", 1), ("bias", 1), ("r2", -1)):
        values = [sign * getattr(one, name).value for one in found]
        assert values == sorted(set(values))


def test_what_cannot_be_said_is_not_said() -> None:
    """No rows, one row, a truth that never varies, and rows with a side missing."""
    unit = Scale(0.0, 1.0, 1.0)
    none = np.array([np.nan, 1.0, np.inf]), np.array([1.0, np.nan, np.inf])
    assert regression.regression(unit, regression.sums(unit, *none)) is None
    one = of(np.array([1.0]), np.array([2.0]), unit)
    assert (one.labels, one.mae, one.rmse, one.r2) == (1, None, None, None)
    constant = of(np.ones(10), np.arange(10.0), unit)
    assert constant.r2 is None
    assert constant.rmse is not None
    assert regression.scale(np.ones(3), np.ones(3)).error > 0
