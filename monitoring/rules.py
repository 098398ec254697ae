"""What counts as too much. Defaults in rules.toml, each with its why."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

import msgspec


class DriftRules(msgspec.Struct, frozen=True):
    days: int
    alpha: float
    changed: float
    moderate: float
    major: float
    together: float


class BudgetRules(msgspec.Struct, frozen=True):
    false_alarms: float
    days: float


class WindowRules(msgspec.Struct, frozen=True):
    grain: Literal["hour", "day"]


class QualityRules(msgspec.Struct, frozen=True):
    ticket: float
    page: float


class LatencyRules(msgspec.Struct, frozen=True):
    slo_ms: float


class ErrorRules(msgspec.Struct, frozen=True):
    share: float


class PerformanceRules(msgspec.Struct, frozen=True):
    days: int
    auc: float
    calibration: float
    labels: int
    harm: float
    confidence: float
    tolerance: float
    error: float


class VolumeRules(msgspec.Struct, frozen=True):
    alpha: float
    ratio: float


class FairnessRules(msgspec.Struct, frozen=True):
    gap: float


class MonitoringRules(msgspec.Struct, frozen=True):
    dropped: float


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What counts as too much; rules.toml says why."""

    budget: BudgetRules
    windows: WindowRules
    drift: DriftRules
    quality: QualityRules
    latency: LatencyRules
    errors: ErrorRules
    performance: PerformanceRules
    volume: VolumeRules
    fairness: FairnessRules
    monitoring: MonitoringRules


def read_rules(path: Path | None = None) -> Rules:
    """The default rules, with the sections' values of `path` in their place."""
    values = tomllib.loads((Path(__file__).parent / "rules.toml").read_text())
    if path is not None:
        for section, own in tomllib.loads(path.read_text()).items():
            values[section] = {**values.get(section, {}), **own}
    return msgspec.convert(values, Rules)
