"""Grades what was said by the labels that came for it. Pure: one pane's labels in, counts out."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np

from monitoring.stats import regression
from monitoring.window import GRID, MICRO, Layout, Vector, graded_cell

#: Usual errors beyond which one counts as this large, in the sums by bin.
FAR = 1_000.0
#: Scores are kept away from 0 and 1 by this before a logarithm is taken.
EPSILON = 1e-7


class Truth(NamedTuple):
    """A label that met a prediction; `sign` is -1 where a later label takes it back."""

    score: float
    said: int
    label: int | float
    sign: int
    cells: bytes


class Grading:
    """Labels of one pane against what was said, as arrays."""

    def __init__(self, layout: Layout, truths: list[Truth]) -> None:
        self._layout = layout
        self._task = layout.manifest.task
        self._scores = np.array([truth.score for truth in truths])
        self._said = np.array([truth.said for truth in truths], np.int64)
        self._labels = np.array([truth.label for truth in truths])
        self._signs = np.array([truth.sign for truth in truths], np.int64)
        width = len(layout.segments)
        whole = (truth.cells if len(truth.cells) == width else b"\xff" * width for truth in truths)
        cells = np.frombuffer(b"".join(whole), np.uint8).reshape(len(truths), width)
        self._cells = cells.astype(np.int64)

    def add_to(self, vector: Vector) -> None:
        if self._task == "regression":
            self._add_residuals(vector)
            return
        self._labels = self._labels.astype(np.int64)
        known = len(self._layout.manifest.classes)
        if known:
            said = np.where(self._said < 0, known, self._said)
            self._count(vector, "confusion", self._labels * (known + 1) + said, self._signs)
        if self._task == "binary":
            self._add_scores(vector)
        self._add_graded(vector, *graded_cell(self._layout.manifest, self._said, self._labels))

    def _count(self, vector: Vector, section: str, at: Vector, what: Vector) -> None:
        np.add.at(vector[self._layout.sections[section]], at, what)

    def _add_scores(self, vector: Vector) -> None:
        there = np.isfinite(self._scores)
        scores = np.clip(self._scores[there], 0, 1)
        labels, signs = self._labels[there], self._signs[there]
        bins = np.clip((scores * GRID).astype(np.int64), 0, GRID - 1)
        self._count(vector, "labelled", labels * GRID + bins, signs)
        sure = np.clip(scores, EPSILON, 1 - EPSILON)
        loss = -np.log(np.where(labels == 1, sure, 1 - sure))
        sums = np.stack([loss, (scores - labels) ** 2, scores], axis=1)
        whole = np.round(sums * MICRO).astype(np.int64) * signs[:, None]
        vector[self._layout.sections["loss"]] += [signs.sum(), *whole.sum(axis=0)]

    def _add_graded(self, vector: Vector, cell: Vector, width: int) -> None:
        """By score bin and by segment; `cell` of `width` says how a row was graded."""
        profile = self._layout.profile
        if profile is None:
            return
        if profile.score is not None:
            bins = profile.score.index(self._scores)
            self._count(vector, "graded", bins * width + cell, self._signs)
        for at, segment in enumerate(self._layout.segments):
            there = self._cells[:, at] < len(segment.names)
            where = self._cells[there, at] * width + cell[there]
            self._count(vector, f"segment:{segment.feature}", where, self._signs[there])

    def _add_residuals(self, vector: Vector) -> None:
        profile = self._layout.profile
        if profile is None or profile.target is None:
            return
        scale = regression.Scale(*msgspec.structs.astuple(profile.target))
        there = np.isfinite(self._scores)
        said, truth, signs = self._scores[there], self._labels[there], self._signs[there]
        for sign in (1, -1):
            rows = signs == sign
            vector[self._layout.sections["residual"]] += sign * regression.sums(
                scale, truth[rows], said[rows]
            )
        off = np.minimum(np.abs(said - truth) / scale.error, FAR)
        whole = np.round(off * MICRO).astype(np.int64) * signs
        if profile.score is not None:
            bins = profile.score.index(said)
            self._count(vector, "graded", bins * 2, signs)
            self._count(vector, "graded", bins * 2 + 1, whole)
        for at, segment in enumerate(self._layout.segments):
            cells = self._cells[there, at]
            known = cells < len(segment.names)
            section = f"segment:{segment.feature}"
            self._count(vector, section, cells[known] * 2, signs[known])
            self._count(vector, section, cells[known] * 2 + 1, whole[known])
