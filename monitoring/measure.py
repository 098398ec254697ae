"""(window, profile) -> measurements. Numbers only: what is too much is `judge`'s business."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from models.latency import BUCKETS, middle
from models.profile import FeatureProfile, NumericBins, bin_shares, coarser
from monitoring.stats import drift
from monitoring.stats.latency import quantile
from monitoring.stats.performance import (
    Confusion,
    Estimate,
    Reliability,
    auc,
    f1,
    precision,
    recall,
    reliability,
    wilson,
)
from monitoring.window import GRID, MICRO, Layout, Vector, Window

MIDDLES = np.array([middle(i) for i in range(BUCKETS)])
#: Rows that a bin needs on average before that many bins are used.
ROWS_A_BIN = 8
#: Rows below which no drift is computed.
LEAST_ROWS = 30


class Drift(NamedTuple):
    """One feature of a window against the reference.

    `psi` is the plain estimate, `psi_low` its lower 95 % bound; `p_value` is of the chi-squared
    test, not adjusted. `missing` and `unseen` are shares of all rows.
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


class Latency(NamedTuple):
    """Quantiles in milliseconds; None without requests."""

    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Performance:
    """How good the labelled predictions of a window were."""

    labels: int
    accuracy: Estimate | None
    precision: Estimate | None = None
    recall: Estimate | None = None
    f1: Estimate | None = None
    auc: Estimate | None = None
    log_loss: float | None = None
    brier: float | None = None
    seen: Estimate | None = None
    calibration: Reliability | None = None


class Pairs(NamedTuple):
    """Primary and shadow on the same requests."""

    compared: int
    agreement: Estimate | None
    distance: float | None
    primary: Latency
    shadow: Latency
    primary_accuracy: Estimate | None
    shadow_accuracy: Estimate | None


def features(window: Window) -> list[Drift]:
    """Drift of every profiled feature that has enough rows."""
    profile = window.layout.profile
    if profile is None:
        return []
    found = (feature_drift(p, window[f"feature:{p.name}"]) for p in profile.features)
    return [drift_ for drift_ in found if drift_ is not None]


def score_drift(window: Window) -> Drift | None:
    """Drift of the predictions themselves."""
    profile = window.layout.profile
    if profile is None or profile.score is None:
        return None
    return feature_drift(FeatureProfile("score", numeric=profile.score), window["score"], "score")


def feature_drift(profile: FeatureProfile, counts: Vector, kind: str = "") -> Drift | None:
    """Compare counts in the profile's bins with the profile; None below LEAST_ROWS rows."""
    rows = int(counts.sum())
    bins = profile.bins
    reference, current = profile.counts, counts[:-1]
    if rows < LEAST_ROWS or current.sum() == 0:
        return None
    groups = merged(reference, int(current.sum()), isinstance(bins, NumericBins))
    r, c = _merge(reference, groups), _merge(current, groups)
    test = drift.homogeneity(r, c)
    reference_rows = int(reference.sum()) + bins.missing
    return Drift(
        feature=profile.name,
        kind=kind or ("numeric" if isinstance(bins, NumericBins) else "categorical"),
        rows=rows,
        psi=drift.psi(bin_shares(r), bin_shares(c)),
        psi_low=drift.psi_lower_bound(test),
        p_value=test.p_value,
        ks=drift.kolmogorov_smirnov(reference, current),
        missing=float(counts[-1]) / rows,
        reference_missing=bins.missing / reference_rows if reference_rows else 0.0,
        unseen=0.0 if isinstance(bins, NumericBins) else float(counts[-2]) / rows,
    )


def merged(reference: Vector, rows: int, ordered: bool) -> Vector:
    """Which bins to pool, from the reference and the number of rows alone.

    Ordered bins are merged into 32, 16, 8 or 4 groups of equal reference mass. Of levels, those
    whose expected count is below 5 are pooled with 'other'.
    """
    if ordered:
        wanted = next((b for b in (32, 16, 8) if rows / b >= ROWS_A_BIN), 4)
        return coarser(reference, wanted)
    total = max(int(reference.sum()), 1)
    kept = np.flatnonzero(reference[:-1] * rows / total >= 5)
    groups = np.full(len(reference), len(kept), np.int64)
    groups[kept] = np.arange(len(kept))
    return groups


def _merge(counts: Vector, groups: Vector) -> Vector:
    return np.bincount(groups, counts, int(groups.max()) + 1).astype(np.int64)


def latency(counts: Vector) -> Latency:
    p50, p95, p99 = (quantile(counts, MIDDLES, share) for share in (0.5, 0.95, 0.99))
    return Latency(*(None if q is None else q / 1_000 for q in (p50, p95, p99)))


def performance(window: Window) -> Performance | None:
    """None without a single label."""
    manifest = window.layout.manifest
    classes = len(manifest.classes)
    table = window["confusion"].reshape(classes, classes + 1) if classes else np.zeros((0, 1))
    labels = int(table.sum())
    if labels == 0:
        return None
    accuracy = wilson(int(np.trace(table[:, :classes])), labels)
    if manifest.task != "binary":
        return Performance(labels, accuracy)
    confusion = Confusion(*map(int, table[:, :2].ravel()))
    negatives, positives = window["labelled"].reshape(2, GRID)
    scored, log_loss, brier, _ = (int(value) for value in window["loss"])
    return Performance(
        labels=labels,
        accuracy=accuracy,
        precision=precision(confusion),
        recall=recall(confusion),
        f1=f1(confusion),
        auc=auc(negatives, positives),
        log_loss=log_loss / MICRO / scored if scored else None,
        brier=brier / MICRO / scored if scored else None,
        seen=wilson(int(table[1].sum()), labels),
        calibration=reliability(negatives, positives),
    )


def mean_score(window: Window) -> float | None:
    rows, total = (int(value) for value in window["said"])
    return total / MICRO / rows if rows else None


def pairs(window: Window) -> Pairs:
    """Read a window of pairs (its layout is the PairLayout)."""
    compared, agreeing = (int(value) for value in window["rows"])
    both, only_primary, only_shadow, neither = (int(value) for value in window["right"])
    labels = both + only_primary + only_shadow + neither
    return Pairs(
        compared=compared,
        agreement=wilson(agreeing, compared),
        distance=float(window["distance"][0]) / MICRO / compared if compared else None,
        primary=latency(window["latency_primary"]),
        shadow=latency(window["latency_shadow"]),
        primary_accuracy=wilson(both + only_primary, labels),
        shadow_accuracy=wilson(both + only_shadow, labels),
    )


def requests(window: Window) -> tuple[int, int, int]:
    """Requests answered, refused as invalid, and failed."""
    ok, invalid, error = (int(value) for value in window["requests"])
    return ok, invalid, error


def histogram(
    layout: Layout, feature: str, counts: Vector
) -> tuple[list[str], list[float], list[float]]:
    """Labels, reference shares and current shares of a feature, for drawing: at most 20 bins."""
    profile = layout.profile
    assert profile is not None
    if feature == "score" and profile.score is not None:
        found = FeatureProfile("score", numeric=profile.score)
    else:
        found = next(p for p in profile.features if p.name == feature)
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
