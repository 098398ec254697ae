"""The overview: every model at a glance, the one that needs a person first."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from models.rollout import Route
from monitoring import measure
from monitoring.examine import shifts
from monitoring.history import History
from monitoring.judge import drifted
from monitoring.monitor import Monitor
from monitoring.views.shared import (
    HOUR_MS,
    Json,
    changes,
    estimated,
    findings,
    model_verdict,
    rolling,
    versions,
)
from monitoring.window import ANSWERING, PAIR

#: Days that the strips show.
STRIP = 30


def overview(monitor: Monitor) -> Json:
    """Everything at a glance, the model that needs a person first."""
    with monitor.lock:
        summaries = (_summary(monitor, model) for model in sorted(monitor.histories))
        models = [summary for summary in summaries if summary is not None]
        models.sort(
            key=lambda m: ("page", "ticket", "digest", "unknown", "ok").index(m["verdict"]["level"])
        )
        newest = max((h.newest("hour") for h in list(monitor.histories.values())), default=0)
        return {
            "as_of_ms": time.time_ns() // 1_000_000,
            "event_as_of_ms": (newest + 1) * HOUR_MS if newest else None,
            "verdict": _overall(models),
            "vitals": _vitals(monitor),
            "models": models,
            "findings": findings(monitor),
            "changes": changes(monitor),
        }


def _overall(models: list[Json]) -> Json:
    if not models:
        return {"level": "unknown", "sentence": "No model yet.", "detail": ""}
    counts = {
        level: sum(model["alerts"][level] for model in models)
        for level in ("page", "ticket", "digest")
    }
    count = sum(len(model["versions"]) for model in models)
    detail = f"{_many(len(models), 'model')}, {_many(count, 'version')}."
    if counts["page"]:
        level, start = "page", f"{_many(counts['page'], 'page')} open"
    elif counts["ticket"]:
        level, start = "ticket", f"Nothing pages; {_many(counts['ticket'], 'ticket')} open"
    else:
        level, start = "ok", "All models answer and nothing pages"
    worst = models[0]
    more = f": {worst['name']}. {worst['verdict']['sentence']}" if level != "ok" else "."
    return {"level": level, "sentence": start + more, "detail": detail}


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _vitals(monitor: Monitor) -> list[Json]:
    requests = errors = rows = labels = dropped = lost = waiting = 0
    for history in list(monitor.histories.values()):
        totals = history.progress.totals
        requests += totals["requests"]
        rows += totals["rows"]
        labels += totals["labels"] - totals["labels_repeated"] - totals["labels_changed"]
        waiting += totals["labels_waiting"]
        dropped += totals["dropped"]
        lost += totals["entries_lost"]
        errors += _errors(history)
    workers = monitor.workers()
    memory = monitor.client.info("memory")["used_memory"]
    share = f"{errors / requests:.2%}" if requests else "–"
    return [
        _vital("Requests", f"{requests:,}", "all models, shadows too"),
        _vital("Errors", share.replace("%", " %"), f"{errors:,} of {requests:,}"),
        _vital("Predictions sampled", f"{rows:,}", "rows folded"),
        _vital("Labels", f"{labels:,}", f"{waiting:,} wait for a prediction"),
        _vital("Facts dropped", f"{dropped:,}", f"{lost:,} entries lost"),
        _vital("Redis", f"{memory / 2**20:.0f} MB", "used"),
        _vital("Workers", str(len(workers)), "alive"),
    ]


def _vital(title: str, value: str, note: str) -> Json:
    return {"title": title, "value": value, "note": note}


def _errors(history: History) -> int:
    return sum(
        int(vector[2])  # requests come first in every layout: ok, invalid, error
        for key, vector in history.windows.items()
        if key.grain == "day" and key.role != PAIR
    )


def _summary(monitor: Monitor, model: str) -> Json | None:
    history, route = monitor.histories[model], monitor.route(model)
    if route is None or route.champion not in history.layouts:
        return None
    found = [finding for finding, _ in monitor.findings.get(model, [])]
    return {
        "name": model,
        "versions": versions(history, route),
        "verdict": msgspec.to_builtins(model_verdict(monitor, history, route, found)),
        "traffic": _traffic(history, route),
        "latency": _latency(monitor, history, route),
        "drift": _drift_summary(monitor, history, route),
        "quality": _quality(monitor, history, route),
        "alerts": {
            level: sum(f.severity == level for f in found) for level in ("page", "ticket", "digest")
        },
    }


def _traffic(history: History, route: Route) -> Json:
    last = history.newest("hour")
    points = [
        sum(measure.requests(history.window(route.champion, ANSWERING, "hour", hour, hour)))
        for hour in range(last - 24, last + 1)
    ]
    day = history.newest("day")
    yesterday = history.window(route.champion, ANSWERING, "day", day - 1, day - 1)
    return {
        "value": f"{points[-2] if len(points) > 1 else points[-1]:,} / h",
        "note": f"yesterday {sum(measure.requests(yesterday)):,}",
        "points": points,
    }


def _latency(monitor: Monitor, history: History, route: Route) -> Json:
    last = history.newest("hour")
    hours = [
        measure.latency(history.window(route.champion, ANSWERING, "hour", h, h)["latency"]).p99
        for h in range(last - 24, last + 1)
    ]
    whole = history.window(route.champion, ANSWERING, "hour", last - 24, last)
    return {
        "p99_ms": measure.latency(whole["latency"]).p99,
        "slo_ms": monitor.rules.latency.slo_ms,
        "points": hours,
    }


def _drift_summary(monitor: Monitor, history: History, route: Route) -> Json:
    measured = monitor.measure(route.model, route.champion)
    changed = drifted(measured.features, monitor.rules.drift)
    ranked = sorted(measured.features, key=lambda feature: -feature.psi_low)
    last = history.newest("day")
    days = range(last - STRIP + 1, last + 1)
    strips = _strips(monitor, history, route.champion, days, [f.feature for f in ranked[:3]])
    return {
        "changed": len(changed),
        "features": len(history.layouts[route.champion].manifest.features),
        "names": [feature.feature for feature in changed[:3]],
        "strip": [{"feature": name, "psi": psi} for name, psi in strips.items()],
    }


def _strips(
    monitor: Monitor, history: History, version: int, days: range, names: list[str]
) -> dict[str, list[float | None]]:
    strips: dict[str, list[float | None]] = {name: [] for name in names}
    length = monitor.rules.drift.days
    for drifts in rolling(history, version, ANSWERING, days, length, shifts):
        found = {feature.feature: feature for feature in drifts}
        for name, values in strips.items():
            feature = found.get(name)
            values.append(None if feature is None else round(feature.psi_low, 4))
    return strips


def _quality(monitor: Monitor, history: History, route: Route) -> Json | None:
    champion = _found(monitor, history, route.champion, ANSWERING)
    if champion is None or champion.auc is None:
        return None
    shadow = None
    if route.shadow is not None and route.shadow in history.layouts:
        shadow = _found(monitor, history, route.shadow, ("shadow",))
    reference = monitor.measure(route.model, route.champion).reference.get("auc")
    centre = reference if reference is not None else champion.auc.value
    return {
        "metric": "AUC",
        "champion": estimated(champion.auc),
        "shadow": estimated(shadow.auc) if shadow else None,
        "reference": reference,
        "axis": [round(centre - 0.1, 2), round(min(centre + 0.06, 1.0), 2)],
        "harm": reference - monitor.rules.performance.auc if reference is not None else None,
    }


def _found(
    monitor: Monitor, history: History, version: int, roles: Sequence[str]
) -> measure.Performance | None:
    last = history.newest("day")
    first = last - monitor.rules.performance.days + 1
    return measure.performance(history.window(version, roles, "day", first, last))
