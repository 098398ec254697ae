"""From an ONNX file and a table to a version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from skl2onnx import to_onnx
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import mean_absolute_error, r2_score, roc_auc_score

from models.errors import BadModel, RepositoryError, VersionExists
from models.repository import Repository
from models.version import ModelVersion
from monitoring.examine import whole
from monitoring.stats import kernel
from monitoring.window import Layout, Window
from slipstream.push import push
from slipstream.reference import Reference
from tests import onnx_models


def test_manifest_and_profile_are_made_from_file_and_table(tmp_path: Path, reference: Path) -> None:
    """Features, classes, score column and metrics follow from signature and data."""
    file = onnx_models.softmax(tmp_path / "m.onnx")
    repository = Repository(tmp_path / "repository")
    manifest, new = push(repository, "m", file, reference=Reference(reference, "late"))
    assert new
    assert [feature.name for feature in manifest.features] == ["a", "b", "c", "d"]
    assert (manifest.task, manifest.classes) == ("binary", ("0", "1"))
    assert manifest.score is not None
    assert (manifest.score.output, manifest.score.column) == ("y", 1)
    profile = repository.open(ModelVersion("m", 1)).profile
    assert profile is not None
    table = polars.read_parquet(reference)
    x, late = table.select("a", "b", "c", "d").to_numpy(), table["late"].to_numpy()
    weights = (np.arange(8).reshape(4, 2) - 3.5) / 10
    score = np.exp(x @ weights)[:, 1] / np.exp(x @ weights).sum(axis=1)
    assert profile.metrics["auc"] == pytest.approx(roc_auc_score(late, score), abs=5e-4)
    assert profile.metrics["accuracy"] == pytest.approx(((score >= 0.5) == late).mean())
    assert sum(profile.features[0].counts) == len(table)


def test_what_the_model_looks_at_is_known(tmp_path: Path, reference: Path) -> None:
    """The weights of the softmax model grow from column to column: so does their importance."""
    file = onnx_models.softmax(tmp_path / "m.onnx")
    repository = Repository(tmp_path / "repository")
    push(repository, "m", file, reference=Reference(reference, "late"))
    profile = repository.open(ModelVersion("m", 1)).profile
    assert profile is not None
    found = [one.importance for one in profile.features]
    assert all(value is not None and value > 0 for value in found)
    weights = (np.arange(8).reshape(4, 2) - 3.5) / 10
    assert found == pytest.approx([found[0]] * 4, rel=0.15)  # all rows differ by .1 alike
    assert np.ptp(weights[:, 1] - weights[:, 0]) == pytest.approx(0)


def test_the_same_file_is_the_same_version_and_another_one_is_refused(
    tmp_path: Path, reference: Path
) -> None:
    """Versions never change; pushing again is no error, pushing over is."""
    repository = Repository(tmp_path / "repository")
    one = onnx_models.softmax(tmp_path / "1.onnx", 1.0)
    two = onnx_models.softmax(tmp_path / "2.onnx", 2.0)
    data = Reference(reference, "late")
    assert push(repository, "m", one, reference=data)[1]
    assert not push(repository, "m", one, reference=data)[1]
    with pytest.raises(VersionExists, match="push it as version 2"):
        push(repository, "m", two, version=1, reference=data)
    assert push(repository, "m", two, reference=data)[0].version == 2


def test_a_csv_serves_as_reference_too(tmp_path: Path, reference: Path) -> None:
    """Parquet and CSV of the same rows give the same bins."""
    table = tmp_path / "data.csv"
    polars.read_parquet(reference).write_csv(table)
    file = onnx_models.softmax(tmp_path / "m.onnx")
    profiles = []
    for name, data in (("p", reference), ("c", table)):
        repository = Repository(tmp_path / name)
        push(repository, "m", file, reference=Reference(data, "late"))
        profiles.append(repository.open(ModelVersion("m", 1)).profile)
    assert profiles[0] == profiles[1]


def test_what_does_not_fit_is_said_in_a_sentence(tmp_path: Path, reference: Path) -> None:
    """Missing columns, odd names, files that are no model."""
    repository = Repository(tmp_path / "repository")
    wrong = tmp_path / "wrong.parquet"
    polars.DataFrame({"a": [1.0], "late": [1]}).write_parquet(wrong)
    file = onnx_models.softmax(tmp_path / "m.onnx")
    with pytest.raises(RepositoryError, match="takes 4 features, the reference has 1"):
        push(repository, "m", file, reference=Reference(wrong, "late"))
    for named in (Reference(reference, "latte"), Reference(reference, "late", time="day")):
        with pytest.raises(RepositoryError, match="has no column"):
            push(repository, "m", file, reference=named)
    empty = tmp_path / "empty.parquet"
    polars.read_parquet(reference).head(0).write_parquet(empty)
    with pytest.raises(RepositoryError, match="has no rows"):
        push(repository, "m", file, reference=Reference(empty, "late"))
    with pytest.raises(RepositoryError, match="cannot name a model"):
        push(repository, "a/b", file)
    with pytest.raises(BadModel, match="cannot express"):
        push(repository, "m", onnx_models.sequence(tmp_path / "s.onnx"))
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"junk")
    with pytest.raises(BadModel, match="cannot be loaded"):
        push(repository, "m", junk)


def test_a_label_in_another_spelling_is_refused(tmp_path: Path) -> None:
    """The model says 0, 1 and 2, the table setosa and so on: nothing would ever be right."""
    x, y = load_iris(return_X_y=True)
    names = load_iris().target_names[y]
    model = LogisticRegression(max_iter=1_000).fit(x, y)
    file, reference = sklearn_version(tmp_path, model, x, names)
    with pytest.raises(RepositoryError, match="says none of the classes setosa"):
        push(Repository(tmp_path / "repository"), "iris", file, reference=reference)


def sklearn_version(folder: Path, model: Any, x: Any, y: Any) -> tuple[Path, Reference]:
    """A fitted model as ONNX, and its data as a table."""
    file = folder / "model.onnx"
    options = {"zipmap": False} if hasattr(model, "classes_") else None
    exported = to_onnx(model, x[:1].astype(np.float32), options=options, target_opset=17)
    file.write_bytes(exported.SerializeToString())
    table = polars.DataFrame({f"f{i}": x[:, i].astype(np.float32) for i in range(x.shape[1])})
    table = table.with_columns(polars.Series("y", y))
    table.write_parquet(folder / "data.parquet")
    return file, Reference(folder / "data.parquet", "y")


def test_a_regression_is_known_by_its_target(tmp_path: Path) -> None:
    """Diabetes: a number to predict; the errors are scikit-learn's."""
    x, y = load_diabetes(return_X_y=True)
    model = LinearRegression().fit(x, y)
    repository = Repository(tmp_path / "repository")
    file, reference = sklearn_version(tmp_path, model, x, y)
    manifest, _ = push(repository, "sugar", file, reference=reference)
    profile = repository.open(ModelVersion("sugar", 1)).profile
    assert (manifest.task, manifest.classes, manifest.label) == ("regression", (), None)
    assert profile is not None
    assert profile.target is not None
    assert (profile.target.centre, profile.target.spread) == pytest.approx((y.mean(), y.std()))
    said = model.predict(x)
    assert profile.metrics["mae"] == pytest.approx(mean_absolute_error(y, said), rel=1e-4)
    assert profile.metrics["r2"] == pytest.approx(r2_score(y, said), rel=1e-4)


def test_many_classes_are_known_with_their_confidence(tmp_path: Path) -> None:
    """Iris: the score is that of the class that was said."""
    x, y = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=1_000).fit(x, y)
    repository = Repository(tmp_path / "repository")
    file, reference = sklearn_version(tmp_path, model, x, y)
    manifest, _ = push(repository, "iris", file, reference=reference)
    profile = repository.open(ModelVersion("iris", 1)).profile
    assert (manifest.task, manifest.classes) == ("multiclass", ("0", "1", "2"))
    assert manifest.score is not None
    assert profile is not None
    assert profile.score is not None
    confidence = model.predict_proba(x).max(axis=1)
    assert profile.score.numeric is not None
    assert profile.score.numeric.high == pytest.approx(confidence.max(), abs=1e-5)
    assert profile.metrics["accuracy"] == model.score(x, y)


def test_images_are_profiled_as_a_whole(tmp_path: Path) -> None:
    """Digits as 8 x 8 tensors: no feature, but classes, confidence and the rows as a whole; the
    same digits are no drift, inverted ones are."""
    data = load_digits()
    images, y = (data.images / 16).astype(np.float32), data.target
    model = LogisticRegression(max_iter=200).fit(images.reshape(len(images), -1), y)
    file = onnx_models.images(tmp_path / "digits.onnx", model.coef_.T, model.intercept_)
    np.savez(tmp_path / "digits.npz", image=images, y=y)
    repository = Repository(tmp_path / "repository")
    reference = Reference(tmp_path / "digits.npz", "y")
    manifest, _ = push(repository, "digits", file, reference=reference)
    package = repository.open(ModelVersion("digits", 1))
    profile = package.profile
    assert (manifest.features, manifest.task, len(manifest.classes)) == ((), "multiclass", 10)
    assert profile is not None
    assert profile.whole is not None
    assert (profile.whole.input, profile.whole.columns) == ("image", 64)
    assert profile.metrics["accuracy"] == pytest.approx(model.score(images.reshape(-1, 64), y))
    layout = Layout(manifest, profile)
    assert layout.whole is not None
    for pictures, drifted in ((images, False), (1 - images, True)):
        vector = layout.zeros()
        vector[layout.sections["whole"]] += kernel.state(layout.whole, pictures[:400])
        found = whole(Window(layout, vector))
        assert found is not None
        assert (found.p_value < 1e-6) == drifted
