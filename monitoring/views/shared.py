"""What several pages show. Reads the histories, never writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from models import routes
from models.errors import UnknownModel
from models.rollout import Route
from monitoring import measure
from monitoring.history import History
from monitoring.judge import Finding
from monitoring.monitor import Monitor
from monitoring.stats.performance import Estimate
from monitoring.verdict import Verdict, verdict
from monitoring.window import Window

DAY_MS = 86_400_000
HOUR_MS = 3_600_000

Json = dict[str, Any]
T = TypeVar("T")


def findings(monitor: Monitor, model: str | None = None) -> list[Json]:
    order = {"page": 0, "ticket": 1, "digest": 2}
    found = [
        {**msgspec.to_builtins(finding), "since_ms": since}
        for name, told in list(monitor.findings.items())
        if model in (None, name)
        for finding, since in told
    ]
    return sorted(found, key=lambda finding: order[finding["severity"]])


def changes(monitor: Monitor, model: str | None = None) -> list[Json]:
    changed = [
        {
            "at_ms": entry["at_ms"],
            "model": name,
            "what": _what(entry),
            "why": entry["why"],
            "who": entry["who"],
        }
        for name in list(monitor.histories)
        if model in (None, name)
        for entry in routes.audit(monitor.client, name, 10)
    ]
    return sorted(changed, key=lambda change: -change["at_ms"])[:10]


def _what(entry: Json) -> str:
    """A change of route in a few words."""
    before, after, action = entry["before"] or {}, entry["after"], entry["action"]
    moved = after["champion"] != before.get("champion")
    if moved or action == "push":
        return f"v{after['champion']} champion ({action})"
    if action == "rollback":
        ended = before.get("canary") or before.get("shadow")
        return f"v{ended} rolled back"
    if action in ("advance", "canary") and after["canary"] is not None:
        return f"v{after['canary']} canary {after['weight'] / 100:g} %"
    if action in ("shadow", "start") and after["shadow"] is not None:
        return f"v{after['shadow']} shadow {after['shadow_percent']:g} %"
    return str(action)


def versions(history: History, route: Route) -> list[Json]:
    roles = {route.champion: "champion"}
    if route.shadow is not None:
        roles[route.shadow] = "shadow"
    if route.canary is not None:
        roles[route.canary] = "canary"
    shares = {"shadow": route.shadow_percent, "canary": route.weight / 100}
    shown = []
    for number in history.versions():
        role = roles.get(number, "idle")
        training = history.layouts[number].manifest.training
        shown.append(
            {
                "number": number,
                "role": role,
                "percent": shares.get(role),
                "note": str(training.get("description", "")),
            }
        )
    return shown


def model_verdict(
    monitor: Monitor, history: History, route: Route, found: Sequence[Finding]
) -> Verdict:
    measured = monitor.measure(route.model, route.champion)
    said = verdict(measured, found)
    detail = _detail(measured.performance, measured.mean_score)
    return msgspec.structs.replace(said, detail=detail)


def _detail(found: measure.Performance | None, said: float | None) -> str:
    if found is None or found.auc is None or found.seen is None or said is None:
        return ""
    auc, accuracy = found.auc, found.accuracy
    assert accuracy is not None
    return (
        f"Over 28 days: AUC {_dot(auc.value)} ({_dot(auc.low)} to {_dot(auc.high)}), "
        f"accuracy {_dot(accuracy.value)} on {found.labels:,} labels. "
        f"It said {said:.0%} on average; {found.seen.value:.0%} came true."
    )


def _dot(value: float) -> str:
    return f"{value:.3f}".lstrip("0") if 0 <= value < 1 else f"{value:.3f}"


def rolling(
    history: History,
    version: int,
    roles: Sequence[str],
    days: range,
    length: int,
    measured: Callable[[Window], T],
) -> list[T]:
    """For each day, what is measured in the window of `length` days that ends with it."""
    return [history.measured(version, roles, day - length + 1, day, measured) for day in days]


def latency_of(window: Window) -> measure.Latency:
    return measure.latency(window["latency"])


def quality_of(window: Window) -> tuple[measure.Performance | None, float | None]:
    return measure.performance(window), measure.mean_score(window)


def estimated(found: Estimate | None) -> Json | None:
    return None if found is None else {"value": found.value, "low": found.low, "high": found.high}


def history_of(monitor: Monitor, model: str) -> tuple[History, Route]:
    history, route = monitor.histories.get(model), monitor.route(model)
    if history is None or route is None or route.champion not in history.layouts:
        raise UnknownModel(model, monitor.histories)
    return history, route
