"""The data of the benchmark: real sets that ship inside packages, and four families of our own.

NannyML's wheel holds car loans, the census of Massachusetts, Californian houses and others; only
its data are read, it is never imported. The flights are those of the demo.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from examples.flights.data import CATEGORICAL, FEATURES, load

Generator = np.random.Generator
#: Where NannyML's package was put (`make bench-detect` does it, without what it depends on).
WHEEL = Path(os.environ.get("SLIPSTREAM_DETECT_DATA", ".bench-data/nannyml"))


@dataclass(frozen=True)
class Data:
    """Rows of one distribution: feature columns only, Float64 (numeric) or String (categorical)."""

    name: str
    frame: pl.DataFrame

    @property
    def categorical(self) -> tuple[str, ...]:
        return tuple(n for n, kind in self.frame.schema.items() if kind == pl.String)

    @property
    def numeric(self) -> tuple[str, ...]:
        return tuple(n for n in self.frame.columns if n not in self.categorical)


@dataclass(frozen=True)
class Predictions:
    """A binary model's scores, classes and the truth, in the order of time: float64, int, int."""

    name: str
    scores: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]
    truth: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.truth)

    def __getitem__(self, rows: slice | npt.NDArray[np.int64]) -> Predictions:
        return Predictions(self.name, self.scores[rows], self.classes[rows], self.truth[rows])


def table(name: str) -> pl.DataFrame:
    """A table of NannyML's, by the name of its file."""
    file = WHEEL / "datasets" / "data" / name
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; `make bench-detect` fetches it")
    if file.suffix == ".pq":
        return pl.read_parquet(file)
    return pl.read_csv(file, infer_schema_length=10_000)


# --- features -------------------------------------------------------------------------------------


def _features(frame: pl.DataFrame, leave_out: tuple[str, ...]) -> pl.DataFrame:
    kept = frame.drop([n for n in leave_out if n in frame.columns])
    texts = [n for n, kind in kept.schema.items() if not kind.is_numeric()]
    return kept.with_columns(pl.exclude(texts).cast(pl.Float64), pl.col(texts).cast(pl.String))


@cache
def car_loan() -> Data:
    """50,000 car loans before anything shifts (synthetic, NannyML's): 4 numbers, 3 texts."""
    left = ("id", "repaid", "timestamp", "y_pred_proba", "y_pred")
    return Data("car loan", _features(table("synthetic_car_loan_reference.csv"), left))


@cache
def census() -> Data:
    """68,785 people of Massachusetts in 2015 (American Community Survey): 1 number, 15 texts."""
    left = ("id", "employed", "year", "prediction", "predicted_probability")
    return Data("census", _features(table("employment_MA_reference.pq"), left))


@cache
def flights() -> Data:
    """80,789 flights of January to March 2013, in the order of a drawn lot: 13 numbers, 3 texts."""
    year = load()
    quarter = year.filter(pl.col("event_ms") < 1_364_774_400_000).select(FEATURES)
    return Data("flights", _features(quarter.with_columns(pl.col(CATEGORICAL).cast(pl.String)), ()))


Draw = Callable[[Generator, int], Data]


def families() -> dict[str, Draw]:
    """Five columns each, drawn anew: normal, lognormal, mostly zero, and few levels."""

    def columns(name: str, draw: Callable[[Generator, int], npt.NDArray[np.float64]]) -> Draw:
        def rows(chance: Generator, n: int) -> Data:
            return Data(name, pl.DataFrame({f"x{i}": draw(chance, n) for i in range(5)}))

        return rows

    def zero_inflated(chance: Generator, n: int) -> npt.NDArray[np.float64]:
        return np.where(chance.random(n) < 0.7, 0.0, chance.exponential(size=n))

    def levels(chance: Generator, n: int) -> npt.NDArray[np.float64]:
        return chance.choice(5, n, p=(0.5, 0.25, 0.15, 0.07, 0.03)).astype(float)

    return {
        "normal": columns("normal", lambda chance, n: chance.normal(size=n)),
        "lognormal": columns("lognormal", lambda chance, n: chance.lognormal(size=n)),
        "zero-inflated": columns("zero-inflated", zero_inflated),
        "five levels": columns("five levels", levels),
    }


# --- predictions ----------------------------------------------------------------------------------


def _predictions(name: str, frame: pl.DataFrame, score: str, said: str, truth: str) -> Predictions:
    return Predictions(
        name,
        frame[score].cast(pl.Float64).to_numpy(),
        frame[said].cast(pl.Int64).to_numpy(),
        frame[truth].cast(pl.Int64).to_numpy(),
    )


@cache
def predictions() -> dict[str, tuple[Predictions, Predictions]]:
    """Reference, and what came after it in the order of time, of four bundled binary models."""
    found = {}
    for name, files, columns in (
        (
            "car loan",
            (
                "synthetic_car_loan_reference.csv",
                "synthetic_car_loan_analysis.csv",
                "synthetic_car_loan_analysis_target.csv",
            ),
            ("y_pred_proba", "y_pred", "repaid"),
        ),
        (
            "census",
            (
                "employment_MA_reference.pq",
                "employment_MA_analysis.pq",
                "employment_MA_analysis_target.pq",
            ),
            ("predicted_probability", "prediction", "employed"),
        ),
        (
            "California housing",
            (
                "california_housing_reference.csv",
                "california_housing_analysis.csv",
                "california_housing_analysis_gt.csv",
            ),
            ("y_pred_proba", "y_pred", "clf_target"),
        ),
        (
            "work from home",
            (
                "synthetic_sample_reference.csv",
                "synthetic_sample_analysis.csv",
                "synthetic_sample_analysis_gt.csv",
            ),
            ("y_pred_proba", "y_pred", "work_home_actual"),
        ),
    ):
        before = table(files[0])
        after = table(files[1]).join(table(files[2]), on="id", maintain_order="left")
        found[name] = (_predictions(name, before, *columns), _predictions(name, after, *columns))
    return found
