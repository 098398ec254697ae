"""models.profile: the reference, against numpy and a closed form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.errors import RepositoryError
from models.manifest import Feature, Manifest, Said
from models.profile import (
    BINS,
    LEVELS,
    TAIL,
    FeatureProfile,
    Profile,
    bin_shares,
    class_counts,
    coarser,
    feature_values,
    level_counts,
    numeric_bins,
    profile_features,
    read_profile,
    score_bins,
    write_profile,
)

VALUES = arrays.arrays(np.float64, st.integers(0, 300), elements=st.floats(width=32))


def test_edges_are_numpys_quantiles() -> None:
    """Of distinct values the inner edges are the quantiles, and the bins are equally full but
    for the outermost thousandths; what lies outside of them is empty."""
    values = np.random.default_rng(1).normal(size=64_000)
    bins = numeric_bins(values)
    grid = [TAIL, *(np.arange(1, BINS) / BINS), 1 - TAIL]
    inner = np.quantile(values, grid, method="inverted_cdf")
    np.testing.assert_array_equal(bins.edges[2:-2], inner)
    assert set(bins.counts[4:-4]) == {1_000}
    assert bins.counts[:4] == bins.counts[:-5:-1] == (0, 0, 64, 936)


def test_what_the_reference_never_had_has_bins_of_its_own() -> None:
    bins = numeric_bins(np.array([1.0, 2.0, 3.0]))
    values = [-np.inf, -1.001, 0.999, 1.0, 3.0, 3.001, 5.001, np.inf]
    index = bins.index(np.array(values))
    assert index.tolist() == [0, 0, 1, 2, 4, 5, 6, 6]


def test_the_ends_are_known() -> None:
    values = np.array([3.0, np.nan, -1.0])
    bins = numeric_bins(values)
    assert (bins.low, bins.high, bins.missing) == (-1.0, 3.0, 1)


@given(VALUES)
@example(np.array([np.inf]))
def test_the_reference_falls_into_its_own_bins(values: np.ndarray) -> None:
    """Counting the reference again gives its counts, infinities and missing ones included."""
    bins = numeric_bins(values)
    again = np.bincount(bins.index(values), minlength=len(bins.counts) + 1)
    assert again.tolist() == [*bins.counts, bins.missing]
    assert list(bins.edges) == sorted(set(bins.edges))


@pytest.mark.parametrize(
    ("values", "counts", "missing"),
    [
        ([], [0], 0),
        ([np.nan], [0], 1),
        ([5, 5, 5], [0, 0, 3, 0, 0], 0),
        ([0, 0, 1], [0, 0, 2, 1, 0, 0], 0),
    ],
)
def test_few_values_have_few_bins(values: list[float], counts: list[int], missing: int) -> None:
    """Nothing, one value, two values: still bins that new values can be counted into."""
    bins = numeric_bins(np.array(values, np.float64))
    assert (list(bins.counts), bins.missing) == (counts, missing)


@pytest.mark.parametrize(("bins", "expected"), [(10, 0.924), (20, 0.960), (50, 0.983)])
def test_psi_of_a_shift_by_one_deviation(bins: int, expected: float) -> None:
    """N(0,1) against N(1,1) is 1 in the limit; half a count in each bin comes that close."""
    random = np.random.default_rng(0)
    reference, window = random.normal([[0.0], [1.0]], size=(2, 200_000))
    edges = np.quantile(reference, np.arange(1, bins) / bins)
    p, q = (
        bin_shares(np.bincount(np.searchsorted(edges, x), minlength=bins))
        for x in (reference, window)
    )
    assert ((p - q) * np.log(p / q)).sum() == pytest.approx(expected, abs=0.02)


@given(st.lists(st.integers(0, 10**9), min_size=1))
def test_shares_are_positive_and_sum_to_one(counts: list[int]) -> None:
    """So that nothing divides by zero, whatever is empty."""
    shares = bin_shares(np.array(counts))
    assert (shares > 0).all()
    assert shares.sum() == pytest.approx(1)


@given(st.lists(st.integers(0, 1_000), min_size=1, max_size=BINS), st.integers(1, BINS))
def test_coarser_groups_are_neighbours(counts: list[int], bins: int) -> None:
    """Groups are numbered from 0 without a gap, in order, and there are at most so many."""
    groups = coarser(np.array(counts), bins)
    assert groups[0] == 0
    assert set(np.diff(groups).tolist()) <= {0, 1}
    assert groups[-1] < bins


def test_coarser_groups_weigh_the_same() -> None:
    """64 equal bins make 8 groups of 8; one heavy bin stays alone."""
    assert np.bincount(coarser(np.full(64, 10), 8)).tolist() == [8] * 8
    assert coarser(np.array([1, 1000, 1, 1]), 2).tolist() == [0, 0, 1, 1]


def test_levels_are_the_most_frequent() -> None:
    """Most frequent first; beyond LEVELS they are `other`; empty and None are missing."""
    rare = [f"r{i:03}" for i in range(LEVELS + 10)]
    values = np.array(["b", "b", "b", "a", "a", "", None, *rare], object)
    levels = level_counts(values)
    assert levels.levels[:3] == ("b", "a", "r000")
    assert levels.counts[:3] == (3, 2, 1)
    assert (len(levels.levels), levels.other, levels.missing) == (LEVELS, 12, 2)
    assert levels.singletons == LEVELS + 10
    index = levels.index(np.array(["a", "new", None, "", "r209"], object))
    assert index.tolist() == [1, LEVELS, LEVELS + 1, LEVELS + 1, LEVELS]
    assert FeatureProfile("f", categorical=levels).counts.sum() == len(values) - 2


def test_no_levels_count_nothing() -> None:
    """An empty column has a profile too."""
    levels = level_counts(np.array([], object))
    assert (levels.levels, levels.missing) == ((), 0)
    assert levels.index(np.array([], object)).tolist() == []


@pytest.mark.parametrize(
    ("feature", "rows", "values"),
    [
        (Feature("f", "numeric", "x", 1), 2, [1.0, 3.0]),
        (Feature("f", "numeric", "x", 2), 2, None),
        (Feature("f", "numeric", "z"), 2, None),
        (Feature("f", "numeric", "x"), 3, None),
        (Feature("f", "categorical", "c"), 2, ["a", "b"]),
    ],
)
def test_a_feature_is_a_column_of_an_input(
    feature: Feature, rows: int, values: list[object] | None
) -> None:
    """None where that input, that column or that many rows were not recorded."""
    inputs = {"x": np.arange(4, dtype=np.float32).reshape(2, 2), "c": np.array(["a", "b"], object)}
    found = feature_values(feature, inputs, rows)
    assert (None if found is None else found.tolist()) == values


def test_reference_data_without_a_feature_is_refused() -> None:
    """A manifest that reads a column which is not there is found out at push."""
    manifest = Manifest("m", 1, "", features=(Feature("late", "numeric", "x", 9),))
    with pytest.raises(RepositoryError, match="feature 'late' reads column 9"):
        profile_features(manifest, {"x": np.zeros((2, 2), np.float32)}, 2)


def test_classes_are_counted_and_unknown_ones_come_last() -> None:
    said = Said(np.array([0.0, 0.49, 1.0]), np.array([0, -1, 1], np.int32))
    assert class_counts(said, 2) == (1, 1, 1)


def test_scores_have_bins_at_quantiles_and_of_equal_width() -> None:
    """Where scores were rare in the reference there are bins, too."""
    scores = np.random.default_rng(1).beta(1, 20, 10_000)
    bins = score_bins(scores)
    assert bins.edges[-2] == bins.high == scores.max()
    widths = np.diff(bins.edges[2:-1])
    assert widths.max() <= (scores.max() - scores.min()) / 32 * 1.001
    assert max(bins.counts) <= 10_000 / 32 * 1.01


def test_a_profile_survives_its_file(tmp_path: Path) -> None:
    """What is written is read; what is no profile names the file."""
    values = np.random.default_rng(1).normal(size=100)
    features = (FeatureProfile("a", numeric=numeric_bins(values)),)
    profile = Profile(
        100,
        features,
        score=FeatureProfile("score", numeric=numeric_bins(values)),
        classes=(1, 2, 0),
    )
    write_profile(tmp_path / "profile.json", profile)
    assert read_profile(tmp_path / "profile.json") == profile
    (tmp_path / "profile.json").write_text('{"rows": "many"}')
    with pytest.raises(RepositoryError, match=r"profile\.json.*rows"):
        read_profile(tmp_path / "profile.json")


def test_a_profile_of_nothing_survives_its_file(tmp_path: Path) -> None:
    """JSON knows no NaN; a feature that was always missing must still be readable."""
    profile = Profile(2, (FeatureProfile("a", numeric=numeric_bins(np.full(2, np.nan))),))
    write_profile(tmp_path / "profile.json", profile)
    assert read_profile(tmp_path / "profile.json").features[0].counts.tolist() == [0]
