"""Measurements and rules -> findings. The only place that knows what is too much. Pure."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from monitoring.measure import Drift, Latency, Performance
from monitoring.stats.drift import holm


class DriftRules(msgspec.Struct, frozen=True):
    days: int
    alpha: float
    changed: float
    moderate: float
    major: float


class QualityRules(msgspec.Struct, frozen=True):
    missing: float
    unseen: float


class LatencyRules(msgspec.Struct, frozen=True):
    slo_ms: float


class ErrorRules(msgspec.Struct, frozen=True):
    share: float


class PerformanceRules(msgspec.Struct, frozen=True):
    days: int
    auc: float
    calibration: float
    labels: int


class MonitoringRules(msgspec.Struct, frozen=True):
    dropped: float


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What counts as too much; rules.toml says why."""

    drift: DriftRules
    quality: QualityRules
    latency: LatencyRules
    errors: ErrorRules
    performance: PerformanceRules
    monitoring: MonitoringRules


class Finding(msgspec.Struct, frozen=True):
    """Something that a person should know. `severity` is page, ticket or digest."""

    model: str
    version: int
    kind: str
    subject: str
    severity: str
    sentence: str
    value: str

    @property
    def fingerprint(self) -> str:
        return f"{self.version}:{self.kind}:{self.subject}"


@dataclass(frozen=True, slots=True)
class Measurements:
    """What is known of one version at one moment."""

    model: str
    version: int
    features: Sequence[Drift]
    score: Drift | None
    latency: Latency
    requests: int
    errors: int
    performance: Performance | None
    mean_score: float | None
    reference: dict[str, float]


def read_rules(path: Path | None = None) -> Rules:
    """The default rules, with the sections' values of `path` in their place."""
    values = tomllib.loads((Path(__file__).parent / "rules.toml").read_text())
    if path is not None:
        for section, own in tomllib.loads(path.read_text()).items():
            values[section] = {**values.get(section, {}), **own}
    return msgspec.convert(values, Rules)


def drifted(features: Sequence[Drift], rules: DriftRules) -> list[Drift]:
    """Features that differ both certainly and by enough, the most different first."""
    adjusted = holm([feature.p_value for feature in features])
    found = [
        feature
        for feature, p_value in zip(features, adjusted, strict=True)
        if p_value < rules.alpha and feature.psi_low > rules.moderate
    ]
    return sorted(found, key=lambda feature: -feature.psi_low)


def judge(measured: Measurements, rules: Rules) -> list[Finding]:
    """Everything about one version that a person should know."""
    return [
        Finding(measured.model, measured.version, *finding)
        for judged in (_drift, _quality, _latency, _errors, _ranking, _calibration)
        for finding in judged(measured, rules)
    ]


_Found = Iterator[tuple[str, str, str, str, str]]


def _drift(measured: Measurements, rules: Rules) -> _Found:
    for feature in drifted(measured.features, rules.drift):
        size = "major" if feature.psi_low > rules.drift.major else "moderate"
        yield (
            "drift",
            feature.feature,
            "digest",
            f"{feature.feature} differs from the reference ({size})",
            f"PSI {feature.psi_low:.2f} (bound)",
        )
    score = measured.score
    if score is not None and drifted([score], rules.drift):
        sentence = f"v{measured.version} says other things than at training"
        yield "drift", "score", "digest", sentence, f"PSI {score.psi_low:.2f} (bound)"


def _quality(measured: Measurements, rules: Rules) -> _Found:
    """What goes missing together has one cause, and is one finding."""
    missing = [
        f for f in measured.features if f.missing - f.reference_missing > rules.quality.missing
    ]
    if missing:
        worst = max(missing, key=lambda f: f.missing - f.reference_missing)
        names = _listed([f.feature for f in missing])
        verb = "is" if len(missing) == 1 else "are"
        sentence = f"{names} {verb} missing more often than in the reference"
        was = f"{worst.feature} {worst.missing:.0%}, was {worst.reference_missing:.0%}"
        yield "missing", "features", "ticket", sentence, was
    for feature in measured.features:
        if feature.unseen > rules.quality.unseen:
            sentence = f"{feature.feature} has values that the reference never had"
            yield "unseen", feature.feature, "ticket", sentence, f"{feature.unseen:.1%} of rows"


def _latency(measured: Measurements, rules: Rules) -> _Found:
    p99 = measured.latency.p99
    if p99 is not None and p99 > rules.latency.slo_ms:
        sentence = f"v{measured.version} answers slower than promised"
        yield "latency", "p99", "page", sentence, f"p99 {p99:.1f} ms"


def _errors(measured: Measurements, rules: Rules) -> _Found:
    total = measured.requests
    if total and measured.errors / total > rules.errors.share:
        share = f"{measured.errors / total:.1%} of {total:,}"
        yield "errors", "errors", "page", f"v{measured.version} fails on requests", share


def _ranking(measured: Measurements, rules: Rules) -> _Found:
    found, reference = measured.performance, measured.reference.get("auc")
    if found is None or found.auc is None or reference is None:
        return
    if (
        found.labels >= rules.performance.labels
        and found.auc.high < reference - rules.performance.auc
    ):
        sentence = f"v{measured.version} ranks worse than at training"
        value = f"AUC {_short(found.auc.value)}, was {_short(reference)}"
        yield "performance", "auc", "page", sentence, value


def _calibration(measured: Measurements, rules: Rules) -> _Found:
    found, said = measured.performance, measured.mean_score
    if found is None or found.seen is None or said is None:
        return
    if found.labels < rules.performance.labels:
        return
    low, high = found.seen.low - said, said - found.seen.high
    if max(low, high) > rules.performance.calibration:
        way = "low" if low > high else "high"
        points = abs(found.seen.value - said) * 100
        sentence = f"Probabilities of v{measured.version} run {way}"
        value = f"{points:.0f} points: said {said:.0%}, seen {found.seen.value:.0%}"
        yield "calibration", "score", "ticket", sentence, value


def _short(value: float) -> str:
    return f"{value:.3f}".lstrip("0")


class Verdict(msgspec.Struct, frozen=True):
    """A model's state in plain words."""

    level: str
    sentence: str
    detail: str = ""


def verdict(
    model_findings: Sequence[Finding],
    *,
    profiled: bool,
    compared: bool,
    labelled: bool,
    requests: int,
) -> Verdict:
    """State, and so what: one sentence that a person may rely on. `compared`: there were rows
    enough to compare with the profile."""
    if requests == 0:
        return Verdict("unknown", "No request yet.")
    kinds = {finding.kind for finding in model_findings}
    worst = next(
        (s for s in ("page", "ticket", "digest") if any(f.severity == s for f in model_findings)),
        "ok",
    )
    shift = [f.subject for f in model_findings if f.kind == "drift" and f.subject != "score"]
    start = f"Covariate shift in {_listed(shift)}" if shift else "Inputs are steady"
    if profiled and not compared:
        start = "Answers; drift is unknown below 30 sampled rows"
    if not profiled:
        start = "Answers; without a reference profile, drift is unknown"
    if not labelled:
        return Verdict(worst, f"{start}; no label came yet, so whether it hurts is unknown.")
    harm = "ranking falls" if "performance" in kinds else "ranking holds so far"
    trust = "probabilities do not" if "calibration" in kinds else "probabilities hold"
    if "performance" in kinds and "calibration" in kinds:
        trust = "probabilities are off too"
    more = [f.sentence for f in model_findings if f.kind in ("latency", "errors", "missing")]
    return Verdict(worst, ". ".join([f"{start}: {harm}, {trust}", *more]) + ".")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
