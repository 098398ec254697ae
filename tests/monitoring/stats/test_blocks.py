"""Calibration on time blocks, against drift.py, scipy and simulated days with their weather."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from monitoring.stats import blocks, drift

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SHARES = np.array([0.4, 0.3, 0.15, 0.1, 0.05])


def days(
    seed: int, number: int, weather: float = 0.0, memory: float = 0.0, rows: int = 900
) -> Ints:
    """Counts [number, 5]: shares are tilted by a normal series of that size and memory."""
    chance = np.random.default_rng(seed)
    tilt = np.zeros(number)
    tilt[0] = chance.normal()
    for day in range(1, number):
        tilt[day] = memory * tilt[day - 1] + np.sqrt(1 - memory**2) * chance.normal()
    shares = SHARES * np.exp(weather * tilt[:, None] * np.linspace(-1, 1, 5))
    return chance.multinomial(rows, shares / shares.sum(1, keepdims=True))


def test_each_block_is_tested_against_the_rest() -> None:
    """X2 / df by drift.homogeneity, which is tested against scipy, one block after the other."""
    counts = days(1, 30, weather=0.3)
    truth = []
    for block in counts:
        test = drift.homogeneity(counts.sum(0) - block, block)
        truth.append(test.statistic / test.df)
    assert blocks.chi_squared(counts).ratios == pytest.approx(np.sort(truth))


def test_the_ratio_of_a_window_is_that_of_the_test() -> None:
    reference, window = days(2, 1)[0] * 50, days(3, 1, weather=1)[0]
    test = drift.homogeneity(reference, window)
    assert blocks.chi_squared_ratio(reference, window) == pytest.approx(test.statistic / test.df)


def test_the_anderson_darling_ratio_is_its_sum() -> None:
    """nm / (n + m) (F - G)^2 / (H (1 - H)), edge by edge."""
    first, second = np.array([3, 0, 5, 2, 0]), np.array([1, 4, 4, 8, 0])
    n, m, terms = 10, 17, []
    for edge in 1, 2, 3:  # beyond the fourth edge lies nothing
        f, g = first[:edge].sum(), second[:edge].sum()
        h = (f + g) / (n + m)
        terms.append(n * m / (n + m) * (f / n - g / m) ** 2 / (h * (1 - h)))
    assert blocks.anderson_darling_ratio(first, second) == pytest.approx(np.mean(terms))


def test_without_time_nothing_is_scaled() -> None:
    """Blocks of one distribution: p-values of chance, and the Anderson-Darling df of its law.

    The continuous statistic has variance 2 (pi^2 - 9) / 3, so df = 2 / variance = 3.45.
    """
    chance = np.random.default_rng(4)
    counts = chance.multinomial(2_000, np.full(64, 1 / 64), size=300)
    chi, ad = blocks.chi_squared(counts), blocks.anderson_darling(counts)
    assert (chi.df, chi.memory, chi.worth, chi.calibrated) == (63, 0, 300, True)
    assert ad.df == pytest.approx(2 / (2 * (np.pi**2 - 9) / 3), rel=0.05)
    for found in chi, ad:
        assert found.ratios.mean() == pytest.approx(1, abs=0.15)
        assert found.dispersion < 1.15
        seen = found.p_value(found.ratios)
        assert stats.kstest(seen, "uniform").pvalue > 0.001


def test_a_p_value_is_the_tail_of_the_scaled_distribution() -> None:
    """Where no dispersion is found, that of scipy's chi-squared test."""
    counts = days(5, 40)
    found = blocks.chi_squared(counts)
    plain = blocks.TimeCalibration(found.ratios, 0.0, 1.0, 4.0)
    table = np.array([counts.sum(0), days(6, 1, weather=0.2)[0]])
    ratio = blocks.chi_squared_ratio(table[0], table[1])
    truth = stats.chi2_contingency(table, correction=False).pvalue
    assert plain.p_value(ratio) == pytest.approx(truth)
    twice = blocks.TimeCalibration(found.ratios, 0.0, 2.0, 4.0)
    assert twice.p_value(2 * ratio) == pytest.approx(truth)


@pytest.mark.parametrize("statistic", [blocks.chi_squared, blocks.anderson_darling])
@pytest.mark.parametrize(("memory", "number"), [(0.0, 60), (0.4, 60), (0.0, 22)])
def test_a_new_day_with_weather_rarely_alarms(
    statistic: Callable[[Ints], blocks.TimeCalibration], memory: float, number: int
) -> None:
    """60 references, 10 later days each: alarms at 5 % and at 1 %.

    600 days, of which those of one reference hang together: more than 8 % or 3 % would need a
    reference in ten to be wrong by a factor of five. Tests of chance alone alarm on half of them.
    """
    ratio = {
        blocks.chi_squared: blocks.chi_squared_ratio,
        blocks.anderson_darling: blocks.anderson_darling_ratio,
    }[statistic]
    seen, naive = [], []
    for seed in range(60):
        whole = days(seed, 200, weather=0.3, memory=memory)
        reference, later = whole[:number], whole[100:200:10]
        found = statistic(reference)
        seen += [float(found.p_value(ratio(reference.sum(0), day))) for day in later]
        naive += [drift.homogeneity(reference.sum(0), day).p_value for day in later]
    assert np.mean(np.array(naive) < 0.01) > 0.5
    assert np.mean(np.array(seen) < 0.05) < 0.08
    assert np.mean(np.array(seen) < 0.01) < 0.03


def test_a_shift_beyond_the_weather_is_still_seen() -> None:
    """All days tilted by .3 standard deviations; the window by 2 in another direction."""
    reference = days(7, 60, weather=0.3)
    window = np.random.default_rng(8).multinomial(900, [0.3, 0.05, 0.05, 0.3, 0.3])
    found = blocks.chi_squared(reference)
    ratio = blocks.chi_squared_ratio(reference.sum(0), window)
    assert found.p_value(ratio) < 1e-6
    assert found.rank_p_value(ratio) == pytest.approx(1 / (1 + found.worth))


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
def test_memory_is_the_correlation_of_neighbours(memory: float) -> None:
    """That of the series the days were made with, on average over 40 references of 150 days."""
    found = [blocks.chi_squared(days(seed, 150, 0.3, memory)).memory for seed in range(40)]
    assert np.mean(found) == pytest.approx(memory, abs=0.08)


def test_a_drifting_reference_is_not_calibrated() -> None:
    """Each day a little further: sixty days say no more than three."""
    shares = SHARES * np.exp(np.linspace(-1, 1, 60)[:, None] * np.linspace(-1, 1, 5))
    chance = np.random.default_rng(9)
    counts = chance.multinomial(900, shares / shares.sum(1, keepdims=True))
    found = blocks.chi_squared(counts)
    assert found.memory > 0.9
    assert found.worth < 5
    assert not found.calibrated
    assert blocks.chi_squared(chance.permutation(counts)).calibrated


@pytest.mark.parametrize(("number", "enough"), [(0, False), (1, False), (19, False), (20, True)])
def test_twenty_blocks_are_enough(number: int, enough: bool) -> None:
    counts = np.full((number, 5), 20)
    found = blocks.chi_squared(counts)
    assert found.calibrated == enough
    assert found.dispersion == 1
    assert 0 <= found.p_value(3.0) <= 1
    assert 0 < found.rank_p_value(3.0) <= 1


def test_the_quantile_of_few_blocks_is_the_largest() -> None:
    """Of 20 exchangeable blocks the 20th is the rank that a further one exceeds in 1 of 21."""
    found = blocks.chi_squared(days(10, 20, weather=0.5))
    assert found.memory == 0
    truth = found.ratios[-1] * found.df / stats.chi2.ppf(0.95, found.df)
    assert found.dispersion == pytest.approx(truth)


@given(st.integers(0, 1_000), st.integers(2, 40))
def test_the_rank_p_value_is_conformal(seed: int, number: int) -> None:
    """(1 + #{blocks >= ratio}) / (1 + blocks), where blocks have no memory."""
    ratios = np.sort(np.random.default_rng(seed).random(number))
    found = blocks.TimeCalibration(ratios, 0.0, 1.0, 4.0)
    for ratio in (0.0, 0.5, float(ratios[0]), 1.0):
        assert found.rank_p_value(ratio) == pytest.approx(
            (1 + (ratios >= ratio).sum()) / (1 + number)
        )


@given(st.integers(0, 1_000), st.floats(0, 50), st.floats(0, 50))
def test_further_off_is_less_likely(seed: int, one: float, other: float) -> None:
    found = blocks.chi_squared(days(seed, 25, weather=0.3))
    near, far = sorted((one, other))
    assert found.p_value(near) >= found.p_value(far)
    assert found.rank_p_value(near) >= found.rank_p_value(far)


@given(st.integers(0, 1_000))
def test_a_block_like_the_rest_is_no_different(seed: int) -> None:
    """Identity is zero, and doubling every count of the reference changes no share of it."""
    reference = days(seed, 1)[0]
    for ratio in blocks.chi_squared_ratio, blocks.anderson_darling_ratio:
        assert ratio(7 * reference, reference) == pytest.approx(0, abs=1e-12)
        assert ratio(reference, reference[::-1]) == pytest.approx(ratio(reference[::-1], reference))


def test_empty_blocks_are_left_out() -> None:
    counts = days(11, 30, weather=0.3)
    with_gaps = np.insert(counts, [0, 10, 30], 0, axis=0)
    for calibrate in blocks.chi_squared, blocks.anderson_darling:
        assert calibrate(with_gaps).ratios == pytest.approx(calibrate(counts).ratios)
        assert calibrate(with_gaps).dispersion == pytest.approx(calibrate(counts).dispersion)
