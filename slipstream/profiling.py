"""(model, reference) -> the profile that the monitor compares with."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars

from models.errors import RepositoryError
from models.manifest import UNKNOWN_CLASS, Manifest, Said
from models.profile import (
    FeatureProfile,
    Profile,
    Scale,
    Whole,
    class_counts,
    feature_values,
    profile_features,
    score_bins,
    whole_rows,
)
from models.sessions import LoadedVersion
from models.signature import Tensors
from monitoring.stats import kernel, regression
from monitoring.stats.estimate import error_sums
from monitoring.stats.performance import auc, reliability
from monitoring.window import graded_cell
from slipstream import blocks
from slipstream.reference import Reference, read_table, tensors_of

#: Rows that the model answers at a time while the profile is made.
CHUNK = 5_000
#: Rows on which each feature is shuffled.
IMPORTANCE_ROWS = 500
#: Rows of the reference that are looked at as a whole.
WHOLE_ROWS = 20_000
#: Score bins for the metrics, as the monitor uses them.
GRID = 1024


def build_profile(loaded: LoadedVersion, manifest: Manifest, reference: Reference) -> Profile:
    """Bins and counts from the reference; metrics and what came true from the hold-out."""
    table = reference.table()
    inputs = tensors_of(loaded, manifest.features, table)
    said = _said(loaded, manifest, table)
    profile = Profile(
        rows=len(table),
        features=profile_features(manifest, inputs, len(table)),
        score=FeatureProfile("score", numeric=score_bins(said.scores)) if manifest.score else None,
        classes=class_counts(said, len(manifest.classes)),
        holdout_rows=len(table),
    )
    profile = _with_importance(loaded, manifest, profile, inputs)
    whole = rows_as_a_whole(manifest, inputs, len(table))
    if whole is not None:
        profile = msgspec.structs.replace(profile, whole=whole)
    if reference.time:
        profile = _over_time(profile, manifest, inputs, said, table[reference.time])
    if reference.target and manifest.task != "other":
        held = read_table(reference.holdout) if reference.holdout else table
        held_said = _said(loaded, manifest, held) if reference.holdout else said
        profile = _graded(profile, manifest, held_said, held[reference.target])
    return profile


def _with_importance(
    loaded: LoadedVersion, manifest: Manifest, profile: Profile, inputs: Tensors
) -> Profile:
    """Permutation importance (Breiman 2001) of the scores: what is shuffled must matter to move
    them. Needs no labels."""
    if manifest.score is None or not manifest.features:
        return profile
    chance = np.random.default_rng(0)
    some = chance.permutation(profile.rows)[:IMPORTANCE_ROWS]
    rows = {name: array[some] for name, array in inputs.items()}
    before = manifest.said(loaded.run(rows), len(some)).scores
    features = []
    for feature, one in zip(manifest.features, profile.features, strict=True):
        mixed = {**rows, feature.input: rows[feature.input].copy()}
        columns = mixed[feature.input].reshape(len(some), -1)  # a view of the copy
        columns[:, feature.column] = chance.permutation(columns[:, feature.column])
        after = manifest.said(loaded.run(mixed), len(some)).scores
        moved = float(np.nan_to_num(np.abs(after - before)).mean())
        features.append(msgspec.structs.replace(one, importance=moved))
    return msgspec.structs.replace(profile, features=tuple(features))


def rows_as_a_whole(manifest: Manifest, inputs: Tensors, rows: int) -> Whole | None:
    """Of all numeric features, if there are several; else of the first tensor of numbers whose
    rows have several. None where there is neither, or rows are too few."""
    numeric = sum(feature.kind == "numeric" for feature in manifest.features)
    wide = (n for n, a in inputs.items() if a.dtype.kind in "fiu" and a[:1].size > 1)
    name = "" if numeric > 1 else next(wide, None)
    values = None if name is None else whole_rows(name, manifest, inputs, rows)
    if name is None or values is None or rows < kernel.LEAST_REFERENCE:
        return None
    some = np.random.default_rng(0).permutation(rows)[:WHOLE_ROWS]
    found = kernel.prepare(values[np.sort(some)])
    return Whole(
        input=name,
        seed=found.seed,
        columns=found.columns,
        rows=found.rows,
        bandwidth=found.bandwidth,
        centre=_short(found.centre),
        scale=_short(found.scale),
        mean=_short(found.mean),
        eigenvalues=_short(found.eigenvalues),
    )


def _short(vector: npt.NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(f"{value:.7g}") for value in vector.tolist())


def _over_time(
    profile: Profile, manifest: Manifest, inputs: Tensors, said: Said, times: polars.Series
) -> Profile:
    """With what is usual between days, or hours; as it is where the data last too short."""
    found = blocks.cut(times)
    if found is None:
        return profile
    features = []
    for feature, one in zip(manifest.features, profile.features, strict=True):
        values = feature_values(feature, inputs, len(times))
        assert values is not None  # it was profiled a moment ago
        features.append(blocks.with_blocks(one, one.index(values), found.block))
    score = profile.score
    if score is not None:
        score = blocks.with_blocks(score, score.index(said.scores), found.block)
    whole = profile.whole
    if whole is not None:
        values = whole_rows(whole.input, manifest, inputs, len(times))
        assert values is not None  # it was profiled a moment ago
        whole = blocks.whole_over_time(whole, values, found.block)
    return msgspec.structs.replace(
        profile,
        features=tuple(features),
        score=score,
        whole=whole,
        grain=found.grain,
        blocks=found.size,
    )


def _graded(profile: Profile, manifest: Manifest, said: Said, target: polars.Series) -> Profile:
    """With metrics, and what came true of each score."""
    if manifest.task == "regression":
        values = target.cast(polars.Float64).to_numpy()
        scale = Scale(*regression.scale(values, said.scores))
        return msgspec.structs.replace(
            profile,
            holdout_rows=len(target),
            metrics=_finite(errors(said.scores, values)),
            target=scale,
            errors=_error_sums(profile, said.scores, (said.scores - values) / scale.error),
        )
    truth = _truth(manifest, target)
    known = truth >= 0
    if not known.any():
        raise RepositoryError(
            f"column '{target.name}' has none of the classes {', '.join(manifest.classes)}"
        )
    if (said.classes[known] == UNKNOWN_CLASS).all():
        raise RepositoryError(
            f"the model says none of the classes {', '.join(manifest.classes)}, which column "
            f"'{target.name}' has; name them with --classes as the model spells them"
        )
    cell, width = graded_cell(manifest, said.classes[known], truth[known])
    bins, count = np.zeros(int(known.sum()), np.int64), 1
    if profile.score is not None:
        bins, count = profile.score.index(said.scores[known]), len(profile.score.counts) + 1
    graded = np.bincount(bins * width + cell, minlength=count * width)
    return msgspec.structs.replace(
        profile,
        holdout_rows=len(target),
        metrics=_finite(measured(manifest, said, truth)),
        graded=tuple(graded.tolist()),
    )


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    """Those that are numbers: a profile is JSON, which has no infinity."""
    return {name: value for name, value in metrics.items() if np.isfinite(value)}


def _error_sums(profile: Profile, scores: Any, off: Any) -> tuple[tuple[float, ...], ...]:
    if profile.score is None:
        return ()
    known = np.isfinite(off)
    bins = profile.score.index(scores[known])
    found = error_sums(bins, off[known], len(profile.score.counts) + 1)
    return tuple(tuple(part.tolist()) for part in found)


def _said(loaded: LoadedVersion, manifest: Manifest, table: polars.DataFrame) -> Said:
    parts = []
    for start in range(0, len(table), CHUNK):
        rows = table[start : start + CHUNK]
        outputs = loaded.run(tensors_of(loaded, manifest.features, rows))
        parts.append(manifest.said(outputs, len(rows)))
    return Said(
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.classes for part in parts]),
    )


def _truth(manifest: Manifest, target: polars.Series) -> Any:
    return np.array([manifest.class_index(value) for value in target.to_list()], np.int64)


def errors(said: Any, truth: Any) -> dict[str, float]:
    """A regression's errors, in the target's unit, on rows whose truth is known."""
    known = np.isfinite(said) & np.isfinite(truth)
    if not known.any():
        raise RepositoryError(
            "no row has both an answer of the model and a target that is a number"
        )
    error = (said - truth)[known]
    total = float(((truth[known] - truth[known].mean()) ** 2).sum())
    found = {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "bias": float(error.mean()),
    }
    return {**found, "r2": 1 - float((error**2).sum()) / total} if total else found


def measured(manifest: Manifest, said: Said, truth: Any) -> dict[str, float]:
    """Metrics on rows whose truth is known, computed as the monitor computes them."""
    known = truth >= 0
    metrics = {"accuracy": float((said.classes[known] == truth[known]).mean())}
    if manifest.task == "binary" and manifest.score is not None:
        grid = np.clip((said.scores[known] * GRID).astype(int), 0, GRID - 1)
        negatives, positives = (
            np.bincount(grid[truth[known] == label], minlength=GRID).astype(np.int64)
            for label in (0, 1)
        )
        area = auc(negatives, positives)
        if area is not None:
            metrics["auc"] = area.value
        metrics["calibration_error"] = reliability(negatives, positives).error
        metrics["positive_rate"] = float((truth[known] == 1).mean())
    return metrics
