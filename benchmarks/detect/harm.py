"""Pages that mean harm, and drift that does not: the demo's model, day by day.

What is known when. The model has learned from flights to 15 March; its hold-out is 16 to 31 March;
the monitor's profile of the features is January to March, as in the demo. From 1 April each day is
a window. A label reaches the monitor 24 hours after the aircraft has landed. A page for a day is
decided at the end of the day after, so from the flights that had landed by the day's own midnight:
those still in the air, which are late more often than not, are missing. Whether a day was harmful
is judged by all of its flights whose outcome was ever known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks.detect.data import WHEEL
from benchmarks.detect.section import Promise, Section
from examples.flights import data, train
from models.profile import Levels, NumericBins, level_counts, numeric_bins
from monitoring.stats import blocks, detector, suite
from monitoring.stats.drift import holm, homogeneity
from monitoring.stats.sequential import rate_difference
from slipstream.places import screen

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

DAY_MS = 86_400_000
NEW_YEAR = 15_706  # days from 1970 to 1 January 2013
HOLDOUT, APRIL, DAYS = 74, 90, 365
#: A day is harmful where its accuracy is more than this below the hold-out's.
LOSS = 0.03
#: Drift alarms: family-wise within a day.
ALPHA = 0.01
#: A page needs the lower end of the difference beyond LOSS, in this one-sided confidence: that of
#: the precision asked for.
CONFIDENCE = 0.80
COVERAGES = (1.0, 0.3, 0.1)
#: So many times the labels that arrive are drawn, where not all do.
LOTS = 20
SEED = 6


@dataclass(frozen=True)
class Flights:
    """All flights in the order of their departure: the day, whether the model was right (and the
    outcome known at all), and whether it was known by the midnight after departure."""

    day: Ints
    score: npt.NDArray[np.float64]
    known: Flags
    wrong: Flags
    in_time: Flags

    def errors(self, chosen: Flags) -> tuple[Ints, Ints]:
        """Wrong and all labelled flights of each day, of those chosen."""
        used = chosen & self.known
        return _a_day(self.day[used & self.wrong]), _a_day(self.day[used])


def _a_day(days: Ints) -> Ints:
    return np.bincount(days, minlength=DAYS)


@cache
def _flights() -> tuple[pl.DataFrame, Flights]:
    frame = data.load()
    folder = WHEEL.parent / "flights"
    train.train(folder, lambda line: screen.print(f"[dim]{line}[/]"))
    score = train.offline(folder, 2, frame)
    late, landed = frame["late"].to_numpy(), frame["known_ms"].fill_null(-1).to_numpy()
    day = frame["event_ms"].to_numpy() // DAY_MS - NEW_YEAR
    flights = Flights(
        day=day,
        score=score,
        known=frame["late"].is_not_null().to_numpy(),
        wrong=(score >= 0.5) != (late == 1),
        in_time=landed < (day + 1 + NEW_YEAR) * DAY_MS,
    )
    return frame, flights


def run() -> Section:
    frame, flights = _flights()
    wrong, known = flights.errors(np.ones(len(frame), np.bool_))
    holdout = int(wrong[HOLDOUT:APRIL].sum()), int(known[HOLDOUT:APRIL].sum())
    harmful = (wrong / known)[APRIL:] > holdout[0] / holdout[1] + LOSS
    tables = _tables(frame, flights)
    chance, usual = _by_chance(tables), _by_blocks(tables)
    pages = {share: _pages(flights, holdout, share) for share in COVERAGES}
    rows = [
        _row("drift, test of chance alone", chance, harmful),
        _row("drift, calibrated on the reference's days", usual, harmful),
        _row("harm, page a day later, all labels", pages[1.0], harmful),
        *(
            _row(f"the same, {share:.0%} of labels", pages[share], harmful)
            for share in COVERAGES[1:]
        ),
        *(
            _row(f"lasting harm, {share:.0%} of labels", _lasting(flights, holdout, share), harmful)
            for share in (COVERAGES[0], COVERAGES[-1])
        ),
        _row("guess: a day is like the day before", _like_yesterday(flights, holdout), harmful),
    ]
    own, own_by_chance = usual[:APRIL].mean(), chance[:APRIL].mean()
    return Section(
        title="Harm and drift, flights by day",
        about=(
            f"Gradient-boosted trees trained to 15 March, wrong on {holdout[0] / holdout[1]:.1%} "
            f"of the hold-out (16 to 31 March); {len(harmful)} days from 1 April, of which "
            f"{harmful.mean():.0%} are harmful: accuracy more than {LOSS * 100:.0f} points below "
            "the hold-out's. Labels come 24 hours after landing, and a page for a day is decided "
            "at the end of the next one; flights still in the air at the day's midnight are not "
            "known by then. With all labels that is nearly the definition of harm and shows only "
            "what certainty costs; with a random tenth it is an inference from about ninety "
            f"flights, averaged over {LOTS} lots. A page needs {CONFIDENCE:.0%} confidence. "
            "Lasting harm: the detector of error rates, three points tolerated, one page in 90 "
            "days budgeted, starting anew after each page. A drift alarm is a day on which "
            f"any of 17 tests (features and score) rejects, {ALPHA:.0%} family-wise (Holm); each "
            "day of the reference is calibrated on the others."
        ),
        columns=("alarm", "reference's own days", "days from April", "precision", "recall"),
        rows=tuple(rows),
        promises=(
            Promise(
                "of the reference's own days at most 10 % alarm",
                f"{own:.0%} (by chance alone {own_by_chance:.0%})",
                bool(own <= 0.10),
            ),
            *(_promise(share, pages[share], harmful) for share in COVERAGES[:2]),
        ),
    )


def _promise(share: float, paged: Flags, harmful: Flags) -> Promise:
    precision, recall = _precision_recall(paged, harmful)
    return Promise(
        f"harm pages, labels a day late, {share:.0%} of them: precision >= 0.8, recall >= 0.6",
        f"{precision:.2f} and {recall:.2f}",
        bool(precision >= 0.8 and recall >= 0.6),
    )


def _precision_recall(alarms: Flags, harmful: Flags) -> tuple[float, float]:
    """Of all days from April of all lots, `alarms` [..., days of the year]."""
    later = np.atleast_2d(alarms)[:, APRIL:]
    right = (later & harmful).sum()
    return float(right / max(later.sum(), 1)), float(right / (len(later) * harmful.sum()))


def _row(name: str, alarms: Flags, harmful: Flags) -> tuple[str, ...]:
    """Before April only drift is looked for."""
    precision, recall = _precision_recall(alarms, harmful)
    lots = np.atleast_2d(alarms)
    return (
        name,
        f"{lots[:, :APRIL].mean():.0%}" if name.startswith("drift") else "-",
        f"{lots[:, APRIL:].sum() / len(lots):.0f} of {len(harmful)}",
        f"{precision:.2f}",
        f"{recall:.2f}",
    )


# --- drift ----------------------------------------------------------------------------------------


def _tables(frame: pl.DataFrame, flights: Flights) -> list[Ints]:
    """Per feature and for the score: counts [days, bins], pooled as the monitor pools them."""
    return [
        *(
            _table(_column(frame, name), flights.day, name in data.NUMERIC)
            for name in data.FEATURES
        ),
        _table(flights.score, flights.day, ordered=True),
    ]


def _column(frame: pl.DataFrame, name: str) -> npt.NDArray[Any]:
    if name in data.NUMERIC:
        return frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
    return frame[name].fill_null("").to_numpy().astype(object)


def _table(values: npt.NDArray[Any], day: Ints, ordered: bool) -> Ints:
    reference = values[day < APRIL]
    bins: NumericBins | Levels
    if ordered:
        bins = numeric_bins(reference.astype(np.float64))
        index, counts = bins.index(values.astype(np.float64)), np.array(bins.counts)
    else:
        bins = level_counts(reference)
        index, counts = bins.index(values), np.array((*bins.counts, bins.other))
    usual_rows = int(np.median(_a_day(day)[:APRIL]))
    before = suite.numeric(counts, 0) if ordered else suite.categorical(counts, 0, 0)
    groups = before.groups(usual_rows)
    there = index < len(counts)  # the missing are another test's business
    table = np.zeros((DAYS, int(groups.max()) + 1), np.int64)
    np.add.at(table, (day[there], groups[index[there]]), 1)
    return table


def _by_chance(tables: list[Ints]) -> Flags:
    return _alarms(tables, lambda rest, day: homogeneity(rest.sum(0), day).p_value)


def _by_blocks(tables: list[Ints]) -> Flags:
    def p_value(rest: Ints, day: Ints) -> float:
        usual = blocks.chi_squared(rest)
        ratio = blocks.chi_squared_ratio(rest.sum(0), day)
        # An uncalibrated feature is for information only.
        return float(usual.p_value(ratio)) if usual.calibrated else 1.0

    return _alarms(tables, p_value)


def _alarms(tables: list[Ints], p_value: Callable[[Ints, Ints], float]) -> Flags:
    """On which days any feature rejects; a day of the reference is held against the others."""

    def day_alarms(day: int) -> bool:
        each = []
        for table in tables:
            reference = table[:APRIL]
            rest = np.delete(reference, day, 0) if day < APRIL else reference
            each.append(p_value(rest, table[day]))
        return min(holm(each)) < ALPHA

    return np.array([day_alarms(day) for day in range(DAYS)])


# --- harm -----------------------------------------------------------------------------------------


def _lots(flights: Flights, share: float, pages: Callable[[Ints, Ints], Flags]) -> Flags:
    """Pages [lots, days] from the errors and labels of each day known at the end of the next."""

    def lot(number: int) -> Flags:
        reported = np.random.default_rng([SEED, number]).random(len(flights.day)) < share
        return pages(*flights.errors(flights.in_time & reported))

    return np.array([lot(number) for number in range(LOTS if share < 1 else 1)])


def _pages(flights: Flights, holdout: tuple[int, int], share: float) -> Flags:
    """As the monitor pages (monitoring.watch): days whose error rate is above the hold-out's,
    within a budget of one false alarm in 90 days, and probably by more than LOSS."""
    alpha = detector.budget(1, 90, 1, 1).page.alpha

    def page(wrong: int, known: int) -> bool:
        more = rate_difference(*holdout, wrong, known, 2 * alpha)
        much = rate_difference(*holdout, wrong, known, 2 * (1 - CONFIDENCE))
        return more is not None and much is not None and more.low > 0 and much.low > LOSS

    def pages(wrong: Ints, known: Ints) -> Flags:
        return np.array([page(*day) for day in zip(wrong.tolist(), known.tolist(), strict=True)])

    return _lots(flights, share, pages)


def _lasting(flights: Flights, holdout: tuple[int, int], share: float) -> Flags:
    """Pages of the detector of error rates, fed with the labels of one day at a time."""
    watch = detector.learned(*holdout, tolerance=LOSS)

    def pages(wrong: Ints, known: Ints) -> Flags:
        spending = detector.budget(1, 90, 1, float(known[:APRIL].mean()))
        paged = np.zeros(DAYS, np.bool_)
        state = watch.start()
        for day in range(APRIL, DAYS):
            state = watch.after(state, int(wrong[day]), int(known[day]))
            if detector.alarms(watch.evidence(state), spending.page.labels):
                paged[day] = True
                state = watch.start()
        return paged

    return _lots(flights, share, pages)


def _like_yesterday(flights: Flights, holdout: tuple[int, int]) -> Flags:
    """No monitor, but what memory alone is worth: harmful if the day before was, all labels."""
    wrong, known = flights.errors(np.ones(len(flights.day), np.bool_))
    harmful = wrong / np.maximum(known, 1) > holdout[0] / holdout[1] + LOSS
    return np.append(False, harmful[:-1])
