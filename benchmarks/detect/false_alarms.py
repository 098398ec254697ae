"""How often does the univariate suite say "changed" where nothing has?"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.progress import track

from benchmarks.detect import data, draws
from benchmarks.detect.draws import Column, Draw, Window
from benchmarks.detect.section import Promise, Section
from models.profile import NumericBins, numeric_bins
from monitoring.stats import suite
from monitoring.stats.suite import Checks, Reference
from slipstream.places import screen

Rows = npt.NDArray[np.int64]

#: Nominal rate of windows with any alarm, and what is promised of every cell.
ALPHA = 0.01
PROMISED = 0.015
WINDOWS = 2_000
SIZES = (50, 200, 1_000, 5_000)
PEERS = Path(__file__).parent / "peers" / "windows.json"


@dataclass(frozen=True)
class Numbers:
    """A numeric column's bins and the reference in them."""

    bins: NumericBins
    reference: Reference

    def index(self, values: Column) -> Rows:
        return self.bins.index(values.astype(np.float64))

    @classmethod
    def of(cls, values: Column) -> Numbers:
        bins = numeric_bins(values.astype(np.float64))
        return cls(bins, suite.numeric(np.array(bins.counts), bins.missing))


@dataclass(frozen=True)
class Levels:
    """A text column's levels in the order of their names, then all other ones; none missing."""

    names: npt.NDArray[np.str_]
    reference: Reference

    def index(self, values: Column) -> Rows:
        at = np.minimum(np.searchsorted(self.names, values), len(self.names) - 1)
        return np.where(self.names[at] == values, at, len(self.names)).astype(np.int64)

    @classmethod
    def of(cls, names: npt.NDArray[np.str_], counts: Rows) -> Levels:
        """From the counts of all levels of the set; those that the reference lacks are other."""
        known = counts > 0
        singletons = int(np.sum(counts == 1))
        reference = suite.categorical(np.append(counts[known], 0), 0, singletons)
        return cls(names[known], reference)


class Watched:
    """The reference of a draw, profiled, and windows of it checked."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._columns: dict[str, Numbers | Levels] = {}
        for name, column in draw.columns.items():
            if column.dtype.kind == "U":
                levels, codes = draws.codes(draw.name, name)
                counts = np.bincount(codes[draw.reference], minlength=len(levels))
                self._columns[name] = Levels.of(levels, counts)
            else:
                self._columns[name] = Numbers.of(column[draw.reference])

    @cached_property
    def _indices(self) -> dict[str, Rows]:
        """Of every row of the set."""
        found = {}
        for name, column in self._columns.items():
            if isinstance(column, Levels):
                levels, codes = draws.codes(self._draw.name, name)
                found[name] = column.index(levels)[codes]
            else:
                found[name] = column.index(self._draw.columns[name])
        return found

    def rows(self, rows: Rows) -> dict[str, Checks]:
        """Check a window given by its rows."""
        return self._checked({name: self._indices[name][rows] for name in self._columns})

    def window(self, window: Window) -> dict[str, Checks]:
        """Check a window given by its values."""
        return self._checked({name: self._columns[name].index(window[name]) for name in window})

    def _checked(self, indices: dict[str, Rows]) -> dict[str, Checks]:
        found = {}
        for name, index in indices.items():
            reference = self._columns[name].reference
            counts = np.bincount(index, minlength=len(reference.counts) + 1)
            checks = suite.check(reference, counts[:-1], int(counts[-1]))
            assert checks is not None
            found[name] = checks
        return found


def alarms(found: dict[str, Checks], alpha: float = ALPHA) -> list[tuple[str, str]]:
    """Feature and test of everything that Holm's procedure rejects."""
    adjusted = suite.adjusted(list(found.values()))
    return [
        (feature, test)
        for feature, tests in zip(found, adjusted, strict=True)
        for test, p_value in tests.items()
        if p_value < alpha
    ]


def peers() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(PEERS.read_text())
    return found


def run() -> Section:
    names = (*draws.REAL, *data.families())
    cells = [(name, size) for name in names for size in SIZES]
    others = peers()
    rows, rates, tests = [], {}, Counter[str]()
    for name, size in track(cells, "false alarms", console=screen, transient=True):
        wrong = _cell(name, size, tests)
        rates[name, size] = wrong / WINDOWS
        peer = others["false_alarms"][f"{name}/{size}"]
        rows.append((name, f"{size:,}", f"{wrong / WINDOWS:.2%}", *_percent(peer)))
    worst = max(rates, key=lambda cell: rates[cell])
    least = min(others["false_alarms"].values(), key=lambda peer: peer["windows"])["windows"]
    return Section(
        title="False alarms of the univariate suite",
        about=(
            f"Windows in which anything is said to have changed while nothing has: any feature, "
            f"any test, Holm over all of them at {ALPHA:.0%}. {WINDOWS:,} windows a cell (one "
            f"standard error at 1 % is 0.22 points). Nothing has changed means: a set is shuffled "
            f"anew every {draws.WINDOWS_A_REFERENCE} windows, one half is the reference, windows "
            f"are drawn from the other; the families (5 columns) are drawn anew as often, with a "
            f"reference of {draws.REFERENCE_TIMES} windows, at least {draws.LEAST_REFERENCE:,} "
            f"rows. The others saw the first {least} of these windows, with their defaults "
            f"({others['versions']}): Evidently's data drift preset, any column or the whole set; "
            f"NannyML's univariate drift in chunks of the window's size, any column. "
            f"Tests that alarmed: {', '.join(f'{t} {c}' for t, c in tests.most_common())}."
        ),
        columns=(
            "data",
            "window",
            "Slipstream",
            "Evidently, any column",
            "Evidently, set",
            "NannyML, any column",
        ),
        rows=tuple(rows),
        promises=(
            Promise(
                says=f"at most {PROMISED:.1%} false alarms in every cell at nominal {ALPHA:.0%}",
                found=f"worst {rates[worst]:.2%} ({worst[0]}, windows of {worst[1]:,})",
                kept=rates[worst] <= PROMISED,
            ),
        ),
    )


def _cell(name: str, size: int, tests: Counter[str]) -> int:
    """How many windows alarmed; counts by which tests."""
    wrong = 0
    for draw in draws.draws(name, size, WINDOWS // draws.WINDOWS_A_REFERENCE):
        watched = Watched(draw)
        for _ in range(draws.WINDOWS_A_REFERENCE):
            found = alarms(watched.rows(draw.window(size)))
            wrong += bool(found)
            tests.update(sorted({test for _, test in found}))
    return wrong


def _percent(peer: dict[str, float]) -> tuple[str, ...]:
    of = peer["windows"]
    return tuple(
        f"{peer[who] / of:.1%}" for who in ("evidently_any", "evidently_set", "nannyml_any")
    )
