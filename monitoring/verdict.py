"""Findings -> one sentence: what is the matter, how sure, and what to do about it. Pure.

system          the platform is slow or fails            page the platform
data fault      something broke upstream                 fix it there, do not retrain
bad release     the version before it does better        roll back
concept drift   scores do not mean what they meant       new version from recent labels
harmful shift   inputs moved to where it is worse        retrain on recent data
benign shift    inputs moved, it does as well            nothing
steady          nothing of all this                      nothing
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from monitoring.examine import BROKEN
from monitoring.judge import Finding, Measurements, listed
from monitoring.measure import Performance
from monitoring.stats.causes import Cause, causes

Kind = Literal[
    "unknown",
    "steady",
    "system",
    "data fault",
    "bad release",
    "concept drift",
    "harmful shift",
    "benign shift",
]

_ACTIONS: dict[Kind, str] = {
    "unknown": "",
    "steady": "Nothing to do.",
    "system": "Page the platform: the model is not the cause, and retraining changes nothing.",
    "data fault": "Fix it upstream, and do not retrain on it.",
    "bad release": "Roll back: slipstream rollback {model} --reason …",
    "concept drift": (
        "Train a new version with recent labels, look at the features, and let it ride as a "
        "shadow: slipstream rollout start {model} VERSION"
    ),
    "harmful shift": "Retrain on recent data, and let the new version ride as a shadow.",
    "benign shift": "Nothing to do now; take recent data into the reference at the next review.",
}


class Verdict(msgspec.Struct, frozen=True):
    """A model's state in plain words: the worst severity, what it is, why, and what to do."""

    level: str
    sentence: str
    detail: str = ""
    kind: Kind = "unknown"
    action: str = ""
    causes: tuple[str, ...] = ()


def verdict(measured: Measurements, found: Sequence[Finding]) -> Verdict:
    """One sentence that a person may rely on, and the action that follows from it."""
    if measured.requests == 0:
        return Verdict("unknown", "No request yet.")
    kind = kind_of(measured, found)
    severities = [finding.severity for finding in found]
    level = next((s for s in ("page", "ticket", "digest") if s in severities), "ok")
    sentence = _sentence(kind, measured, found)
    action = _ACTIONS[kind].format(model=measured.model)
    return Verdict(level, sentence, "", kind, action, _causes(kind, measured))


def kind_of(measured: Measurements, found: Sequence[Finding]) -> Kind:
    """The first that fits: what explains the others goes before what it explains."""
    kinds = {finding.kind for finding in found}
    pages = {finding.kind for finding in found if finding.severity == "page"}
    hurts = kinds & {"harm", "performance"}
    if pages & {*BROKEN}:
        return "data fault"
    if "release" in kinds:
        return "bad release"
    if "concept" in kinds and hurts:
        return "concept drift"
    if hurts:
        moved = kinds & {"drift", "outlook"}
        return "harmful shift" if moved else "concept drift"
    if "outlook" in kinds:
        return "harmful shift"
    if kinds & {"latency", "errors"}:
        return "system"
    if "concept" in kinds:
        return "concept drift"
    if "drift" in kinds or kinds & {*BROKEN}:
        return "benign shift"
    return "steady" if measured.profiled and measured.features else "unknown"


def _sentence(kind: Kind, measured: Measurements, found: Sequence[Finding]) -> str:
    told = {finding.kind: finding for finding in found}
    if kind == "data fault":
        fault = next(f for f in found if f.severity == "page" and f.kind in BROKEN)
        return f"Data fault: {fault.sentence} ({fault.value})."
    if kind == "bad release":
        return f"Bad release: {told['release'].sentence} {told['release'].value}."
    if kind == "system":
        slow = told.get("errors") or told["latency"]
        return f"The platform: {slow.sentence} ({slow.value}). {_state(measured, found)}"
    if kind in ("concept drift", "harmful shift"):
        said = told.get("harm") or told.get("outlook") or told.get("concept")
        name = "Concept drift" if kind == "concept drift" else "A shift that hurts"
        if said is not None:
            return f"{name}: {said.sentence} ({said.value}). {_state(measured, found)}"
    return _state(measured, found)


def _state(measured: Measurements, found: Sequence[Finding]) -> str:
    """Inputs, ranking and probabilities; never more than is known."""
    kinds = {finding.kind for finding in found}
    shift = [f.subject for f in found if f.kind == "drift" and f.subject not in ("score", "rows")]
    start = f"Covariate shift in {listed(shift)}" if shift else "Inputs are steady"
    if measured.profiled and not measured.features:
        start = "Answers; drift of features is unknown, for there are too few rows or no features"
    if not measured.profiled:
        start = "Answers; without a reference profile, drift is unknown"
    if measured.performance is None:
        return f"{start}; no label came yet, so whether it hurts is unknown."
    more = [f.sentence for f in found if f.kind in BROKEN]
    return ". ".join([f"{start}: {_quality(measured.performance, kinds)}", *more]) + "."


def _quality(known: Performance, kinds: set[str]) -> str:
    """Only what has a number is said to hold."""
    if known.mae is not None:
        return "errors grow" if "performance" in kinds else f"off by {known.mae.value:.3g}"
    if known.auc is None:
        share = f"right on {known.accuracy.value:.1%}" if known.accuracy else "labels are few"
        return f"{share}, more than that is not known"
    harm = "ranking falls" if "performance" in kinds else "ranking holds so far"
    trust = "probabilities do not" if "calibration" in kinds else "probabilities hold"
    if "performance" in kinds and "calibration" in kinds:
        trust = "probabilities are off too"
    return f"{harm}, {trust}"


def _causes(kind: Kind, measured: Measurements) -> tuple[str, ...]:
    """The likeliest first: where the errors come from, and what has moved by how much it
    matters to the model."""
    if kind in ("steady", "unknown", "system"):
        return ()
    where = measured.split.sentences if measured.split else ()
    effects = {one.feature: one.psi_low for one in measured.features}
    moved = [_moved(cause, measured) for cause in causes(effects, measured.importances)[:3]]
    return (*where[:3], *moved)[:5]


def _moved(cause: Cause, measured: Measurements) -> str:
    said = f"{cause.feature} moved (PSI at least {cause.effect:.2f})"
    if cause.feature not in measured.importances:
        return said
    return f"{said} and has {cause.importance:.0%} of the model's attention"
