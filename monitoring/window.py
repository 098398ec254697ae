"""Counts of one version in one role over one stretch of event time. Pure.

A window is a vector of integers whose sections a Layout names; windows add up to longer ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.latency import BUCKETS
from models.manifest import Manifest
from models.profile import FeatureProfile, NumericBins, Profile, Whole, coarser
from models.version import Role
from monitoring.stats import kernel
from monitoring.stats.regression import SUMS

Vector = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: Uniform score bins of labelled predictions: AUC from them is within .0005 of the exact one.
GRID = 1024
#: Uniform score bins in which primary and shadow are compared.
SCORES = 32
#: Sums of real numbers are kept as whole millionths, so that adding never rounds.
MICRO = 1_000_000

#: Cells of a numeric segment, and of the levels of a categorical one.
CELLS, LEVEL_CELLS = 8, 10
#: Segments by which accuracy is told.
SEGMENTS = 24

#: The role under which pairs of primary and shadow are counted.
PAIR = "pair"
#: Roles whose requests a version answered.
ANSWERING = ("champion", "canary", "pinned")
#: Roles whose counts are of pairs.
PAIRED = (PAIR, Role.FLOOR)
KINDS = ("ok", "invalid", "error")


class Layout:
    """Names the sections of a version's vector."""

    def __init__(self, manifest: Manifest, profile: Profile | None) -> None:
        self.manifest = manifest
        self.profile = profile
        self.sections: dict[str, slice] = {}
        self.size = 0
        self._add("requests", len(KINDS))
        self._add("rows", 1)
        self._add("latency", BUCKETS)
        self._add("classes", len(manifest.classes) + 1)
        self._add("said", 2)  # rows with a score, sum of scores in millionths
        self._add("confusion", len(manifest.classes) * (len(manifest.classes) + 1))
        self._add("labelled", 2 * GRID if manifest.task == "binary" else 0)
        self._add("loss", 4)  # labels, log loss, Brier score and score sums in millionths
        for feature in profile.features if profile else ():
            bins = feature.bins
            # the bins, then (unseen and) missing
            width = len(bins.counts) + (1 if isinstance(bins, NumericBins) else 2)
            self._add(f"feature:{feature.name}", width)
        if profile and profile.score:
            self._add("score", len(profile.score.counts) + 1)
        for feature in profile.features if profile else ():
            # of a shadow: the rows of each bin on which it disagrees with the primary
            where = self.sections[f"feature:{feature.name}"]
            self._add(f"differ:{feature.name}", where.stop - where.start)
        self.segments = segments(manifest, profile)
        self._add_truths(manifest, profile)

    def _add_truths(self, manifest: Manifest, profile: Profile | None) -> None:
        """What is said, and what of it came true, by score and by segment."""
        bins = len(profile.score.counts) + 1 if profile and profile.score else 0
        binary = manifest.task == "binary"
        # score bin x class said; of those with a label: score bin x (class said x truth), where
        # classes are many wrong and right, of a regression labels and sum of absolute errors, in
        # millionths of the usual error
        self._add("spoken", bins * 2 if binary else 0)
        self._add("graded", bins * (4 if binary else 2))
        self._add("residual", len(SUMS) if manifest.task == "regression" else 0)
        for segment in self.segments:
            # cell x (class said x truth), or as in `graded`
            self._add(f"segment:{segment.feature}", len(segment.names) * (4 if binary else 2))
        self.whole = None if profile is None or profile.whole is None else kernel_of(profile.whole)
        self._add("whole", 1 + kernel.FEATURES if self.whole else 0)

    def _add(self, name: str, width: int) -> None:
        self.sections[name] = slice(self.size, self.size + width)
        self.size += width

    def fitted(self, vector: Vector) -> Vector:
        """A stored vector; one from before a section was added ends early, one from after a
        section was dropped at the end has more."""
        return np.pad(vector, (0, max(self.size - len(vector), 0)))[: self.size]

    def zeros(self) -> Vector:
        return np.zeros(self.size, np.int64)


def graded_cell(manifest: Manifest, said: Vector, truth: Vector) -> tuple[Vector, int]:
    """How rows were graded, and of how many grades: class said x truth of a binary task, where
    anything but the positive class counts as the other; else wrong and right."""
    if manifest.task == "binary":
        return ((said == 1) * 2 + (truth == 1)).astype(np.int64), 4
    return (said == truth).astype(np.int64), 2


def kernel_of(whole: Whole) -> kernel.Reference:
    vectors = (np.array(v) for v in (whole.centre, whole.scale, whole.mean, whole.eigenvalues))
    return kernel.Reference(whole.seed, whole.columns, whole.rows, whole.bandwidth, *vectors)


@dataclass(frozen=True)
class Segment:
    """A feature whose values, in a few cells, say of whom one speaks.

    `cells` maps a fine bin of the profile to its cell; `at` is the feature's place in the profile.
    """

    feature: str
    at: int
    cells: npt.NDArray[np.uint8]
    names: tuple[str, ...]


def segments(manifest: Manifest, profile: Profile | None) -> tuple[Segment, ...]:
    """Those that the manifest names, else all features, at most SEGMENTS of them."""
    if profile is None:
        return ()
    wanted = {*manifest.segments, *manifest.fairness} or {f.name for f in profile.features}
    found = [_segment(p, at) for at, p in enumerate(profile.features) if p.name in wanted]
    return tuple(found[:SEGMENTS])


def _segment(profile: FeatureProfile, at: int) -> Segment:
    """A few ranges of about equal reference mass, or the most frequent levels; then the rest."""
    bins = profile.bins
    if isinstance(bins, NumericBins):
        groups = coarser(profile.counts, CELLS)
        last = int(groups.max()) + 1
        ends = [np.flatnonzero(groups == group)[-1] for group in range(last)]
        names = [f"≤ {bins.edges[end]:.4g}" if end < len(bins.edges) else "above" for end in ends]
        cells = [*groups.tolist(), last]
    else:
        names = [*bins.levels[:LEVEL_CELLS], "other"]
        last = len(names)
        cells = [*(min(i, last - 1) for i in range(len(bins.levels) + 1)), last]
    return Segment(profile.name, at, np.array(cells, np.uint8), (*names, "missing"))


class PairLayout(Layout):
    """Sections of primary and shadow on the same requests."""

    def __init__(self) -> None:
        self.sections = {}
        self.segments = ()
        self.whole = None
        self.size = 0
        self._add("rows", 2)  # compared, agreeing
        self._add("latency_primary", BUCKETS)
        self._add("latency_shadow", BUCKETS)
        self._add("right", 4)  # both right, only the primary, only the shadow, neither
        self._add("distance", 1)  # sum of score differences, absolute, in millionths
        self._add("score_primary", SCORES)  # of binary tasks, in uniform bins
        self._add("score_shadow", SCORES)
        self._add("non_finite", 1)  # rows on which the shadow alone has no finite score


@dataclass(frozen=True, slots=True)
class Window:
    """A vector and the layout that reads it."""

    layout: Layout
    vector: Vector

    def __getitem__(self, section: str) -> Vector:
        """The counts of a section; empty where the layout has none of that name."""
        return self.vector[self.layout.sections.get(section, slice(0, 0))]
