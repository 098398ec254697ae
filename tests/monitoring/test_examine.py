"""A window's counts against a profile that knows what is usual between days."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from models.profile import FeatureProfile, numeric_bins
from monitoring.examine import Examined, examine
from slipstream.blocks import with_blocks

DAYS, ROWS = 60, 400
Floats = npt.NDArray[np.float64]


class Weather:
    """Days whose mean and whose share of missing values go up and down."""

    def __init__(self, wind: float = 0.0, rain: float = 0.0) -> None:
        self.wind, self.rain = wind, rain
        self.chance = np.random.default_rng(11)
        values = np.concatenate([self.day() for _ in range(DAYS)])
        self.bare = FeatureProfile("a", numeric=numeric_bins(values))
        days = np.repeat(np.arange(DAYS), ROWS)
        self.timed = with_blocks(self.bare, self.bare.index(values), days)

    def day(self) -> Floats:
        values = self.chance.normal(self.chance.normal(scale=self.wind), size=ROWS)
        values[self.chance.random(ROWS) < 0.02 + self.chance.uniform(0, self.rain)] = np.nan
        return values


def against(profile: FeatureProfile, values: Floats) -> Examined:
    found = examine(profile, np.bincount(profile.index(values), minlength=len(profile.counts) + 1))
    assert found is not None
    return found


def test_a_usual_day_is_no_drift_where_days_differ() -> None:
    """Forty more days of the same weather: tests of chance alone call half of them drift at one
    in a thousand; calibrated ones hardly any."""
    weather = Weather(wind=0.5)
    days = [weather.day() for _ in range(40)]
    assert np.mean([against(weather.bare, day).p_value < 1e-3 for day in days]) > 0.5
    assert np.mean([against(weather.timed, day).p_value < 1e-3 for day in days]) <= 0.05
    assert against(weather.timed, days[0]).timed


def test_a_day_beyond_all_weather_is_drift() -> None:
    """By three standard deviations, where days differ by half a one."""
    weather = Weather(wind=0.5)
    assert against(weather.timed, weather.day() + 3).p_value < 1e-6


@pytest.mark.parametrize(("share", "found"), [(0.15, False), (0.25, False), (0.6, True)])
def test_missing_values_must_exceed_the_worst_day(share: float, found: bool) -> None:
    """Days miss 2 % to 17 %: another one of 15 % is usual, one of 25 % may come, one of 60 % is
    broken. By chance alone all are far from the mean."""
    weather = Weather(rain=0.15)
    values = np.random.default_rng(12).normal(size=4_000)
    values[: int(len(values) * share)] = np.nan
    assert against(weather.bare, values).p_values["missing"] < 1e-6
    assert (against(weather.timed, values).p_values["missing"] < 1e-6) == found


def test_fewer_missing_values_than_on_any_day_break_nothing() -> None:
    weather = Weather(rain=0.15)
    values = np.random.default_rng(13).normal(size=4_000)
    assert against(weather.bare, values).p_values["missing"] < 1e-6
    assert against(weather.timed, values).p_values["missing"] == 1


def test_few_days_only_inform() -> None:
    """Ten days are no calibration: a shift is not tested rather than tested wrongly."""
    weather = Weather(wind=0.5)
    usual = weather.timed.blocks
    assert usual is not None
    assert usual.anderson_darling is not None
    few = msgspec.structs.replace(
        usual,
        chi_squared=msgspec.structs.replace(
            usual.chi_squared, ratios=usual.chi_squared.ratios[:10]
        ),
        anderson_darling=msgspec.structs.replace(
            usual.anderson_darling, ratios=usual.anderson_darling.ratios[:10]
        ),
    )
    profile = msgspec.structs.replace(weather.timed, blocks=few)
    assert against(profile, weather.day() + 3).p_value == 1


def test_a_constant_among_values_is_a_spike_whatever_the_weather_of_shares() -> None:
    """A third of the values become one of them: that bin was never so full on any day."""
    weather = Weather()
    values = weather.day()
    values[: ROWS // 3] = 0.5
    found = against(weather.timed, values)
    assert found.p_values["spike"] < 1e-6
    assert found.isolated
