"""Every Redis name, in one place. `{m}` is a hash tag: all keys of a model share a slot.

slipstream:models               set     names of the models that ever left a fact
slipstream:routes               channel name of a model whose route changed; a hint only
slipstream:workers              hash    worker -> JSON of its last heartbeat (routes applied, drops)
slipstream:orders               stream  load and unload, as one worker was asked and all are to do
slipstream:monitors             zset    monitor -> seconds since 1970 of its last sign of life

slipstream:{m}:lease            string  the monitor that follows the model, for a few seconds
slipstream:{m}:route            hash    revision, document (JSON of models.rollout.Route)
slipstream:{m}:audit            stream  one entry a change of route: who, why, before, after
slipstream:{m}:once:K           string  revision that the change with idempotency key K made
slipstream:{m}:baseline         hash    rollout:step -> counts when that step began
slipstream:{m}:verdict          string  the verdict as of the last look, like one of `verdicts`
slipstream:{m}:verdicts         stream  one entry a verdict: evidence, policy, gates
slipstream:{m}:facts            stream  one entry a flush of one worker: records.Entry, packed
slipstream:{m}:ledger:H         hash    prediction id -> records.Outcome; H: hour of the id
slipstream:{m}:windows:G:V:R    hash    window start -> counts; G: hour or day, V: version, R: role
slipstream:{m}:cursor           hash    id: last folded entry of `facts`, and running totals
slipstream:{m}:disagreements    list    JSON of examples on which a shadow disagreed, newest first
slipstream:{m}:watch            hash    version -> what its windows have shown (monitoring.watch)
slipstream:{m}:findings         hash    fingerprint -> JSON of a finding that is open
"""

from __future__ import annotations

MODELS = "slipstream:models"
WORKERS = "slipstream:workers"
ROUTES = "slipstream:routes"
MONITORS = "slipstream:monitors"
ORDERS = "slipstream:orders"


def of(model: str, *parts: object) -> str:
    """The key of a model's `parts`, e.g. of("flights", "route")."""
    return ":".join(("slipstream", "{" + model + "}", *map(str, parts)))


def lease(model: str) -> str:
    return of(model, "lease")


def route(model: str) -> str:
    return of(model, "route")


def audit(model: str) -> str:
    return of(model, "audit")


def once(model: str, key: str) -> str:
    return of(model, "once", key)


def baseline(model: str) -> str:
    return of(model, "baseline")


def verdict(model: str) -> str:
    return of(model, "verdict")


def verdicts(model: str) -> str:
    return of(model, "verdicts")


def disagreements(model: str) -> str:
    return of(model, "disagreements")


def facts(model: str) -> str:
    return of(model, "facts")


def ledger(model: str, hour: int) -> str:
    return of(model, "ledger", hour)


def windows(model: str, grain: str, version: int, role: str) -> str:
    return of(model, "windows", grain, version, role)


def cursor(model: str) -> str:
    return of(model, "cursor")


def watch(model: str) -> str:
    return of(model, "watch")


def findings(model: str) -> str:
    return of(model, "findings")
