"""Everything that is asked of one feature of a window: is it broken, has it moved, and how far?

`numeric` and `categorical` prepare a reference once, `check` compares a window's counts with it.
The tests of a feature:

    missing    more or fewer values are missing than before
    outside    numbers beyond all that the reference has seen, or beyond its outermost thousandths
    unseen     levels that the reference does not have
    spike      one value takes over: a zero, a default, a sentinel
    shape      the bins' or levels' shares have changed (chi-squared)
    shift      the whole has moved or spread (Anderson-Darling on all bins)

Which bins are pooled is decided by the reference and the number of rows alone: bins that look at
the window raise false alarms from 1 % to 10 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from monitoring.stats import drift, mixture, quality
from monitoring.stats.quality import Kind, Spike

Counts = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

#: Rows below which nothing is said.
LEAST_ROWS = 30
#: How many groups bins are merged into, of which the most is taken that the rows allow.
GROUPS = (32, 16, 8, 4)
#: Rows that a group of bins needs on average.
ROWS_A_GROUP = 8
#: Rows that a group must hold by the reference's shares, or it is pooled: below, the tail of the
#: chi-squared distribution is too thin.
LEAST_EXPECTED = 5
#: How many bins from either end values are called outside of the reference, or nearly so.
FRINGES = 3
#: A bin next to the outermost is part of the fringe if it holds at most this share (values that
#: are tied there can make it large).
FRINGE = 0.005


@dataclass(frozen=True)
class Reference:
    """Counts [K] of a feature when its model was made; `missing` is not among them.

    Numeric: ordered bins, the first and the last beyond all values. Categorical: levels, then all
    other ones; `singletons` is how many levels were seen once.
    """

    counts: Counts
    missing: int
    ordered: bool
    singletons: int = 0

    @cached_property
    def there(self) -> int:
        return int(self.counts.sum())

    @cached_property
    def shift_weights(self) -> FloatArray:
        """Weights of the Anderson-Darling statistic's null distribution."""
        return drift.anderson_darling_weights(self.counts)

    @cached_property
    def _ordered_groups(self) -> dict[int, Counts]:
        return {bins: _ordered_groups(self.counts, bins) for bins in GROUPS}

    def groups(self, rows: int) -> Counts:
        """The group of each bin or level for the chi-squared test of so many rows."""
        if not self.ordered:
            return _level_groups(self.counts, rows)
        bins = next((b for b in GROUPS if rows >= ROWS_A_GROUP * b), GROUPS[-1])
        return self._ordered_groups[bins]


class Checks(NamedTuple):
    """What the tests say of one feature.

    `p_values` by the test's name; a test that no window of these rows could fail (nothing is
    missing anywhere) is left out, so that it costs the others nothing (Tarone 1990). `psi` is the
    plain estimate, `psi_low` its lower 95 % bound. `missing` is of all rows; `outside` (the
    unseen and other levels of a category) and `spike` of those that are there.
    """

    p_values: dict[str, float]
    psi: float
    psi_low: float
    missing: Kind
    outside: Kind
    spike: Spike

    @property
    def p_value(self) -> float:
        """That of the feature: the smallest times their number."""
        return min([1.0, *(len(self.p_values) * p for p in self.p_values.values())])


def numeric(counts: Counts, missing: int) -> Reference:
    return Reference(np.asarray(counts, np.int64), missing, ordered=True)


def categorical(counts: Counts, missing: int, singletons: int) -> Reference:
    return Reference(np.asarray(counts, np.int64), missing, ordered=False, singletons=singletons)


def check(
    reference: Reference, counts: Counts, missing: int, dispersion: float = 1.0
) -> Checks | None:
    """Compare a window's counts [K] and missing rows; None below LEAST_ROWS rows.

    `dispersion` >= 1 is how many rows come in a clump, on average: one in so many counts as
    evidence of drift (shape, shift, spike). Whether values are missing, outside or unseen is
    tested row by row: that a fault comes in clumps does not excuse it.
    """
    there = int(counts.sum())
    rows = there + missing
    if rows < LEAST_ROWS:
        return None
    absent = Kind(missing, rows, reference.missing, reference.missing + reference.there)
    found: dict[str, float] = {}
    if absent.possible:
        found["missing"] = quality.changed(absent)
    outside = _outside(reference, counts, found)
    spike = _spike(reference, counts, dispersion, found)
    psi, psi_low = _shape(reference, counts, dispersion, found)
    if reference.ordered:
        _shift(reference, counts, dispersion, found)
    return Checks(found, psi, psi_low, absent, outside, spike)


def adjusted(found: Sequence[Checks]) -> list[dict[str, float]]:
    """Holm's p-values over all tests of all features of a window, in the same places.

    That any of them is below alpha where nothing has changed happens in at most alpha of windows.
    """
    values = iter(drift.holm([p for checks in found for p in checks.p_values.values()]))
    return [{name: next(values) for name in checks.p_values} for checks in found]


# --- the tests -----------------------------------------------------------------------------------


def _outside(reference: Reference, counts: Counts, found: dict[str, float]) -> Kind:
    """Adds `outside` or `unseen`; returns the counts of the more surprising kind."""
    there, before = int(counts.sum()), reference.there
    if not reference.ordered:
        other = Kind(int(counts[-1]), there, int(reference.counts[-1]), before)
        if there and before and other.now + other.before + reference.singletons:
            found["unseen"] = quality.unseen(other, reference.singletons)
        return other
    kinds = [
        Kind(int(counts[bins].sum()), there, int(reference.counts[bins].sum()), before)
        for bins in _fringes(reference.counts)
    ]
    # What lies beyond the smallest and the largest of the reference falls into two gaps between
    # its rows; only one gap would be as if it had been drawn with the 0 rows that are in it.
    tested = [kind._replace(before=min(max(kind.before, 1), before)) for kind in kinds]
    values = [quality.more(kind) for kind in tested]
    if any(kind.possible for kind in kinds):
        found["outside"] = min(1.0, len(values) * min(values))
    return kinds[int(np.argmin(values))]


def _fringes(counts: Counts) -> tuple[Counts, ...]:
    """Indices of the outermost bins at both ends, then with those next to them, and once more,
    as long as these hold little of the reference."""
    last, limit = len(counts) - 1, FRINGE * counts.sum()
    bins, found = {0, last}, []
    for depth in range(1, FRINGES + 1):
        found.append(np.array(sorted(bins)))
        more = {i for i in (depth, last - depth) if 0 < i < last and counts[i] <= limit} - bins
        if not more:
            break
        bins |= more
    return tuple(found)


def _spike(
    reference: Reference, counts: Counts, dispersion: float, found: dict[str, float]
) -> Spike:
    # Of levels, those that the reference does not know are the business of `unseen`.
    known = slice(None) if reference.ordered else slice(-1)
    now, before = counts[known], reference.counts[known]
    if dispersion > 1:
        now = (now / dispersion).astype(np.int64)
    spike = quality.spike(now, before)
    if len(now) > 1 and now.sum() and before.sum():
        found["spike"] = spike.p_value
    at = spike.at
    return spike._replace(now=int(counts[at])) if at >= 0 else spike


def _shape(
    reference: Reference, counts: Counts, dispersion: float, found: dict[str, float]
) -> tuple[float, float]:
    """Adds `shape`; returns the PSI and its lower bound."""
    there = int(counts.sum())
    if there == 0 or reference.there == 0:
        return 0.0, 0.0
    groups = reference.groups(there)
    before, now = _merged(reference.counts, groups), _merged(counts, groups)
    if len(before) < 2:
        return 0.0, 0.0
    test = drift.homogeneity(before, now)
    if dispersion > 1:
        test = drift.dispersed(test, dispersion)
    found["shape"] = test.p_value
    return drift.psi(drift.shares(before), drift.shares(now)), drift.psi_lower_bound(test)


def _shift(
    reference: Reference, counts: Counts, dispersion: float, found: dict[str, float]
) -> None:
    weights = reference.shift_weights
    if len(weights) and counts.any():
        statistic = drift.anderson_darling(reference.counts, counts) / dispersion
        found["shift"] = mixture.tail(weights, statistic)


# --- which bins are pooled -----------------------------------------------------------------------


def _ordered_groups(counts: Counts, bins: int) -> Counts:
    """At most `bins` groups of neighbours of about equal mass, none much smaller than that."""
    total = int(counts.sum())
    if total == 0:
        return np.zeros(len(counts), np.int64)
    middle = (np.cumsum(counts) - counts / 2) / total
    slots = np.minimum((middle * bins).astype(np.int64), bins - 1)
    mass = np.bincount(slots, counts, bins)
    least = total / bins * LEAST_EXPECTED / ROWS_A_GROUP
    group, held, of = 0, 0.0, np.zeros(bins, np.int64)
    for slot in range(bins):
        if held >= least and mass[slot:].sum() >= least:
            group, held = group + 1, 0.0
        of[slot], held = group, held + mass[slot]
    merged: Counts = of[slots]
    return merged


def _level_groups(counts: Counts, rows: int) -> Counts:
    """A group for each level of which enough rows are expected; the rest is pooled.

    The pool takes in the rarest of them as well if it is too small itself.
    """
    expected = counts * (rows / max(int(counts.sum()), 1))
    kept = np.flatnonzero(expected[:-1] >= LEAST_EXPECTED)
    if len(kept) and expected.sum() - expected[kept].sum() < LEAST_EXPECTED:
        kept = np.delete(kept, np.argmin(expected[kept]))
    groups = np.full(len(counts), len(kept), np.int64)
    groups[kept] = np.arange(len(kept))
    return groups


def _merged(counts: Counts, groups: Counts) -> Counts:
    return np.bincount(groups, counts, int(groups.max()) + 1).astype(np.int64)
