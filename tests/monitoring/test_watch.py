"""Windows one after the other: faults, evidence, harm; against streams whose truth is known."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from models.manifest import Feature, Manifest, Score
from models.profile import FeatureProfile, Profile, level_counts, numeric_bins, score_bins
from monitoring import watch
from monitoring.rules import read_rules
from monitoring.stats.detector import WindowDetector
from monitoring.watch import Watched
from monitoring.window import Layout, Vector, Window

RULES = read_rules()
LEVEL = watch.levels(RULES, 1, 1_000)
ROWS = 2_000


class World:
    """A binary model whose scores are right: two features, and labels by lot from the score."""

    def __init__(self, seed: int = 0) -> None:
        self.chance = np.random.default_rng(seed)
        a, words, scores = self._rows(20_000)
        truth = self.chance.random(20_000) < scores
        features = (Feature("a", "numeric", "a"), Feature("w", "categorical", "w"))
        self.manifest = Manifest("m", 1, "", "binary", "", features, Score("p"), None, ("0", "1"))
        score = FeatureProfile("score", numeric=score_bins(scores))
        said = (scores >= 0.5).astype(int)
        graded = np.bincount(score.index(scores) * 4 + said * 2 + truth)
        size = (len(score.counts) + 1) * 4
        self.profile = Profile(
            rows=20_000,
            features=(
                FeatureProfile("a", numeric=numeric_bins(a)),
                FeatureProfile("w", categorical=level_counts(words)),
            ),
            score=score,
            metrics={"accuracy": float((said == truth).mean())},
            graded=tuple(np.pad(graded, (0, size - len(graded))).tolist()),
        )
        self.layout = Layout(self.manifest, self.profile)

    def _rows(
        self, n: int
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.object_], npt.NDArray[np.float64]]:
        words = self.chance.choice(np.array(["x", "y", "z"], object), n, p=(0.6, 0.3, 0.1))
        return self.chance.normal(size=n), words, self.chance.beta(2, 2, n)

    def window(
        self,
        rows: int = ROWS,
        missing: float = 0.0,
        new: float = 0.0,
        flipped: float = 0.0,
        lift: float = 0.0,
    ) -> Window:
        """`missing` of a, `new` words, labels that are `flipped`, scores raised by `lift`."""
        a, words, scores = self._rows(rows)
        a[self.chance.random(rows) < missing] = np.nan
        words[self.chance.random(rows) < new] = "never seen"
        scores = scores + lift * (1 - scores)
        truth = self.chance.random(rows) < scores
        truth ^= self.chance.random(rows) < flipped
        vector = self.layout.zeros()
        said = (scores >= 0.5).astype(int)
        assert self.profile.score is not None
        bins = self.profile.score.index(scores)
        one, two = self.profile.features
        self._put(vector, "rows", np.zeros(rows, np.int64))
        self._put(vector, "feature:a", one.index(a))
        self._put(vector, "feature:w", two.index(words))
        self._put(vector, "score", bins)
        self._put(vector, "spoken", bins * 2 + said)
        self._put(vector, "graded", bins * 4 + said * 2 + truth)
        self._put(vector, "confusion", truth * 3 + said)
        return Window(self.layout, vector)

    def _put(self, vector: Vector, section: str, at: Vector) -> None:
        np.add.at(vector[self.layout.sections[section]], at, 1)

    def none(self) -> Window:
        return Window(self.layout, self.layout.zeros())


@pytest.fixture
def world() -> World:
    return World()


def after(world: World, *windows: Window) -> Watched:
    """Looked at and graded in turn."""
    state = Watched(next=0, to_grade=0)
    recent = world.none()
    for start, window in enumerate(windows):
        state = watch.look(state, start, window, recent, LEVEL)
        state = watch.grade(state, start, window, RULES, LEVEL)
        recent = Window(world.layout, recent.vector + window.vector)
    return state


def test_nothing_is_found_where_nothing_happens(world: World) -> None:
    """Sixty windows of the reference's own distribution: no fault, no harm, scores are trusted."""
    state = after(world, *(world.window() for _ in range(60)))
    assert state.next == state.to_grade == 60
    assert [seen.faults for seen in state.seen] == [()] * 60
    assert not any(seen.harmful for seen in state.seen)
    assert not watch.harms(state, world.layout, RULES, LEVEL)
    assert state.distrust == ""
    smallest = [seen.moved for seen in state.seen]
    assert stats.kstest(smallest, "uniform", alternative="greater").pvalue > 1e-3


@pytest.mark.parametrize(("fault", "feature"), [("missing", "a"), ("new", "w")])
def test_what_breaks_is_a_sudden_fault_and_then_an_old_one(
    world: World, fault: str, feature: str
) -> None:
    """8 % of rows: found in its first window; a week later it is no news."""
    broken = {fault: 0.08}
    state = after(world, world.window(), world.window(), world.window(**broken))
    (found,) = state.seen[-1].faults
    assert (found.feature, found.sudden) == (feature, True)
    assert found.now == pytest.approx(0.08, abs=0.02)
    assert found.before == 0
    same = after(world, *(world.window(**broken) for _ in range(4)))
    assert [seen.faults[0].sudden for seen in same.seen] == [True, False, False, False]


def test_an_open_window_is_peeked_at_when_it_has_doubled(world: World) -> None:
    """A fault shows long before the window closes; nothing is looked at twice."""
    state, recent = Watched(next=1, to_grade=1), world.window()
    assert watch.peek(state, world.window(50, missing=1.0), recent, LEVEL) == state
    seen = watch.peek(state, world.window(100, missing=0.3), recent, LEVEL)
    assert (seen.peeked, [f.feature for f in seen.open_faults]) == (100, ["a"])
    assert watch.peek(seen, world.window(150), recent, LEVEL) == seen
    over = watch.peek(seen, world.window(300), recent, LEVEL)
    assert over.open_faults == ()


def test_errors_that_rise_are_harm_and_scores_are_not_trusted(world: World) -> None:
    """A tenth of the labels turned round: scores promise what labels do not hold."""
    calm = [world.window() for _ in range(3)]
    state = after(world, *calm, *(world.window(flipped=0.2) for _ in range(4)))
    assert [seen.harmful for seen in state.seen] == [False] * 3 + [True] * 4
    assert watch.harms(state, world.layout, RULES, LEVEL)
    assert state.distrust == "too high"


def test_inputs_that_move_to_where_the_model_is_better_are_no_drift_of_the_concept(
    world: World,
) -> None:
    """Scores keep their meaning: everything about them moves, and they are trusted."""
    state = after(world, *(world.window(lift=0.3) for _ in range(20)))
    assert state.distrust == ""
    assert not watch.harms(state, world.layout, RULES, LEVEL)
    assert not watch.persists(state.moved, LEVEL.digest.windows)


def test_many_windows_say_together_what_none_says_alone() -> None:
    """One in twenty, window after window, is far from a single alarm; forty of them are one."""
    gathered, detector = WindowDetector().start(), WindowDetector()
    for _ in range(40):
        assert LEVEL.digest.alpha < 0.05
        gathered = detector.after(gathered, 0.05)
    assert watch.persists(tuple(gathered.tolist()), LEVEL.digest.windows)
    calm = detector.start()
    for p_value in np.random.default_rng(1).random(300):
        calm = detector.after(calm, float(p_value))
    assert not watch.persists(tuple(calm.tolist()), LEVEL.digest.windows)


def test_evidence_does_not_outlast_its_cause_for_ever(world: World) -> None:
    """However overwhelming it was, some calm windows take it back."""
    bad = [world.window(flipped=0.3) for _ in range(10)]
    state = after(world, *bad)
    assert watch.harms(state, world.layout, RULES, LEVEL)
    for start in range(10, 16):
        state = watch.grade(state, start, world.window(), RULES, LEVEL)
    assert not watch.harms(state, world.layout, RULES, LEVEL)


def test_the_state_survives_its_storage(world: World) -> None:
    state = after(world, world.window(missing=0.2), world.window(flipped=0.2))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=Watched) == state


def test_a_shift_of_the_whole_is_no_fault_and_a_sentinel_is(world: World) -> None:
    """Both lie outside of the reference and swell a bin; only one of them wakes somebody up."""
    one = world.profile.features[0]
    where = world.layout.sections["feature:a"]

    def of(values: npt.NDArray[np.float64]) -> Window:
        window = world.window()
        window.vector[where] = 0
        np.add.at(window.vector[where], one.index(values), 1)
        return window

    normal = world.chance.normal(size=ROWS)
    broken = {
        "sentinel": np.where(world.chance.random(ROWS) < 0.07, -999.0, normal),
        "default": np.where(world.chance.random(ROWS) < 0.15, 0.5, normal),
        "shift": normal + 1.5,
    }
    sudden = {}
    for name, values in broken.items():
        state = after(world, world.window(), world.window(), of(values))
        sudden[name] = {fault.test for fault in state.seen[-1].faults if fault.sudden}
    assert sudden == {"sentinel": {"outside"}, "default": {"spike"}, "shift": set()}
