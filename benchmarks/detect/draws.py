"""References and windows drawn from one set of rows, the same for every detector; and faults.

A set is shuffled anew every few windows: one half is the reference, windows are drawn from the
other. So reference and window are always two samples of one distribution, and the error of one
reference is shared by few windows.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks.detect import data
from benchmarks.detect.data import Data, Generator

Rows = npt.NDArray[np.int64]
Texts = npt.NDArray[np.str_]
#: Float64 (NaN: missing) or text, as its dtype says.
Column = npt.NDArray[Any]
#: Columns by name, in the order of the set.
Window = dict[str, Column]

REAL: dict[str, Callable[[], Data]] = {
    "car loan": data.car_loan,
    "census": data.census,
    "flights": data.flights,
}
#: Windows that share a reference.
WINDOWS_A_REFERENCE = 10
#: Reference rows per row of the window in the synthetic families, and the fewest.
REFERENCE_TIMES = 5
LEAST_REFERENCE = 1_000


@dataclass(frozen=True)
class Draw:
    """A reference and the rows that windows are drawn from; `chance` draws them."""

    name: str
    columns: Window
    reference: Rows
    rest: Rows
    chance: Generator

    def window(self, rows: int) -> Rows:
        return self.chance.choice(self.rest, rows, replace=False)


@cache
def columns(name: str) -> Window:
    """A real set as arrays: float64 (NaN: missing) and text."""
    return arrays(REAL[name]().frame)


@cache
def codes(name: str, column: str) -> tuple[Texts, Rows]:
    """The levels of a text column of a real set, in the order of their names; each row's."""
    return np.unique(columns(name)[column].astype(np.str_), return_inverse=True)


def arrays(frame: pl.DataFrame) -> Window:
    return {
        name: frame[name].to_numpy().astype(np.float64 if kind == pl.Float64 else np.str_)
        for name, kind in frame.schema.items()
    }


def draws(name: str, window: int, references: int) -> Iterator[Draw]:
    """One set or family, split anew so many times; the same for the same arguments."""
    seed = zlib.crc32(f"{name}/{window}".encode())
    for i in range(references):
        chance = np.random.default_rng((seed, i))
        if name in REAL:
            found = columns(name)
            rows = len(next(iter(found.values())))
            reference = rows // 2
        else:
            reference = max(LEAST_REFERENCE, REFERENCE_TIMES * window)
            rows = reference + max(LEAST_REFERENCE, 2 * window)
            found = arrays(data.families()[name](chance, rows).frame)
        order = chance.permutation(rows)
        yield Draw(name, found, order[:reference], order[reference:], chance)


def taken(draw: Draw, rows: Rows) -> Window:
    return {name: column[rows] for name, column in draw.columns.items()}


# --- faults ---------------------------------------------------------------------------------------

#: A column may be hit if no more of it is missing (or zero already, for zeros).
COMMON = 0.01
#: Shares of the rows of a level that may lose its rows.
FREQUENT = (0.2, 0.5)

FAULTS = (
    "missing 5 %",
    "zeros 5 %",
    "units × 1.1",
    "new category 5 %",
    "noise 0.3 sd",
    "shift 0.25 sd",
    "subpopulation −40 %",
    "outliers 2 %",
)


def for_fault(draw: Draw, fault: str) -> Draw:
    """The same split with chance of its own, so that faults do not depend on each other."""
    seed = (zlib.crc32(fault.encode()), int(draw.chance.integers(2**32)))
    return replace(draw, chance=np.random.default_rng(seed))


def faulty(draw: Draw, fault: str, rows: int) -> tuple[str, Window]:
    """A window of a real set with the fault in one column drawn by lot, and the column's name."""
    if fault.startswith("subpopulation"):
        return _thinned(draw, rows)
    name = str(draw.chance.choice(_may_be_hit(draw.name, fault)))
    window = taken(draw, draw.window(rows))
    window[name] = _hit(draw, fault, window[name], draw.columns[name][draw.reference])
    return name, window


@cache
def _may_be_hit(name: str, fault: str) -> list[str]:
    texts = list(REAL[name]().categorical)
    if fault.startswith("new category"):
        return texts
    found = columns(name)
    return [n for n in found if n not in texts and not _common(found[n], fault)]


def _common(column: Column, fault: str) -> bool:
    zero = float(np.mean(column == 0)) if fault.startswith("zeros") else 0.0
    return max(zero, float(np.mean(np.isnan(column)))) > COMMON


def _hit(draw: Draw, fault: str, column: Column, reference: Column) -> Column:
    chance, rows = draw.chance, len(column)
    if fault.startswith("new category"):
        column = column.astype("U64")
        column[_some(chance, rows, 0.05)] = "never seen"
        return column
    deviation = float(np.nanstd(reference))
    changed = column.copy()
    match fault:
        case "missing 5 %":
            changed[_some(chance, rows, 0.05)] = np.nan
        case "zeros 5 %":
            changed[_some(chance, rows, 0.05)] = 0.0
        case "units × 1.1":
            changed *= 1.1
        case "noise 0.3 sd":
            changed += 0.3 * deviation * chance.normal(size=rows)
        case "shift 0.25 sd":
            changed += 0.25 * deviation
        case "outliers 2 %":
            hit = _some(chance, rows, 0.02)
            changed[hit] += 5 * deviation * chance.choice((-1.0, 1.0), len(hit))
        case _:
            raise ValueError(f"no fault '{fault}'")
    return changed


def _some(chance: Generator, rows: int, share: float) -> Rows:
    return chance.choice(rows, round(share * rows), replace=False)


def _thinned(draw: Draw, rows: int) -> tuple[str, Window]:
    """40 % of a frequent level's rows are lost, or of the rows above a median."""
    groups = _subpopulations(draw.name)
    name, group = groups[draw.chance.integers(len(groups))]
    kept = ~group[draw.rest] | (draw.chance.random(len(draw.rest)) >= 0.4)
    return name, taken(draw, draw.chance.choice(draw.rest[kept], rows, replace=False))


@cache
def _subpopulations(name: str) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """Columns and which rows are of one of their frequent levels, or in their upper half."""
    found = []
    for column, values in columns(name).items():
        if values.dtype.kind == "U":
            found += [(column, values == level) for level in np.unique(values)]
        else:
            found.append((column, values > np.nanmedian(values)))
    low, high = FREQUENT
    return [(column, rows) for column, rows in found if low <= rows.mean() <= high]
