"""How good were the predictions whose truth is known? Each estimate comes with an interval."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

Counts = npt.NDArray[np.int64]


class Estimate(NamedTuple):
    """A value and its 95 % interval, from `n` observations."""

    value: float
    low: float
    high: float
    n: int


def wilson(successes: int, n: int, confidence: float = 0.95) -> Estimate | None:
    """A share and Wilson's score interval (Wilson 1927); None without observations."""
    if n == 0:
        return None
    z = float(special.ndtri(0.5 + confidence / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else float(centre - half)
    high = 1.0 if successes == n else float(centre + half)
    return Estimate(share, low, high, n)


def auc(negatives: Counts, positives: Counts, confidence: float = 0.95) -> Estimate | None:
    """Area under the ROC curve of binned scores, ties counted half; Hanley & McNeil (1982).

    `negatives` and `positives` are counts in the same rising score bins. None without both.
    """
    n, m = int(negatives.sum()), int(positives.sum())
    if n == 0 or m == 0:
        return None
    below = np.cumsum(negatives) - negatives
    value = float(np.sum(positives * (below + negatives / 2)) / (n * m))
    q1, q2 = value / (2 - value), 2 * value * value / (1 + value)
    variance = (
        value * (1 - value) + (m - 1) * (q1 - value * value) + (n - 1) * (q2 - value * value)
    ) / (n * m)
    half = float(special.ndtri(0.5 + confidence / 2)) * float(np.sqrt(max(variance, 0.0)))
    return Estimate(value, max(value - half, 0.0), min(value + half, 1.0), n + m)


class Confusion(NamedTuple):
    """A binary confusion table."""

    true_negative: int
    false_positive: int
    false_negative: int
    true_positive: int

    @property
    def total(self) -> int:
        return sum(self)


def precision(table: Confusion) -> Estimate | None:
    return wilson(table.true_positive, table.true_positive + table.false_positive)


def recall(table: Confusion) -> Estimate | None:
    return wilson(table.true_positive, table.true_positive + table.false_negative)


def f1(table: Confusion, confidence: float = 0.95) -> Estimate | None:
    """F1 with the interval of its share TP / (TP + (FP + FN) / 2), by the delta method."""
    hits, misses = table.true_positive, table.false_positive + table.false_negative
    if hits + misses == 0:
        return None
    value = 2 * hits / (2 * hits + misses)
    share = hits / (hits + misses)  # F1 = 2 s / (1 + s), s binomial given hits + misses
    spread = np.sqrt(share * (1 - share) / (hits + misses)) * 2 / (1 + share) ** 2
    half = float(special.ndtri(0.5 + confidence / 2) * spread)
    return Estimate(value, max(value - half, 0.0), min(value + half, 1.0), table.total)


class Reliability(NamedTuple):
    """What was said against what was seen, in bins of the score."""

    said: npt.NDArray[np.float64]
    seen: npt.NDArray[np.float64]
    counts: Counts
    error: float


def reliability(negatives: Counts, positives: Counts, bins: int = 10) -> Reliability:
    """Calibration from fine uniform score bins on [0, 1].

    `error` is the expected calibration error: sum n_b / n |said_b - seen_b| over `bins` equal
    bins (Naeini et al. 2015); NaN without rows.
    """
    fine = len(negatives)
    centres = (np.arange(fine) + 0.5) / fine
    group = np.arange(fine) * bins // fine
    both = negatives + positives
    counts = np.bincount(group, both, bins).astype(np.int64)
    with np.errstate(invalid="ignore", divide="ignore"):
        said = np.bincount(group, both * centres, bins) / counts
        seen = np.bincount(group, positives, bins) / counts
    there = counts > 0
    total = counts.sum()
    error = (
        float(np.sum(counts[there] / total * np.abs(said - seen)[there])) if total else float("nan")
    )
    return Reliability(said, seen, counts, error)
