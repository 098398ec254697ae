"""models.manifest: what a version is and what it said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.errors import RepositoryError
from models.manifest import UNKNOWN_CLASS, Feature, Manifest, Score, read_manifest, write_manifest
from models.signature import Array

BINARY = Manifest(
    "m",
    2,
    "sha256:0",
    task="binary",
    created="2026-01-01T00:00:00Z",
    features=(Feature("a", "numeric", "x", 0), Feature("carrier", "categorical", "c")),
    score=Score("p", 1),
    classes=("no", "yes"),
    threshold=0.3,
    non_finite="refuse",
    training={"rows": 5, "metrics": {"auc": 0.7}},
)
LABELLED = Manifest("m", 1, "", task="multiclass", label="l", classes=("0", "1", "late"))


@pytest.mark.parametrize("manifest", [BINARY, LABELLED, Manifest("m", 1, "")])
def test_what_is_written_is_read(manifest: Manifest, tmp_path: Path) -> None:
    """A manifest survives its file."""
    write_manifest(tmp_path / "manifest.toml", manifest)
    assert read_manifest(tmp_path / "manifest.toml") == manifest


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("model = ", "manifest.toml"),
        ("model = 'm'\nversion = 1", "digest"),
        ("model = 'm'\nversion = 'one'\ndigest = ''", "version"),
        ("model = 'm'\nversion = 1\ndigest = ''\nnon_finite = 'maybe'", "non_finite"),
    ],
)
def test_a_bad_file_names_itself_and_the_field(text: str, sentence: str, tmp_path: Path) -> None:
    """Whoever wrote it by hand is told where to look."""
    (tmp_path / "manifest.toml").write_text(text)
    with pytest.raises(RepositoryError, match=sentence):
        read_manifest(tmp_path / "manifest.toml")


@pytest.mark.parametrize(
    ("value", "index"),
    [
        (0, 0),
        ("0", 0),
        (1.0, 1),
        (True, 1),
        (False, 0),
        ("late", 2),
        ("Late", UNKNOWN_CLASS),
        (1.5, UNKNOWN_CLASS),
        (7, UNKNOWN_CLASS),
        (float("nan"), UNKNOWN_CLASS),
    ],
)
def test_a_label_is_known_however_it_is_written(value: object, index: int) -> None:
    """0, "0", 0.0 and false are one class; a stranger is UNKNOWN_CLASS."""
    assert LABELLED.class_index(value) == index


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.array(["late", "0", "?"], object), [2, 0, -1]),
        (np.array([1, 0, 9], np.int64), [1, 0, -1]),
        (np.array([[1.0], [0.0], [0.5]], np.float32), [1, 0, -1]),
        (np.array([True, False, True]), [1, 0, 1]),
    ],
)
def test_a_label_output_says_the_class(labels: Array, classes: list[int]) -> None:
    """Whatever the label's type, in the manifest's order; no score is NaN."""
    said = LABELLED.said({"l": labels}, 3)
    assert said.classes.tolist() == classes
    assert np.isnan(said.scores).all()


def test_a_binary_score_says_the_class_at_the_threshold() -> None:
    """The score's column is compared with the threshold; at it is positive, NaN is unknown."""
    p = np.array([[0.9, 0.1], [0.75, 0.25], [0.5, 0.5], [np.nan, np.nan]])
    said = BINARY.said({"p": np.concatenate([p, [[0.7, 0.3]]])}, 5)
    np.testing.assert_array_equal(said.scores, [0.1, 0.25, 0.5, np.nan, 0.3])
    assert said.classes.tolist() == [0, 0, 1, UNKNOWN_CLASS, 1]


@pytest.mark.parametrize("outputs", [{}, {"p": np.zeros((2, 1), np.float32)}])
def test_an_output_that_is_not_there_says_nothing(outputs: dict[str, Array]) -> None:
    """No such output, or no such column: NaN and unknown, for every row."""
    said = BINARY.said(outputs, 2)
    assert np.isnan(said.scores).all()
    assert said.classes.tolist() == [UNKNOWN_CLASS] * 2


@pytest.mark.parametrize(
    ("manifest", "outputs"),
    [(BINARY, {"p": np.zeros((0, 2))}), (LABELLED, {"l": np.zeros(0, np.int64)})],
)
def test_no_rows_say_nothing(manifest: Manifest, outputs: dict[str, Array]) -> None:
    """A request with zero rows is legal, and so is a window of them."""
    said = manifest.said(outputs, 0)
    assert len(said.scores) == len(said.classes) == 0


def test_recorded_outputs_are_score_and_label_once_each() -> None:
    """What monitoring needs, and no more."""
    both = Manifest("m", 1, "", score=Score("p"), label="p")
    assert (BINARY.recorded_outputs, LABELLED.recorded_outputs) == (("p",), ("l",))
    assert both.recorded_outputs == ("p",)
