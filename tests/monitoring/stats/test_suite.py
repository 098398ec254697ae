"""All tests of a feature together: what fires on what, and how often without cause."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from models.profile import NumericBins, level_counts, numeric_bins
from monitoring.stats import drift, suite
from monitoring.stats.suite import Checks, Reference

Floats = npt.NDArray[np.float64]
RANDOM = np.random.default_rng(0)
VALUES = RANDOM.normal(size=20_000)
BINS = numeric_bins(VALUES)
REFERENCE = suite.numeric(np.array(BINS.counts), BINS.missing)


def counted(values: Floats, bins: NumericBins = BINS) -> tuple[npt.NDArray[np.int64], int]:
    counts = np.bincount(bins.index(values), minlength=len(bins.counts) + 1)
    return counts[:-1], int(counts[-1])


def checked(values: Floats, dispersion: float = 1.0) -> Checks:
    found = suite.check(REFERENCE, *counted(values), dispersion)
    assert found is not None
    return found


def smallest(found: Checks) -> str:
    return min(found.p_values, key=lambda name: found.p_values[name])


def test_below_thirty_rows_nothing_is_said() -> None:
    assert suite.check(REFERENCE, *counted(np.full(29, 50.0))) is None
    assert suite.check(REFERENCE, *counted(np.full(30, 50.0))) is not None


def test_each_fault_is_found_by_its_test() -> None:
    """Missing, sentinel, outlier, shift and a hole in the middle, in windows of 1,000."""
    values = np.random.default_rng(1).normal(size=1_000)
    assert checked(values).p_value > 0.01
    for expected, changed in (
        ("missing", np.where(np.arange(1_000) < 50, np.nan, values)),
        ("spike", np.where(np.arange(1_000) < 50, 0.0, values)),
        ("outside", np.where(np.arange(1_000) < 20, 9.0, values)),
        ("shift", values + 0.25),
        ("shape", values + 0.3 * np.sin(12 * values)),
    ):
        found = checked(changed)
        assert (smallest(found), found.p_value < 1e-4) == (expected, True)


def test_effects_say_how_much() -> None:
    """Rates now and before, the spike's bin, and a PSI whose bound is below the truth."""
    values = np.random.default_rng(2).normal(size=4_000)
    found = checked(np.where(np.arange(4_000) < 400, np.nan, values + 1))
    assert (found.missing.now, found.missing.rows, found.missing.before) == (400, 4_000, 0)
    assert found.outside.now > 0
    assert found.outside.rows == 3_600
    assert 0 < found.psi_low < found.psi < 1.4
    steady = checked(values)
    assert (steady.psi < 0.05, steady.psi_low) == (True, 0.0)
    spiked = checked(np.where(np.arange(4_000) < 400, 0.123, values))
    assert spiked.spike.at == int(BINS.index(np.array([0.123]))[0])


def test_levels_and_unseen_ones() -> None:
    """A new level, a level that takes over, and missing texts."""
    random = np.random.default_rng(0)
    levels = level_counts(random.choice(list("abcd"), 20_000, p=(0.5, 0.3, 0.15, 0.05)))
    reference = suite.categorical(
        np.array((*levels.counts, levels.other)), levels.missing, levels.singletons
    )

    def found(values: npt.NDArray[np.str_]) -> Checks:
        counts = np.bincount(levels.index(values.astype(object)), minlength=6)
        checks = suite.check(reference, counts[:-1], int(counts[-1]))
        assert checks is not None
        return checks

    steady = random.choice(list("abcd"), 500, p=(0.5, 0.3, 0.15, 0.05))
    assert set(found(steady).p_values) == {"spike", "shape"}
    assert found(steady).p_value > 0.01
    first = np.arange(500) < 15
    for name, changed in (
        ("unseen", np.where(first, "e", steady)),
        ("missing", np.where(first, "", steady)),
    ):
        assert (smallest(found(changed)), found(changed).p_value < 1e-6) == (name, True)
    assert found(np.where(np.arange(500) < 60, "d", steady)).spike.at == 3


def draws_of(family: str, random: np.random.Generator, rows: int) -> Floats:
    match family:
        case "zero-inflated":
            return np.where(random.random(rows) < 0.7, 0.0, random.exponential(size=rows))
        case "few values":
            return random.choice(5, rows, p=(0.5, 0.25, 0.15, 0.07, 0.03)).astype(float)
        case _:
            return random.lognormal(size=rows)


@pytest.mark.parametrize("family", ["lognormal", "zero-inflated", "few values"])
@pytest.mark.parametrize(("rows", "reference_rows"), [(30, 200), (300, 3_000)])
def test_false_alarms_keep_below_their_nominal_rate(
    family: str, rows: int, reference_rows: int
) -> None:
    """400 windows at 5 %, a reference of its own for every four: at most 20, by chance 35."""
    random = np.random.default_rng(len(family) + rows)
    alarms = 0
    for _ in range(100):
        bins = numeric_bins(draws_of(family, random, reference_rows))
        reference = suite.numeric(np.array(bins.counts), bins.missing)
        for _ in range(4):
            found = suite.check(reference, *counted(draws_of(family, random, rows), bins))
            assert found is not None
            alarms += found.p_value < 0.05
    assert alarms <= stats.binom.isf(1e-3, 400, 0.05)


@pytest.mark.parametrize("empty", [1, 2])
def test_what_lies_beyond_fires_at_its_nominal_rate(empty: int) -> None:
    """Both ends of a reference of only 4 windows, with one or two empty bins there.

    40 of 4,000 at 1 %, by chance at most 61.
    """
    random = np.random.default_rng(0)
    none = [0] * empty
    reference = suite.numeric(np.array([*none, 120, *none]), 0)
    alarms = 0
    for _ in range(4_000):
        seen, window = np.sort(random.random(120)), random.random(30)
        low, high = int(np.sum(window < seen[0])), int(np.sum(window > seen[-1]))
        far = [0] * (empty - 1)
        found = suite.check(reference, np.array([*far, low, 30 - low - high, high, *far]), 0)
        assert found is not None
        alarms += found.p_values.get("outside", 1.0) < 0.01
    assert alarms <= stats.binom.isf(1e-3, 4_000, 0.01)


def test_clumps_are_no_drift() -> None:
    """Every value 20 times: rows taken one by one have drifted, clumps have not."""
    values = np.repeat(np.random.default_rng(3).normal(size=100), 20)
    one_by_one, clumped = checked(values), checked(values, dispersion=20.0)
    for test in ("shape", "shift", "spike"):
        assert one_by_one.p_values[test] < 1e-4
        assert clumped.p_values[test] > 0.01
    for test in ("missing", "outside"):  # a fault in clumps is a fault
        assert one_by_one.p_values.get(test) == clumped.p_values.get(test)
    assert clumped.psi == one_by_one.psi
    assert clumped.psi_low < one_by_one.psi_low


shifts = st.integers(0, 10_000)


@given(st.integers(1, 5), shifts)
def test_windows_add_up(parts: int, seed: int) -> None:
    """Checking the sum of the parts' counts is checking the whole, in any order of rows."""
    values = np.random.default_rng(seed).normal(size=200)
    pieces = [counted(piece) for piece in np.array_split(values, parts)]
    counts = np.sum([piece[0] for piece in pieces], axis=0)
    assert suite.check(REFERENCE, counts, 0) == checked(values[::-1])


def test_the_reference_itself_is_no_drift() -> None:
    """Both ways that nothing is unusual: two-sided 1, one-sided a half."""
    found = checked(VALUES)
    assert found.p_values["shape"] == found.p_values["shift"] == 1.0
    assert min(found.p_values.values()) > 0.5
    assert found.psi == found.psi_low == 0.0


def test_a_larger_shift_is_never_less_surprising() -> None:
    values = np.random.default_rng(4).normal(size=1_000)
    found = [checked(values + shift) for shift in (0.2, 0.4, 0.8, 1.6)]
    for smaller, larger in pairwise(found):
        assert larger.p_values["shift"] <= smaller.p_values["shift"]
        assert larger.psi_low > smaller.psi_low


@given(st.lists(st.integers(0, 1_000), min_size=3, max_size=70), st.integers(30, 10_000))
def test_groups_are_large_enough_and_in_order(counts: list[int], rows: int) -> None:
    """Neighbours only; every group but a lone one holds the rows that the approximation needs."""
    reference = suite.numeric(np.array([0, *counts, 0]), 0)
    groups = reference.groups(rows)
    assert set(np.diff(groups)) <= {0, 1}
    if (total := sum(counts)) and groups.max() > 0:
        expected = np.bincount(groups, reference.counts) * rows / total
        bins = next((b for b in suite.GROUPS if rows >= 8 * b), 4)
        assert expected.min() >= 5 * min(rows / (8 * bins), 1) - 1e-9


@given(st.lists(st.integers(0, 5_000), min_size=1, max_size=50), st.integers(30, 2_000))
def test_levels_are_pooled_until_enough_rows_are_expected(counts: list[int], rows: int) -> None:
    reference = suite.categorical(np.array(counts), 0, 0)
    groups = reference.groups(rows)
    if groups.max() > 0:
        expected = np.bincount(groups, reference.counts) * rows / sum(counts)
        assert expected.min() >= 5 - 1e-9


def test_ids_that_are_always_new_are_no_alarm() -> None:
    """20,000 customers, drawn anew: most of a window has never been seen."""
    random = np.random.default_rng(0)
    levels = level_counts(random.integers(0, 20_000, 5_000).astype(str).astype(object))
    reference = suite.categorical(
        np.array((*levels.counts, levels.other)), levels.missing, levels.singletons
    )
    window = random.integers(0, 20_000, 500).astype(str).astype(object)
    counts = np.bincount(levels.index(window), minlength=len(levels.counts) + 2)
    found = suite.check(reference, counts[:-1], 0)
    assert found is not None
    assert found.p_value > 0.05


def test_extremes_are_answered() -> None:
    """All missing, an empty reference, one bin, one level."""
    nothing = np.zeros(len(BINS.counts), np.int64)
    found = suite.check(REFERENCE, nothing, 100)
    assert found is not None
    assert set(found.p_values) == {"missing"}
    assert found.p_value < 1e-100
    empty: Reference = suite.numeric(np.zeros(1, np.int64), 50)
    assert suite.check(empty, np.array([40]), 0) is not None
    for reference in (suite.numeric(np.array([40]), 0), suite.categorical(np.array([40, 0]), 0, 0)):
        found = suite.check(reference, reference.counts, 0)
        assert found is not None
        assert found.p_value == 1.0


def test_adjusted_is_holm_over_everything() -> None:
    values = np.random.default_rng(5).normal(size=500)
    found = [checked(values), checked(values + 0.3), checked(values * 1.1)]
    flat = [p for checks in found for p in checks.p_values.values()]
    adjusted = suite.adjusted(found)
    assert [p for tests in adjusted for p in tests.values()] == drift.holm(flat)
    assert [set(tests) for tests in adjusted] == [set(checks.p_values) for checks in found]
