"""Estimates without labels and with a few, on windows whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from monitoring.causes import loss
from monitoring.outlook import cells, labels_are_picked, outlook
from monitoring.window import Window
from tests.monitoring.test_watch import World


def without_labels(window: Window) -> Window:
    vector = window.vector.copy()
    for section in ("graded", "confusion"):
        vector[window.layout.sections[section]] = 0
    return Window(window.layout, vector)


def test_scores_alone_say_how_good_the_model_is() -> None:
    """Inputs move to where it is surer: the estimate follows without a label."""
    world = World()
    for lift in (0.0, 0.5):
        window = world.window(20_000, lift=lift)
        right = window["confusion"].reshape(2, 3).trace() / 20_000
        found = outlook(without_labels(window))
        assert found is not None
        assert (found.metric, found.how, found.labels) == ("accuracy", "scores alone", 0)
        assert found.value == pytest.approx(right, abs=0.015)
        assert found.low < found.value < found.high
    assert found.value > found.reference + 0.03


def test_labels_correct_what_scores_promise() -> None:
    """A concept that drifted: scores alone are wrong, with labels the interval holds the truth."""
    world = World()
    window = world.window(5_000, flipped=0.3)
    right = window["confusion"].reshape(2, 3).trace() / 5_000
    alone, with_labels = outlook(without_labels(window)), outlook(window)
    assert alone is not None
    assert with_labels is not None
    assert alone.low > right + 0.05
    assert with_labels.how == "scores and labels"
    assert with_labels.low < right < with_labels.high


def test_labels_that_were_picked_are_seen() -> None:
    """Only high scores got a label: they are no sample of all rows."""
    world = World()
    window = world.window(4_000)
    assert not labels_are_picked(window)
    vector = window.vector.copy()
    where = window.layout.sections["graded"]
    graded = vector[where].reshape(-1, 4)
    graded[: len(graded) // 2] = 0
    vector[where] = graded.ravel()
    picked = Window(window.layout, vector)
    assert labels_are_picked(picked)
    found = outlook(picked)
    assert found is not None
    assert (found.picked, found.how) == (True, "scores alone")


def test_cells_add_up() -> None:
    """Every labelled row is right or wrong in one cell, whose chance lies between 0 and 1."""
    window = World().window(3_000)
    found = cells(window)
    assert found is not None
    assert found.rows.sum() == found.wrong.sum() + found.right.sum() == 3_000
    assert found.right.sum() == window["confusion"].reshape(2, 3).trace()
    assert ((found.chance >= 0) & (found.chance <= 1)).all()


def test_a_loss_is_told_where_it_happens() -> None:
    """In one word the labels are turned round: that word is named, with nearly the whole loss."""
    world = World()
    before, now = world.window(8_000), world.window(8_000)
    for window, wrong in ((before, (0.2, 0.2, 0.2)), (now, (0.2, 0.6, 0.2))):
        rows = np.array([4_800, 2_400, 800])
        counts = np.zeros((5, 2, 2), np.int64)
        counts[:3, 0, 1] = rows * wrong
        counts[:3, 0, 0] = rows - counts[:3, 0, 1]
        section = window.vector[window.layout.sections["segment:w"]]
        section[: counts.size] = counts.ravel()[: len(section)]
    found = loss(before, now)
    assert found is not None
    assert (found.feature, found.places[0].name) == ("w", "y")
    assert found.split.change.value == pytest.approx(-0.4 * 0.3)
    assert found.split.mix.value == pytest.approx(0)
    assert found.sentences[0].startswith("12.0 points lost: 12.0 because the same rows")
    assert found.sentences[1] == "12.0 points in w y"
    assert loss(now, now) is None
