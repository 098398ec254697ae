"""How often is a fault in one column noticed, at one false alarm in a hundred windows?"""

from __future__ import annotations

from collections import Counter

from rich.progress import track

from benchmarks.detect import draws
from benchmarks.detect.false_alarms import ALPHA, Watched, alarms, peers
from benchmarks.detect.section import Promise, Section
from slipstream.places import screen

WINDOWS = 200
SIZES = (1_000, 200)
#: What is promised at windows of 1,000: so much of at least so many faults, on every set.
PROMISED = 0.95
FAULTS_PROMISED = 7


def run() -> Section:
    cells = [(name, fault) for name in draws.REAL for fault in draws.FAULTS]
    others = peers()
    rows, kept = [], Counter[str]()
    for name, fault in track(cells, "faults", console=screen, transient=True):
        cell = [name, fault]
        for size in SIZES:
            found, tests = _detected(name, fault, size)
            peer = others["faults"][f"{name}/{fault}/{size}"]
            cell += [
                f"{found:.1%}",
                f"{peer['evidently_column'] / peer['windows']:.0%}",
                f"{peer['evidently_any'] / peer['windows']:.0%}",
            ]
            if size == SIZES[0]:
                by = ", ".join(test for test, count in tests.most_common() if count >= WINDOWS / 2)
                kept[name] += found >= PROMISED
        rows.append((*cell, by))
    least = min(peer["windows"] for peer in others["faults"].values())
    return Section(
        title="Faults that the univariate suite notices",
        about=(
            f"Windows with an alarm (Holm over all features and tests at {ALPHA:.0%}) when one "
            f"column is at fault; {WINDOWS} windows each, drawn as for the false alarms. The "
            f"column is drawn by lot for each window from all numeric ones of which at most "
            f"{draws.COMMON:.0%} is missing (or zero, for zeros), for a new category from all "
            f"texts. Outliers lie 5 standard deviations off on either side. A subpopulation is "
            f"the rows above a column's median, or of a level with {draws.FREQUENT[0]:.0%} to "
            f"{draws.FREQUENT[1]:.0%} of the rows; each of its rows is lost with probability "
            f"0.4. Evidently with its defaults ({others['versions']}) on the first {least} of "
            f"these windows: the column at fault, and any column. What it says at windows of 200 "
            f"is to be read beside its false alarms there."
        ),
        columns=(
            "data",
            "fault",
            *(
                f"{who}, {size:,}"
                for size in SIZES
                for who in ("Slipstream", "Evidently, column", "Evidently, any")
            ),
            "noticed by",
        ),
        rows=tuple(rows),
        promises=(
            Promise(
                says=(
                    f"at least {PROMISED:.0%} of windows of {SIZES[0]:,} for at least "
                    f"{FAULTS_PROMISED} of {len(draws.FAULTS)} faults on every set"
                ),
                found=", ".join(f"{name} {kept[name]} of {len(draws.FAULTS)}" for name in kept),
                kept=min(kept.values()) >= FAULTS_PROMISED,
            ),
        ),
    )


def _detected(name: str, fault: str, size: int) -> tuple[float, Counter[str]]:
    """The share of windows with an alarm; how many each test noticed."""
    noticed, tests = 0, Counter[str]()
    for split in draws.draws(name, size, WINDOWS // draws.WINDOWS_A_REFERENCE):
        draw = draws.for_fault(split, fault)
        watched = Watched(draw)
        for _ in range(draws.WINDOWS_A_REFERENCE):
            found = alarms(watched.window(draws.faulty(draw, fault, size)[1]))
            noticed += bool(found)
            tests.update(sorted({test for _, test in found}))
    return noticed / WINDOWS, tests
