"""Where two versions differ: one-feature slices whose disagreement stands out. Pure.

Every bin of every feature is held against the rest of the rows; false discoveries among those
shown are kept to 5 % (Benjamini and Hochberg 1995).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.profile import FeatureProfile, NumericBins, coarser
from monitoring.causes import graded
from monitoring.stats.drift import benjamini_hochberg
from monitoring.stats.performance import wilson
from monitoring.stats.quality import Kind, changed
from monitoring.stats.sequential import rate_difference
from monitoring.window import Segment, Vector, Window

#: Groups of about equal reference mass that a numeric feature is cut into.
GROUPS = 8
#: Rows below which a slice is not looked at.
LEAST_ROWS = 30
FALSE_DISCOVERIES = 0.05


class Slice(NamedTuple):
    """Rows with one feature in one range: how often the two versions disagree there.

    `share` is of all rows; `rate`, with its 95 % interval, is the share of the slice's rows that
    differ, `elsewhere` that of all other rows; `q_value` is adjusted for the number of slices.
    """

    feature: str
    where: str
    rows: int
    share: float
    differ: int
    rate: float
    low: float
    high: float
    elsewhere: float
    q_value: float


def slices(window: Window) -> list[Slice]:
    """The slices of a shadow's window that stand out, largest difference first."""
    profile = window.layout.profile
    found = [
        one
        for feature in (profile.features if profile else ())
        for one in _of_feature(
            feature, window[f"feature:{feature.name}"], window[f"differ:{feature.name}"]
        )
    ]
    if not found:
        return []
    adjusted = benjamini_hochberg([one.q_value for one in found])
    certain = [
        one._replace(q_value=q)
        for one, q in zip(found, adjusted, strict=True)
        if q <= FALSE_DISCOVERIES
    ]
    return sorted(certain, key=lambda one: -abs(one.rate - one.elsewhere))


class Rated(NamedTuple):
    """A slice in which the candidate is certainly right more or less often than the champion.

    `difference` is candidate minus champion, from `low` to `high` (95 %), on labelled rows.
    """

    feature: str
    where: str
    rows: int
    champion: float
    candidate: float
    difference: float
    low: float
    high: float
    q_value: float


def rated(champion: Window, candidate: Window) -> list[Rated]:
    """Accuracy by slice of two versions whose profiles cut the feature alike, the candidate's
    worst first; at most 5 % of them are by chance."""
    own = {segment.feature: segment for segment in champion.layout.segments}
    found = [
        one
        for segment in candidate.layout.segments
        if segment.feature in own and own[segment.feature].names == segment.names
        for one in _rated(segment, champion, candidate)
    ]
    adjusted = benjamini_hochberg([one.q_value for one in found])
    certain = [
        one._replace(q_value=q)
        for one, q in zip(found, adjusted, strict=True)
        if q <= FALSE_DISCOVERIES
    ]
    return sorted(certain, key=lambda one: one.difference)


def _rated(segment: Segment, champion: Window, candidate: Window) -> list[Rated]:
    section = f"segment:{segment.feature}"
    rows, right = graded(champion, section)
    other_rows, other_right = graded(candidate, section)
    found = []
    for name, n, k, m, j in zip(
        segment.names,
        rows.tolist(),
        right.tolist(),
        other_rows.tolist(),
        other_right.tolist(),
        strict=True,
    ):
        change = rate_difference(k, n, j, m) if min(n, m) >= LEAST_ROWS else None
        if change is not None:
            p_value = changed(Kind(j, m, k, n))
            found.append(Rated(segment.feature, name, m, k / n, j / m, *change, p_value))
    return found


def _of_feature(feature: FeatureProfile, rows: Vector, differ: Vector) -> list[Slice]:
    names, rows, differ = _grouped(feature, rows, differ)
    all_rows, all_differ = int(rows.sum()), int(differ.sum())
    found = []
    for name, n, k in zip(names, rows.tolist(), differ.tolist(), strict=True):
        others = all_rows - n
        if n < LEAST_ROWS or others < LEAST_ROWS:
            continue
        interval = wilson(k, n)
        assert interval is not None
        found.append(
            Slice(
                feature=feature.name,
                where=name,
                rows=n,
                share=n / all_rows,
                differ=k,
                rate=k / n,
                low=interval.low,
                high=interval.high,
                elsewhere=(all_differ - k) / others,
                q_value=changed(Kind(k, n, all_differ - k, others)),
            )
        )
    return found


def _grouped(
    feature: FeatureProfile, rows: Vector, differ: Vector
) -> tuple[list[str], Vector, Vector]:
    """Names and counts of a feature's slices: ranges or levels, and 'missing'."""
    bins = feature.bins
    if not isinstance(bins, NumericBins):
        return [*bins.levels, "other", "missing"], rows, differ
    groups = np.append(coarser(feature.counts, GROUPS), -1)
    groups[-1] = groups.max() + 1
    count = int(groups.max()) + 1
    names = [_range(bins, np.flatnonzero(groups == g)) for g in range(count - 1)]
    rows, differ = (np.bincount(groups, c, count).astype(np.int64) for c in (rows, differ))
    return [*names, "missing"], rows, differ


def _range(bins: NumericBins, inside: Vector) -> str:
    first, last = int(inside[0]), int(inside[-1])
    low = f"above {bins.edges[first - 1]:.4g}" if first else ""
    high = f"at most {bins.edges[last]:.4g}" if last < len(bins.edges) else ""
    return ", ".join(part for part in (low, high) if part) or "any"
