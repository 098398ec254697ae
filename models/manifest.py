"""`manifest.toml`: what a version is, which numbers it reads and which it says.

A folder without one serves all the same; then only traffic and latency can be watched.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import tomli_w

from models.comparator import Comparator
from models.errors import RepositoryError
from models.signature import Array

Task = Literal["binary", "multiclass", "regression", "other"]
Kind = Literal["numeric", "categorical"]

#: Class index of a value that is none of the known classes.
UNKNOWN_CLASS = -1


class Feature(msgspec.Struct, frozen=True, omit_defaults=True):
    """One feature: column `column` of the input tensor `input`."""

    name: str
    kind: Kind
    input: str
    column: int = 0


class Score(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the score is: column `column` of the output tensor `output`.

    Of a multiclass task all columns are read, one for each class.
    """

    output: str
    column: int = 0


class Said(NamedTuple):
    """What a version said about each row: scores (float64, NaN where none) and class indices.

    The score is the positive class's of a binary task, the confidence in the class that was said
    of a multiclass one, and the value itself of a regression.
    """

    scores: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int32]


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Facts about one version.

    `classes` are the label's values as text, in the order of the score's columns; for a binary
    task the second is the positive one. `threshold` turns a binary score into a class where the
    model has no label output of its own. `training` is free-form: rows, seconds, metrics.
    `compare` overrides how an output is compared with another version's. `segments` are features
    by whose values accuracy is told (all, where none is named), `fairness` those whose groups are
    to be treated alike.
    """

    model: str
    version: int
    digest: str
    task: Task = "other"
    created: str = ""
    features: tuple[Feature, ...] = ()
    score: Score | None = None
    label: str | None = None
    classes: tuple[str, ...] = ()
    threshold: float = 0.5
    non_finite: Literal["allow", "refuse"] = "allow"
    compare: dict[str, Comparator] = {}
    segments: tuple[str, ...] = ()
    fairness: tuple[str, ...] = ()
    training: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def recorded_outputs(self) -> tuple[str, ...]:
        """The outputs that monitoring needs."""
        score = (self.score.output,) if self.score else ()
        label = (self.label,) if self.label and self.label not in score else ()
        return score + label

    @property
    def compares_everything(self) -> bool:
        """Whether the gateway compares all outputs of two versions: where none is recorded, or
        the manifest says how."""
        return bool(self.compare) or not self.recorded_outputs

    def class_index(self, value: object) -> int:
        """The index of a label as clients write it (0, "0", true, "late"), or UNKNOWN_CLASS."""
        if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
            value = int(value)
        try:
            return self.classes.index(str(value))
        except ValueError:
            return UNKNOWN_CLASS

    def truth(self, value: object) -> int | float | None:
        """A label as clients write it: a class's index, or the number of a regression."""
        if self.task != "regression":
            index = self.class_index(value)
            return None if index == UNKNOWN_CLASS else index
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return None
        return number if np.isfinite(number) else None

    def said(self, outputs: Mapping[str, Array], rows: int) -> Said:
        """Scores and classes of `rows` rows, read from the recorded outputs."""
        if rows == 0:
            return Said(np.zeros(0), np.zeros(0, np.int32))
        scores = np.full(rows, np.nan)
        if self.score is not None and self.score.output in outputs:
            table = outputs[self.score.output].reshape(rows, -1)
            if self.task == "multiclass":
                return self._said_of_many(outputs, table.astype(np.float64), rows)
            if self.score.column < table.shape[1]:
                scores = table[:, self.score.column].astype(np.float64)
        return Said(scores, self._classes(outputs, scores, rows))

    def _said_of_many(
        self, outputs: Mapping[str, Array], table: npt.NDArray[np.float64], rows: int
    ) -> Said:
        if self.label is not None and self.label in outputs:
            classes = self._classes(outputs, np.zeros(rows), rows)
        else:
            classes = np.where(np.isnan(table).any(axis=1), UNKNOWN_CLASS, table.argmax(axis=1))
            classes = classes.astype(np.int32)
        there = (classes >= 0) & (classes < table.shape[1])
        scores = table[np.arange(rows), np.where(there, classes, 0)]
        return Said(np.where(there, scores, np.nan), classes)

    def _classes(
        self, outputs: Mapping[str, Array], scores: npt.NDArray[np.float64], rows: int
    ) -> npt.NDArray[np.int32]:
        if self.label is not None and self.label in outputs:
            labels = outputs[self.label].reshape(rows, -1)[:, 0]
            values, inverse = np.unique(labels.astype(str), return_inverse=True)
            index = np.array([self.class_index(_plain(v)) for v in values], np.int32)
            return index[inverse] if len(values) else np.zeros(0, np.int32)
        if self.task == "binary" and self.score is not None:
            return np.where(np.isnan(scores), UNKNOWN_CLASS, scores >= self.threshold).astype(
                np.int32
            )
        return np.full(rows, UNKNOWN_CLASS, np.int32)


def _plain(text: str) -> str:
    """'1.0' and 'True' as a label tensor may spell them, in the manifest's spelling."""
    if text in ("True", "False"):
        return str(int(text == "True"))
    return text[:-2] if text.endswith(".0") else text


def digest_of(path: Path) -> str:
    """SHA-256 of a file, as `sha256:…`."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def read_manifest(path: Path) -> Manifest:
    """Read `manifest.toml`. Raises RepositoryError, naming file and field."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text()), Manifest)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise RepositoryError(f"{path}: {error}") from error


def write_manifest(path: Path, manifest: Manifest) -> None:
    path.write_text(tomli_w.dumps(msgspec.to_builtins(manifest)))
