"""Why did it change, and for whom? From counts in the cells of a feature, or in groups of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from monitoring.stats.performance import Counts, Estimate
from monitoring.stats.sequential import Interval, rate_difference

FloatArray = npt.NDArray[np.float64]

#: Rows that a rate needs before two groups are compared by it.
LEAST_ROWS = 50
#: How much slices may agree, in rows that the common rate weighs: the grid that is averaged over.
_AGREEMENT = np.geomspace(2, 20_000, 41)


class Cell(NamedTuple):
    """What one cell has to do with a change of accuracy; shares and accuracies in 0 to 1.

    `mix` is what comes of its share having changed, `rate` of its accuracy having changed, with
    Newcombe's interval; None where the cell was empty before or is now. An accuracy is None where
    the cell is empty.
    """

    share_before: float
    share_now: float
    accuracy_before: float | None
    accuracy_now: float | None
    mix: float
    rate: Interval | None


class Split(NamedTuple):
    """A change of accuracy, and what of it comes from the mix of rows and from the rates.

    `change.value` is `mix.value + rate.value` to rounding, and these are the sums over `cells`.
    """

    change: Interval
    mix: Interval
    rate: Interval
    cells: tuple[Cell, ...]


def split(
    before: Counts, before_right: Counts, now: Counts, now_right: Counts, confidence: float = 0.95
) -> Split | None:
    """The exact split of an accuracy's change over the cells of a feature; counts are [cells].

    sum wbar d(acc) is the rate (the concept), sum (accbar - mean accbar) d(w) the mix (Kitagawa
    1955). Shares w add up to 1, so taking the mean off changes no sum, and a cell that grew counts
    as a loss where it is worse than the average. A cell that is empty on one side changed its
    share only. Intervals by the delta method, of the change by Newcombe. None without labels.
    """
    if not (before.sum() and now.sum()):
        return None
    (w0, a0, s0), (w1, a1, s1) = _cells(before, before_right), _cells(now, now_right)
    a0, s0 = np.where(before > 0, a0, a1), np.where(before > 0, s0, s1)
    a1, s1 = np.where(now > 0, a1, a0), np.where(now > 0, s1, s0)
    w, a = (w0 + w1) / 2, (a0 + a1) / 2
    relative = a - float(w @ a)
    mix, rate = relative * (w1 - w0), w * (a1 - a0)
    z = float(special.ndtri(0.5 + confidence / 2))
    sides = ((before, w0, s0), (now, w1, s1))
    mix_half = z * sqrt(sum(_variance(*side, relative, (w1 - w0) / 2) for side in sides))
    rate_half = z * sqrt(sum(_variance(*side, (a1 - a0) / 2, w) for side in sides))
    change = rate_difference(
        int(before_right.sum()), int(before.sum()), int(now_right.sum()), int(now.sum()),
        1 - confidence,
    )  # fmt: skip
    assert change is not None
    cells = tuple(
        Cell(
            float(w0[i]),
            float(w1[i]),
            float(a0[i]) if before[i] else None,
            float(a1[i]) if now[i] else None,
            float(mix[i]),
            _rate(before, before_right, now, now_right, i, float(w[i]), 1 - confidence),
        )
        for i in range(len(before))
    )
    return Split(change, _interval(mix, mix_half), _interval(rate, rate_half), cells)


def _cells(rows: Counts, right: Counts) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Shares, accuracies, and accuracies with half a count added, whose variance is never 0."""
    return rows / rows.sum(), right / np.maximum(rows, 1), (right + 0.5) / (rows + 1)


def _variance(
    rows: Counts, w: FloatArray, smooth: FloatArray, by_share: FloatArray, by_rate: FloatArray
) -> float:
    """Of a smooth function of one side's shares and accuracies, by its derivatives [cells]."""
    centre = float(w @ by_share)
    there = rows > 0
    within = by_rate[there] ** 2 * smooth[there] * (1 - smooth[there]) / w[there]
    return float((w @ (by_share - centre) ** 2 + within.sum()) / rows.sum())


def _rate(
    before: Counts,
    before_right: Counts,
    now: Counts,
    now_right: Counts,
    i: int,
    weight: float,
    alpha: float,
) -> Interval | None:
    change = rate_difference(
        int(before_right[i]), int(before[i]), int(now_right[i]), int(now[i]), alpha
    )
    return change and Interval(*(weight * end for end in change))


def _interval(parts: FloatArray, half: float) -> Interval:
    value = float(parts.sum())
    return Interval(value, value - half, value + half)


class Cause(NamedTuple):
    """A feature, how much it has certainly changed, its share of the model's attention, and both
    multiplied."""

    feature: str
    effect: float
    importance: float
    weight: float


def causes(effects: Mapping[str, float], importances: Mapping[str, float]) -> tuple[Cause, ...]:
    """Features by effect times importance, most likely cause first; those without effect left out.

    `effects` are lower bounds of the PSI, `importances` weights of any unit, scaled to add up to 1
    over `effects`. A feature whose importance is unknown has the average one; ties by name.
    """
    known = [max(importances[name], 0.0) for name in effects if name in importances]
    average = sum(known) / len(known) if known else 1.0
    weights = {name: max(importances.get(name, average), 0.0) for name in effects}
    total = sum(weights.values()) or 1.0
    found = (
        Cause(name, effect, weights[name] / total, effect * weights[name] / total)
        for name, effect in effects.items()
        if effect > 0
    )
    return tuple(sorted(found, key=lambda cause: (-cause.weight, -cause.effect, cause.feature)))


class Group(NamedTuple):
    """A group of people, say. `rows` of them, `selected` got the positive answer.

    Of the labelled ones `positives` were truly positive, `hits` of them selected; `negatives` were
    not, `false_alarms` of them selected.
    """

    name: str
    rows: int
    selected: int
    positives: int = 0
    hits: int = 0
    negatives: int = 0
    false_alarms: int = 0


class Gap(NamedTuple):
    """A group's rate minus that of the group it is held against, in shares.

    `rate` is "selection", "true positive" or "false positive"; `rows` are those the group's rate is
    of. `gap` is None where either group is too small to be judged.
    """

    group: str
    against: str
    rate: str
    rows: int
    gap: Interval | None

    @property
    def at_least(self) -> float:
        """The smallest gap, either way, that the interval allows; 0 where it may be none."""
        return max(self.gap.low, -self.gap.high, 0.0) if self.gap else 0.0


def gaps(
    groups: Sequence[Group], against: str | None = None, confidence: float = 0.95
) -> tuple[Gap, ...]:
    """Selection, true positive and false positive rate of every group against one of them.

    That one is the largest group unless named. Newcombe's intervals, each for itself: who looks at
    many of them gives a higher `confidence`. A rate over fewer than LEAST_ROWS rows is not judged;
    for the true positive rate these are labelled positives, not labels of any kind, for on 45
    negatives and 5 positives it would be a matter of luck. Raises ValueError if no group is named
    `against`.
    """
    if not groups:
        return ()
    names = [group.name for group in groups]
    if against is not None and against not in names:
        raise ValueError(f"no group '{against}'; there are {', '.join(names)}")
    base = max(groups, key=lambda g: g.rows) if against is None else groups[names.index(against)]
    return tuple(
        Gap(group.name, base.name, rate, n, _gap(base_k, base_n, k, n, confidence))
        for group in groups
        if group is not base
        for (rate, k, n), (_, base_k, base_n) in zip(_rates(group), _rates(base), strict=True)
    )


def _rates(group: Group) -> tuple[tuple[str, int, int], ...]:
    return (
        ("selection", group.selected, group.rows),
        ("true positive", group.hits, group.positives),
        ("false positive", group.false_alarms, group.negatives),
    )


def _gap(base_k: int, base_n: int, k: int, n: int, confidence: float) -> Interval | None:
    if min(base_n, n) < LEAST_ROWS:
        return None
    return rate_difference(base_k, base_n, k, n, 1 - confidence)


def shrunk(successes: Counts, rows: Counts, confidence: float = 0.95) -> tuple[Estimate, ...]:
    """The rate of each slice, drawn towards that of all, the more so the fewer rows it has.

    Beta-binomial: rates of slices are Beta(c p, c (1 - p)) around the common rate p, and c, how
    much they agree, is averaged over by its likelihood, with the uniform-shrinkage prior (Daniels
    1999). (The single most likely c would be infinite whenever slices look alike, and leave their
    intervals no width.) Intervals are of the Beta
    distribution with the mean and variance of the mixture. The worst of many slices is then no
    longer merely the unluckiest. To show, not to test with: 5 of 10 beside many slices of 90 % are
    drawn to 90 % as well, though by luck alone they come once in 600 times.
    """
    total = int(rows.sum())
    p = (float(successes.sum()) + 0.5) / (total + 1)
    a, b = _AGREEMENT * p, _AGREEMENT * (1 - p)
    k, n = successes[:, None].astype(np.float64), rows[:, None].astype(np.float64)
    log_weights = np.sum(special.betaln(k + a, n - k + b) - special.betaln(a, b), axis=0)
    log_weights += np.log(_AGREEMENT) - 2 * np.log(_AGREEMENT + float(n.mean()))
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    means = (k + a) / (n + _AGREEMENT)
    middle = means @ weights
    # The common rate is itself estimated; a slice follows it as far as it is drawn towards it.
    common = p * (1 - p) / (total + 1) * ((_AGREEMENT / (n + _AGREEMENT)) ** 2 @ weights)
    inner = means * (1 - means) / (n + _AGREEMENT + 1)
    variance = inner @ weights + (means - middle[:, None]) ** 2 @ weights + common
    worth = np.maximum(middle * (1 - middle) / variance - 1, 1e-6)
    tail = (1 - confidence) / 2
    lows = special.betaincinv(worth * middle, worth * (1 - middle), tail)
    highs = special.betaincinv(worth * middle, worth * (1 - middle), 1 - tail)
    return tuple(
        Estimate(float(value), float(low), float(high), int(size))
        for value, low, high, size in zip(middle, lows, highs, rows, strict=True)
    )
