"""What an engineer asks of a route, as data: the command line and the control API speak it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import partial
from typing import Literal

import msgspec

from models import rollout
from models.errors import InvalidRequest
from models.policy import read_policy
from models.rollout import STEPS, Rollout, Route, Rule

Name = Literal[
    "start", "shadow", "canary", "target", "advance", "pause", "resume", "promote", "rollback"
]


class Action(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One change of a route. `reason` is kept in the audit.

    `revision` is the one that the asker has seen; another one is a conflict. `force` promotes
    against the gates. `percent` is a canary's or shadow's share of requests; `steps`, `policy`
    and `automatic` are a rollout's.
    """

    action: Name
    version: int | None = None
    percent: float | None = None
    reason: str = ""
    revision: int | None = None
    force: bool = False
    policy: str = "improvement"
    automatic: bool = True
    steps: tuple[float, ...] = ()
    rules: tuple[Rule, ...] = ()


def transition(action: Action) -> Callable[[Route], Route]:
    """The pure change that an action means. Raises InvalidRequest where it lacks something."""
    match action.action:
        case "advance":
            return rollout.advance
        case "pause":
            return rollout.pause
        case "resume":
            return rollout.resume
        case "rollback":
            return rollout.rollback
        case "target":
            return partial(rollout.target, rules=action.rules)
    version = action.version
    if version is None:
        raise InvalidRequest(f"to {action.action} takes the number of a version")
    if action.action == "promote":
        return partial(rollout.promote, version=version)
    if action.action == "start":
        return partial(rollout.begin, rollout=_rollout(action, version))
    percent = 100.0 if action.percent is None else action.percent
    if action.action == "shadow":
        return partial(rollout.start_shadow, version=version, percent=percent)
    if action.percent is None:
        raise InvalidRequest("a canary takes the percent of requests that it answers")
    salt = uuid.uuid4().hex[:12]
    return partial(rollout.start_canary, version=version, percent=percent, salt=salt)


def _rollout(action: Action, version: int) -> Rollout:
    return Rollout(
        id=uuid.uuid4().hex[:12],
        version=version,
        policy=read_policy(action.policy),
        automatic=action.automatic,
        steps=tuple(round(percent * 100) for percent in action.steps) or STEPS,
        shadow_percent=100.0 if action.percent is None else action.percent,
    )
