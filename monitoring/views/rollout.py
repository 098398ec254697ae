"""The compare page: may the new version overtake? Reads the histories, never writes."""

from __future__ import annotations

from math import exp, isfinite

import msgspec

from models import routes
from models.errors import UnknownModel
from models.rollout import Route, legal
from monitoring import control, measure
from monitoring.history import History
from monitoring.monitor import Monitor
from monitoring.rollouts import Kept, verdicts
from monitoring.slices import rated, slices
from monitoring.stats import sequential
from monitoring.views.shared import Json, estimated
from monitoring.window import ANSWERING, PAIR, SCORES, Window

#: Days of event time that are compared where no rollout says since when.
DAYS = 28
#: Slices and examples that are shown.
SHOWN = 12


def rollout(monitor: Monitor, model: str) -> Json:
    """Route, rollout, gates, and champion against candidate on the same requests."""
    with monitor.lock:
        return _rollout_page(monitor, model)


def _rollout_page(monitor: Monitor, model: str) -> Json:
    history, route = monitor.histories.get(model), monitor.route(model)
    if history is None or route is None:
        raise UnknownModel(model, monitor.histories)
    kept = control.standing(monitor.client, model) if route.rollout else None
    number = candidate(route)
    workers = monitor.workers()
    return {
        "model": model,
        "route": {**msgspec.to_builtins(route), "rollout": None},
        "rollout": _rollout(route),
        "legal": legal(route),
        "versions": monitor.repository.versions(model),
        "workers": len(workers),
        "applied": sum(w["routes"].get(model, 0) >= route.revision for w in workers),
        "verdict": _verdict(kept),
        "candidate": number,
        "comparison": comparison(history, number)
        if number is not None and number in history.layouts
        else None,
        "closing": _closing(monitor, route),
        "slices": _slices(history, number),
        "rated": _rated(history, route.champion, number),
        "examples": [
            {
                "prediction_id": one[0],
                "row": one[2],
                "champion": _number(one[3]),
                "candidate": _number(one[4]),
            }
            for one in monitor.store.disagreements(model, 200)
            if one[1] == number
        ][:SHOWN],
        "changes": routes.audit(monitor.client, model, 30),
    }


def candidate(route: Route) -> int | None:
    """The version that is compared with the champion."""
    if route.rollout is not None:
        return route.rollout.version
    return route.canary if route.canary is not None else route.shadow


def _rollout(route: Route) -> Json | None:
    if route.rollout is None:
        return None
    known: Json = msgspec.to_builtins(route.rollout)
    return {**known, "stage": route.rollout.stage, "policy": route.rollout.policy.name}


def _verdict(kept: Kept | None) -> Json | None:
    if kept is None:
        return None
    said: Json = msgspec.to_builtins(kept.verdict)
    return {**said, "at_ms": kept.at_ms, "stage": kept.evidence.stage, "digest": kept.digest}


def comparison(history: History, number: int) -> Json | None:
    """Both versions on the same requests, over the last days; None where none were compared."""
    last = history.newest("day")
    window = history.window(number, (PAIR,), "day", last - DAYS + 1, last)
    found = measure.pairs(window)
    if not found.compared:
        return None
    both, only_champion, only_candidate, neither = (int(n) for n in window["right"])
    labels = both + only_champion + only_candidate + neither
    difference = sequential.paired_difference(only_champion, only_candidate, labels)
    agreeing = int(window["rows"][1])
    same = sequential.rate_sequence(agreeing, found.compared)
    return {
        "days": DAYS,
        "compared": found.compared,
        "agreement": msgspec.to_builtins(same._asdict()) if same else None,
        "distance": found.distance,
        "latency": {"champion": found.primary._asdict(), "candidate": found.shadow._asdict()},
        "labels": labels,
        "right": {
            "both": both,
            "only_champion": only_champion,
            "only_candidate": only_candidate,
            "neither": neither,
        },
        "accuracy": {
            "champion": estimated(found.primary_accuracy),
            "candidate": estimated(found.shadow_accuracy),
            "difference": difference._asdict() if difference else None,
        },
        "bound": 1 - same.low if same else None,
        "evidence": _evidence(only_champion, only_candidate),
        "scores": {
            "champion": _shares(window, "score_primary"),
            "candidate": _shares(window, "score_shadow"),
            "bins": SCORES,
        },
        "non_finite": int(window["non_finite"].sum()),
    }


def _evidence(only_champion: int, only_candidate: int) -> Json:
    """Anytime-valid: how likely so much difference is where there is none."""
    found = sequential.log_e_paired(only_champion, only_candidate)
    winner = "candidate" if only_candidate > only_champion else "champion"
    return {
        "p": min(1.0, exp(-max(found, 0.0))),
        "winner": winner if exp(min(found, 50.0)) >= 20 else None,
        "more": sequential.labels_to_decide(only_champion, only_candidate),
    }


def _shares(window: Window, section: str) -> list[float]:
    counts = window[section]
    total = int(counts.sum())
    return (counts / total).tolist() if total else []


def _closing(monitor: Monitor, route: Route) -> list[Json]:
    """How the interval of the accuracy difference closed, verdict by verdict, oldest first."""
    shown = []
    for _, kept in verdicts(monitor.client, route.model, 500):
        if route.rollout is None or kept.evidence.rollout != route.rollout.id:
            continue
        gate = next((g for g in kept.verdict.gates if g.name == "accuracy"), None)
        if gate is not None and gate.low is not None:
            shown.append(
                {
                    "at_ms": kept.at_ms,
                    "labels": kept.evidence.pairs.labels,
                    "value": gate.value,
                    "low": gate.low,
                    "high": gate.high,
                    "limit": gate.limit,
                    "stage": kept.evidence.stage,
                }
            )
    return shown[::-1]


def _slices(history: History, number: int | None) -> list[Json]:
    if number is None or number not in history.layouts:
        return []
    last = history.newest("day")
    window = history.window(number, ("shadow",), "day", last - DAYS + 1, last)
    return [one._asdict() for one in slices(window)[:SHOWN]]


def _rated(history: History, champion: int, number: int | None) -> list[Json]:
    """Slices in which one of them is right more often."""
    if number is None or number not in history.layouts:
        return []
    last = history.newest("day")
    one = history.window(champion, ANSWERING, "day", last - DAYS + 1, last)
    two = history.window(number, ("shadow", "canary"), "day", last - DAYS + 1, last)
    return [found._asdict() for found in rated(one, two)[:SHOWN]]


def _number(value: float) -> float | None:
    return value if isfinite(value) else None
