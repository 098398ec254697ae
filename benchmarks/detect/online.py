"""How many labels until a higher error rate is noticed, and how often without one?"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.progress import track

from benchmarks.detect.peers.online import AFTER, BEFORE, CHANGES, LABELS, REFERENCE, RUNS, stream
from benchmarks.detect.section import Promise, Section
from monitoring.stats import detector
from monitoring.stats.detector import RateDetector
from slipstream.places import screen

PEERS = json.loads((Path(__file__).parent / "peers" / "online.json").read_text())
#: One false alarm in a hundred runs of 20,000 labels is what A = 2,000,000 promises at most.
THRESHOLD = 100.0 * LABELS
#: Labels that are gone through at once; whoever has alarmed by then need not go on.
STRIDE = 1_000
#: Other baselines on which false alarms are counted: rate and labels of the reference.
BASELINES = ((0.02, 1_000), (0.30, 10_000))
SEED = 5


@dataclass(frozen=True)
class Watcher:
    """One way to watch: from errors and labels of the reference to a detector and its A."""

    name: str
    make: Callable[[int, int], RateDetector]
    threshold: float = THRESHOLD


OURS = Watcher("learned baseline, A = 2,000,000", detector.learned)
WATCHERS = (
    OURS,
    Watcher(
        "the same, half a point tolerated", lambda k, n: detector.learned(k, n, tolerance=0.005)
    ),
    Watcher(
        "limit = reference + .015, A = 100,000", lambda k, n: detector.at_most(k / n + 0.015), 1e5
    ),
)


@dataclass(frozen=True)
class Found:
    """What became of the runs: shares with a false alarm, and by change and rate the median delay
    and the share that never alarmed."""

    false_alarms: float
    medians: dict[tuple[int, float], float]
    missed: dict[tuple[int, float], float]


def run() -> Section:
    found = {watcher.name: _watched(watcher) for watcher in WATCHERS}
    peers = {f"River's {name}": _peer(figures) for name, figures in PEERS["figures"].items()}
    ours, adwin = found[OURS.name], peers["River's ADWIN"]
    elsewhere = [_elsewhere(rate, labels) for rate, labels in BASELINES]
    early, late = CHANGES[1], CHANGES[0]
    return Section(
        title="A higher error rate, label by label",
        about=(
            f"{RUNS:,} streams of {LABELS:,} labels at an error rate of {BEFORE:.0%}; for delays "
            f"the rate rises after {late:,} labels (in brackets: after {early:,}). What the rate "
            f"is must be learned from {REFERENCE:,} labels before them, which all detectors read. "
            "Delays are medians in labels, over all runs, of the first alarm after the change; "
            f"River {PEERS['versions']['river']} with its defaults on the same streams. Beyond the "
            "table, runs with a false alarm at other baselines: "
            + ", ".join(
                f"{share:.1%} at a rate of {rate:.0%} known from {labels:,} labels"
                for (rate, labels), share in zip(BASELINES, elsewhere, strict=True)
            )
            + "."
        ),
        columns=(
            "detector",
            "runs with a false alarm",
            *(f"delay to {after:.0%}" for after in AFTER),
            f"missed at {AFTER[0]:.0%}",
        ),
        rows=tuple(_row(name, each) for name, each in {**found, **peers}.items()),
        promises=(
            Promise(
                "median delay .10 -> .15 at most 980 labels, .10 -> .20 at most 235",
                f"{ours.medians[late, 0.15]:.0f} and {ours.medians[late, 0.2]:.0f} "
                f"(ADWIN: {adwin.medians[late, 0.15]:.0f} and {adwin.medians[late, 0.2]:.0f})",
                ours.medians[late, 0.15] <= 980 and ours.medians[late, 0.2] <= 235,
            ),
            Promise(
                "false alarm in at most 1 % of 20,000-label runs",
                f"{ours.false_alarms:.1%} of {RUNS:,}",
                ours.false_alarms <= 0.01,
            ),
        ),
    )


def _row(name: str, found: Found) -> tuple[str, ...]:
    def delay(after: float) -> str:
        late, early = (found.medians[change, after] for change in CHANGES)
        return " ".join(
            "never" if np.isinf(each) else text
            for each, text in ((late, f"{late:,.0f}"), (early, f"({early:,.0f})"))
        )

    missed = found.missed[CHANGES[0], AFTER[0]]
    return name, f"{found.false_alarms:.1%}", *map(delay, AFTER), f"{missed:.0%}"


def _watched(watcher: Watcher) -> Found:
    false_alarms = 0
    delays: dict[tuple[int, float], list[float]] = {
        (change, after): [] for change in CHANGES for after in AFTER
    }
    for number in track(range(RUNS), watcher.name, console=screen):
        false_alarms += _first_alarm(watcher, stream(number), 0) is not None
        for (change, after), seen in delays.items():
            at = _first_alarm(watcher, stream(number, change, after), change)
            seen.append(np.inf if at is None else at - change)
    return Found(
        false_alarms / RUNS,
        {key: float(np.median(seen)) for key, seen in delays.items()},
        {key: float(np.isinf(seen).mean()) for key, seen in delays.items()},
    )


def _elsewhere(rate: float, labels: int) -> float:
    """Share of runs at another baseline in which our detector cries wolf."""
    wolf = 0
    for number in track(range(RUNS), f"at a rate of {rate:.0%}", console=screen):
        chance = np.random.default_rng([SEED, labels, number])
        errors = chance.random(labels + LABELS) < rate
        wolf += _first_alarm(OURS, errors, 0, labels) is not None
    return wolf / RUNS


def _first_alarm(
    watcher: Watcher, errors: npt.NDArray[np.bool_], start: int, reference: int = REFERENCE
) -> int | None:
    """After how many labels the first alarm came beyond `start`; None if never.

    After an earlier alarm the detector starts anew, as River's do.
    """
    watch = watcher.make(int(errors[:reference].sum()), reference)
    losses = errors[reference:].astype(np.float64)
    state, at = watch.start(), 0
    while at < len(losses):
        states = watch.through(state, losses[at : at + STRIDE])
        alarms = np.flatnonzero(detector.alarms(watch.evidence(states), watcher.threshold))
        if len(alarms) == 0:
            state, at = states[-1], at + len(states)
            continue
        at += int(alarms[0]) + 1
        if at > start:
            return at
        state = watch.start()
    return None


def _peer(figures: dict[str, Any]) -> Found:
    delays = {
        (change, after): figures["delays"][f"{change} {after}"]
        for change in CHANGES
        for after in AFTER
    }
    return Found(
        figures["false_alarm_runs"] / RUNS,
        {key: np.inf if d["median"] is None else d["median"] for key, d in delays.items()},
        {key: d["missed_runs"] / RUNS for key, d in delays.items()},
    )
