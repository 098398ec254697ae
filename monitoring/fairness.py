"""Are groups of rows treated alike? By the features that the manifest names. Pure."""

from __future__ import annotations

from typing import NamedTuple

from monitoring.stats.causes import Gap, Group, gaps
from monitoring.window import Segment, Window

#: Of all the comparisons of a model one in a hundred may be wrong, not of each.
RISK = 0.01


class Unequal(NamedTuple):
    """A group of a feature whose rate differs from that of the largest group."""

    feature: str
    gap: Gap


def unequal(window: Window) -> tuple[Unequal, ...]:
    """Every gap that is certain, the largest first; of a binary model, on labelled rows."""
    manifest = window.layout.manifest
    if manifest.task != "binary" or not manifest.fairness:
        return ()
    named = [s for s in window.layout.segments if s.feature in manifest.fairness]
    comparisons = sum(3 * (len(segment.names) - 1) for segment in named)
    found = [
        Unequal(segment.feature, gap)
        for segment in named
        for gap in gaps(groups(segment, window), confidence=1 - RISK / max(comparisons, 1))
        if gap.at_least > 0
    ]
    return tuple(sorted(found, key=lambda one: -one.gap.at_least))


def groups(segment: Segment, window: Window) -> list[Group]:
    """The labelled rows of each cell that has any."""
    cells = window[f"segment:{segment.feature}"].reshape(-1, 2, 2)  # class said, truth
    return [
        Group(
            name=name,
            rows=int(cell.sum()),
            selected=int(cell[1].sum()),
            positives=int(cell[:, 1].sum()),
            hits=int(cell[1, 1]),
            negatives=int(cell[:, 0].sum()),
            false_alarms=int(cell[1, 0]),
        )
        for name, cell in zip(segment.names, cells, strict=True)
        if cell.any()
    ]
