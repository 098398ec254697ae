"""Tails of weighted sums of chi-squared variables against scipy, closed forms and tables."""

from __future__ import annotations

from math import exp, prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from monitoring.stats.mixture import tail

#: Asymptotic Anderson-Darling distribution: weights, and Lewis (1961) / Stephens (1974) points.
ANDERSON_DARLING = 1 / (np.arange(1, 500) * (np.arange(1, 500) + 1.0))


@pytest.mark.parametrize("df", [1, 2, 3, 10, 100])
@pytest.mark.parametrize("p_value", [0.999, 0.9, 0.5, 0.3, 0.1, 0.01, 1e-4, 1e-10, 1e-100])
def test_equal_weights_are_a_chi_squared_variable(df: int, p_value: float) -> None:
    """To five digits, near 1 and as far out as 1e-100."""
    value = 0.3 * float(stats.chi2.isf(p_value, df))
    assert tail(np.full(df, 0.3), value) == pytest.approx(p_value, rel=2e-5)


@pytest.mark.parametrize("value", [0.1, 1.0, 2.0, 5.0, 10.0, 50.0, 200.0])
def test_pairs_of_weights_are_a_sum_of_exponentials(value: float) -> None:
    """Weights that come in pairs make the hypoexponential distribution, which has a closed form."""
    means = [1.0, 0.5, 0.2, 0.05]
    rates = [1 / (2 * mean) for mean in means]
    truth = sum(exp(-a * value) * prod(b / (b - a) for b in rates if b != a) for a in rates)
    assert tail(np.repeat(means, 2), value) == pytest.approx(truth, rel=1e-4)


@pytest.mark.parametrize(
    ("value", "p_value"),
    [(1.248, 0.25), (1.933, 0.10), (2.492, 0.05), (3.070, 0.025), (3.880, 0.01), (6.000, 0.001)],
)
def test_the_published_points_of_anderson_darling(value: float, p_value: float) -> None:
    """To the two or three digits that were published."""
    assert tail(ANDERSON_DARLING, value) == pytest.approx(p_value, rel=0.04)


def test_simulation_agrees() -> None:
    """Within four standard errors of 200,000 draws, at three points."""
    weights = np.array([1.0, 0.7, 0.3, 0.3, 0.1, 0.01, 0.001])
    drawn = np.random.default_rng(0).chisquare(1, (200_000, len(weights))) @ weights
    for value in (1.0, 4.0, 10.0):
        found = tail(weights, value)
        assert np.mean(drawn > value) == pytest.approx(
            found, abs=4 * np.sqrt(found * (1 - found) / 200_000)
        )


@given(
    st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=20),
    st.floats(1e-3, 1e3),
    st.floats(1.01, 10),
)
def test_it_falls_with_the_value_and_knows_no_unit(
    weights: list[float], value: float, factor: float
) -> None:
    """Larger values are rarer; scaling weights and value alike, or shuffling, changes nothing."""
    w = np.array(weights)
    p_value = tail(w, value)
    assert 0 <= tail(w, value * factor) <= p_value + 1e-5
    assert tail(w * factor, value * factor) == pytest.approx(p_value, rel=1e-3, abs=1e-300)
    assert tail(w[::-1], value) == pytest.approx(p_value, rel=1e-3, abs=1e-300)


def test_nothing_is_certain_of_nothing() -> None:
    """Without weights, or at zero, the probability is 1; far beyond floats it is 0."""
    assert tail(np.zeros(0), 3.0) == tail(np.zeros(4), 3.0) == tail(np.ones(4), 0.0) == 1.0
    assert tail(np.ones(4), 1e6) == 0.0
