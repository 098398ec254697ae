"""From an ONNX file and a table to a version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars
import pytest
from sklearn.metrics import roc_auc_score

from models.errors import BadModel, RepositoryError, VersionExists
from models.repository import Repository
from models.version import ModelVersion
from slipstream.push import Reference, push
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
    with pytest.raises(RepositoryError, match="cannot name a model"):
        push(repository, "a/b", file)
    with pytest.raises(BadModel, match="cannot express"):
        push(repository, "m", onnx_models.sequence(tmp_path / "s.onnx"))
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"junk")
    with pytest.raises(BadModel, match="cannot be loaded"):
        push(repository, "m", junk)
