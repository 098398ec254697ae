"""How good is the model without labels and with a few; and when is that not to be trusted?"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from rich.progress import track

from benchmarks.detect import data
from benchmarks.detect.section import Promise, Section
from models.profile import level_counts, numeric_bins
from monitoring.stats import estimate, performance
from monitoring.stats.estimate import Labelled
from slipstream.places import screen

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Row = tuple[str, str, str, str, str]
Peer = dict[str, Any]

PEER = json.loads((Path(__file__).parent / "peers" / "estimation.json").read_text())
SIZES = (1000, 5000)
CARDS = ("prepaid_card", "highstreet_card", "upmarket_card")
#: Random labellings of windows of 5,000 per data set: the coverage is known to a third of a point.
LABELLINGS = 4_000
#: Share of rows that are labelled, for intervals.
LABELLED = 0.05
#: Runs of the concept-drift test per data set and share of labels, and the shares.
RUNS = 200
SHARES = (0.05, 0.25)
#: Labels after which the test looks.
LOOK = 25
ABOUT = (
    "Accuracy without labels comes from counts alone: what the reference's rows say of each score "
    "bin, and how many rows of the window lie there (64 bins). NannyML's CBPE and DLE see the same "
    "windows; errors are mean absolute differences from what the labels say, and the floor is what "
    "they would be if every row's chance were known. Times are ours now, for everything from raw "
    "scores to intervals (regression: from binned features), against NannyML's for the same "
    "metrics, frozen on a machine of this kind. Labels are drawn by lot and the order of time is "
    "kept; intervals are for the accuracy of all rows of the window. The concept-drift test has a "
    f"tolerance of one point, is looked at every {LOOK} labels, and is guaranteed to be wrong "
    f"no more often than once in {estimate.RUN_LENGTH:,} labels. Firing is right on California "
    "housing and on the cards, whose concept was changed, and a false alarm elsewhere, though the "
    "census has stretches of 2,000 rows in which the model is really four points worse than its "
    "scores say."
)


@dataclass(frozen=True)
class Rows:
    """The rows that came after the reference: their cells, and whether they were right.

    `chances` is the chance to be right of each cell.
    """

    chances: Floats
    cell: Ints
    right: Floats

    @cached_property
    def chance(self) -> Floats:
        return self.chances.ravel()[self.cell]

    def __len__(self) -> int:
        return len(self.cell)

    def sums(self, rows: Ints, chosen: Ints) -> Labelled:
        """As a monitor has them, of which `chosen` are labelled."""
        f, c = self.chance[chosen], self.right[chosen]
        return Labelled(
            rows=len(rows),
            expected=float(self.chance[rows].sum()),
            labels=len(chosen),
            f=float(f.sum()),
            c=float(c.sum()),
            ff=float(f @ f),
            fc=float(f @ c),
            cc=float(c.sum()),
        )


def run() -> Section:
    rows: list[Row] = []
    promises: list[Promise] = []
    pairs = data.predictions()
    for part in (_unlabelled, _few_labels, _drift):
        found, kept = part(pairs)
        rows += found
        promises += kept
    columns = ("data", "measured", "Slipstream", "beside it", "and")
    return Section("Performance without labels", ABOUT, columns, tuple(rows), tuple(promises))


# --- without labels -------------------------------------------------------------------------------

Pairs = dict[str, tuple[data.Predictions, data.Predictions]]


class Found(NamedTuple):
    """Per window: the estimates, what the labels say, whether the interval held; and seconds."""

    errors: dict[str, float]
    floor: float
    covered: float
    seconds: float


def _unlabelled(pairs: Pairs) -> tuple[list[Row], list[Promise]]:
    rows: list[Row] = []
    prices = _prices()
    worst, slowest = -1.0, np.inf
    for size in SIZES:
        measured = {name: _binary(*pair, size) for name, pair in pairs.items()}
        measured["cards, 3 classes"] = _cards(size)
        for name, found in measured.items():
            peer = PEER["figures"][name][str(size)]
            worst = max(worst, found.errors["accuracy"] - peer["mean_absolute_error"]["accuracy"])
            slowest = min(slowest, peer["seconds"] / found.seconds)
            rows += _accuracy_rows(name, size, found, peer)
        rows += _price_rows(*prices, size, PEER["figures"]["car price, regression"][str(size)])
    says = "accuracy estimated without labels: error at most NannyML's + .0005"
    return rows, [
        Promise(says, f"at most {worst:+.5f} more, windows of 1,000 and 5,000", worst <= 0.0005),
        Promise(
            "50 times faster than NannyML (ours now, theirs frozen; the same metrics)",
            f"{slowest:.0f} times at least, from raw scores",
            slowest >= 50,
        ),
    ]


def _accuracy_rows(name: str, size: int, found: Found, peer: Peer) -> Iterator[Row]:
    theirs = peer["mean_absolute_error"]
    yield (
        name,
        f"error of accuracy, {peer['windows']} windows of {size:,}",
        f"{found.errors['accuracy']:.4f}",
        f"{theirs['accuracy']:.4f} NannyML",
        f"{found.floor:.4f} floor; 95 % interval holds in {found.covered:.0%}",
    )
    if "f1" in found.errors:
        yield (
            name,
            "error of F1, AUC",
            f"{found.errors['f1']:.4f}, {found.errors['roc_auc']:.4f}",
            f"{theirs['f1']:.4f}, {theirs['roc_auc']:.4f} NannyML",
            "",
        )
    yield (
        name,
        "time of all of them",
        f"{1e3 * found.seconds:.1f} ms",
        f"{peer['seconds']:.2f} s NannyML",
        f"{peer['seconds'] / found.seconds:.0f}x; its accuracy alone "
        f"{peer['seconds_one_metric'] / found.seconds:.0f}x",
    )


def _binary(before: data.Predictions, after: data.Predictions, size: int) -> Found:
    seconds = min(_timed(before, after, size)[0] for _ in range(5))
    _, estimates = _timed(before, after, size)
    errors: dict[str, list[float]] = {"accuracy": [], "f1": [], "roc_auc": []}
    held = []
    for i, found in enumerate(estimates):
        window = after[slice(i * size, (i + 1) * size)]
        right = float(np.mean(window.classes == window.truth))
        errors["accuracy"].append(found.accuracy.value - right)
        errors["f1"].append(found.f1.value - _f1(window) if found.f1 else np.nan)
        errors["roc_auc"].append(found.auc.value - _auc(window) if found.auc else np.nan)
        held.append(found.accuracy.low <= right <= found.accuracy.high)
    return Found(
        {name: float(np.mean(np.abs(e))) for name, e in errors.items()},
        _floor(_rows(before, after).chance, size),
        float(np.mean(held)),
        seconds,
    )


def _timed(
    before: data.Predictions, after: data.Predictions, size: int
) -> tuple[float, list[estimate.BinaryEstimate]]:
    """From raw scores to estimates with intervals."""
    began = time.perf_counter()
    edges = estimate.score_edges(before.scores)
    bins = len(edges) + 1
    table = _table(edges, before)
    windows = len(after) // size
    score_bin = np.searchsorted(edges, after.scores[: windows * size])
    place = score_bin + bins * after.classes[: windows * size]
    place += 2 * bins * np.repeat(np.arange(windows), size)
    counts = np.bincount(place, minlength=windows * 2 * bins).reshape(windows, 2, bins)
    found = [estimate.binary(table, window) for window in counts]
    seconds = time.perf_counter() - began
    return seconds, [one for one in found if one is not None]


def _table(edges: Floats, before: data.Predictions) -> estimate.Table:
    score_bin = np.searchsorted(edges, before.scores)
    size = len(edges) + 1
    rows = np.bincount(score_bin, minlength=size)
    return estimate.calibrate(rows, np.bincount(score_bin, before.truth, size))


def _rows(before: data.Predictions, after: data.Predictions) -> Rows:
    edges = estimate.score_edges(before.scores)
    table = _table(edges, before)
    cell = np.searchsorted(edges, after.scores) + (len(edges) + 1) * after.classes
    right = (after.classes == after.truth).astype(np.float64)
    return Rows(estimate.chance_right(table), cell, right)


def _floor(chance: Floats, size: int) -> float:
    """Mean absolute error of the true chances: sqrt(2 / pi) times the spread of a window."""
    windows = len(chance) // size
    spread = (chance * (1 - chance))[: windows * size].reshape(windows, size).sum(axis=1)
    return float(np.mean(np.sqrt(2 / np.pi * spread)) / size)


def _f1(window: data.Predictions) -> float:
    hits = int(np.sum(window.classes & window.truth))
    return 2 * hits / int(window.classes.sum() + window.truth.sum())


def _auc(window: data.Predictions) -> float:
    values, place = np.unique(window.scores, return_inverse=True)
    negatives, positives = (
        np.bincount(place[window.truth == label], minlength=len(values)) for label in (0, 1)
    )
    found = performance.auc(negatives, positives)
    return found.value if found else float("nan")


class Cards(NamedTuple):
    confidence: Floats
    said: Ints
    right: npt.NDArray[np.bool_]


def _cards_of(frame: pl.DataFrame) -> Cards:
    said = frame["y_pred"].replace_strict(dict(zip(CARDS, range(3), strict=True))).to_numpy()
    chances = frame.select([f"y_pred_proba_{card}" for card in CARDS]).to_numpy()
    right = (frame["y_pred"] == frame["y_true"]).to_numpy()
    return Cards(chances[np.arange(len(said)), said], said.astype(np.int64), right)


def _all_cards() -> tuple[Cards, Cards]:
    after = data.table("mc_analysis.csv").join(
        data.table("mc_analysis_gt.csv"), on="id", maintain_order="left"
    )
    return _cards_of(data.table("mc_reference.csv")), _cards_of(after)


def _card_rows(before: Cards, after: Cards) -> tuple[estimate.Table, Rows]:
    edges = estimate.score_edges(before.confidence)
    bins = len(edges) + 1
    old = np.searchsorted(edges, before.confidence) + bins * before.said
    table = estimate.calibrate(
        np.bincount(old, minlength=3 * bins).reshape(3, bins),
        np.bincount(old, before.right, 3 * bins).reshape(3, bins),
    )
    cell = np.searchsorted(edges, after.confidence) + bins * after.said
    return table, Rows(table.chance, cell, after.right.astype(np.float64))


def _cards(size: int) -> Found:
    before, after = _all_cards()
    windows = len(after.said) // size

    def all_of_it() -> tuple[float, Rows, list[estimate.TopClassEstimate | None]]:
        began = time.perf_counter()
        table, rows = _card_rows(before, after)
        cells = table.chance.size
        place = rows.cell[: windows * size] + cells * np.repeat(np.arange(windows), size)
        counts = np.bincount(place, minlength=windows * cells).reshape(windows, 3, -1)
        found = [estimate.top_class(table, window) for window in counts]
        return time.perf_counter() - began, rows, found

    seconds = min(all_of_it()[0] for _ in range(5))
    _, rows, estimates = all_of_it()
    truths = rows.right[: windows * size].reshape(windows, size).mean(axis=1).tolist()
    pairs = [(e.accuracy, t) for e, t in zip(estimates, truths, strict=True) if e is not None]
    return Found(
        {"accuracy": float(np.mean([abs(e.value - t) for e, t in pairs]))},
        _floor(rows.chance, size),
        float(np.mean([e.low <= t <= e.high for e, t in pairs])),
        seconds,
    )


class Prices(NamedTuple):
    """A regression model's rows: bins of the features and of the prediction, and errors."""

    bins: Ints
    errors: Floats


def _prices() -> tuple[Prices, Prices]:
    before = data.table("regression_synthetic_reference.csv")
    after = data.table("regression_synthetic_analysis.csv").join(
        data.table("regression_synthetic_analysis_targets.csv"), on="id", maintain_order="left"
    )
    columns = [n for n in before.columns if n not in ("id", "timestamp", "y_true")]
    binned = [_bins(before[name], after[name]) for name in columns]
    old, new = (np.column_stack(part) for part in zip(*binned, strict=True))
    off_old, off_new = ((f["y_pred"] - f["y_true"]).to_numpy() for f in (before, after))
    return Prices(old, off_old), Prices(new, off_new)


def _bins(before: pl.Series, after: pl.Series) -> tuple[Ints, Ints]:
    """As the profile bins a feature."""
    if before.dtype.is_numeric():
        old, new = before.to_numpy().astype(float), after.to_numpy().astype(float)
        numeric = numeric_bins(old)
        return numeric.index(old), numeric.index(new)
    levels = level_counts(before.to_numpy().astype(object))
    return levels.index(before.to_numpy()), levels.index(after.to_numpy())


def _priced(
    before: Prices, after: Prices, size: int, by_features: bool
) -> list[estimate.RegressionEstimate]:
    """From bins to estimates: strata are a tree's, or bins of the prediction (the last column)."""
    windows = len(after.errors) // size
    if by_features:
        one, other = slice(0, None, 2), slice(1, None, 2)
        tree = estimate.grow(before.bins[one], np.abs(before.errors[one]))
        strata, held = tree.strata, tree.stratum(before.bins[other])
        errors = estimate.error_sums(held, before.errors[other], strata)
        place = tree.stratum(after.bins[: windows * size])
    else:
        strata = int(before.bins[:, -1].max()) + 2
        errors = estimate.error_sums(before.bins[:, -1], before.errors, strata)
        place = after.bins[: windows * size, -1].copy()
    place += strata * np.repeat(np.arange(windows), size)
    counts = np.bincount(place, minlength=windows * strata).reshape(windows, strata)
    return [found for c in counts if (found := estimate.regression(errors, c)) is not None]


def _price_rows(before: Prices, after: Prices, size: int, peer: Peer) -> Iterator[Row]:
    name, theirs = "car price, regression", peer["mean_absolute_error"]
    parts = after.errors[: len(after.errors) // size * size].reshape(-1, size)
    mae, rmse = np.abs(parts).mean(axis=1), np.sqrt((parts**2).mean(axis=1))
    for by_features in (True, False):
        began = time.perf_counter()
        found = _priced(before, after, size, by_features)
        seconds = time.perf_counter() - began
        held = [f.mae.low <= t <= f.mae.high for f, t in zip(found, mae.tolist(), strict=True)]
        off_mae = float(np.mean(np.abs([f.mae.value for f in found] - mae)))
        off_rmse = float(np.mean(np.abs([f.rmse.value for f in found] - rmse)))
        by = "64 strata of the features" if by_features else "bins of the prediction alone"
        yield (
            name,
            f"error of MAE, RMSE by {by}, {len(parts)} windows of {size:,}",
            f"{off_mae:.1f}, {off_rmse:.1f}",
            f"{theirs['mae']:.1f}, {theirs['rmse']:.1f} NannyML",
            f"of {mae.mean():.0f}, {rmse.mean():.0f}; 95 % interval of MAE holds in "
            f"{np.mean(held):.0%}; {1e3 * seconds:.0f} ms, NannyML {peer['seconds']:.1f} s",
        )


# --- a few labels ---------------------------------------------------------------------------------


def _few_labels(pairs: Pairs) -> tuple[list[Row], list[Promise]]:
    rows, coverages = [], []
    chance = np.random.default_rng(1)
    for name, pair in track(pairs.items(), "intervals with 5 % labels", console=screen):
        after = _rows(*pair)
        sizes = (5000, len(after)) if name == "California housing" else (5000,)
        for size in sizes:
            row, coverage = _coverage(name, after, size, chance)
            rows.append(row)
            if name != "work from home":
                coverages.append(coverage)
    low, high = min(coverages), max(coverages)
    return rows, [
        Promise(
            "with 5 % random labels, 95 % intervals cover 93 to 97 %",
            f"{low:.1%} to {high:.1%} on car loan, census and California housing",
            low >= 0.93 and high <= 0.97,
        )
    ]


def _coverage(name: str, after: Rows, size: int, chance: np.random.Generator) -> tuple[Row, float]:
    """Of `LABELLINGS` draws of labels, as many from each window; truth is that of all its rows."""
    windows = len(after) // size
    held, plain, halves, plain_halves, off, plain_off = ([] for _ in range(6))
    for run in range(LABELLINGS):
        start = run % windows * size
        rows = np.arange(start, start + size)
        chosen = rows[chance.random(size) < LABELLED]
        truth = float(after.right[rows].mean())
        found = estimate.prediction_powered([after.sums(rows, chosen)])
        without = after.sums(rows, chosen)._replace(expected=0, f=0, ff=0, fc=0)
        labels = estimate.prediction_powered([without])
        assert found is not None
        assert labels is not None
        powered, alone = found.estimate, labels.estimate
        held.append(powered.low <= truth <= powered.high)
        plain.append(alone.low <= truth <= alone.high)
        halves.append((powered.high - powered.low) / 2)
        plain_halves.append((alone.high - alone.low) / 2)
        off.append(abs(powered.value - truth))
        plain_off.append(abs(alone.value - truth))
    row = (
        name,
        f"5 % labels of {size:,} rows: 95 % interval holds",
        f"{np.mean(held):.1%} of {LABELLINGS:,}",
        f"{np.mean(plain):.1%} the labels alone",
        f"half-width {np.mean(halves):.4f} ({np.mean(plain_halves):.4f}), "
        f"error {np.mean(off):.4f} ({np.mean(plain_off):.4f} alone)",
    )
    return row, float(np.mean(held))


# --- has the concept drifted? ---------------------------------------------------------------------


class Fired(NamedTuple):
    """Labels until the test fired, either way and for an estimate too high; None: it did not."""

    either: int | None
    harm: int | None


def _watched(rows: Rows, chosen: Ints, after: int = 0) -> Fired:
    """Labels of `chosen` rows, in their order; counted from row `after` on."""
    detector = estimate.ConceptDetector()
    state, either, counted = detector.start(), None, int(np.sum(chosen < after))
    chances, cells = rows.chances.ravel(), rows.chances.size
    looks = -(-len(chosen) // LOOK)
    place = (np.arange(len(chosen)) // LOOK * 2 + rows.right[chosen].astype(int)) * cells
    counts = np.bincount(place + rows.cell[chosen], minlength=looks * 2 * cells)
    for at, (wrong, right) in enumerate(counts.reshape(looks, 2, cells), start=1):
        state = detector.after(state, chances, wrong, right)
        side = detector.distrusts(state)
        if side is not None and either is None:
            either = at * LOOK - counted
        if side == "too high":
            return Fired(either, at * LOOK - counted)
    return Fired(either, None)


def _drift(pairs: Pairs) -> tuple[list[Row], list[Promise]]:
    chance = np.random.default_rng(2)
    everything = {name: _rows(*pair) for name, pair in pairs.items()}
    everything["cards, 3 classes"] = _card_rows(*_all_cards())[1]
    rows: list[Row] = []
    fired: dict[str, list[list[Fired]]] = {}
    for name, after in track(everything.items(), "concept drift", console=screen):
        whole = _watched(after, np.arange(len(after)))
        runs = [[_watched(after, _chosen(chance, after, s)) for _ in range(RUNS)] for s in SHARES]
        fired[name] = [[whole], *runs]
        rows.append(_whole_row(name, len(after), whole))
        rows += [_run_row(name, len(after), s, r) for s, r in zip(SHARES, runs, strict=True)]
    for name in ("car loan", "census"):
        rows.append(_flipped(name, everything[name], chance))
    return rows, _drift_promises(fired)


def _chosen(chance: np.random.Generator, rows: Rows, share: float) -> Ints:
    return np.flatnonzero(chance.random(len(rows)) < share)


def _whole_row(name: str, n: int, whole: Fired) -> Row:
    words = [f"after {at:,} labels" if at else "no" for at in whole]
    return (name, f"concept-drift test, all {n:,} labels", words[0], "", f"too high: {words[1]}")


def _run_row(name: str, n: int, share: float, runs: list[Fired]) -> Row:
    either = [run.either for run in runs if run.either is not None]
    harm = [run.harm for run in runs if run.harm is not None]
    return (
        name,
        f"concept-drift test, {share:.0%} of them",
        f"fires in {len(either) / RUNS:.1%} of {RUNS}",
        f"median {np.median(either):,.0f} labels" if either else "",
        f"too high: {len(harm) / RUNS:.1%}"
        + (f", median {np.median(harm):,.0f} labels" if harm else ""),
    )


def _flipped(name: str, rows: Rows, chance: np.random.Generator) -> Row:
    """A tenth of the labels, of the second half, turned round; a quarter of all rows labelled."""
    half, delays, early = len(rows) // 2, [], 0
    for _ in range(RUNS):
        turned = (np.arange(len(rows)) >= half) & (chance.random(len(rows)) < 0.1)
        right = np.where(turned, 1 - rows.right, rows.right)
        other = Rows(rows.chances, rows.cell, right)
        found = _watched(other, _chosen(chance, other, 0.25), after=half)
        if found.either is not None and found.either > 0:
            delays.append(found.either)
        early += found.either is not None and found.either <= 0
    return (
        name,
        "10 % of labels turned round from half way on",
        f"fires in {len(delays) / RUNS:.1%} of {RUNS}",
        f"median {np.median(delays):,.0f} labels later",
        f"before: {early / RUNS:.1%}",
    )


def _drift_promises(fired: dict[str, list[list[Fired]]]) -> list[Promise]:
    whole, *runs = fired["California housing"]
    at = whole[0].either or 10**9
    quarter = [run.either for run in runs[-1]]
    within = float(np.mean([n is not None and n <= 2000 for n in quarter]))
    false = {
        name: max(float(np.mean([run.either is not None for run in r])) for r in fired[name])
        for name in ("car loan", "census")
    }
    return [
        Promise(
            "the concept-drift test fires on California housing within 2,000 labels",
            f"after {at:,} with every row labelled, in {within:.0%} of {RUNS} runs with a quarter",
            at <= 2000 and within == 1,
        ),
        Promise(
            "and on car loan and census in at most 5 % of runs",
            ", ".join(f"{name} {share:.1%}" for name, share in false.items())
            + f" at most ({RUNS} runs of 5 % and of 25 % labels, one of all)",
            max(false.values()) <= 0.05,
        ),
    ]
