"""What the console shows, from the histories. Reads, never writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from models import routes
from models.errors import NotFound, UnknownModel, UnknownVersion
from models.rollout import Route
from monitoring import measure
from monitoring.history import History
from monitoring.judge import Finding, Verdict, drifted, verdict
from monitoring.monitor import ANSWERING, Monitor
from monitoring.stats.performance import Estimate
from monitoring.window import PAIR, Window

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
#: Days that the overview's strips show.
STRIP = 30

Json = dict[str, Any]
T = TypeVar("T")


def overview(monitor: Monitor) -> Json:
    """Everything at a glance, the model that needs a person first."""
    with monitor.lock:
        summaries = (_summary(monitor, model) for model in sorted(monitor.histories))
        models = [summary for summary in summaries if summary is not None]
        models.sort(
            key=lambda m: ("page", "ticket", "digest", "unknown", "ok").index(m["verdict"]["level"])
        )
        newest = max((h.newest("hour") for h in monitor.histories.values()), default=0)
        return {
            "as_of_ms": time.time_ns() // 1_000_000,
            "event_as_of_ms": (newest + 1) * HOUR_MS if newest else None,
            "verdict": _overall(models),
            "vitals": _vitals(monitor),
            "models": models,
            "findings": _findings(monitor),
            "changes": _changes(monitor),
        }


def _overall(models: list[Json]) -> Json:
    if not models:
        return {"level": "unknown", "sentence": "No model yet.", "detail": ""}
    counts = {
        level: sum(model["alerts"][level] for model in models)
        for level in ("page", "ticket", "digest")
    }
    versions = sum(len(model["versions"]) for model in models)
    detail = f"{_many(len(models), 'model')}, {_many(versions, 'version')}."
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
    for history in monitor.histories.values():
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


def _findings(monitor: Monitor, model: str | None = None) -> list[Json]:
    order = {"page": 0, "ticket": 1, "digest": 2}
    found = [
        {**msgspec.to_builtins(finding), "since_ms": since}
        for name, told in monitor.findings.items()
        if model in (None, name)
        for finding, since in told
    ]
    return sorted(found, key=lambda finding: order[finding["severity"]])


def _changes(monitor: Monitor, model: str | None = None) -> list[Json]:
    changes = [
        {
            "at_ms": entry["at_ms"],
            "model": name,
            "what": _what(entry),
            "why": entry["why"],
            "who": entry["who"],
        }
        for name in monitor.histories
        if model in (None, name)
        for entry in routes.audit(monitor.client, name, 10)
    ]
    return sorted(changes, key=lambda change: -change["at_ms"])[:10]


def _what(entry: Json) -> str:
    after = entry["after"]
    if entry["action"] == "shadow" and after["shadow"] is not None:
        return f"v{after['shadow']} shadow {after['shadow_percent']:g} %"
    if entry["action"] in ("promote", "rollback", "push"):
        return f"v{after['champion']} champion ({entry['action']})"
    return str(entry["action"])


def _summary(monitor: Monitor, model: str) -> Json | None:
    history, route = monitor.histories[model], monitor.route(model)
    if route is None or route.champion not in history.layouts:
        return None
    found = [finding for finding, _ in monitor.findings.get(model, [])]
    return {
        "name": model,
        "versions": _versions(history, route),
        "verdict": msgspec.to_builtins(_verdict(monitor, history, route, found)),
        "traffic": _traffic(history, route),
        "latency": _latency(monitor, history, route),
        "drift": _drift_summary(monitor, history, route),
        "quality": _quality(monitor, history, route),
        "alerts": {
            level: sum(f.severity == level for f in found) for level in ("page", "ticket", "digest")
        },
    }


def _versions(history: History, route: Route) -> list[Json]:
    roles = {route.champion: "champion"}
    if route.shadow is not None:
        roles[route.shadow] = "shadow"
    shown = []
    for number in history.versions():
        role = roles.get(number, "idle")
        training = history.layouts[number].manifest.training
        shown.append(
            {
                "number": number,
                "role": role,
                "percent": route.shadow_percent if role == "shadow" else None,
                "note": str(training.get("description", "")),
            }
        )
    return shown


def _verdict(monitor: Monitor, history: History, route: Route, found: Sequence[Finding]) -> Verdict:
    measured = monitor.measure(route.model, route.champion)
    profiled = history.layouts[route.champion].profile is not None
    said = verdict(found, profiled, measured.performance is not None, measured.requests)
    return Verdict(said.level, said.sentence, _detail(measured.performance, measured.mean_score))


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
    for drifts in _rolling(history, version, ANSWERING, days, length, _all_features):
        found = {feature.feature: feature for feature in drifts}
        for name, values in strips.items():
            feature = found.get(name)
            values.append(None if feature is None else round(feature.psi_low, 4))
    return strips


def _rolling(
    history: History,
    version: int,
    roles: Sequence[str],
    days: range,
    length: int,
    measured: Callable[[Window], T],
) -> list[T]:
    """For each day, what is measured in the window of `length` days that ends with it."""
    return [history.measured(version, roles, day - length + 1, day, measured) for day in days]


def _all_features(window: Window) -> list[measure.Drift]:
    score = measure.score_drift(window)
    return [*measure.features(window), *([score] if score else [])]


def _latency_of(window: Window) -> measure.Latency:
    return measure.latency(window["latency"])


def _quality_of(window: Window) -> tuple[measure.Performance | None, float | None]:
    return measure.performance(window), measure.mean_score(window)


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
        "champion": _estimate(champion.auc),
        "shadow": _estimate(shadow.auc) if shadow else None,
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


def _estimate(found: Estimate | None) -> Json | None:
    return None if found is None else {"value": found.value, "low": found.low, "high": found.high}


# --- one model ------------------------------------------------------------------------------------


def timeline(monitor: Monitor, model: str) -> Json:
    """One model over its days. Raises UnknownModel."""
    with monitor.lock:
        history, route = _of(monitor, model)
        days = range(history.oldest("day"), history.newest("day") + 1)
        shadow = route.shadow if route.shadow in history.layouts else None
        found = [finding for finding, _ in monitor.findings.get(model, [])]
        workers = monitor.workers()
        applied = sum(beat["routes"].get(model) == route.revision for beat in workers)
        return {
            "model": model,
            "versions": _versions(history, route),
            "verdict": msgspec.to_builtins(_verdict(monitor, history, route, found)),
            "route": {"revision": route.revision, "applied": applied, "workers": len(workers)},
            "champion": route.champion,
            "shadow": shadow,
            "task": history.layouts[route.champion].manifest.task,
            "missing": history.missing.get(route.champion, ""),
            "days": [day * DAY_MS for day in days],
            "grain": "day",
            "events": _events(monitor, model, history),
            "findings": _findings(monitor, model),
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


def _of(monitor: Monitor, model: str) -> tuple[History, Route]:
    history, route = monitor.histories.get(model), monitor.route(model)
    if history is None or route is None or route.champion not in history.layouts:
        raise UnknownModel(model, monitor.histories)
    return history, route


def _events(monitor: Monitor, model: str, history: History) -> list[Json]:
    """Changes of route are told in the days' own time only where that is today's."""
    newest = (history.newest("day") + 1) * DAY_MS
    routes_ = [
        {"at_ms": c["at_ms"], "kind": "route", "title": c["what"], "note": c["why"]}
        for c in _changes(monitor, model)
        if c["at_ms"] <= newest
    ]
    findings = [
        {
            "at_ms": finding["since_ms"],
            "kind": "finding",
            "title": finding["sentence"],
            "note": finding["value"],
        }
        for finding in _findings(monitor, model)
    ]
    return routes_ + findings


def _daily_traffic(history: History, version: int, days: range) -> Json:
    counts = _rolling(history, version, ANSWERING, days, 1, measure.requests)
    return {"requests": [sum(c) for c in counts], "errors": [c[2] for c in counts]}


def _daily_latency(history: History, version: int, roles: Sequence[str], days: range) -> Json:
    found = _rolling(history, version, roles, days, 1, _latency_of)
    return {name: [getattr(each, name) for each in found] for name in ("p50", "p95", "p99")}


def _daily_drift(monitor: Monitor, history: History, version: int, days: range) -> list[Json]:
    series: dict[str, Json] = {}
    length = monitor.rules.drift.days
    rolled = _rolling(history, version, ANSWERING, days, length, _all_features)
    for at, drifts in enumerate(rolled):
        for feature in drifts:
            row = series.setdefault(feature.feature, _strip_row(feature, len(days)))
            row["psi"][at] = round(feature.psi_low, 4)
            row["missing"][at] = round(feature.missing, 4)
            row["unseen"][at] = round(feature.unseen, 4)
    return sorted(series.values(), key=lambda row: -sum(value or 0 for value in row["psi"]))


def _strip_row(feature: measure.Drift, days: int) -> Json:
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
    series = {"champion": _rolling(history, champion, ANSWERING, days, length, _quality_of)}
    if shadow is not None:
        series["shadow"] = _rolling(history, shadow, ("shadow",), days, length, _quality_of)
    labelled = _rolling(history, champion, ANSWERING, days, 1, _coverage)
    quality: Json = {"coverage": {"labelled": labelled}}
    if not any(found for found, _ in series["champion"]):
        return {**quality, "ranking": None, "accuracy": None, "said_seen": None}
    profile = history.layouts[champion].profile
    reference = profile.metrics if profile else {}
    auc = reference.get("auc")
    quality["ranking"] = {
        "reference": auc,
        "harm": auc - monitor.rules.performance.auc if auc is not None else None,
        **{name: _bands(values, "auc") for name, values in series.items()},
    }
    quality["accuracy"] = {
        "reference": reference.get("accuracy"),
        **{name: _bands(values, "accuracy") for name, values in series.items()},
    }
    quality["said_seen"] = {
        "seen": [f.seen.value if f and f.seen else None for f, _ in series["champion"]],
        **{name: [said for _, said in values] for name, values in series.items()},
    }
    for part in ("ranking", "accuracy", "said_seen"):
        quality[part].setdefault("shadow", None)
    return quality


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
    return int(window["confusion"].sum()) / rows if rows else None


def _compare(history: History, shadow: int, days: range) -> Json | None:
    found = measure.pairs(history.window(shadow, (PAIR,), "day", days.start, days.stop - 1))
    if not found.compared:
        return None
    return {
        "pairs": found.compared,
        "agreement": _estimate(found.agreement),
        "champion": _arm(found.primary, found.primary_accuracy),
        "shadow": _arm(found.shadow, found.shadow_accuracy),
    }


def _arm(latency: measure.Latency, accuracy: Estimate | None) -> Json:
    return {"p50": latency.p50, "p99": latency.p99, "accuracy": _estimate(accuracy)}


def feature(
    monitor: Monitor, model: str, name: str, version: int | None, first_ms: int, last_ms: int
) -> Json:
    """Reference and current histogram of one feature. Raises NotFound."""
    with monitor.lock:
        history, route = _of(monitor, model)
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
        labels, reference, current = measure.histogram(layout, name, window[section])
        measured = (
            next((f for f in measure.features(window) if f.feature == name), None)
            if name != "score"
            else measure.score_drift(window)
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
            "rows": measured.rows if measured else 0,
            "missing": measured.missing if measured else None,
            "reference_missing": measured.reference_missing if measured else None,
            "unseen": measured.unseen if measured else None,
        }


def months(monitor: Monitor, model: str) -> list[Json]:
    """By month of event time and version: rows, drifted features, accuracy and AUC."""
    with monitor.lock:
        history, _ = _of(monitor, model)
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
    changed = drifted(measure.features(window), monitor.rules.drift)
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
