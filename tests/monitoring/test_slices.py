"""Slices: a bin in which two versions differ is found, and nothing is where nothing differs."""

from __future__ import annotations

import numpy as np
import pytest

from models.manifest import Feature, Manifest, Score
from models.profile import FeatureProfile, Levels, Profile, numeric_bins
from monitoring.slices import rated, slices
from monitoring.window import Layout, Window
from tests.monitoring.test_watch import World


def window(rate_of_b: float, elsewhere: float) -> Window:
    """4,000 rows of a number and a word; the versions disagree by `rate_of_b` where it is b."""
    random = np.random.default_rng(1)
    numbers = random.normal(size=4_000)
    words = np.array(["a", "b", "c"], object)[random.integers(0, 3, 4_000)]
    differ = random.random(4_000) < np.where(words == "b", rate_of_b, elsewhere)
    number = FeatureProfile("n", numeric=numeric_bins(numbers))
    word = FeatureProfile("w", categorical=Levels(("a", "b", "c"), (900, 900, 900), 0, 0, 0))
    features = (Feature("n", "numeric", "n"), Feature("w", "categorical", "w"))
    manifest = Manifest("m", 2, "d", features=features, score=Score("p"))
    layout = Layout(manifest, Profile(4_000, (number, word)))
    vector = layout.zeros()
    for profile, values in ((number, numbers), (word, words)):
        index = profile.bins.index(values)  # type: ignore[arg-type]
        for section, chosen in (("feature", index), ("differ", index[differ])):
            where = layout.sections[f"{section}:{profile.name}"]
            vector[where] += np.bincount(chosen, minlength=where.stop - where.start)
    return Window(layout, vector)


def test_the_slice_that_differs_comes_first() -> None:
    """With its share, its rate and the rate elsewhere; the number has no part in it."""
    found = slices(window(rate_of_b=0.3, elsewhere=0.05))
    assert (found[0].feature, found[0].where) == ("w", "b")
    assert 0.28 < found[0].low < found[0].rate < found[0].high < 0.36
    assert 0.03 < found[0].elsewhere < 0.07
    assert 0.3 < found[0].share < 0.37
    assert {one.feature for one in found} == {"w"}


def test_nothing_stands_out_where_nothing_differs() -> None:
    assert slices(window(rate_of_b=0.1, elsewhere=0.1)) == []


def test_a_version_without_a_profile_has_no_slices() -> None:
    layout = Layout(Manifest("m", 1, "d"), None)
    assert slices(Window(layout, layout.zeros())) == []


def test_a_slice_in_which_one_is_right_less_often_is_told() -> None:
    """The candidate loses 20 points for y and is as good everywhere else."""
    world = World()
    champion, candidate = world.none(), world.none()
    for window, wrong in ((champion, {"x": 0.2, "y": 0.2}), (candidate, {"x": 0.2, "y": 0.4})):
        (segment,) = (one for one in world.layout.segments if one.feature == "w")
        section = window.vector[window.layout.sections["segment:w"]].reshape(-1, 4)
        for word, share in wrong.items():
            section[segment.names.index(word), :2] = (1_000 * (1 - share), 1_000 * share)
    (found,) = rated(champion, candidate)
    assert (found.feature, found.where, found.rows) == ("w", "y", 1_000)
    assert found.difference == pytest.approx(-0.2)
    assert found.low < -0.2 < found.high < -0.1
    assert rated(champion, champion) == []
