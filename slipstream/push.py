"""From an ONNX file and reference data to a version in the repository.

Manifest and profile are made here, once; nothing of the reference data itself is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars

from models.errors import RepositoryError
from models.manifest import Feature, Manifest, Score, Task, digest_of
from models.repository import Package, Repository
from models.sessions import LoadedVersion
from models.signature import Tensors, TensorSpec
from models.version import ModelVersion
from slipstream.profiling import build_profile
from slipstream.reference import Reference, is_tensor, tensors_of


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
        single = [spec for spec in specs if not is_tensor(table[spec.name])]
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
