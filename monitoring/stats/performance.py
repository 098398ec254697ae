"""How good were the predictions whose truth is known? Each estimate comes with an interval.

All of it from counts and sums, so windows add up. Intervals are for one look at a window whose
rows are independent, and for labels that are a random sample of it: `selection` tests the latter,
`post_stratified` makes up for it where the score explains which labels arrive.
"""

from __future__ import annotations

from math import ceil, inf, sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from monitoring.stats.drift import Homogeneity, homogeneity

Counts = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

#: Draws of a confusion table from which an interval is read: its ends are then off by about 3 %
#: of its width.
DRAWS = 2_000
#: Most random numbers drawn for one table, but a tenth of the draws are always made: more than
#: 15 classes get fewer draws.
MOST_DRAWN = 500_000
#: Rows that the prior of a confusion table weighs, however many classes it has.
PRIOR_ROWS = 2.0
#: Labels that a stratum must have; neighbours are pooled until it has.
STRATUM_LABELS = 10
#: Labels expected in a bin of the test for selection.
EXPECTED_LABELS = 8


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
    low, high = _score_interval(successes / n, n, confidence)
    return Estimate(successes / n, low, high, n)


def _score_interval(share: float, n: float, confidence: float) -> tuple[float, float]:
    """Wilson's interval; `n` may be the number of rows that a weighted estimate is worth."""
    z = _normal(confidence)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return 0.0 if share == 0 else centre - half, 1.0 if share == 1 else centre + half


def _normal(confidence: float) -> float:
    return float(special.ndtri(0.5 + confidence / 2))


def required_labels(half_width: float, share: float, confidence: float = 0.95) -> int:
    """Fewest labels with which Wilson's interval of `share` is at most +-`half_width` wide.

    0 < half_width < 1/2. z^2 (p (1 - p) n + z^2 / 4) <= h^2 (n + z^2)^2, solved for n. A few more
    than z^2 p (1 - p) / h^2, the textbook's number, which is 0 for a share of 0 or 1.
    """
    z2, h2 = _normal(confidence) ** 2, half_width**2
    b = z2 * (share * (1 - share) - 2 * h2)
    c = z2 * z2 * (0.25 - h2)
    return ceil((b + sqrt(b * b + 4 * h2 * c)) / (2 * h2))


def mean(
    n: int, total: float, squares: float, confidence: float = 0.95, least: float = -inf
) -> Estimate | None:
    """Mean of `n` values with Student's t interval, from their sum and the sum of their squares.

    For log loss, Brier score and whatever else is an average over rows; in the values' unit. No
    bound is below `least`. None below two values: one alone says nothing about the spread.
    """
    if n < 2:
        return None
    value = total / n
    variance = max(squares - total * value, 0.0) / (n - 1)
    half = float(special.stdtrit(n - 1, 0.5 + confidence / 2)) * sqrt(variance / n)
    return Estimate(value, max(value - half, least), value + half, n)


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
    """F1 = 2 s / (1 + s), where s = TP / (TP + FP + FN) is a share.

    Under the Dirichlet(1/2) prior of the table s is Beta(TP + 1/2, FP + FN + 1), so no draws are
    needed, and unlike the delta method's the interval has a width where F1 is 0 or 1.
    """
    hits, misses = table.true_positive, table.false_positive + table.false_negative
    if hits + misses == 0:
        return None
    tail = (1 - confidence) / 2
    low, high = special.betaincinv(hits + 0.5, misses + 1.0, [tail, 1 - tail])
    low, high = 0.0 if hits == 0 else float(low), 1.0 if misses == 0 else float(high)
    value = hits / (hits + misses)
    return Estimate(
        2 * value / (1 + value),
        2 * min(low, value) / (1 + min(low, value)),
        2 * max(high, value) / (1 + max(high, value)),
        table.total,
    )


class OfClass(NamedTuple):
    """One class against all others. `labels` are rows that truly are of it."""

    labels: int
    precision: Estimate | None
    recall: Estimate | None
    f1: Estimate | None


def per_class(table: Counts) -> tuple[OfClass, ...]:
    """Precision, recall and F1 of each class of a confusion table [classes, said].

    Row: truth; column: what was said. Columns after the classes' own are unknown answers.
    """
    total, said, labels = int(table.sum()), table.sum(axis=0), table.sum(axis=1)
    found = []
    for k in range(len(table)):
        hits, wrong, missed = int(table[k, k]), int(said[k]), int(labels[k])
        wrong, missed = wrong - hits, missed - hits
        one = Confusion(total - hits - wrong - missed, wrong, missed, hits)
        found.append(OfClass(int(labels[k]), precision(one), recall(one), f1(one)))
    return tuple(found)


class Macro(NamedTuple):
    """Averages over the classes that have labels; `recall` is the balanced accuracy.

    A class that was never said has precision 0. `mcc` is Matthews' correlation coefficient,
    Gorodkin's (2004) with more than two classes; None where the truth is always the same class.
    """

    precision: Estimate
    recall: Estimate
    f1: Estimate
    mcc: Estimate | None


def macro(
    table: Counts, confidence: float = 0.95, chance: np.random.Generator | None = None
) -> Macro | None:
    """Macro averages of a confusion table [classes, said], as for `per_class`. None without labels.

    Intervals are quantiles of draws from the Dirichlet posterior of the table, with `chance`, or
    the same random numbers each time. The prior weighs two rows, half of them right: 1/2 a cell
    with two classes (Jeffreys). A fixed 1/2 a cell would be 5,000 rows of noise with a hundred.
    With many classes of few labels the draws lie to one side of the estimate, which is itself as
    far to that side of the truth; the interval then also spans the draws moved back onto it.
    """
    total = int(table.sum())
    if total == 0:
        return None
    there = table.sum(axis=1) > 0
    values = _averages(table[None].astype(np.float64), there)[:, 0]
    draws = _averages(_posterior(table, chance or np.random.default_rng(0)), there)
    tail = (1 - confidence) / 2
    ends = np.quantile(draws, [tail, 1 - tail], axis=1)
    aside = values - draws.mean(axis=1) if len(table) > 2 else np.zeros(4)
    lows = np.maximum(ends[0] + np.minimum(aside, 0), [0, 0, 0, -1])
    highs = np.minimum(ends[1] + np.maximum(aside, 0), 1)
    precision_, recall_, f1_, mcc = (
        Estimate(value, min(low, value), max(high, value), total)
        for value, low, high in zip(values.tolist(), lows.tolist(), highs.tolist(), strict=True)
    )
    return Macro(precision_, recall_, f1_, mcc if int(there.sum()) > 1 else None)


def _posterior(table: Counts, chance: np.random.Generator) -> FloatArray:
    """Tables [draws, classes, said] from the posterior, up to a factor that no average sees."""
    classes, said = table.shape
    prior = np.full(table.shape, PRIOR_ROWS / (2 * classes * max(said - 1, 1)))
    prior[np.arange(classes), np.arange(classes)] = PRIOR_ROWS / (2 * classes)
    draws = int(np.clip(MOST_DRAWN // table.size, DRAWS // 10, DRAWS))
    return np.asarray(chance.standard_gamma(table + prior, (draws, *table.shape)))


def _averages(tables: FloatArray, there: npt.NDArray[np.bool_]) -> FloatArray:
    """Precision, recall, F1 and Matthews' coefficient of tables [n, classes, said]: [4, n]."""
    classes = tables.shape[1]
    hits = np.diagonal(tables, axis1=1, axis2=2)
    truly, said = tables.sum(axis=2), tables.sum(axis=1)
    own, total = said[:, :classes], truly.sum(axis=1)
    chance = np.sum(truly * own, axis=1)
    spread = (total**2 - np.sum(said**2, axis=1)) * (total**2 - np.sum(truly**2, axis=1))
    return np.array(
        [
            np.mean(_ratio(hits, own)[:, there], axis=1),
            np.mean(_ratio(hits, truly)[:, there], axis=1),
            np.mean(_ratio(2 * hits, truly + own)[:, there], axis=1),
            _ratio(hits.sum(axis=1) * total - chance, np.sqrt(np.maximum(spread, 0.0))),
        ]
    )


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    """0 where there is nothing to divide by."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


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


class Bias(NamedTuple):
    """Calibration in the large: share that came true minus mean score, with its interval.

    `z` and `p_value` (two-sided) test that every score is the probability of its outcome.
    """

    value: float
    low: float
    high: float
    z: float
    p_value: float
    n: int


def in_the_large(
    negatives: Counts, positives: Counts, score_sum: float | None = None, confidence: float = 0.95
) -> Bias | None:
    """Do the outcomes add up to the scores? From fine uniform score bins on [0, 1].

    z = (sum y - sum p) / sqrt(sum p (1 - p)) (Cox 1958); the interval is Student's, of the mean of
    y - p. `score_sum` is the exact sum of the scores where it was kept; the bins' middles give it
    else. None below two labels.
    """
    middles = (np.arange(len(negatives)) + 0.5) / len(negatives)
    both, n = negatives + positives, int(negatives.sum() + positives.sum())
    if n < 2:
        return None
    said = float(both @ middles)
    shift = 0.0 if score_sum is None else said - score_sum
    came = int(positives.sum())
    squares = float(negatives @ middles**2 + positives @ (1 - middles) ** 2)
    gap = mean(n, came - said, squares, confidence)
    assert gap is not None
    z = (came - said + shift) / sqrt(float(both @ (middles * (1 - middles))))
    return Bias(
        gap.value + shift / n,
        gap.low + shift / n,
        gap.high + shift / n,
        z,
        float(2 * special.ndtr(-abs(z))),
        n,
    )


class CalibrationError(NamedTuple):
    """The expected calibration error, plain and rid of its bias.

    `noise` is what the plain one would be on as many labels if the scores were right. `p_value`
    is of Hosmer & Lemeshow's test that they are, with one degree of freedom a bin.
    """

    plain: float
    corrected: float
    noise: float
    p_value: float
    n: int


def calibration_error(
    negatives: Counts, positives: Counts, bins: int = 10
) -> CalibrationError | None:
    """Of fine uniform score bins on [0, 1], in `bins` groups. None without labels.

    In each bin the mean of |seen - said| is that of a folded normal. Its excess over the true
    distance is subtracted, at the distance that (seen - said)^2 less its variance suggests; the
    sum is 0 at least. Of five corrections tried this had the least error, save where every bin is
    off by about its noise: 8 points everywhere, on 500 labels, are found as 6.
    """
    found = reliability(negatives, positives, bins)
    there = found.counts > 0
    if not there.any():
        return None
    counts, said, seen = found.counts[there], found.said[there], found.seen[there]
    weights = counts / counts.sum()
    distance, noise = np.abs(seen - said), np.sqrt(said * (1 - said) / counts)
    true = np.sqrt(np.maximum(distance**2 - noise**2, 0.0))
    corrected = float(np.sum(weights * (distance - _folded_mean(true, noise) + true)))
    statistic = float(np.sum((distance / noise) ** 2))
    return CalibrationError(
        plain=found.error,
        corrected=max(corrected, 0.0),
        noise=float(np.sum(weights * _folded_mean(np.zeros_like(noise), noise))),
        p_value=float(special.chdtrc(len(counts), statistic)),
        n=int(counts.sum()),
    )


def _folded_mean(centre: FloatArray, spread: FloatArray) -> FloatArray:
    """Mean of |x| for x normal (Leone et al. 1961)."""
    ratio = centre / spread
    return np.asarray(
        spread * sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2)
        + centre * (special.ndtr(ratio) - special.ndtr(-ratio))
    )


def selection(every: Counts, labelled: Counts) -> Homogeneity:
    """Are labelled predictions like the others? Chi-squared over rising score bins.

    `every` counts all predictions, `labelled` those of them whose label has come. The labelled
    are held against the rest, since the two are independent and part and whole are not. Bins are
    pooled to equal shares of all predictions, about EXPECTED_LABELS labels in each.
    """
    total, labels = int(every.sum()), int(labelled.sum())
    fewer = min(labels, total - labels)
    wanted = min(max(fewer // EXPECTED_LABELS, 2), 32)
    middle = (np.cumsum(every) - every / 2) / max(total, 1)
    groups = np.minimum((middle * wanted).astype(np.int64), wanted - 1)
    rest = np.bincount(groups, every - labelled, wanted)
    return homogeneity(rest, np.bincount(groups, labelled, wanted))


def post_stratified(
    every: Counts, labelled: Counts, right: Counts, confidence: float = 0.95
) -> Estimate | None:
    """Accuracy of all predictions from the labelled ones, weighted by cells of score and class.

    Cells are in an order in which neighbours are alike; `right` counts correct ones among the
    labelled. sum W_b acc_b with variance sum W_b^2 p_b (1 - p_b) / n_b (Cochran 1977, 5A.9), where
    p_b has half a count added; cells are pooled until each has STRATUM_LABELS labels. Unbiased
    where labels are missing at random within a cell. None without labels.
    """
    labels = int(labelled.sum())
    if labels == 0:
        return None
    strata = _strata(labelled)
    every, n, hits = (np.bincount(strata, counts) for counts in (every, labelled, right))
    weights = every / every.sum()
    value = float(np.clip(weights @ (hits / n), 0.0, 1.0))
    smooth = (hits + 0.5) / (n + 1)
    variance = float(np.sum(weights**2 * smooth * (1 - smooth) / n))
    shrunk = float(weights @ smooth)
    worth = shrunk * (1 - shrunk) / variance
    low, high = _score_interval(value, worth, confidence)
    return Estimate(value, low, high, labels)


def _strata(labelled: Counts) -> Counts:
    """Which stratum each cell belongs to: neighbours, until there are enough labels."""
    strata, current, labels = np.zeros(len(labelled), np.int64), 0, 0
    left = int(labelled.sum())
    for cell, count in enumerate(labelled.tolist()):
        strata[cell] = current
        labels, left = labels + count, left - count
        if labels >= STRATUM_LABELS <= left:
            current, labels = current + 1, 0
    return strata
