"""Has something broken upstream? Exact tests of counts against the reference's.

All are hypergeometric: of n reference rows and m rows of the window together, R = r + k are of some
kind; if nothing has changed, every choice of m of them is as likely to be the window, so the number
k of the kind in the window is drawn without replacement. That holds at every size from the first
row, and takes the reference for the sample that it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, lgamma, sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

Counts = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

#: Outcomes whose log-probabilities are so near count as equally likely.
SAME = 1e-7


class Kind(NamedTuple):
    """`now` of the window's `rows` are of a kind, `before` of the reference's `before_rows`."""

    now: int
    rows: int
    before: int
    before_rows: int

    @property
    def possible(self) -> bool:
        """Whether any split of these rows could be surprising: some are of the kind, some not."""
        total = self.now + self.before
        return 0 < total < self.rows + self.before_rows and self.rows > 0 and self.before_rows > 0


class Spike(NamedTuple):
    """The bin or level that holds surprisingly much: its place and counts; p is for all of them."""

    p_value: float
    at: int
    now: int
    before: int


def changed(kind: Kind) -> float:
    """Fisher's exact test, two-sided: the sum over all outcomes no more likely than this one."""
    if not kind.possible:
        return 1.0
    k, m = kind.now, kind.rows
    total, rows = k + kind.before, m + kind.before_rows
    mode = (m + 1) * (total + 1) // (rows + 2)
    if k < mode:  # the others are too many instead
        k, total, mode = m - k, rows - total, m - mode
    limit = _log_probability(k, m, total, rows) + SAME
    if _log_probability(mode, m, total, rows) <= limit:
        return 1.0
    below = _likeliest_below(limit, mode, m, total, rows)
    fewer = 0.0 if below is None else _tail(m - below, m, rows - total, rows)
    return min(_tail(k, m, total, rows) + fewer, 1.0)


def _likeliest_below(limit: float, mode: int, m: int, total: int, rows: int) -> int | None:
    """The largest outcome below the mode whose log-probability is at most `limit`."""
    low, high = max(0, m + total - rows) - 1, mode
    while high - low > 1:
        middle = (low + high) // 2
        inside = _log_probability(middle, m, total, rows) <= limit
        low, high = (middle, high) if inside else (low, middle)
    return low if low >= max(0, m + total - rows) else None


def more(kind: Kind) -> float:
    """P(at least as many of the kind in the window), one-sided hypergeometric."""
    if not kind.possible:
        return 1.0
    return _tail(kind.now, kind.rows, kind.now + kind.before, kind.rows + kind.before_rows)


def unseen(kind: Kind, singletons: int) -> float:
    """Are there more rows of a level that the reference does not have than it leads one to expect?

    The chance that the next row is of a new level is about the share of levels seen once (Good
    1953), so `singletons` rows are added to those that the reference had: ids, of which every
    window holds new ones, do not fire. If no level comes twice in all rows together, this is exact.
    """
    return more(kind._replace(before=min(kind.before + singletons, kind.before_rows)))


def volume_p_value(now: int, before: Sequence[int]) -> float:
    """Two-sided: is the number of rows unlike those of the windows before?

    Negative binomial with their mean and variance, Poisson where they vary no more than that;
    both smaller tails doubled. At least two windows before.
    """
    counts = np.asarray(before, np.float64)
    mean, variance = float(counts.mean()), float(counts.var(ddof=1)) * (1 + 1 / len(counts))
    mean = max(mean, 0.5)
    if variance <= mean:
        below, above = special.pdtr(now, mean), special.pdtrc(now - 1, mean) if now else 1.0
    else:
        size = mean**2 / (variance - mean)
        share = mean / variance
        below = special.betainc(size, now + 1, share)
        above = special.betaincc(size, now, share) if now else 1.0
    return float(min(2 * min(below, above), 1.0))


def spike(now: Counts, before: Counts) -> Spike:
    """Does one bin or level hold surprisingly much? One-sided for each, times their number.

    `now` and `before` are counts [K] of all bins. Without the factor, the largest of many is
    always a surprise.
    """
    rows, before_rows = int(now.sum()), int(before.sum())
    possible = (now > 0) & (now + before < rows + before_rows)
    if before_rows == 0 or not possible.any():
        return Spike(1.0, -1, 0, 0)
    best, index = 1.0, -1
    for i in _suspects(now, before, possible):
        tail = more(Kind(int(now[i]), rows, int(before[i]), before_rows))
        if tail < best:
            best, index = tail, int(i)
    if index < 0:
        return Spike(1.0, -1, 0, 0)
    return Spike(min(best * len(now), 1.0), index, int(now[index]), int(before[index]))


def _suspects(now: Counts, before: Counts, possible: npt.NDArray[np.bool_]) -> Counts:
    """Bins of which one has the smallest tail, without summing any of them.

    The ratio q of a term to the one before falls from term to term, so a tail is at most its first
    term over 1 - q, and at least that times (1 - p^J) / (1 - p), p the ratio after J terms. Bins
    whose lower bound exceeds the smallest upper bound are out.
    """
    m, n = int(now.sum()), int(before.sum())
    total = now + before
    first = _log_probabilities(now, m, total, m + n)
    ratio = _ratio(now, m, total, m + n)
    sure = possible & (ratio < 1)
    highest = np.min(first[sure] - np.log1p(-ratio[sure]), initial=0.0)
    steps = 1 + np.sqrt(now).astype(np.int64)
    later = np.clip(_ratio(now + steps, m, total, m + n), 0.0, 1 - 1e-9)
    lowest = first + np.log((1 - later**steps) / (1 - later))
    return np.flatnonzero(possible & (lowest <= highest))


def _ratio(k: Counts, m: int, total: Counts, rows: int) -> FloatArray:
    """P(K = k + 1) / P(K = k)."""
    left = np.maximum(total - k, 0) * np.maximum(m - k, 0)
    ratio: FloatArray = left / ((k + 1.0) * (rows - total - m + k + 1))
    return ratio


def _tail(k: int, m: int, total: int, rows: int) -> float:
    """P(K >= k), K of m drawn from `rows` of which `total` are of the kind.

    Summed away from the mode, each term from the one before; no term is below 1e-17 of the sum.
    """
    if k * rows <= m * total:  # no more than expected: one minus the other side
        if k <= max(0, m + total - rows):
            return 1.0
        return 1.0 - _tail(m - k + 1, m, rows - total, rows)
    most = min(m, total)
    if k > most:
        return 0.0
    spread = sqrt(m * total / rows * (rows - total) / rows * (rows - m) / rows)
    steps = min(most - k, int(9 * spread) + 40)
    j = np.arange(k, k + steps, dtype=np.float64)
    ratios = (total - j) * (m - j) / ((j + 1) * (rows - total - m + j + 1))
    terms = 1.0 + float(np.cumprod(ratios).sum())
    return min(exp(_log_probability(k, m, total, rows)) * terms, 1.0)


def _log_probability(k: int, m: int, total: int, rows: int) -> float:
    """log of C(total, k) C(rows - total, m - k) / C(rows, m)."""
    return _log_choose(total, k) + _log_choose(rows - total, m - k) - _log_choose(rows, m)


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def _log_probabilities(k: Counts, m: int, total: Counts, rows: int) -> FloatArray:
    """The same for many kinds at once."""
    gamma = special.gammaln
    chosen = gamma(total + 1) - gamma(k + 1) - gamma(total - k + 1)
    rest = gamma(rows - total + 1) - gamma(m - k + 1) - gamma(rows - total - m + k + 1)
    logs: FloatArray = chosen + rest - _log_choose(rows, m)
    return logs
