"""Groups that are treated differently, and those of which too little is known."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from monitoring.fairness import groups, unequal
from monitoring.window import Layout, Window
from tests.monitoring.test_watch import World


def window(cells: dict[str, tuple[int, int, int, int]]) -> Window:
    """Of each word: rows said no and truly no, no and yes, yes and no, yes and yes."""
    world = World()
    manifest = msgspec.structs.replace(world.manifest, fairness=("w",))
    layout = Layout(manifest, world.profile)
    vector = layout.zeros()
    (segment,) = (one for one in layout.segments if one.feature == "w")
    section = vector[layout.sections["segment:w"]]
    for name, counts in cells.items():
        at = segment.names.index(name) * 4
        section[at : at + 4] = counts
    return Window(layout, vector)


def test_a_group_that_is_selected_less_is_told_with_its_interval() -> None:
    """y is selected in 30 %, x in 60 %, though equally many deserve it."""
    found = unequal(window({"x": (300, 100, 200, 400), "y": (450, 250, 50, 250)}))
    rates = {one.gap.rate: one.gap for one in found}
    assert set(rates) == {"selection", "true positive", "false positive"}
    selection = rates["selection"]
    assert (selection.group, selection.against, selection.rows) == ("y", "x", 1_000)
    assert selection.gap is not None
    assert selection.gap.value == pytest.approx(-0.3)
    assert selection.gap.low < -0.3 < selection.gap.high < -0.2


def test_equal_groups_and_small_ones_are_not_told() -> None:
    assert unequal(window({"x": (300, 100, 200, 400), "y": (150, 50, 100, 200)})) == ()
    assert unequal(window({"x": (300, 100, 200, 400), "z": (20, 20, 0, 0)})) == ()


def test_groups_are_the_cells() -> None:
    found = window({"x": (1, 2, 3, 4)})
    (segment,) = (one for one in found.layout.segments if one.feature == "w")
    (group,) = groups(segment, found)
    assert group[1:] == (10, 7, 6, 4, 4, 3)
    assert np.sum(found["segment:w"]) == 10
