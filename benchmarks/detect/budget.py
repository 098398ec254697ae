"""Ninety days in which nothing happens, and some in which little does: what does a budget buy?"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import numpy.typing as npt
from rich.progress import track
from scipy import special

from benchmarks.detect.section import Promise, Section
from monitoring.stats import detector, quality
from monitoring.stats.detector import WindowDetector
from monitoring.stats.quality import Kind
from slipstream.places import screen

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RUNS, TOGETHER = 200, 50
DAYS, WINDOWS_A_DAY = 90, 144
WINDOWS = DAYS * WINDOWS_A_DAY
ROWS, REFERENCE = 200, 10_000
LABELS, HOLDOUT = 50, 3_000
ERROR_RATE = 0.10
#: Of eight features: how often they are missing, and how often beyond the outermost thousandths.
MISSING = np.array([0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.5])
OUTSIDE = 0.002
FEATURES = len(MISSING)
#: Equal bins of each feature: what 200 rows allow.
BINS = 16
SEED = 7
#: Windows after which a small lasting fault counts as never found.
PATIENCE = 2_000


@dataclass(frozen=True)
class Fault:
    """Something small that lasts: missing and error rates in points, a shift in standard
    deviations, on one feature of eight."""

    name: str
    missing: float = 0.0
    errors: float = 0.0
    shift: float = 0.0


FAULTS = (
    Fault("missing 3 % -> 6 %", missing=0.03),
    Fault("errors 10 % -> 15 %", errors=0.05),
    Fault("shift of 0.1 sd", shift=0.1),
)
FAULTY = 4  # the feature that is missing in 3 %


@dataclass
class Alarms:
    """By kind, the windows [runs] of first alarms (infinite: none) and their number."""

    first: dict[str, Floats] = field(default_factory=dict)
    number: dict[str, Ints] = field(default_factory=dict)

    def note(self, kind: str, window: int, alarms: npt.NDArray[np.bool_]) -> None:
        number = self.number.setdefault(kind, np.zeros(len(alarms), np.int64))
        first = self.first.setdefault(kind, np.full(len(alarms), np.inf))
        number += alarms
        first[alarms] = np.minimum(first[alarms], window)


KINDS = (
    "page: tests within a window",
    "page: evidence over windows",
    "page: evidence over labels",
    "digest: tests within a window",
    "digest: evidence over windows",
)


def run() -> Section:
    seen = [
        _replay(number, WINDOWS, None)
        for number in track(range(RUNS // TOGETHER), "ninety days", console=screen)
    ]
    number = {k: np.concatenate([each.number[k] for each in seen]) for k in KINDS}
    pages, digests = (
        np.sum([number[kind] for kind in KINDS if kind.startswith(group)], axis=0)
        for group in ("page", "digest")
    )
    quiet = float((pages <= 1).mean())
    found = {fault: _replay(i, PATIENCE, fault) for i, fault in enumerate(FAULTS, RUNS)}
    return Section(
        title="One false alarm in ninety days",
        about=(
            f"{RUNS} replays of {WINDOWS:,} windows of {ROWS} rows and {LABELS} labels, of one "
            f"distribution; {FEATURES} features, each with tests of missing and outermost values "
            "(page) and of its shape (digest), and the error rate. Everything is compared with a "
            f"reference of {REFERENCE:,} rows and {HOLDOUT:,} labels, drawn anew for each replay. "
            f"Budget: one false alarm in {DAYS} days. Then {TOGETHER} replays each with a small "
            "lasting fault in one feature or in the labels, and the median of windows until the "
            f"first alarm (never: not in {PATIENCE:,})."
        ),
        columns=("alarm", "in 90 days", "at most one", *(f.name for f in FAULTS)),
        rows=(
            *(_row(kind, number[kind], [found[f].first[kind] for f in FAULTS]) for kind in KINDS),
            _row("all pages", pages),
            _row("all of the digest", digests),
        ),
        promises=(
            Promise(
                "a 90-day stationary replay: at most one page in >= 90 % of runs",
                f"{quiet:.1%} of {RUNS}; {pages.mean():.2f} pages a run",
                quiet >= 0.90,
            ),
        ),
    )


def _row(kind: str, number: Ints, first: list[Floats] | None = None) -> tuple[str, ...]:
    medians = [np.median(each) for each in first or []]
    return (
        kind,
        f"{number.mean():.3f}",
        f"{(number <= 1).mean():.1%}",
        *("never" if np.isinf(each) else f"{each:.0f}" for each in medians),
        *("" for _ in range(len(FAULTS) - len(medians))),
    )


def _replay(seed: int, windows: int, fault: Fault | None) -> Alarms:
    """TOGETHER replays side by side. Evidence starts anew after each alarm."""
    chance = np.random.default_rng([SEED, seed])
    page, digest = detector.budget(1, DAYS, WINDOWS_A_DAY, WINDOWS_A_DAY * LABELS)
    kept, moved = _quality(chance, windows, fault), _drift(chance, windows, fault)
    errors = chance.binomial(
        LABELS, ERROR_RATE + (fault.errors if fault else 0), (TOGETHER, windows)
    )
    watch = WindowDetector()
    rates = detector.side_by_side(
        [detector.learned(int(k), HOLDOUT) for k in chance.binomial(HOLDOUT, ERROR_RATE, TOGETHER)]
    )
    broken = np.zeros((TOGETHER, kept.shape[-1], len(watch.kappas)))
    shifted = np.zeros((TOGETHER, FEATURES, len(watch.kappas)))
    worse, alarms = rates.start(), Alarms()
    for window in range(windows):
        now = (kept[:, window], moved[:, window])
        broken, shifted = watch.after(broken, now[0]), watch.after(shifted, now[1])
        worse = rates.after(worse, errors[:, window], LABELS)
        for states, kind, reached in (
            (broken, KINDS[1], _pooled(watch, broken, page.windows)),
            (worse, KINDS[2], detector.alarms(rates.evidence(worse), page.labels)),
            (shifted, KINDS[4], _pooled(watch, shifted, digest.windows)),
        ):
            alarms.note(kind, window + 1, reached)
            states[reached] = 0
        for p_values, kind, alpha in (
            (now[0], KINDS[0], page.alpha),
            (now[1], KINDS[3], digest.alpha),
        ):
            # Holm's smallest: that times their number.
            alarms.note(kind, window + 1, p_values.min(-1) * p_values.shape[-1] < alpha)
    return alarms


def _pooled(watch: WindowDetector, states: Floats, threshold: float) -> npt.NDArray[np.bool_]:
    return detector.alarms(detector.pooled(watch.evidence(states)), threshold)


def _quality(chance: np.random.Generator, windows: int, fault: Fault | None) -> Floats:
    """p-values [replays, windows, two tests of each feature], by the exact tests."""
    rates = np.concatenate([MISSING, np.full(FEATURES, OUTSIDE)])
    now = rates.copy()
    now[FAULTY] += fault.missing if fault else 0
    before = chance.binomial(REFERENCE, rates, (TOGETHER, len(rates)))
    counts = chance.binomial(ROWS, now, (TOGETHER, windows, len(rates)))
    p_values = np.empty(counts.shape)
    for replay, test in np.ndindex(TOGETHER, len(rates)):
        table = _exact(test < FEATURES, int(before[replay, test]))
        p_values[replay, :, test] = table[counts[replay, :, test]]
    return p_values


@cache
def _exact(missing: bool, before: int) -> Floats:
    """The p-value of every count a window can have: shape [ROWS + 1]."""
    kinds = (Kind(now, ROWS, before, REFERENCE) for now in range(ROWS + 1))
    return np.array([quality.changed(k) if missing else quality.more(k) for k in kinds])


def _drift(chance: np.random.Generator, windows: int, fault: Fault | None) -> Floats:
    """p-values [replays, windows, features] of the test of homogeneity on equal bins."""
    edges = special.ndtri(np.arange(1, BINS) / BINS)
    p_values = np.empty((TOGETHER, windows, FEATURES))
    for replay, feature in np.ndindex(TOGETHER, FEATURES):
        shift = fault.shift if fault and feature == FAULTY else 0.0
        shares = np.diff(special.ndtr(edges - shift), prepend=0, append=1)
        before = chance.multinomial(REFERENCE, np.full(BINS, 1 / BINS))
        now = chance.multinomial(ROWS, shares, windows)
        p_values[replay, :, feature] = _homogeneity(before, now)
    return p_values


def _homogeneity(before: Ints, now: Ints) -> Floats:
    """`drift.homogeneity` of many windows [windows, bins]; no bin is ever empty in both."""
    effective = REFERENCE * ROWS / (REFERENCE + ROWS)
    pooled = (before + now) / (REFERENCE + ROWS)
    statistic = effective * ((before / REFERENCE - now / ROWS) ** 2 / pooled).sum(-1)
    return np.asarray(special.chdtrc(BINS - 1, statistic))
