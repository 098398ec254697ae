"""Folding: exact counts, whatever the order and the slices."""

from __future__ import annotations

import random as chance
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import accuracy_score, log_loss, mean_absolute_error, r2_score

from models import prediction_id
from models.contract import wire
from models.contract.records import Entry, Feedback, Outcome, Rows, Tally
from models.manifest import Feature, Manifest, Score
from models.profile import FeatureProfile, Profile, Scale, level_counts, numeric_bins
from models.repository import Repository
from models.version import ModelVersion
from monitoring import examine, measure
from monitoring.fold import Fold, Folded, PaneKey, touched
from monitoring.stats import regression
from monitoring.window import PAIR, Layout, PairLayout, Window

HOUR = 400_000
N = 400


def layouts() -> dict[int, Layout]:
    features = (Feature("a", "numeric", "a"), Feature("w", "categorical", "w"))
    random = np.random.default_rng(0)
    profile = Profile(
        rows=1_000,
        features=(
            FeatureProfile("a", numeric=numeric_bins(random.normal(size=1_000))),
            FeatureProfile("w", categorical=level_counts(np.array(["x", "y"] * 500, object))),
        ),
        score=FeatureProfile("score", numeric=numeric_bins(random.uniform(size=1_000))),
    )
    found = {}
    for number in (1, 2):
        manifest = Manifest(
            "m", number, "", "binary", "", features, Score("p", 1), "label", ("0", "1")
        )
        found[number] = Layout(manifest, profile)
    return found


class Traffic:
    """Predictions of a champion and a shadow, and their labels, as entries."""

    def __init__(self) -> None:
        random = np.random.default_rng(7)
        self.ids = [prediction_id.new().to_bytes(16, "big") for _ in range(N)]
        self.scores = random.uniform(size=(2, N)).astype(np.float32)
        self.truth = random.integers(0, 2, N)
        self.a = random.normal(size=(N, 1)).astype(np.float32)
        self.a[::10] = np.nan
        self.words = np.array([["x"], ["y"], ["new"], [""]] * (N // 4), dtype=object)

    def rows(self, version: int, role: str, part: slice) -> Rows:
        scores = self.scores[version - 1][part]
        count = len(scores)
        outputs = {
            "p": wire.column([np.stack([1 - scores, scores], axis=1)]),
            "label": wire.column([(scores >= 0.5).astype(np.int64)]),
        }
        return Rows(
            version=version,
            role=role,
            ids=b"".join(self.ids[part]),
            rows=np.ones(count, "<u4").tobytes(),
            event_ms=np.full(count, HOUR * 3_600_000 + 5, "<i8").tobytes(),
            latency_us=np.full(count, 300, "<u4").tobytes(),
            traces=b"",
            inputs={"a": wire.column([self.a[part]]), "w": wire.column([self.words[part]])},
            outputs=outputs,
            primary_version=1 if role == "shadow" else 0,
            primary_outputs=self.rows(1, "champion", part).outputs if role == "shadow" else {},
            primary_latency_us=np.full(count, 500, "<u4").tobytes() if role == "shadow" else b"",
        )

    def entry(self, *rows: Rows, labels: range = range(0)) -> Entry:
        feedback = [Feedback(self.ids[i], 0, int(self.truth[i]), 0, 0) for i in labels]
        tallies = [Tally(1, "champion", "ok", HOUR, 10, 10, {66: 10})] if rows else []
        return Entry(1, "w", 1, 0, list(rows), tallies, feedback)

    def entries(self) -> list[Entry]:
        found = []
        for start in range(0, N, 50):
            part = slice(start, start + 50)
            found.append(self.entry(self.rows(1, "champion", part)))
            found.append(self.entry(self.rows(2, "shadow", part)))
            found.append(self.entry(labels=range(start, start + 50)))
        return found


def fold_in_slices(entries: list[Entry], cuts: list[int]) -> Folded:
    """Fold slice by slice with a ledger between them, as the monitor does."""
    ledger: dict[bytes, Outcome] = {}
    whole, totals = Folded(), Counter[str]()
    for start, end in zip([0, *cuts], [*cuts, len(entries)], strict=True):
        part = entries[start:end]
        folded = Fold(layouts(), {i: ledger[i] for i in touched(part) if i in ledger}).run(part)
        packed = {i: wire.pack_outcome(page) for i, page in folded.outcomes.items()}
        ledger.update({i: wire.unpack_outcome(data) for i, data in packed.items()})
        for key, vector in folded.panes.items():
            whole.panes[key] = whole.panes[key] + vector if key in whole.panes else vector
        totals.update(folded.totals)
    whole.totals = totals
    return whole


def window(folded: Folded, version: int, role: str) -> Window:
    return Window(layouts()[version], folded.panes[PaneKey(version, role, HOUR)])


def test_counts_are_what_was_sent() -> None:
    """Rows, missing and unseen values, scores, accuracy and log loss of every version."""
    traffic = Traffic()
    folded = fold_in_slices(traffic.entries(), [])
    for version, role in ((1, "champion"), (2, "shadow")):
        found = window(folded, version, role)
        assert found["rows"].tolist() == [N]
        assert found["feature:a"][-1] == N // 10
        assert found["feature:w"].tolist() == [N // 4] * 4
        scores = traffic.scores[version - 1].astype(np.float64)
        quality = measure.performance(found)
        assert quality is not None
        assert quality.accuracy is not None
        assert quality.labels == N
        assert quality.accuracy.value == accuracy_score(traffic.truth, scores >= 0.5)
        assert quality.log_loss == pytest.approx(log_loss(traffic.truth, scores), abs=1e-5)
        assert measure.mean_score(found) == pytest.approx(scores.mean(), abs=1e-6)
    assert window(folded, 1, "champion")["requests"].tolist() == [160, 0, 0]


def test_pairs_compare_the_same_requests() -> None:
    """Agreement and the four ways of being right, from the pairs themselves."""
    traffic = Traffic()
    folded = fold_in_slices(traffic.entries(), [])
    one, two = (traffic.scores[i] >= 0.5 for i in (0, 1))
    found = measure.pairs(Window(PairLayout(), folded.panes[PaneKey(2, PAIR, HOUR)]))
    assert found.compared == N
    assert found.agreement is not None
    assert found.agreement.value == pytest.approx((one == two).mean())
    assert found.shadow_accuracy is not None
    assert found.shadow_accuracy.value == pytest.approx((two == traffic.truth).mean())


def test_slices_and_late_or_early_labels_change_nothing() -> None:
    """Labels before their prediction, shadows after their label, cuts anywhere: same windows."""
    traffic = Traffic()
    entries = traffic.entries()
    truth = fold_in_slices(entries, []).panes
    for seed in range(10):
        order = chance.Random(seed)
        shuffled = order.sample(entries, len(entries))
        cuts = sorted(order.sample(range(1, len(entries)), 6))
        panes = fold_in_slices(shuffled, cuts).panes
        assert panes.keys() == truth.keys()
        for key, vector in truth.items():
            np.testing.assert_array_equal(panes[key], vector)


def test_the_last_label_wins_and_the_same_one_counts_once() -> None:
    """A changed label is taken back everywhere before the new one counts."""
    traffic = Traffic()
    entries = traffic.entries()
    again = [*entries, traffic.entry(labels=range(N))]
    changed = [Feedback(traffic.ids[i], 0, 1 - int(traffic.truth[i]), 0, 0) for i in range(N)]
    back = [Feedback(traffic.ids[i], 0, int(traffic.truth[i]), 0, 0) for i in range(N)]
    flips = [Entry(1, "w", 2, 0, [], [], changed), Entry(1, "w", 3, 0, [], [], back)]
    truth = fold_in_slices(entries, []).panes
    for more in (again, [*entries, *flips]):
        panes = fold_in_slices(more, [len(entries)]).panes
        for key, vector in truth.items():
            np.testing.assert_array_equal(panes[key], vector)
    half = fold_in_slices([*entries, flips[0]], [len(entries)])
    quality = measure.performance(window(half, 1, "champion"))
    right = (traffic.scores[0] >= 0.5) == traffic.truth
    assert quality is not None
    assert quality.accuracy is not None
    assert quality.accuracy.value == pytest.approx(1 - right.mean())


def test_labels_without_a_prediction_are_counted_as_waiting() -> None:
    """Unknown ids wait; values that are no class are refused; both are told."""
    traffic = Traffic()
    labels = traffic.entry(labels=range(5))
    odd = Entry(1, "w", 2, 0, [], [], [Feedback(traffic.ids[9], 0, "maybe", 0, 0)])
    folded = fold_in_slices([labels, odd], [])
    assert folded.totals["labels_waiting"] == 5
    assert folded.totals["labels_unknown"] == 1


def test_labels_are_told_by_score_and_by_segment() -> None:
    """The confusion of every score bin and of every cell of a feature, counted by hand."""
    traffic = Traffic()
    folded = fold_in_slices(traffic.entries(), [4])
    found, layout = window(folded, 1, "champion"), layouts()[1]
    said = traffic.scores[0] >= 0.5
    assert layout.profile is not None
    assert layout.profile.score is not None
    bins = layout.profile.score.index(traffic.scores[0].astype(np.float64))
    spoken = np.zeros((len(layout.profile.score.counts) + 1, 2), np.int64)
    graded = np.zeros((len(spoken), 2, 2), np.int64)
    np.add.at(spoken, (bins, said.astype(int)), 1)
    np.add.at(graded, (bins, said.astype(int), traffic.truth), 1)
    assert found["spoken"].tolist() == spoken.ravel().tolist()
    assert found["graded"].tolist() == graded.ravel().tolist()
    words = np.tile(np.arange(4), N // 4)
    by_word = np.zeros((4, 2, 2), np.int64)
    np.add.at(by_word, (words, said.astype(int), traffic.truth), 1)
    assert layout.segments[1].names == ("x", "y", "other", "missing")
    assert found["segment:w"].tolist() == by_word.ravel().tolist()
    assert found["segment:a"].sum() == N
    assert found["segment:a"][-4:].sum() == N // 10


class Prices:
    """A regression: 200 predictions and what they turned out to be, in two entries."""

    manifest = Manifest("m", 1, "", "regression", "", (Feature("a", "numeric", "a"),), Score("y"))

    def __init__(self) -> None:
        random = np.random.default_rng(3)
        self.said = random.normal(20_000, 5_000, 200)
        self.truth = self.said + random.normal(300, 1_000, 200)
        a = random.normal(size=200)
        self.layout = Layout(
            self.manifest,
            Profile(
                rows=200,
                features=(FeatureProfile("a", numeric=numeric_bins(a)),),
                score=FeatureProfile("score", numeric=numeric_bins(self.said)),
                target=Scale(20_000.0, 5_000.0, 1_000.0),
            ),
        )
        ids = [prediction_id.new().to_bytes(16, "big") for _ in range(200)]
        rows = Rows(
            version=1,
            role="champion",
            ids=b"".join(ids),
            rows=np.ones(200, "<u4").tobytes(),
            event_ms=np.full(200, HOUR * 3_600_000, "<i8").tobytes(),
            latency_us=np.full(200, 300, "<u4").tobytes(),
            traces=b"",
            inputs={"a": wire.column([a[:, None]])},
            outputs={"y": wire.column([self.said[:, None]])},
        )
        labels = [Feedback(i, 0, float(y), 0, 0) for i, y in zip(ids, self.truth, strict=True)]
        odd = Feedback(ids[0], 0, "dear", 0, 0)
        self.entries = [
            Entry(1, "w", 1, 0, [rows], [], []),
            Entry(1, "w", 2, 0, [], [], [*labels, odd]),
        ]


def test_a_regressions_errors_are_summed() -> None:
    """scikit-learn's errors; what is no number is refused, a label that changed counts once."""
    prices = Prices()
    first, second = prices.entries
    wrong = [msgspec.structs.replace(label, label=1e9) for label in second.feedback[:50]]
    entries = [first, msgspec.structs.replace(second, feedback=wrong), second]
    folded = Fold({1: prices.layout}, {}).run(entries)
    found = Window(prices.layout, folded.panes[PaneKey(1, "champion", HOUR)])
    errors = regression.regression(regression.Scale(20_000.0, 5_000.0, 1_000.0), found["residual"])
    assert errors is not None
    assert errors.mae is not None
    assert errors.r2 is not None
    assert (errors.labels, errors.beyond) == (200, 0)
    assert errors.mae.value == pytest.approx(mean_absolute_error(prices.truth, prices.said), 1e-3)
    assert errors.r2.value == pytest.approx(r2_score(prices.truth, prices.said), 1e-3)
    assert found["graded"][::2].sum() == found["segment:a"][::2].sum() == 200
    total = np.abs(prices.said - prices.truth).sum() / 1_000
    assert found["graded"][1::2].sum() / 1e6 == pytest.approx(total, abs=1e-3)
    assert folded.totals["labels_unknown"] == 1


def test_many_classes_have_a_confidence() -> None:
    """The score is that of the class that was said, which may be the model's own word for it."""
    table = np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3], [np.nan, 0.4, 0.6]])
    manifest = Manifest("m", 1, "", "multiclass", score=Score("p"), classes=("a", "b", "c"))
    said = manifest.said({"p": table}, 3)
    assert said.classes.tolist() == [1, 0, -1]
    assert said.scores[:2].tolist() == [0.7, 0.5]
    assert np.isnan(said.scores[2])
    named = Manifest("m", 1, "", "multiclass", score=Score("p"), label="l", classes=("a", "b", "c"))
    said = named.said({"p": table, "l": np.array(["c", "a", "?"], object)}, 3)
    assert said.classes.tolist() == [2, 0, -1]
    assert said.scores[:2].tolist() == [0.2, 0.5]


def test_labels_of_a_version_without_features_count() -> None:
    """An image model, or one without a profile: no segment, and its labels count all the same."""
    traffic = Traffic()
    manifest = Manifest("m", 1, "", "binary", "", (), Score("p", 1), "label", ("0", "1"))
    entries = [traffic.entry(traffic.rows(1, "champion", slice(0, 50)), labels=range(50))]
    folded = Fold({1: Layout(manifest, None)}, {}).run(entries)
    found = Window(Layout(manifest, None), folded.panes[PaneKey(1, "champion", HOUR)])
    assert found["confusion"].sum() == 50


def test_labels_are_the_same_for_versions_that_order_their_classes_otherwise() -> None:
    """What is right is decided by the class's name: one version says (0, 1), the other (1, 0)."""
    traffic = Traffic()
    known = layouts()
    manifest = msgspec.structs.replace(known[2].manifest, classes=("1", "0"))
    known[2] = Layout(manifest, known[2].profile)
    folded = Fold(known, {}).run(traffic.entries())
    pairs = measure.pairs(Window(PairLayout(), folded.panes[PaneKey(2, PAIR, HOUR)]))
    one, two = (traffic.scores[i] >= 0.5 for i in (0, 1))
    assert pairs.agreement is not None
    assert pairs.agreement.value == pytest.approx((one == two).mean())
    assert pairs.shadow_accuracy is not None
    assert pairs.shadow_accuracy.value == pytest.approx((two == traffic.truth).mean())


def test_scores_that_are_no_probability_spoil_no_sum() -> None:
    """Infinite and enormous ones are left out of the losses, or count as 1."""
    traffic = Traffic()
    traffic.scores[0][:4] = (np.inf, -np.inf, 1e30, -1e30)
    found = window(fold_in_slices(traffic.entries(), []), 1, "champion")
    quality = measure.performance(found)
    assert quality is not None
    assert quality.brier is not None
    assert 0 <= quality.brier <= 1
    mean = measure.mean_score(found)
    assert mean is not None
    assert -1 <= mean <= 1


def test_some_requests_are_looked_at_as_a_whole(repository: Path) -> None:
    """One in eight by its id, the same ones however the stream is cut. Columns that each keep
    their distribution but no longer go together are found there, and nowhere else."""
    package = Repository(repository).open(ModelVersion("pushed", 1))
    x = np.random.default_rng(3).normal(size=(4_000, 4)).astype(np.float32)
    together = np.stack([x[:, 0], x[:, 0], x[:, 2], x[:, 3]], axis=1)
    ids = [prediction_id.new().to_bytes(16, "big") for _ in range(len(x))]
    seen = sum(identifier[-1] % 8 == 0 for identifier in ids)
    layout = Layout(package.manifest, package.profile)
    for values, drifted in ((x, False), (together, True)):
        windows = []
        for size in (4_000, 500):
            vector = layout.zeros()
            for start in range(0, len(x), size):
                part = slice(start, start + size)
                entry = Entry(1, "w", 1, 0, [_answered(ids[part], values[part])], [], [])
                folded = Fold({1: layout}, {}).run([entry])
                vector += folded.panes[PaneKey(1, "champion", HOUR)]
            windows.append(Window(layout, vector))
        one, two = windows
        assert one["whole"].tolist() == two["whole"].tolist()
        assert one["whole"][0] == seen
        found = examine.whole(one)
        assert found is not None
        assert (found.p_value < 1e-6) == drifted
        assert min(feature.p_value for feature in examine.features(one)) > 1e-3


def _answered(ids: list[bytes], values: npt.NDArray[np.float32]) -> Rows:
    """Requests of a row each, answered by the softmax model of the fixtures with a half."""
    count = len(ids)
    return Rows(
        version=1,
        role="champion",
        ids=b"".join(ids),
        rows=np.ones(count, "<u4").tobytes(),
        event_ms=np.full(count, HOUR * 3_600_000, "<i8").tobytes(),
        latency_us=np.full(count, 300, "<u4").tobytes(),
        traces=b"",
        inputs={"x": wire.column([values])},
        outputs={"y": wire.column([np.full((count, 2), 0.5, np.float32)])},
    )
