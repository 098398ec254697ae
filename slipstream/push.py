"""From an ONNX file and reference data to a version in the repository.

Manifest and profile are made here, once; nothing of the reference data itself is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars

from models.errors import RepositoryError
from models.manifest import UNKNOWN_CLASS, Feature, Manifest, Said, Score, Task, digest_of
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
from models.repository import Package, Repository
from models.sessions import LoadedVersion
from models.signature import NUMPY, Array, Tensors, TensorSpec
from models.version import ModelVersion
from monitoring.stats import kernel, regression
from monitoring.stats.estimate import error_sums
from monitoring.stats.performance import auc, reliability
from monitoring.window import graded_cell
from slipstream import blocks

#: Rows that the model answers at a time while the profile is made.
CHUNK = 5_000
#: Rows on which each feature is shuffled.
IMPORTANCE_ROWS = 500
#: Rows of the reference that are looked at as a whole.
WHOLE_ROWS = 20_000
#: Score bins for the metrics, as the monitor uses them.
GRID = 1024


@dataclass(frozen=True)
class Reference:
    """The data that a version was made from. `holdout` measures it; the reference else.

    `time` names the column of the rows' times, from which is learned how much days differ.
    """

    file: Path
    target: str | None = None
    holdout: Path | None = None
    time: str | None = None

    def table(self) -> polars.DataFrame:
        """Its rows. Raises RepositoryError where it has none, or not the columns that are named."""
        table = read_table(self.file)
        missing = sorted(self.aside - set(table.columns))
        if missing:
            raise RepositoryError(
                f"{self.file} has no column '{missing[0]}'; it has: {', '.join(table.columns)}"
            )
        if not len(table):
            raise RepositoryError(f"{self.file} has no rows")
        return table

    @property
    def aside(self) -> set[str]:
        """Columns that are no features."""
        return {name for name in (self.target, self.time) if name}


def push(
    repository: Repository,
    model: str,
    file: Path,
    *,
    version: int | None = None,
    reference: Reference | None = None,
    classes: list[str] | None = None,
    training: dict[str, Any] | None = None,
    non_finite: str = "allow",
    segments: Sequence[str] = (),
    fairness: Sequence[str] = (),
) -> tuple[Manifest, bool]:
    """Add a version; False where the very same file was there already.

    `segments` name the features by whose values accuracy is told (all, without any), `fairness`
    those whose groups are to be treated alike.

    Raises RepositoryError (or BadModel, VersionExists) with what to do.
    """
    if not file.is_file():
        raise RepositoryError(f"there is no file {file}")
    digest = digest_of(file)
    number = version or _next_version(repository, model, digest)
    bare = Manifest(model, number, digest)
    loaded = LoadedVersion(Package(ModelVersion(model, number), file, bare, None))
    created = datetime.now(UTC).isoformat(timespec="seconds")
    facts = {"description": "", **(training or {})}
    if reference is None:
        manifest = Manifest(model, number, digest, created=created, training=facts)
        return manifest, repository.push(file, manifest, None)
    manifest = Manifest(
        model=model,
        version=number,
        digest=digest,
        created=created,
        non_finite="refuse" if non_finite == "refuse" else "allow",
        **_described(loaded, reference.table(), reference, classes),
        segments=tuple(segments),
        fairness=tuple(fairness),
        training=facts,
    )
    _check_names(manifest)
    profile = build_profile(loaded, manifest, reference)
    return manifest, repository.push(file, manifest, profile)


def _check_names(manifest: Manifest) -> None:
    known = [feature.name for feature in manifest.features]
    for name in (*manifest.segments, *manifest.fairness):
        if name not in known:
            raise RepositoryError(f"no feature is called '{name}'; there are: {', '.join(known)}")


def _next_version(repository: Repository, model: str, digest: str) -> int:
    """The number that follows, or the one under which this very file was pushed."""
    for number in repository.versions(model):
        if repository.open(ModelVersion(model, number)).manifest.digest == digest:
            return number
    return max(repository.versions(model), default=0) + 1


def read_table(file: Path) -> polars.DataFrame:
    """Parquet, CSV, or NumPy's .npz, whose arrays may have more than one number a row."""
    if file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as arrays:
            return polars.DataFrame({name: arrays[name] for name in arrays.files})
    if file.suffix == ".parquet":
        return polars.read_parquet(file)
    if file.suffix == ".csv":
        return polars.read_csv(file, infer_schema_length=10_000)
    raise RepositoryError(f"{file} is neither .parquet, .csv nor .npz")


# --- what the model takes and says ----------------------------------------------------------------


def _described(
    loaded: LoadedVersion,
    table: polars.DataFrame,
    reference: Reference,
    classes: list[str] | None,
) -> dict[str, Any]:
    """Features, score, label, classes and task, as far as signature and data tell them."""
    target = reference.target
    features = _features(loaded, table, reference.aside)
    outputs = loaded.run(tensors_of(loaded, features, table.head(10)))
    score, label = _outputs(loaded, outputs, min(len(table), 10))
    known = classes or (_classes(table[target]) if target else [])
    task = _task(known, score is not None or label is not None)
    width = outputs[score.output].reshape(len(outputs[score.output]), -1).shape[1] if score else 0
    if score and not known and target and table[target].dtype.is_numeric() and width == 1:
        task = "regression"
    told = {"binary": True, "multiclass": width == len(known), "regression": True}
    return {
        "features": features,
        "score": score if told.get(task) else None,
        "label": label if task != "regression" else None,
        "classes": tuple(known),
        "task": task,
    }


def _task(classes: list[str], says: bool) -> Task:
    if len(classes) < 2 or not says:
        return "other"
    return "binary" if len(classes) == 2 else "multiclass"


def _features(
    loaded: LoadedVersion, table: polars.DataFrame, aside: set[str]
) -> tuple[Feature, ...]:
    """One input tensor per column, or one tensor for all columns in their order."""
    specs = loaded.signature.inputs
    columns = [name for name in table.columns if name not in aside]
    if all(spec.name in columns for spec in specs):
        single = [spec for spec in specs if not _is_tensor(table[spec.name])]
        return tuple(Feature(spec.name, _kind(spec), spec.name) for spec in single)
    if len(specs) == 1 and specs[0].shape is not None and len(specs[0].shape) == 2:
        width = specs[0].shape[1]
        if width not in (-1, len(columns)):
            raise RepositoryError(
                f"{loaded.version} takes {width} features, the reference has {len(columns)} "
                f"columns beside target and time"
            )
        return tuple(
            Feature(name, _kind(specs[0]), specs[0].name, i) for i, name in enumerate(columns)
        )
    missing = [spec.name for spec in specs if spec.name not in columns]
    raise RepositoryError(
        f"the reference data has no column for the inputs: {', '.join(missing)}; "
        f"its columns are: {', '.join(columns)}"
    )


def _is_tensor(column: polars.Series) -> bool:
    """Whether a row has more than one value: an embedding, an image."""
    return isinstance(column.dtype, polars.Array | polars.List)


def _kind(spec: TensorSpec) -> Any:
    return "categorical" if spec.datatype in ("BYTES", "BOOL") else "numeric"


def _outputs(loaded: LoadedVersion, outputs: Tensors, rows: int) -> tuple[Score | None, str | None]:
    """The score is the first float output with a row a row; the label the first other one."""
    per_row = {n: a for n, a in outputs.items() if a.ndim and len(a) == rows}
    floats = [n for n, a in per_row.items() if a.dtype.kind == "f"]
    others = [n for n, a in per_row.items() if a.dtype.kind in "iuOb" and a.size == rows]
    score = None
    if floats:
        width = per_row[floats[0]].reshape(rows, -1).shape[1]
        score = Score(floats[0], 1 if width == 2 else 0)
    return score, others[0] if others else None


def _classes(target: polars.Series) -> list[str]:
    values = target.drop_nulls().unique().sort().to_list()
    if len(values) > 50:
        return []  # a number to predict, not a class
    return [str(int(v)) if isinstance(v, bool | float) else str(v) for v in values]


# --- tensors and profile --------------------------------------------------------------------------


def tensors_of(
    loaded: LoadedVersion, features: tuple[Feature, ...], table: polars.DataFrame
) -> Tensors:
    """Rows of a table as the tensors that the gateway would see."""
    tensors: Tensors = {}
    for spec in loaded.signature.inputs:
        if spec.name in table.columns and _is_tensor(table[spec.name]):
            tensors[spec.name] = _stacked(table[spec.name]).astype(NUMPY[spec.datatype])
            continue
        names = [feature.name for feature in features if feature.input == spec.name]
        columns = [_column(table[name], spec.datatype) for name in names]
        tensors[spec.name] = np.stack(columns, axis=1)
        if spec.shape is not None and len(spec.shape) == 1:
            tensors[spec.name] = tensors[spec.name][:, 0]
    return tensors


def _stacked(column: polars.Series) -> Array:
    """Rows of equally many values as one array. Raises RepositoryError where they differ."""
    if isinstance(column.dtype, polars.Array):
        return column.to_numpy()
    try:
        return np.stack([row.to_numpy() for row in column])
    except (ValueError, AttributeError) as error:
        raise RepositoryError(
            f"column '{column.name}' has rows of different lengths, which no tensor can hold"
        ) from error


def _column(column: polars.Series, datatype: str) -> Array:
    if datatype == "BYTES":
        return column.cast(polars.String).fill_null("").to_numpy().astype(object)
    if NUMPY[datatype].kind == "f":
        return column.cast(polars.Float64).to_numpy().astype(NUMPY[datatype])
    if column.null_count():
        raise RepositoryError(
            f"column '{column.name}' has missing values, which a {datatype} input cannot hold"
        )
    return column.to_numpy().astype(NUMPY[datatype])


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
