"""(window, profile) -> what is different from the reference, feature by feature. Numbers only."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import special

from models.profile import Blocks, FeatureProfile, NumericBins, Profile, Usual, coarser
from monitoring.stats import blocks, drift, kernel, quality, suite
from monitoring.window import Layout, Vector, Window


class Examined(NamedTuple):
    """One feature of a window against the reference.

    `p_values` by the name of the test (monitoring.stats.suite), calibrated on the reference's
    blocks of time where it has some (`timed`); `p_value` is of drift alone. `psi` is the plain
    estimate, `psi_low` its lower 95 % bound. `missing`, `outside` (beyond all that the reference
    has seen), `far` (by more than its whole range) and `unseen` are shares; `spike` names the
    value that holds `spike_share` of all, in the reference `spike_before`, and is `isolated` where
    its neighbours hold no more than they did.
    """

    feature: str
    kind: str
    rows: int
    psi: float
    psi_low: float
    p_value: float
    ks: float
    missing: float
    reference_missing: float
    unseen: float
    reference_unseen: float = 0.0
    outside: float = 0.0
    spike: str = ""
    spike_bin: int = -1
    spike_share: float = 0.0
    spike_before: float = 0.0
    far: float = 0.0
    isolated: bool = False
    p_values: Mapping[str, float] = {}
    timed: bool = False


#: Dispersion from which the rows of a block resemble each other, so that a block is a draw of one.
CLUMPED = 2.0
#: How many times more than its neighbours a bin must swell to be called a spike, not a shift.
ISOLATED = 3.0
#: How many times the odds of the worst block of the reference a share of missing values must have.
LEAP = 4.0
#: Tests of whether something broke, and of whether something moved.
BROKEN, MOVED = ("missing", "outside", "unseen", "spike"), ("shape", "shift")


def features(window: Window) -> list[Examined]:
    """Every profiled feature that has enough rows, against the reference."""
    profile = window.layout.profile
    if profile is None:
        return []
    found = (examine(p, window[f"feature:{p.name}"]) for p in profile.features)
    return [examined for examined in found if examined is not None]


def whole(window: Window) -> kernel.Discrepancy | None:
    """All numeric features together, or the tensor that has none, against the reference; None
    below suite.LEAST_ROWS sampled rows."""
    profile, reference = window.layout.profile, window.layout.whole
    if profile is None or profile.whole is None or reference is None:
        return None
    if window["whole"][0] < suite.LEAST_ROWS:
        return None
    return kernel.compare(reference, window["whole"], profile.whole.dispersion)


class Shift(NamedTuple):
    """The little that a strip over many days shows of a feature, without a test."""

    feature: str
    kind: str
    psi_low: float
    missing: float
    unseen: float


def shifts(window: Window) -> list[Shift]:
    """Every profiled feature and the score, as far as they have rows enough."""
    profile = window.layout.profile
    if profile is None:
        return []
    named = [(p, window[f"feature:{p.name}"]) for p in profile.features]
    if profile.score is not None:
        named.append((profile.score, window["score"]))
    found = (_shift(p, counts) for p, counts in named)
    return [shift for shift in found if shift is not None]


def _shift(profile: FeatureProfile, counts: Vector) -> Shift | None:
    rows, there = int(counts.sum()), int(counts[:-1].sum())
    if rows < suite.LEAST_ROWS or there == 0:
        return None
    reference = reference_of(profile)
    groups = reference.groups(there)
    before, now = _merge(reference.counts, groups), _merge(counts[:-1], groups)
    test = drift.homogeneity(before, now)
    usual = profile.blocks
    if usual is not None:
        test = drift.dispersed(test, _dispersion(usual.chi_squared, usual.rows, counts))
    numeric = reference.ordered
    kind = "score" if profile.name == "score" else "numeric" if numeric else "categorical"
    return Shift(
        feature=profile.name,
        kind=kind,
        psi_low=drift.psi_lower_bound(test),
        missing=float(counts[-1]) / rows,
        unseen=0.0 if numeric else float(counts[-2]) / there,
    )


def score_drift(window: Window) -> Examined | None:
    """The predictions themselves against the reference's."""
    profile = window.layout.profile
    if profile is None or profile.score is None:
        return None
    return examine(profile.score, window["score"], "score")


def examine(profile: FeatureProfile, counts: Vector, kind: str = "") -> Examined | None:
    """Compare counts in the profile's bins with the profile; None below suite.LEAST_ROWS rows."""
    reference, current = reference_of(profile), counts[:-1]
    usual = profile.blocks
    dispersion = 1.0 if usual is None else _dispersion(usual.chi_squared, usual.rows, counts)
    checks = suite.check(reference, current, int(counts[-1]), dispersion)
    if checks is None:
        return None
    p_values = dict(checks.p_values)
    if usual is not None:
        p_values.update(_calibrated(usual, reference, checks, counts))
    moved = [p_values[test] for test in MOVED if test in p_values]
    missing, spike = checks.missing, checks.spike
    there = max(int(current.sum()), 1)
    before = max(reference.there, 1)
    numeric = reference.ordered
    return Examined(
        feature=profile.name,
        kind=kind or ("numeric" if numeric else "categorical"),
        rows=missing.rows,
        psi=checks.psi,
        psi_low=checks.psi_low,
        p_value=min([1.0, *(len(moved) * p for p in moved)]),
        ks=drift.kolmogorov_smirnov(reference.counts, current) if numeric else 0.0,
        missing=missing.now / missing.rows,
        reference_missing=missing.before / missing.before_rows if missing.before_rows else 0.0,
        unseen=0.0 if numeric else float(current[-1]) / there,
        reference_unseen=0.0 if numeric else float(reference.counts[-1]) / before,
        outside=float(current[beyond(reference.counts)].sum()) / there if numeric else 0.0,
        spike=_named(profile, spike.at) if spike.at >= 0 else "",
        spike_bin=spike.at,
        spike_share=spike.now / there if spike.at >= 0 else 0.0,
        spike_before=spike.before / before if spike.at >= 0 else 0.0,
        far=float(current[0] + current[-1]) / there if numeric else 0.0,
        isolated=numeric and _isolated(reference.counts, current, spike.at),
        p_values=p_values,
        timed=profile.blocks is not None,
    )


def beyond(reference: Vector) -> Vector:
    """The bins at either end in which the reference has nothing."""
    there = np.flatnonzero(reference)
    bins = np.arange(len(reference))
    return bins[(bins < there[0]) | (bins > there[-1])] if len(there) else bins


def _isolated(reference: Vector, current: Vector, at: int) -> bool:
    """Whether a bin alone swells: where the whole moves, its neighbours swell with it."""
    if at < 0 or reference[at] == 0:  # beyond the reference is another test's business
        return False
    swollen = (current + 0.5) / current.sum() / ((reference + 0.5) / reference.sum())
    near = [i for i in (at - 1, at + 1) if 0 <= i < len(reference) and reference[i] > 0]
    others = max([1.0, *(float(swollen[i]) for i in near)])
    return bool(swollen[at] > ISOLATED * others)


@lru_cache(maxsize=4_096)
def _reference(counts: tuple[int, ...], missing: int, singletons: int | None) -> suite.Reference:
    numbers = np.array(counts, np.int64)
    if singletons is None:
        return suite.numeric(numbers, missing)
    return suite.categorical(numbers, missing, singletons)


def reference_of(profile: FeatureProfile) -> suite.Reference:
    """The profile as the tests want it; kept, for what follows from it is costly."""
    bins = profile.bins
    if isinstance(bins, NumericBins):
        return _reference(bins.counts, bins.missing, None)
    return _reference((*bins.counts, bins.other), bins.missing, bins.singletons)


def _calibrated(
    usual: Blocks, reference: suite.Reference, checks: suite.Checks, counts: Vector
) -> dict[str, float]:
    """What would be usual between blocks of time is no surprise."""
    found: dict[str, float] = {}
    current, missing = counts[:-1], int(counts[-1])
    if "shape" in checks.p_values:
        groups = reference.groups(usual.rows)
        before, now = _merge(reference.counts, groups), _merge(current, groups)
        ratio = blocks.chi_squared_ratio(before, now)
        found["shape"] = _usual(usual.chi_squared, usual.rows, counts, ratio)
    if usual.anderson_darling is not None and "shift" in checks.p_values:
        ratio = blocks.anderson_darling_ratio(reference.counts, current)
        found["shift"] = _usual(usual.anderson_darling, usual.rows, counts, ratio)
    if "missing" in checks.p_values:
        peak = _peak(checks.missing, usual)
        more = _above(missing, checks.missing.rows, peak)
        fewer = missing < peak * checks.missing.rows
        found["missing"] = 1.0 if fewer else max(more, checks.p_values["missing"])
    clumped = usual.chi_squared.dispersion > CLUMPED
    if "spike" in checks.p_values and checks.spike.at >= 0:
        peak = usual.peaks[checks.spike.at]
        more = _above(checks.spike.now, int(current.sum()), peak) * len(current)
        found["spike"] = 1.0 if clumped else max(min(more, 1.0), checks.p_values["spike"])
    if clumped and "outside" in checks.p_values:
        # A warmer day than any of the reference will come; one of -999 degrees will not.
        far = int(current[0] + current[-1])
        kind = quality.Kind(far, int(current.sum()), 0, reference.there)
        found["outside"] = quality.more(kind)
    return found


def _peak(missing: quality.Kind, usual: Blocks) -> float:
    """The share of missing values from which on they are more than in any block. Where blocks
    differ by more than chance, the next one may well exceed them all: then by LEAP, in odds."""
    share = missing.before / max(missing.before_rows, 1)
    chance = share + 4 * np.sqrt(share * (1 - share) / usual.rows)
    if usual.missing <= chance:
        return usual.missing
    odds = LEAP * usual.missing / max(1 - usual.missing, 1e-12)
    return float(odds / (1 + odds))


def _usual(usual: Usual, rows: int, counts: Vector, ratio: float) -> float:
    """1 where the reference's blocks say too little: then the feature only informs."""
    dispersion = _dispersion(usual, rows, counts)
    calibration = blocks.TimeCalibration(np.array(usual.ratios), usual.memory, dispersion, usual.df)
    return float(calibration.p_value(ratio)) if calibration.calibrated else 1.0


def _dispersion(usual: Usual, rows: int, counts: Vector) -> float:
    """That of a block; of a window of several blocks, which are alike, it is larger: the variance
    of their mean is (1 + memory) / (1 - memory) of that of independent ones."""
    if counts.sum() < 1.5 * rows or usual.memory >= 1:
        return usual.dispersion
    return 1 + (usual.dispersion - 1) * (1 + usual.memory) / (1 - usual.memory)


def _above(count: int, rows: int, share: float) -> float:
    """P(at least `count` of `rows`) where the share is `share`: the binomial tail."""
    return float(special.bdtrc(count - 1, rows, share)) if count > 0 else 1.0


def _named(profile: FeatureProfile, at: int) -> str:
    """A bin or level in words."""
    bins = profile.bins
    if not isinstance(bins, NumericBins):
        return bins.levels[at] if at < len(bins.levels) else "other"
    if at == 0:
        return f"below {bins.low:.4g}"
    if at >= len(bins.edges):
        return f"above {bins.high:.4g}"
    return f"{bins.edges[at - 1]:.4g} to {bins.edges[at]:.4g}"


def _merge(counts: Vector, groups: Vector) -> Vector:
    return np.bincount(groups, counts, int(groups.max()) + 1).astype(np.int64)


def profile_of(layout: Layout, feature: str) -> FeatureProfile:
    """That of a feature, or of the score."""
    profile = layout.profile
    assert profile is not None
    if feature == "score" and profile.score is not None:
        return profile.score
    return next(p for p in profile.features if p.name == feature)


def distance(layout: Layout, feature: str, counts: Vector) -> float | None:
    """Wasserstein's, in the feature's own unit; None of a category. For people, not for tests."""
    bins = profile_of(layout, feature).numeric
    if bins is None or not bins.edges:
        return None
    return drift.wasserstein(np.array(bins.counts), counts[:-1], np.array(bins.edges))


def importances(profile: Profile | None) -> dict[str, float]:
    """By feature, how much scores change where it is shuffled; those that are known."""
    features = profile.features if profile else ()
    return {p.name: p.importance for p in features if p.importance is not None}


def importance(layout: Layout, feature: str) -> float | None:
    """A feature's share of the model's attention, where it is known."""
    known = importances(layout.profile)
    total = sum(known.values())
    return known[feature] / total if feature in known and total else None


def histogram(
    layout: Layout, feature: str, counts: Vector
) -> tuple[list[str], list[float], list[float]]:
    """Labels, reference shares and current shares of a feature, for drawing: at most 20 bins."""
    found = profile_of(layout, feature)
    reference, current = found.counts, counts[:-1]
    if found.numeric is not None:
        return _numeric_histogram(found.numeric, reference, current)
    assert found.categorical is not None
    shown = min(len(found.categorical.levels), 20)
    labels = [*found.categorical.levels[:shown], "other"]
    pooled = [np.append(c[:shown], c[shown:].sum()) for c in (reference, current)]
    return labels, _shares(pooled[0]), _shares(pooled[1])


def _numeric_histogram(
    bins: NumericBins, reference: Vector, current: Vector
) -> tuple[list[str], list[float], list[float]]:
    groups = coarser(reference, 20)
    last = [int(np.flatnonzero(groups == g)[-1]) for g in range(int(groups.max()) + 1)]
    uppers = [f"≤ {bins.edges[i]:.4g}" if i < len(bins.edges) else "above" for i in last]
    return uppers, _shares(_merge(reference, groups)), _shares(_merge(current, groups))


def _shares(counts: Vector) -> list[float]:
    total = counts.sum()
    shares: list[float] = (counts / total if total else counts * 0.0).tolist()
    return shares
