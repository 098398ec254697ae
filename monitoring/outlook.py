"""(window, profile) -> how good the model is likely to be, where few labels or none are known.

Scores say it while they mean what they meant: inputs may shift, the concept may not. Labels say it
without that condition, and as soon as there are some they correct the scores.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.profile import Profile
from monitoring.stats import estimate, performance, regression
from monitoring.stats.estimate import Labelled, Table
from monitoring.window import MICRO, Layout, Vector, Window

Floats = npt.NDArray[np.float64]

#: Labels from which they are used beside the scores.
LEAST_LABELS = 30
#: Share of rows from which labels are as good as all, whoever is missing.
NEARLY_ALL = 0.9
#: p-value below which labelled predictions are not like the others.
PICKED = 0.001


class Outlook(NamedTuple):
    """An estimate of the accuracy, or of a regression's mean absolute error in the target's unit.

    `reference` is the hold-out's, `how` says what it rests on. `unseen` is the share of rows whose
    score the hold-out never had. `picked`: the labels so far are no fair sample of the rows.
    """

    metric: str
    value: float
    low: float
    high: float
    reference: float
    rows: int
    labels: int
    how: str
    unseen: float
    picked: bool


def outlook(window: Window) -> Outlook | None:
    """None where the profile says nothing of what came true, or no row has come."""
    alone, known = promised(window), _known(window.layout)
    if alone is None or known is None:
        return None
    sums, picked = known.labelled(window), labels_are_picked(window)
    found = alone._replace(labels=int(sums.labels), picked=picked)
    if sums.labels < LEAST_LABELS or picked:
        return found
    powered = estimate.prediction_powered([sums], share=known.share, beyond=True)
    if powered is None:
        return found
    value, low, high = (bound * known.unit for bound in powered.estimate[:3])
    return found._replace(value=value, low=low, high=high, how="scores and labels")


def promised(window: Window) -> Outlook | None:
    """What the scores alone say, whatever labels there are."""
    known = _known(window.layout)
    found = None if known is None else known.alone(window)
    if known is None or found is None:
        return None
    value, low, high, unseen = found
    rows = int(window["score"].sum())
    unit = known.unit
    return Outlook(
        known.metric,
        value * unit,
        low * unit,
        high * unit,
        known.reference * unit,
        rows,
        0,
        "scores alone",
        unseen,
        picked=False,
    )


class Cells(NamedTuple):
    """By cell of score (and class said): the chance to be right, and how labels turned out."""

    chance: Floats
    rows: Vector
    wrong: Vector
    right: Vector


def cells(window: Window) -> Cells | None:
    """What scores promised and labels held; None of a regression, or without a hold-out."""
    known = _known(window.layout)
    return None if known is None or known.table is None else known.cells(window)


def labels_are_picked(window: Window) -> bool:
    """Whether the labelled predictions' scores are not distributed as all are."""
    every, graded = window["score"][:-1], _graded_rows(window)
    if graded.sum() < LEAST_LABELS or graded.sum() >= NEARLY_ALL * every.sum():
        return False
    if (graded > every).any():  # rows were not sampled whose labels came
        return False
    return performance.selection(every, graded).p_value < PICKED


def _graded_rows(window: Window) -> Vector:
    """Labelled rows of each score bin."""
    task, graded = window.layout.manifest.task, window["graded"]
    if task == "binary":
        return np.asarray(graded.reshape(-1, 4).sum(axis=1)[:-1])
    cells = graded.reshape(-1, 2)
    return np.asarray(cells[:-1, 0] if task == "regression" else cells[:-1].sum(axis=1))


class _Known(NamedTuple):
    """What the hold-out says of each score; `unit` is that of a regression's errors."""

    task: str
    table: Table | None
    errors: estimate.Errors | None
    metric: str
    reference: float
    unit: float

    @property
    def share(self) -> bool:
        return self.errors is None

    def alone(self, window: Window) -> tuple[float, float, float, float] | None:
        """Value, interval and share of unseen scores, from the scores alone."""
        if self.errors is not None:
            errors = estimate.regression(self.errors, window["score"][:-1])
            return errors and (*errors.mae[:3], errors.unseen)
        assert self.table is not None
        if self.task == "binary":
            spoken = window["spoken"].reshape(-1, 2)[:-1].T
            binary = estimate.binary(self.table, spoken)
            return binary and (*binary.accuracy[:3], binary.unseen)
        top = estimate.top_class(self.table, window["score"][:-1])
        return top and (*top.accuracy[:3], top.unseen)

    def labelled(self, window: Window) -> Labelled:
        if self.errors is not None:
            return self._errors(self.errors, window)
        return estimate.labelled(*self.cells(window))

    def cells(self, window: Window) -> Cells:
        assert self.table is not None
        if self.task == "binary":
            graded = window["graded"].reshape(-1, 2, 2)[:-1]  # score, said, truth
            right = np.stack([graded[:, 0, 0], graded[:, 1, 1]])
            wrong = np.stack([graded[:, 0, 1], graded[:, 1, 0]])
            spoken = window["spoken"].reshape(-1, 2)[:-1].T
            return Cells(estimate.chance_right(self.table), spoken, wrong, right)
        wrong, right = window["graded"].reshape(-1, 2)[:-1].T
        return Cells(self.table.chance, window["score"][:-1], wrong, right)

    def _errors(self, errors: estimate.Errors, window: Window) -> Labelled:
        expected = errors.absolute / np.maximum(errors.rows, 1)
        counts = window["score"][:-1]
        cells = window["graded"].reshape(-1, 2)[:-1]
        labels, absolute = cells[:, 0], cells[:, 1] / MICRO
        squared = float(window["residual"][4]) / regression.STEPS**2
        return Labelled(
            rows=float(counts.sum()),
            expected=float(counts @ expected),
            labels=float(labels.sum()),
            f=float(labels @ expected),
            c=float(absolute.sum()),
            ff=float(labels @ expected**2),
            fc=float(absolute @ expected),
            cc=squared,
        )


def _known(layout: Layout) -> _Known | None:
    profile = layout.profile
    if profile is None or profile.score is None:
        return None
    task = layout.manifest.task
    if task == "regression":
        return _of_errors(profile)
    if not sum(profile.graded):
        return None
    table = _table(profile.graded, task == "binary")
    return _Known(task, table, None, "accuracy", profile.metrics["accuracy"], 1.0)


def _of_errors(profile: Profile) -> _Known | None:
    if not profile.errors or profile.target is None:
        return None
    errors = estimate.Errors(*(np.array(part[:-1]) for part in profile.errors))
    unit = profile.target.error
    return _Known("regression", None, errors, "mae", profile.metrics["mae"] / unit, unit)


@lru_cache(maxsize=256)
def _table(graded: tuple[int, ...], binary: bool) -> Table:
    """The chance of a hit by score: of the positive label, or of being right."""
    cells = np.array(graded, np.int64)
    if binary:
        by_truth = cells.reshape(-1, 2, 2)[:-1].sum(axis=1)
        return estimate.calibrate(by_truth.sum(axis=1), by_truth[:, 1])
    by_right = cells.reshape(-1, 2)[:-1]
    return estimate.calibrate(by_right.sum(axis=1), by_right[:, 1])
