"""Quality against scikit-learn, scipy and published numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from monitoring.stats import performance


def scored(n: int = 5_000) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    truth = random.integers(0, 2, n)
    return truth, np.clip(random.normal(0.4 + 0.2 * truth, 0.2), 0.001, 0.999)


def grid(truth: np.ndarray, scores: np.ndarray, bins: int = 1024) -> list[np.ndarray]:
    return [
        np.bincount((scores[truth == label] * bins).astype(int), minlength=bins) for label in (0, 1)
    ]


def test_auc_from_bins_is_scikit_learns() -> None:
    """1,024 bins cost less than .0005."""
    truth, scores = scored()
    found = performance.auc(*grid(truth, scores))
    assert found is not None
    assert found.value == pytest.approx(metrics.roc_auc_score(truth, scores), abs=5e-4)
    assert found.low < found.value < found.high


def test_wilson_is_scipys() -> None:
    """The score interval without continuity correction."""
    for k, n in ((0, 10), (3, 10), (10, 10), (812, 1000)):
        truth = stats.binomtest(k, n).proportion_ci(method="wilson")
        found = performance.wilson(k, n)
        assert found is not None
        assert (found.low, found.high) == pytest.approx((truth.low, truth.high), abs=1e-9)


def test_confusion_metrics_are_scikit_learns() -> None:
    """Precision, recall and F1 of the same decisions."""
    truth, scores = scored()
    said = scores >= 0.5
    table = performance.Confusion(*map(int, metrics.confusion_matrix(truth, said).ravel()))
    for name, found in (
        ("precision_score", performance.precision(table)),
        ("recall_score", performance.recall(table)),
        ("f1_score", performance.f1(table)),
    ):
        assert found is not None
        assert found.value == pytest.approx(getattr(metrics, name)(truth, said))
        assert found.low < found.value < found.high


def test_reliability_finds_what_was_put_in() -> None:
    """Outcomes drawn with the said probability are calibrated; halved ones are off by half."""
    random = np.random.default_rng(0)
    scores = random.uniform(size=200_000)
    good = grid((random.uniform(size=200_000) < scores).astype(int), scores)
    bad = grid((random.uniform(size=200_000) < scores / 2).astype(int), scores)
    assert performance.reliability(*good).error < 0.01
    assert performance.reliability(*bad).error == pytest.approx(0.25, abs=0.01)


def test_nothing_comes_of_nothing() -> None:
    """Without observations there is no estimate, rather than a zero."""
    assert performance.wilson(0, 0) is None
    assert performance.auc(np.zeros(4, np.int64), np.ones(4, np.int64)) is None
    assert performance.precision(performance.Confusion(5, 0, 3, 0)) is None
