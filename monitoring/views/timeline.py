"""One model over its days, one of its features, and its months."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from models.errors import NotFound, UnknownVersion
from monitoring import measure
from monitoring.examine import (
    Shift,
    distance,
    features,
    histogram,
    importance,
    score_drift,
    shifts,
)
from monitoring.history import History
from monitoring.judge import drifted
from monitoring.monitor import Monitor
from monitoring.outlook import Outlook, promised
from monitoring.stats.performance import Estimate
from monitoring.views.shared import (
    DAY_MS,
    Json,
    changes,
    estimated,
    findings,
    history_of,
    latency_of,
    model_verdict,
    quality_of,
    rolling,
    versions,
)
from monitoring.window import ANSWERING, PAIR, Window


def timeline(monitor: Monitor, model: str) -> Json:
    """One model over its days. Raises UnknownModel."""
    with monitor.lock:
        history, route = history_of(monitor, model)
        days = range(history.oldest("day"), history.newest("day") + 1)
        shadow = route.shadow if route.shadow in history.layouts else None
        found = [finding for finding, _ in monitor.findings.get(model, [])]
        workers = monitor.workers()
        applied = sum(beat["routes"].get(model) == route.revision for beat in workers)
        return {
            "model": model,
            "versions": versions(history, route),
            "verdict": msgspec.to_builtins(model_verdict(monitor, history, route, found)),
            "route": {"revision": route.revision, "applied": applied, "workers": len(workers)},
            "champion": route.champion,
            "shadow": shadow,
            "task": history.layouts[route.champion].manifest.task,
            "missing": history.missing.get(route.champion, ""),
            "days": [day * DAY_MS for day in days],
            "grain": "day",
            "events": _events(monitor, model, history),
            "findings": findings(monitor, model),
            "traffic": _daily_traffic(history, route.champion, days),
            "latency": {
                "slo_ms": monitor.rules.latency.slo_ms,
                "champion": _daily_latency(history, route.champion, ANSWERING, days),
                "shadow": _daily_latency(history, shadow, ("shadow",), days) if shadow else None,
            },
            "drift": _daily_drift(monitor, history, route.champion, days),
            **_daily_quality(monitor, history, route.champion, shadow, days),
            "compare": _compare(history, shadow, days) if shadow else None,
        }


def _events(monitor: Monitor, model: str, history: History) -> list[Json]:
    """Changes of route are told in the days' own time only where that is today's."""
    newest = (history.newest("day") + 1) * DAY_MS
    moved = [
        {"at_ms": c["at_ms"], "kind": "route", "title": c["what"], "note": c["why"]}
        for c in changes(monitor, model)
        if c["at_ms"] <= newest
    ]
    told = [
        {
            "at_ms": finding["since_ms"],
            "kind": "finding",
            "title": finding["sentence"],
            "note": finding["value"],
        }
        for finding in findings(monitor, model)
    ]
    return moved + told


def _daily_traffic(history: History, version: int, days: range) -> Json:
    counts = rolling(history, version, ANSWERING, days, 1, measure.requests)
    return {"requests": [sum(c) for c in counts], "errors": [c[2] for c in counts]}


def _daily_latency(history: History, version: int, roles: Sequence[str], days: range) -> Json:
    found = rolling(history, version, roles, days, 1, latency_of)
    return {name: [getattr(each, name) for each in found] for name in ("p50", "p95", "p99")}


def _daily_drift(monitor: Monitor, history: History, version: int, days: range) -> list[Json]:
    series: dict[str, Json] = {}
    length = monitor.rules.drift.days
    rolled = rolling(history, version, ANSWERING, days, length, shifts)
    for at, drifts in enumerate(rolled):
        for feature in drifts:
            row = series.setdefault(feature.feature, _strip_row(feature, len(days)))
            row["psi"][at] = round(feature.psi_low, 4)
            row["missing"][at] = round(feature.missing, 4)
            row["unseen"][at] = round(feature.unseen, 4)
    return sorted(series.values(), key=lambda row: -sum(value or 0 for value in row["psi"]))


def _strip_row(feature: Shift, days: int) -> Json:
    return {
        "feature": feature.feature,
        "kind": feature.kind,
        "psi": [None] * days,
        "missing": [None] * days,
        "unseen": [None] * days,
    }


def _daily_quality(
    monitor: Monitor, history: History, champion: int, shadow: int | None, days: range
) -> Json:
    length = monitor.rules.performance.days
    series = {"champion": rolling(history, champion, ANSWERING, days, length, quality_of)}
    if shadow is not None:
        series["shadow"] = rolling(history, shadow, ("shadow",), days, length, quality_of)
    labelled = rolling(history, champion, ANSWERING, days, 1, _coverage)
    quality: Json = {"coverage": {"labelled": labelled}}
    if not any(found for found, _ in series["champion"]):
        return {**quality, "ranking": None, "accuracy": None, "error": None, "said_seen": None}
    profile = history.layouts[champion].profile
    reference = profile.metrics if profile else {}
    auc = reference.get("auc")
    quality["ranking"] = {
        "reference": auc,
        "harm": auc - monitor.rules.performance.auc if auc is not None else None,
        **{name: _bands(values, "auc") for name, values in series.items()},
    }
    promises = _estimates(rolling(history, champion, ANSWERING, days, length, promised))
    regression = history.layouts[champion].manifest.task == "regression"
    for part, metric, known in (
        ("accuracy", "accuracy", not regression),
        ("error", "mae", regression),
    ):
        quality[part] = {
            "reference": reference.get(metric),
            "estimate": promises if known else None,
            **{name: _bands(values, metric) for name, values in series.items()},
        }
    quality["said_seen"] = {
        "seen": [f.seen.value if f and f.seen else None for f, _ in series["champion"]],
        **{name: [said for _, said in values] for name, values in series.items()},
    }
    for part in ("ranking", "accuracy", "error", "said_seen"):
        quality[part].setdefault("shadow", None)
    return quality


def _estimates(found: list[Outlook | None]) -> dict[str, list[float | None]]:
    """What the scores alone promised."""
    return {part: [getattr(one, part, None) for one in found] for part in ("value", "low", "high")}


def _bands(
    values: list[tuple[measure.Performance | None, float | None]], metric: str
) -> dict[str, list[float | None]]:
    found = [getattr(performance, metric, None) for performance, _ in values]
    return {
        part: [getattr(estimate, part, None) for estimate in found]
        for part in ("value", "low", "high")
    }


def _coverage(window: Window) -> float | None:
    rows = int(window["rows"].sum())
    labels = int(window["confusion"].sum() + window["residual"][:1].sum())
    return labels / rows if rows else None


def _compare(history: History, shadow: int, days: range) -> Json | None:
    found = measure.pairs(history.window(shadow, (PAIR,), "day", days.start, days.stop - 1))
    if not found.compared:
        return None
    return {
        "pairs": found.compared,
        "agreement": estimated(found.agreement),
        "champion": _arm(found.primary, found.primary_accuracy),
        "shadow": _arm(found.shadow, found.shadow_accuracy),
    }


def _arm(latency: measure.Latency, accuracy: Estimate | None) -> Json:
    return {"p50": latency.p50, "p99": latency.p99, "accuracy": estimated(accuracy)}


def feature(
    monitor: Monitor, model: str, name: str, version: int | None, first_ms: int, last_ms: int
) -> Json:
    """Reference and current histogram of one feature. Raises NotFound."""
    with monitor.lock:
        history, route = history_of(monitor, model)
        version = route.champion if version is None else version
        layout = history.layouts.get(version)
        if layout is None:
            raise UnknownVersion(model, version, history.versions())
        last = min(last_ms // DAY_MS, history.newest("day")) if last_ms else history.newest("day")
        first = max(first_ms // DAY_MS, history.oldest("day")) if first_ms else last - 6
        window = history.window(version, (*ANSWERING, "shadow"), "day", first, last)
        section = "score" if name == "score" else f"feature:{name}"
        if section not in layout.sections:
            known = [f.name for f in layout.manifest.features]
            raise NotFound(f"{model} v{version} has no profiled feature '{name}'; known: {known}")
        labels, reference, current = histogram(layout, name, window[section])
        measured = (
            next((f for f in features(window) if f.feature == name), None)
            if name != "score"
            else score_drift(window)
        )
        return {
            "feature": name,
            "kind": measured.kind if measured else "numeric",
            "bins": labels,
            "reference": reference,
            "current": current,
            "psi": measured.psi if measured else None,
            "psi_low": measured.psi_low if measured else None,
            "p_value": measured.p_value if measured else None,
            "tests": dict(measured.p_values) if measured else {},
            "timed": measured.timed if measured else False,
            "ks": measured.ks if measured else None,
            "wasserstein": distance(layout, name, window[section]),
            "importance": importance(layout, name),
            "rows": measured.rows if measured else 0,
            "missing": measured.missing if measured else None,
            "reference_missing": measured.reference_missing if measured else None,
            "unseen": measured.unseen if measured else None,
        }


def months(monitor: Monitor, model: str) -> list[Json]:
    """By month of event time and version: rows, drifted features, accuracy and AUC."""
    with monitor.lock:
        history, _ = history_of(monitor, model)
        return [
            _month(monitor, history, version, days)
            for days in _months(history)
            for version in history.versions()
        ]


def _months(history: History) -> list[range]:
    def month(day: int) -> tuple[int, int]:
        return time.gmtime(day * 86_400)[:2]

    found: dict[tuple[int, int], list[int]] = {}
    for day in range(history.oldest("day"), history.newest("day") + 1):
        found.setdefault(month(day), []).append(day)
    return [range(days[0], days[-1] + 1) for days in found.values()]


def _month(monitor: Monitor, history: History, version: int, days: range) -> Json:
    roles = (*ANSWERING, "shadow")
    window = history.window(version, roles, "day", days.start, days.stop - 1)
    found = measure.performance(window)
    changed = drifted(features(window), monitor.rules.drift)
    return {
        "month": time.strftime("%Y-%m", time.gmtime(days.start * 86_400)),
        "version": version,
        "rows": int(window["rows"].sum()),
        "labels": found.labels if found else 0,
        "drifted": [feature_.feature for feature_ in changed],
        "accuracy": found.accuracy.value if found and found.accuracy else None,
        "auc": found.auc.value if found and found.auc else None,
        "log_loss": found.log_loss if found else None,
        "calibration_error": found.calibration.error if found and found.calibration else None,
    }
