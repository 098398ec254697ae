"""Where a loss of accuracy comes from: cells of features whose accuracy or share changed. Pure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from monitoring.stats import causes
from monitoring.stats.causes import Cell, Split
from monitoring.window import Vector, Window

#: Labels on either side from which a loss is split.
LEAST_LABELS = 200


class Place(NamedTuple):
    """A cell of a feature and what it has to do with the loss."""

    feature: str
    name: str
    cell: Cell


class Loss(NamedTuple):
    """The split over the feature that explains the most, and the cells that lost the most."""

    feature: str
    split: Split
    places: tuple[Place, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        lost = -self.split.change.value * 100
        mix, rate = -self.split.mix.value * 100, -self.split.rate.value * 100
        whole = (
            f"{lost:.1f} points lost: {rate:.1f} because the same rows are answered worse, "
            f"{mix:.1f} because other rows come"
        )
        return (whole, *(_said(place) for place in self.places))


def _said(place: Place) -> str:
    rate = place.cell.rate
    lost = -rate.value * 100 if rate is not None else 0.0
    return f"{lost:.1f} points in {place.feature} {place.name}"


def loss(before: Window, now: Window) -> Loss | None:
    """Split the change of accuracy between two windows; None where there is no loss to split.

    A rate that fell in one cell alone points at it; the feature whose cells differ most in what
    they lost is told.
    """
    best: tuple[float, str, Split, tuple[Place, ...]] | None = None
    for segment in now.layout.segments:
        section = f"segment:{segment.feature}"
        rows, right = graded(before, section), graded(now, section)
        if min(rows[0].sum(), right[0].sum()) < LEAST_LABELS:
            continue
        found = causes.split(rows[0], rows[1], right[0], right[1])
        if found is None or found.change.high >= 0:
            continue
        places = _places(segment.feature, segment.names, found)
        lost = [place.cell.rate.value for place in places if place.cell.rate is not None]
        score = float(-min(lost, default=0.0))
        if best is None or score > best[0]:
            best = score, segment.feature, found, places
    return None if best is None else Loss(*best[1:])


def _places(feature: str, names: tuple[str, ...], found: Split) -> tuple[Place, ...]:
    """Cells that certainly lost, the largest loss first."""
    cells = [
        Place(feature, name, cell)
        for name, cell in zip(names, found.cells, strict=True)
        if cell.rate is not None and cell.rate.high < 0
    ]
    cells.sort(key=lambda place: place.cell.rate.value if place.cell.rate else 0.0)
    return tuple(cells[:3])


def graded(window: Window, section: str) -> tuple[Vector, Vector]:
    """Labelled rows and right ones of each cell."""
    if window.layout.manifest.task == "binary":
        truths = window[section].reshape(-1, 2, 2)
        return truths.sum(axis=(1, 2)), truths[:, 0, 0] + truths[:, 1, 1]
    if window.layout.manifest.task == "regression":
        return np.zeros(1, np.int64), np.zeros(1, np.int64)
    cells = window[section].reshape(-1, 2)
    return cells.sum(axis=1), cells[:, 1]
