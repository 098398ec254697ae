"""Changes of routes that people ask for: what the gates say first, then one compare-and-set."""

from __future__ import annotations

from typing import cast

import msgspec
import redis

from models import routes
from models.actions import Action, transition
from models.contract import keys
from models.errors import GatesNotPassed
from models.rollout import Route
from monitoring.rollouts import Kept


def standing(client: redis.Redis, model: str) -> Kept | None:
    """The verdict on the model's rollout as of the monitor's last look."""
    found = cast("bytes | None", client.get(keys.verdict(model)))
    return None if found is None else msgspec.json.decode(found, type=Kept)


def act(
    client: redis.Redis, model: str, action: Action, *, first: int, who: str, once: str = ""
) -> Route:
    """Change the route as asked. `first` is the champion where no route stands.

    Raises RouteConflict, IllegalTransition, InvalidRequest, or GatesNotPassed where an advance or
    a promotion goes against the gates of its rollout without force and a reason.
    """
    route = routes.read(client, model)
    change = transition(action)
    why = action.reason
    if route is not None and action.action in ("advance", "promote"):
        why = _against_the_gates(client, route, action) or action.reason
    verdict = standing(client, model) if route is not None and route.rollout else None
    return routes.change(
        client,
        model,
        change,
        first=first,
        action=_name(route, action),
        who=who,
        why=why,
        once=once,
        evidence=verdict.digest if verdict else "",
        revision=action.revision,
    )


def _name(route: Route | None, action: Action) -> str:
    """What the audit calls it: behind the last step, to advance is to promote."""
    rollout = route.rollout if route else None
    if action.action == "advance" and rollout and rollout.step == len(rollout.steps):
        return "promote"
    return action.action


def _against_the_gates(client: redis.Redis, route: Route, action: Action) -> str:
    """The reason, with the gates that it overrides; empty where none stands against it."""
    rollout = route.rollout
    if rollout is None or (action.version is not None and action.version != rollout.version):
        return ""
    verdict = standing(client, route.model)
    if verdict is None or verdict.evidence.rollout != rollout.id:
        open_gates, sentence, status = ["no verdict yet"], "No verdict yet.", "insufficient"
    else:
        gates = [g for g in verdict.verdict.gates if g.blocks and g.status != "pass"]
        asked = [g for g in gates if not (g.name == "approval" and action.action == "promote")]
        if not asked:
            return ""
        open_gates = [f"{gate.name}: {gate.status}" for gate in asked]
        sentence, status = verdict.verdict.sentence, verdict.verdict.status
    if not action.force:
        raise GatesNotPassed(f"{sentence} Force it with a reason, or wait.", status == "fail")
    if not action.reason:
        raise GatesNotPassed("to go against the gates takes a reason", status == "fail")
    return f"{action.reason} (against {'; '.join(open_gates)})"
