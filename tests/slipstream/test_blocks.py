"""Times of any kind to blocks, and from blocks what days differ by."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars
import pytest

from models.errors import RepositoryError
from models.profile import Profile
from models.repository import Repository
from models.version import ModelVersion
from slipstream import blocks
from slipstream.push import push
from slipstream.reference import Reference
from tests import onnx_models

DAYS, ROWS = 40, 250
START = datetime(2026, 3, 1, tzinfo=UTC)
STAMPS = [START + timedelta(days=day, seconds=row) for day in range(DAYS) for row in range(ROWS)]
SECONDS = [int(stamp.timestamp()) for stamp in STAMPS]


@pytest.mark.parametrize(
    "column",
    [
        polars.Series("t", STAMPS),
        polars.Series("t", [stamp.date() for stamp in STAMPS]),
        polars.Series("t", [stamp.strftime("%Y-%m-%dT%H:%M:%S") for stamp in STAMPS]),
        polars.Series("t", SECONDS),
        polars.Series("t", [second * 1_000 for second in SECONDS]),
        polars.Series("t", [float(second) for second in SECONDS]),
    ],
    ids=["datetime", "date", "text", "seconds", "milliseconds", "fractions"],
)
def test_times_of_any_kind_give_the_same_days(column: polars.Series) -> None:
    """Forty days of 250 rows, numbered in the order of time."""
    found = blocks.cut(column)
    assert found is not None
    assert (found.grain, found.size) == ("day", DAYS)
    assert found.block.tolist() == np.repeat(np.arange(DAYS), ROWS).tolist()


def test_two_days_are_cut_into_hours_and_two_hours_into_none() -> None:
    """Hours of 100 rows where days are too few; nothing where hours are too few as well."""
    hours = polars.Series("t", [START.timestamp() + 36 * i for i in range(4_800)])
    found = blocks.cut(hours)
    assert found is not None
    assert (found.grain, found.size) == ("hour", 48)
    assert blocks.cut(hours[:200]) is None


def test_a_day_of_few_rows_is_no_block() -> None:
    """Ten rows of a forty-first day belong to none; the other days keep their numbers."""
    late = [START.timestamp() + DAYS * 86_400 + i for i in range(10)]
    found = blocks.cut(polars.Series("t", [*late, *(float(second) for second in SECONDS)]))
    assert found is not None
    assert found.size == DAYS
    assert (found.block[:10] == -1).all()
    assert found.block[10] == 0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1.0, None], "rows without a time"),
        ([1.0, float("nan")], "rows without a time"),
        (["yesterday", "today"], "holds no times"),
    ],
)
def test_what_is_no_time_is_refused(values: list[object], words: str) -> None:
    with pytest.raises(RepositoryError, match=words):
        blocks.cut(polars.Series("t", values))


def pushed(folder: Path, time: str | None) -> Profile:
    """40 days: `a` has weather, a quarter of its variance is that of days; b, c and d have none."""
    chance = np.random.default_rng(5)
    x = chance.normal(size=(DAYS * ROWS, 4)).astype(np.float32)
    x[:, 0] += np.repeat(chance.normal(scale=0.6, size=DAYS), ROWS)
    table = polars.DataFrame({name: x[:, i] for i, name in enumerate("abcd")})
    table = table.with_columns(
        late=polars.Series(chance.integers(0, 2, len(x))), at=polars.Series(STAMPS)
    )
    # Rows need not come in the order of time.
    table.sample(fraction=1, shuffle=True, seed=0).write_parquet(folder / "days.parquet")
    file = onnx_models.softmax(folder / "m.onnx")
    repository = Repository(folder / "repository")
    if time is None:
        table = table.drop("at")
        table.write_parquet(folder / "days.parquet")
    push(repository, "m", file, reference=Reference(folder / "days.parquet", "late", time=time))
    profile = repository.open(ModelVersion("m", 1)).profile
    assert profile is not None
    return profile


def test_a_column_of_times_teaches_how_much_days_differ(tmp_path: Path) -> None:
    """The weather of one feature is in the profile, of that one alone, and of the rows as a
    whole; the column itself is no feature."""
    profile = pushed(tmp_path, "at")
    assert (profile.grain, profile.blocks) == ("day", DAYS)
    weather, *calm = profile.features
    assert [one.name for one in profile.features] == ["a", "b", "c", "d"]
    assert weather.blocks is not None
    assert weather.blocks.rows == ROWS
    assert weather.blocks.chi_squared.dispersion > 4
    assert weather.blocks.anderson_darling is not None
    assert weather.blocks.anderson_darling.dispersion > 10
    for one in calm:
        assert one.blocks is not None
        assert one.blocks.chi_squared.dispersion < 1.5
    assert profile.score is not None
    assert profile.score.blocks is not None
    assert profile.whole is not None
    assert profile.whole.dispersion > 1.5


def test_without_one_nothing_is_said_of_days(tmp_path: Path) -> None:
    profile = pushed(tmp_path, None)
    assert (profile.grain, profile.blocks) == ("", 0)
    assert all(one.blocks is None for one in profile.features)
    assert profile.whole is not None
    assert profile.whole.dispersion == 1
