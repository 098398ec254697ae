"""How good is the model while few or no labels are known?

Without labels: the reference's hold-out says how often a prediction with such a score was right,
the window says how many such scores there were, and the estimate is their product (confidence-
based performance estimation). It holds while a score still means what it meant: when inputs
shift, but not when the concept does. So two more things are here. Once some labels are known,
`prediction_powered` corrects the estimate by what it got wrong on them, and stays right however
wrong the estimate is. And `ConceptDetector` gathers evidence that it is wrong: the concept has
drifted.

Everything is a function of counts in cells (predicted class, score bin) and of sums over labelled
rows, so windows add up and an estimate can be made anew when its table is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from monitoring.stats.detector import alarms, pooled
from monitoring.stats.performance import Counts, Estimate

Floats = npt.NDArray[np.float64]
Numbers = Counts | Floats
Side = Literal["too high", "too low"]

#: Bins of a score, half of them at the reference's quantiles and half of equal width. Quantiles
#: alone lump together the scores that were rare in the reference, which are those that a shift
#: brings (car loan, windows of 5,000: error .0038 with 64 quantiles, .0031 with these); equal
#: widths alone waste bins where all scores are small.
BINS = 64
#: Rows of a predicted class below which the table of all classes stands in for its own.
LEAST_ROWS = 200
#: Strata of a regression model's errors, and the fewest reference rows in one.
STRATA, LEAST_STRATUM = 64, 50
#: Bets of the concept-drift test. With a tenth of the labels turned round, a largest bet of .9
#: instead of .6 needs 12 % fewer labels on car loan and 2 % more on census (60 runs).
BETS = np.geomspace(0.02, 0.9, 8)
#: Of d where the estimate is too high, too low.
SIGNS = np.array([1.0, -1.0])
#: Difference of estimate and labels that is not yet a drift, as a share.
TOLERANCE = 0.01
#: Labels until the concept-drift test is wrong once, on average or later: ninety days of 10,000.
RUN_LENGTH = 1_000_000


def score_edges(scores: Floats, bins: int = BINS) -> Floats:
    """Rising edges of at most `bins` bins: bin i holds edges[i-1] < score <= edges[i].

    `scores` are the reference's: of the positive class, of the class that was said, or predicted
    values, finite. Half of the edges are their quantiles, half cut their range into equal parts.
    """
    half = bins // 2
    parts = np.arange(1, half) / half
    low, high = float(scores.min()), float(scores.max())
    # Scores come rounded (0.29), and an edge a digit off would put half of a value aside.
    even = np.round(low + (high - low) * parts, 12)
    return np.unique([*np.quantile(scores, parts, method="inverted_cdf"), *even])


# --- the table of the reference -------------------------------------------------------------------


class Table(NamedTuple):
    """The chance of a hit in each bin, rising with the bin, and how well it is known: (..., bins).

    Bins of one `block` share one chance p, and `error` is its standard error; `spread` is
    p (1 - p). `seen` is false where the hold-out had no row, so that the neighbours' chance is
    used.
    """

    chance: Floats
    spread: Floats
    error: Floats
    block: Counts
    seen: npt.NDArray[np.bool_]


def calibrate(rows: Numbers, hits: Numbers) -> Table:
    """Isotonic regression of hits on the score bin (Zadrozny & Elkan 2002).

    `rows` and `hits` are counts of the hold-out, shape (bins,) or (classes, bins). A hit is what
    is to be estimated: the positive label of a binary task, being right of any other. Each class
    has a table of its own; one of fewer than LEAST_ROWS rows takes that of all. Raises ValueError
    without a row.
    """
    rows, hits = np.asarray(rows, np.float64), np.asarray(hits, np.float64)
    if rows.sum() == 0:
        raise ValueError("the hold-out has no rows to calibrate with")
    if rows.ndim == 1:
        return _isotonic(rows, hits)
    everyone = _isotonic(rows.sum(axis=0), hits.sum(axis=0))
    tables, blocks = [], int(everyone.block[-1]) + 1
    for own_rows, own_hits in zip(rows, hits, strict=True):
        if own_rows.sum() < LEAST_ROWS:
            tables.append(everyone)
            continue
        own = _isotonic(own_rows, own_hits)
        tables.append(own._replace(block=own.block + blocks))
        blocks += int(own.block[-1]) + 1
    return Table(*(np.stack(part) for part in zip(*tables, strict=True)))


def _isotonic(rows: Floats, hits: Floats) -> Table:
    seen = np.flatnonzero(rows)
    found = optimize.isotonic_regression(hits[seen] / rows[seen], weights=rows[seen])
    # A bin without a row lies between its neighbours; beyond the last ones it is like them.
    bins = np.arange(len(rows))
    chance = np.interp(bins, seen, found.x)
    nearest = np.searchsorted(seen, bins).clip(max=len(seen) - 1)
    block = np.repeat(np.arange(len(found.weights)), np.diff(found.blocks))[nearest]
    held = np.asarray(found.weights, np.float64)[block]
    careful = (chance * held + 0.5) / (held + 1)  # a chance of 0 found in few rows is not certain
    spread = careful * (1 - careful)
    return Table(chance, spread, np.sqrt(spread / held), block, rows > 0)


def chance_right(table: Table) -> Floats:
    """Per cell (2, bins) the chance that class 0, class 1 is right: `table` is of the positives."""
    return np.stack([1 - table.chance, table.chance])


# --- classes without labels -----------------------------------------------------------------------


class BinaryEstimate(NamedTuple):
    """What the labels of a window would say; each with a 95 % interval. None: nothing to divide.

    `unseen` is the share of rows with scores that the hold-out never had.
    """

    accuracy: Estimate
    precision: Estimate | None
    recall: Estimate | None
    f1: Estimate | None
    auc: Estimate | None
    unseen: float


def binary(table: Table, counts: Numbers, confidence: float = 0.95) -> BinaryEstimate | None:
    """Estimate a binary model on a window without labels.

    `table` is the chance of the positive class per score bin, `counts` (2, bins) are the window's
    rows by predicted class and score bin. The intervals are for what the window's labels will
    turn out to be: the chance of the draw and the error of the table, by the delta method, while
    a score means what it meant. None without rows.
    """
    no, yes = np.asarray(counts, np.float64)
    both = no + yes
    n = float(both.sum())
    if n == 0:
        return None
    said, positives, true = float(yes.sum()), float(both @ table.chance), float(yes @ table.chance)
    flagged, missed = said + positives, positives - true
    z = float(special.ndtri(0.5 + confidence / 2))

    def metric(value: float, if_no: float, if_yes: float) -> Estimate:
        """One that grows by so much if a row that was said to be 0, or 1, is positive."""
        pulls, squares = if_no * no + if_yes * yes, if_no**2 * no + if_yes**2 * yes
        return _estimate(value, _variance(table, pulls, squares), n, z)

    return BinaryEstimate(
        accuracy=metric((n - said - missed + true) / n, -1 / n, 1 / n),
        precision=metric(true / said, 0, 1 / said) if said else None,
        recall=metric(true / positives, -true / positives**2, missed / positives**2)
        if positives
        else None,
        f1=metric(2 * true / flagged, -2 * true / flagged**2, 2 * (flagged - true) / flagged**2)
        if flagged
        else None,
        auc=_auc(table, both, z),
        unseen=float(both @ ~table.seen) / n,
    )


def _auc(table: Table, counts: Floats, z: float) -> Estimate | None:
    positive = counts * table.chance
    negative = counts - positive
    n, positives = float(counts.sum()), float(positive.sum())
    pairs = positives * (n - positives)
    if pairs <= 0:
        return None
    below = np.cumsum(negative) - negative / 2
    above = positives - np.cumsum(positive) + positive / 2
    value = float(positive @ below) / pairs
    # A row that turns from negative to positive wins over those below and loses to those above.
    pull = (below - above - value * (n - 2 * positives)) / pairs
    return _estimate(value, _variance(table, pull * counts, pull * pull * counts), n, z)


class TopClassEstimate(NamedTuple):
    """Accuracy, that among the predictions of each class (precision), and `unseen` as above."""

    accuracy: Estimate
    precision: tuple[Estimate | None, ...]
    unseen: float


def top_class(table: Table, counts: Numbers, confidence: float = 0.95) -> TopClassEstimate | None:
    """Estimate a model of many classes from the confidence in the class that it said.

    `table` is the chance that it is right, `counts` the window's rows, both by predicted class
    and bin of the confidence: (classes, bins), or (bins,) for all classes together (`precision`
    is empty then). None without rows.
    """
    counts = np.asarray(counts, np.float64)
    z = float(special.ndtri(0.5 + confidence / 2))
    accuracy = _mean(table, counts, z)
    if accuracy is None:
        return None
    each: list[Estimate | None] = []
    for which in range(len(counts)) if counts.ndim == 2 else ():
        only = np.zeros_like(counts)
        only[which] = counts[which]
        each.append(_mean(table, only, z))
    return TopClassEstimate(accuracy, tuple(each), float(counts[~table.seen].sum() / counts.sum()))


def _mean(table: Table, counts: Floats, z: float) -> Estimate | None:
    n = float(counts.sum())
    if n == 0:
        return None
    variance = _variance(table, counts / n, counts / n**2)
    return _estimate(float(np.sum(counts * table.chance)) / n, variance, n, z)


def _variance(table: Table, pulls: Floats, squares: Floats) -> float:
    """Variance of a metric which a hit pulls up.

    `pulls` and `squares` sum the pulls of the rows of each bin, and their squares. The draw of
    the labels adds sum squares p (1 - p); the table adds a block at a time, whose bins are wrong
    together: (sum pulls error)^2.
    """
    together = np.bincount(table.block.ravel(), (pulls * table.error).ravel())
    return float(squares.ravel() @ table.spread.ravel() + together @ together)


def _estimate(value: float, variance: float, n: float, z: float) -> Estimate:
    return Estimate(value, *_share_bounds(value, variance, n, z), round(n))


def _share_bounds(value: float, variance: float, rows: float, z: float) -> tuple[float, float]:
    """Wilson's bounds of a share at the size that its variance is worth (Korn & Graubard 1998).

    They never leave [0, 1], and are not symmetric near its ends. `rows` is the size where the
    variance says nothing, infinite if nothing is left to chance.
    """
    spread = value * (1 - value)
    size = spread / variance if spread > 0 and variance > 0 else rows
    centre = (value + z * z / (2 * size)) / (1 + z * z / size)
    half = z / (1 + z * z / size) * sqrt(spread / size + z * z / (4 * size * size))
    return max(centre - half, 0.0), min(centre + half, 1.0)


# --- regression without labels --------------------------------------------------------------------


class Tree(NamedTuple):
    """Strata in which errors are alike, as splits of binned features.

    Node i sends a row whose bin of `feature[i]` is at most `last[i]` to node `left[i]`, others to
    `right[i]`; a negative child -1 - s is stratum s. Without nodes all rows are stratum 0.
    """

    feature: tuple[int, ...]
    last: tuple[int, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]

    @property
    def strata(self) -> int:
        return len(self.feature) + 1

    def stratum(self, bins: Counts) -> Counts:
        """The stratum of each row of `bins` [rows, features]."""
        at = np.zeros(len(bins), np.int64) if self.feature else np.full(len(bins), -1)
        feature, last, left, right = (np.array(part, np.int64) for part in self)
        walking = np.flatnonzero(at >= 0)
        while len(walking):
            node = at[walking]
            smaller = bins[walking, feature[node]] <= last[node]
            at[walking] = np.where(smaller, left[node], right[node])
            walking = walking[at[walking] >= 0]
        return -1 - at


def grow(bins: Counts, loss: Floats, strata: int = STRATA, least: int = LEAST_STRATUM) -> Tree:
    """Split where it explains most of the `loss` (absolute errors), until there are `strata`.

    `bins` [rows, features] are the reference's rows in the profile's bins, the bin of the
    predicted value among them. Least squares, the best split of all strata first, no stratum of
    fewer than `least` rows (CART, Breiman et al. 1984). Grown on one half of the hold-out; the
    errors of the strata are then summed up over the other half, so they are not flattered.
    """
    width = int(bins.max(initial=0)) + 1
    best = [_best_split(bins, loss, np.arange(len(loss)), width, least)]
    nodes: list[list[int]] = []  # feature, last, left, right
    parents: list[tuple[int, int] | None] = [None]  # who points at each stratum
    while len(best) < strata and max(split.gain for split in best) > 0:
        stratum = max(range(len(best)), key=lambda s: best[s].gain)
        split, parent = best[stratum], parents[stratum]
        if parent is not None:
            nodes[parent[0]][parent[1]] = len(nodes)
        nodes.append([split.feature, split.last, -1 - stratum, -1 - len(best)])
        parents[stratum] = (len(nodes) - 1, 2)
        parents.append((len(nodes) - 1, 3))
        smaller = bins[split.rows, split.feature] <= split.last
        best[stratum] = _best_split(bins, loss, split.rows[smaller], width, least)
        best.append(_best_split(bins, loss, split.rows[~smaller], width, least))
    feature, last, left, right = zip(*nodes, strict=True) if nodes else ((), (), (), ())
    return Tree(feature, last, left, right)


class _Split(NamedTuple):
    gain: float
    feature: int
    last: int
    rows: Counts


def _best_split(bins: Counts, loss: Floats, rows: Counts, width: int, least: int) -> _Split:
    """Of the two sides' (sum of losses)^2 / rows, the largest gain over both together."""
    features = bins.shape[1]
    place = (bins[rows] + width * np.arange(features)).ravel()
    shape, size = (features, width), features * width
    n = np.cumsum(np.bincount(place, minlength=size).reshape(shape), axis=1)
    sums = np.cumsum(
        np.bincount(place, np.repeat(loss[rows], features), size).reshape(shape), axis=1
    )
    others, rest = len(rows) - n, loss[rows].sum() - sums
    allowed = (n >= least) & (others >= least)
    gains = np.where(allowed, sums**2 / np.maximum(n, 1) + rest**2 / np.maximum(others, 1), -np.inf)
    feature, last = divmod(int(np.argmax(gains)), width)
    gain = float(gains[feature, last]) - float(loss[rows].sum()) ** 2 / max(len(rows), 1)
    return _Split(gain, feature, last, rows)


class Errors(NamedTuple):
    """Of the hold-out, per stratum: rows, and sums of |e|, e, e^2 and e^4.

    Strata are those of a `Tree`, or just the bins of the predicted value.

    An error e is predicted minus true, in the target's unit. Sums of parts add up.
    """

    rows: Floats
    absolute: Floats
    signed: Floats
    squared: Floats
    fourth: Floats


def error_sums(stratum: Counts, errors: Floats, strata: int) -> Errors:
    """Sum up `errors`, each of a row in its `stratum`, of which there are `strata`."""
    powers = (np.ones(len(errors)), np.abs(errors), errors, errors**2, errors**4)
    return Errors(*(np.bincount(stratum, power, strata).astype(np.float64) for power in powers))


class RegressionEstimate(NamedTuple):
    """In the target's unit, with 95 % intervals; `unseen` is the share of rows in new strata."""

    mae: Estimate
    rmse: Estimate
    bias: Estimate
    unseen: float


def regression(
    errors: Errors, counts: Numbers, confidence: float = 0.95
) -> RegressionEstimate | None:
    """Estimate a regression model: the hold-out's errors, weighed as the window's rows are.

    `counts` (strata,) are the window's rows. Right while the error depends on the input through
    the stratum alone (post-stratification): a tree on the features sees their shift, the bin of
    the predicted value alone misses most of it. None without rows in the window; raises
    ValueError without rows in the hold-out.
    """
    counts = np.asarray(counts, np.float64)
    n = float(counts.sum())
    if errors.rows.sum() == 0:
        raise ValueError("the hold-out has no rows to take errors from")
    if n == 0:
        return None
    z = float(special.ndtri(0.5 + confidence / 2))
    absolute, of_absolute = _stratified(errors.rows, errors.absolute, errors.squared, counts)
    signed, of_signed = _stratified(errors.rows, errors.signed, errors.squared, counts)
    squared, of_squared = _stratified(errors.rows, errors.squared, errors.fourth, counts)
    mae_half, bias_half, squared_half = (z * sqrt(v) for v in (of_absolute, of_signed, of_squared))
    return RegressionEstimate(
        Estimate(absolute, max(absolute - mae_half, 0.0), absolute + mae_half, round(n)),
        Estimate(
            sqrt(squared),
            sqrt(max(squared - squared_half, 0.0)),
            sqrt(squared + squared_half),
            round(n),
        ),
        Estimate(signed, signed - bias_half, signed + bias_half, round(n)),
        float(counts[errors.rows == 0].sum()) / n,
    )


def _stratified(rows: Floats, sums: Floats, squares: Floats, counts: Floats) -> tuple[float, float]:
    """Mean over the window of a quantity whose sums per bin are the hold-out's; and its variance.

    The variance is of the draw and of the means per bin: sum c v / n^2 + sum (c / n)^2 v / rows.
    """
    seen = np.flatnonzero(rows)
    held = rows[seen]
    means = sums[seen] / held
    within = np.maximum(squares[seen] - sums[seen] * means, 0.0)
    # As if each bin had one row more, of the usual spread: a single row says nothing of its own.
    spread = (within + within.sum() / held.sum()) / held
    bins = np.arange(len(rows))
    weights = counts / counts.sum()
    nearest = np.searchsorted(seen, bins).clip(max=len(seen) - 1)
    in_seen = np.bincount(nearest, weights, len(seen))
    draw = float(np.sum(in_seen * spread)) / float(counts.sum())
    table = float(np.sum(in_seen**2 * spread / held))
    return float(np.sum(weights * np.interp(bins, seen, means))), draw + table


# --- some labels ----------------------------------------------------------------------------------


class Labelled(NamedTuple):
    """Sums over the rows of a window that were labelled with one probability; parts add up.

    f is the estimate of a row (its chance to be right, its expected error), c what its label said
    (1 or 0, the error). `rows` and `expected` count all rows, labelled or not, and sum their f.
    """

    rows: float = 0.0
    expected: float = 0.0
    labels: float = 0.0
    f: float = 0.0
    c: float = 0.0
    ff: float = 0.0
    fc: float = 0.0
    cc: float = 0.0

    def __add__(self, other: tuple[float, ...]) -> Labelled:  # type: ignore[override]
        return Labelled(*(mine + yours for mine, yours in zip(self, other, strict=True)))


def labelled(chance: Floats, counts: Numbers, wrong: Numbers, right: Numbers) -> Labelled:
    """The sums, from cells: `chance` to be right, all rows, labelled ones that were wrong, right.

    All of one shape, that of the table. For a binary model `chance` is `chance_right(table)`.
    """
    labels = wrong + right
    return Labelled(
        rows=float(np.sum(counts)),
        expected=float(np.sum(counts * chance)),
        labels=float(np.sum(labels)),
        f=float(np.sum(labels * chance)),
        c=float(np.sum(right)),
        ff=float(np.sum(labels * chance**2)),
        fc=float(np.sum(right * chance)),
        cc=float(np.sum(right)),
    )


class Powered(NamedTuple):
    """An estimate from labels and predictions, its standard error, and what predictions gave.

    Their `weight` is 0 for the labels' mean alone. `gain` is the share of the variance that they
    took away: without them it takes 1 / (1 - gain) times the labels.
    """

    estimate: Estimate
    error: float
    weight: float
    gain: float


def prediction_powered(
    strata: Sequence[Labelled],
    confidence: float = 0.95,
    share: bool = True,
    beyond: bool = False,
) -> Powered | None:
    """Prediction-powered mean of a window in which some rows are labelled (PPI++).

    weight * mean_all(f) + mean_labelled(c - weight * f), weight = Cov(f, c) / Var(f) kept in
    [0, 1] (Angelopoulos, Duchi & Zrnic 2023). Whatever f is, it is right as long as the rows of a
    stratum were chosen for labelling by lot. Rows chosen at different rates (a tenth of all, but
    every disagreement) are different strata. The interval is for the mean of the window's rows,
    (1 - labels / rows) S^2 / labels (Cochran 1977, 7.2), or of what they are a sample of if
    `beyond`. A `share` has Wilson's interval at the size its variance is worth, other means
    Student's. None if a stratum with rows has fewer than two labels.
    """
    strata = [s for s in strata if s.rows > 0]
    rows = sum(s.rows for s in strata)
    if not strata or any(s.labels < 2 for s in strata):
        return None
    spread_f, spread_c, both = _spreads(strata, rows)
    weight = min(max(both / spread_f, 0.0), 1.0) if spread_f > 0 else 0.0
    value = sum(
        s.rows / rows * (weight * s.expected / s.rows + (s.c - weight * s.f) / s.labels)
        for s in strata
    )
    labels = sum(s.labels for s in strata)
    left = max(labels - len(strata) - 1, 1.0)  # degrees of freedom: the means and the weight
    variance = max(spread_c - 2 * weight * both + weight**2 * spread_f, 0.0)
    variance *= max(labels - len(strata), 1.0) / left
    gain = 1 - variance / spread_c if spread_c > 0 else 0.0
    worth = labels if beyond or labels == rows else labels / (1 - labels / rows)
    if beyond:
        variance += _between_and_within(strata, rows) / rows
    elif labels == rows:
        worth = inf
    t = float(special.stdtrit(left, 0.5 + confidence / 2))
    if share:
        value = min(max(value, 0.0), 1.0)
        low, high = _share_bounds(value, variance, worth, t)
    else:
        low, high = value - t * sqrt(variance), value + t * sqrt(variance)
    return Powered(Estimate(value, low, high, round(labels)), sqrt(variance), weight, gain)


def _spreads(strata: Sequence[Labelled], rows: float) -> tuple[float, float, float]:
    """Variance of the mean of f and of c over the labelled rows, and their covariance."""
    found = np.zeros(3)
    for s in strata:
        raw = np.array([s.ff, s.cc, s.fc])
        deviations = raw - np.array([s.f * s.f, s.c * s.c, s.f * s.c]) / s.labels
        left = (1 - s.labels / s.rows) / s.labels  # the more are labelled, the less is unknown
        found += (s.rows / rows) ** 2 * left * deviations / (s.labels - 1)
    spread_f, spread_c, both = found.tolist()
    return spread_f, spread_c, both


def _between_and_within(strata: Sequence[Labelled], rows: float) -> float:
    """Variance of c over all rows, from the labelled ones of each stratum."""
    mean = sum(s.rows / rows * s.c / s.labels for s in strata)
    square = sum(s.rows / rows * s.cc / s.labels for s in strata)
    return max(square - mean * mean, 0.0)


# --- has the concept drifted? ---------------------------------------------------------------------


@dataclass(frozen=True)
class ConceptDetector:
    """Watches the estimate against the labels, row by row: d = f - c, both in [0, 1].

    The null hypothesis: whatever came before, E[d] lies within `tolerance` of 0. Inputs may shift
    as they like; if it fails, a score does not mean what it meant, and the estimate is not to be
    trusted. Two e-detectors side by side (see `detector`), S <- (S + labels) e, where e is the
    product of 1 + bet (d - tolerance) / (1 + tolerance) over a batch, and the same of -d. The
    state holds log(1 + S), [2, bets]: first for an estimate that is too high, which hides harm,
    then for one that is too low, which cries wolf.

    Rows must be labelled by lot, or all of them: labels of which the bad ones come first look
    like a drift.
    """

    tolerance: float = TOLERANCE

    def start(self) -> Floats:
        """The state before the first label."""
        return np.zeros((2, len(BETS)))

    def after(self, state: Floats, chance: Floats, wrong: Numbers, right: Numbers) -> Floats:
        """The state after the labels of some cells, as in `labelled`, in any order.

        Counts of one time that come from several places are added first.
        """
        times = np.concatenate([np.ravel(wrong), np.ravel(right)]).astype(np.float64)
        differences = np.concatenate([chance.ravel(), chance.ravel() - 1])
        there = np.flatnonzero(times)
        times, differences = times[there], differences[there]
        gains = np.multiply.outer(SIGNS, differences) - self.tolerance
        factors = np.log1p(BETS[:, None] * gains[:, None] / (1 + self.tolerance))
        return _grown(state, float(times.sum()), factors @ times)

    def after_sums(self, state: Floats, batch: Labelled) -> Floats:
        """The same from sums, for errors (scaled to [0, 1]) that have no cells; less sharp.

        1 + b x >= exp(b x + (log(1 - b) + b) x^2) for x >= -1 (Fan, Grama & Liu 2015, lemma 4.1).
        """
        n, d = batch.labels, SIGNS * (batch.f - batch.c)
        scale = 1 + self.tolerance
        gain = (d - n * self.tolerance) / scale
        around = batch.ff - 2 * batch.fc + batch.cc - 2 * self.tolerance * d
        squares = (around + n * self.tolerance**2) / scale**2
        bend = np.log1p(-BETS) + BETS
        return _grown(state, n, np.outer(gain, BETS) + np.outer(squares, bend))

    def evidence(self, state: Floats) -> Floats:
        """log(1 + mean S) of either side: shape [2]."""
        return pooled(state)

    def distrusts(self, state: Floats, threshold: float = RUN_LENGTH) -> Side | None:
        """Which way the estimate is wrong, None while it may be right; harm goes before.

        While it is right this takes `threshold` labels on average or more, both sides together.
        Evidence fades where a drift is over, so who was told once remembers it until there is a
        new table.
        """
        high, low = alarms(self.evidence(state), 2 * threshold).tolist()
        if high:
            return "too high"
        return "too low" if low else None


def _grown(state: Floats, n: float, log_e: Floats) -> Floats:
    """log(1 + (S + n) e), from log(1 + S)."""
    if n < 1:
        return state
    starts = np.logaddexp(state, np.log(n - 1)) if n > 1 else state
    return np.asarray(np.logaddexp(0, starts + log_e))
