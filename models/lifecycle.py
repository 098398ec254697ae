"""The life of a version in one worker, decided from a snapshot.

    registered -> loading -> loaded -> warming -> ready -> draining -> retired
                     \\__________\\_________> failed       \\__ ready (wanted again)

A version is wanted where a route names it, else where it is on disk and nobody unloaded it.
`next_step` looks at what is and says the one thing to do next; the fleet does it and asks again.
The idea is TensorFlow Serving's aspired versions: a policy without memory is a table of tests.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from models.errors import IllegalTransition
from models.rollout import Route
from models.version import ModelVersion, State


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a version stands and who wants what of it.

    `role` is what the route needs it for, if anything. `unloaded`: an operator said so. `held`:
    a request, a shadow or a thread still has it in its hands.
    """

    version: ModelVersion
    state: State = State.REGISTERED
    on_disk: bool = True
    role: str = ""
    unloaded: bool = False
    held: bool = False

    @property
    def wanted(self) -> bool:
        return bool(self.role) or (self.on_disk and not self.unloaded)


#: The role of a version that answers nobody.
SHADOW = "the shadow"


class Action(IntEnum):
    """What can be done to a version. Lower comes first: memory is freed before more is taken."""

    CLOSE = 1
    DRAIN = 2
    FORGET = 3
    RESUME = 4
    WARM = 5
    LOAD = 6


class Step(NamedTuple):
    """One thing to do to one version."""

    action: Action
    version: ModelVersion


def next_step(snapshot: Iterable[Standing]) -> Step | None:
    """The one thing to do next, or None where everything is as it should be.

    What a route needs comes before everything else.
    """
    steps = [
        (not standing.role, Step(action, standing.version))
        for standing in snapshot
        if (action := _action(standing)) is not None
    ]
    return min(steps)[1] if steps else None


def _action(at: Standing) -> Action | None:
    match at.state:
        case State.REGISTERED | State.RETIRED | State.FAILED if not at.on_disk and not at.role:
            return Action.FORGET
        case State.REGISTERED | State.RETIRED:
            return Action.LOAD if at.wanted and at.on_disk else None
        case State.LOADED:
            return Action.WARM if at.wanted else Action.DRAIN
        case State.READY:
            return None if at.wanted else Action.DRAIN
        case State.DRAINING:
            if not at.held:
                return Action.CLOSE
            return Action.RESUME if at.wanted else None
    # Loading and warming are under way. What failed once fails again: that is for an operator.
    return None


def roles(route: Route) -> dict[int, str]:
    """What the route needs each of its versions for, the previous champion for a rollback."""
    named: dict[int | None, str] = {
        route.previous: "the previous champion, which a rollback needs",
        **{rule.version: f"named by a targeting rule on '{rule.header}'" for rule in route.rules},
        route.shadow: SHADOW,
        route.canary: "the canary",
        route.champion: "the champion",
    }
    return {number: role for number, role in named.items() if number is not None}


def refuse_unload(route: Route, number: int) -> IllegalTransition:
    """Why a version that the route needs is not unloaded, and what to do first."""
    version, role = ModelVersion(route.model, number), roles(route)[number]
    if number == route.champion:
        way = "promote another version first"
        if not route.revision:
            way += ", or unload the whole model"
    elif number == route.previous and role.startswith("the previous"):
        way = "after the next promotion it is needed no longer"
    elif route.rollout is not None and route.rollout.version == number:
        way = "end its rollout first (rollback, or promote it)"
    elif number in (route.shadow, route.canary):
        way = f"take {role} away first (set it to 0 percent, or rollback)"
    else:
        way = "change the rules first"
    return IllegalTransition(f"{version} is {role}, and is not unloaded; {way}")
