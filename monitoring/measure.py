"""(window, profile) -> measurements. Numbers only: what is too much is `judge`'s business."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np

from models.latency import BUCKETS, middle
from monitoring.stats import regression
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
from monitoring.window import GRID, MICRO, Vector, Window

MIDDLES = np.array([middle(i) for i in range(BUCKETS)])


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
    mae: Estimate | None = None
    rmse: Estimate | None = None
    bias: Estimate | None = None
    r2: Estimate | None = None
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


def latency(counts: Vector) -> Latency:
    p50, p95, p99 = (quantile(counts, MIDDLES, share) for share in (0.5, 0.95, 0.99))
    return Latency(*(None if q is None else q / 1_000 for q in (p50, p95, p99)))


def performance(window: Window) -> Performance | None:
    """None without a single label."""
    manifest = window.layout.manifest
    if manifest.task == "regression":
        return _errors(window)
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


def _errors(window: Window) -> Performance | None:
    profile = window.layout.profile
    if profile is None or profile.target is None:
        return None
    scale = regression.Scale(*msgspec.structs.astuple(profile.target))
    found = regression.regression(scale, window["residual"])
    if found is None:
        return None
    return Performance(
        found.labels, None, mae=found.mae, rmse=found.rmse, bias=found.bias, r2=found.r2
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
