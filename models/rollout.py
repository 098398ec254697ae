"""The route of a model: who answers, who rides along, and the pure decisions made from it.

    start -> shadow -> canary 1, 5, 25, 50 % -> promoted        (advance; promote jumps)
                \\________ any of these ________/-> rolled back   (rollback)

Loading or pushing a version never changes a route.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import NamedTuple

from models.errors import IllegalTransition, InvalidRequest, UnknownVersion
from models.policy import IMPROVEMENT, Policy
from models.version import Role

ALIASES = ("champion", "challenger", "previous")
#: Weights and shares are whole parts of this.
WHOLE = 10_000
#: Weights of a canary, one after the other, where its rollout does not say otherwise.
STEPS = (100, 500, 2_500, 5_000)


@dataclass(frozen=True, slots=True)
class Rule:
    """Requests whose `header` is `equals`, or matches the expression `matches`, go to `version`."""

    header: str
    version: int
    equals: str | None = None
    matches: str | None = None

    def applies(self, headers: Mapping[bytes, bytes]) -> bool:
        value = headers.get(self.header.lower().encode())
        if value is None:
            return False
        text = value.decode("latin-1")
        return text == self.equals or bool(self.matches and re.fullmatch(self.matches, text))


@dataclass(frozen=True, slots=True)
class Rollout:
    """One attempt to replace the champion. `id` also seeds the split of its canary.

    `step` counts from 0, the shadow; step i > 0 has the weight `steps[i - 1]`. `automatic`: the
    monitor advances it on its gates' evidence. `policy` is what judges it.
    """

    id: str
    version: int
    policy: Policy = IMPROVEMENT
    automatic: bool = False
    paused: bool = False
    step: int = 0
    steps: tuple[int, ...] = STEPS
    shadow_percent: float = 100.0

    @property
    def stage(self) -> str:
        if self.step == 0:
            return "shadow"
        return f"canary {self.steps[self.step - 1] / 100:g} %"


@dataclass(frozen=True, slots=True)
class Route:
    """Who answers and who rides along.

    `revision` rises by one with every change; 0 means that nobody wrote a route yet.
    `shadow_percent` is the share of requests, 0 to 100, that the shadow sees too; `weight` the
    share of requests, in 1/10,000, that the canary answers. `salt` seeds their split.
    """

    model: str
    champion: int
    revision: int = 0
    previous: int | None = None
    shadow: int | None = None
    shadow_percent: float = 100.0
    canary: int | None = None
    weight: int = 0
    salt: str = ""
    rules: tuple[Rule, ...] = ()
    rollout: Rollout | None = None

    def versions(self) -> set[int]:
        """The versions that must be ready before this route may be applied."""
        named = {self.champion, self.shadow, self.canary, *(rule.version for rule in self.rules)}
        return {number for number in named if number is not None}

    @property
    def plain(self) -> bool:
        """Whether the champion answers whatever is not pinned by the URL."""
        return self.weight == 0 and not self.rules


class Arm(NamedTuple):
    """The outcome of a decision: which version answers, in which role, and why."""

    version: int
    role: Role
    reason: str


# --- one request ----------------------------------------------------------------------------------


def decide(route: Route, asked: str | None) -> Arm:
    """Pick the version that answers; `asked` is the version or alias of the URL, if any."""
    if asked is None or asked == "champion":
        return Arm(route.champion, Role.CHAMPION, "champion")
    return pinned(route, asked, "url")


def pinned(route: Route, asked: str, reason: str) -> Arm:
    """The version that somebody asked for by number or alias."""
    if asked.isascii() and asked.isdigit() and len(asked) < 10:
        return Arm(int(asked), Role.PINNED, reason)
    if asked not in ALIASES:
        raise InvalidRequest(
            f"version '{asked}' is neither a positive integer nor one of: {', '.join(ALIASES)}"
        )
    challenger = route.canary if route.canary is not None else route.shadow
    number = {"champion": route.champion, "challenger": challenger, "previous": route.previous}
    version = number[asked]
    if version is None:
        raise UnknownVersion(route.model, asked, route.versions())
    return Arm(version, Role.PINNED, reason)


def split(route: Route, headers: Mapping[bytes, bytes], key: str) -> Arm:
    """Pick the version for a request that asks for none: targeting rules, then the canary.

    `key` keeps a caller in the same arm. The canary's share of keys only grows with its weight,
    so nobody leaves it while it does.
    """
    for rule in route.rules:
        if rule.applies(headers):
            role = Role.CHAMPION if rule.version == route.champion else Role.CANARY
            return Arm(rule.version, role, "rule")
    if route.canary is not None and slot(route.salt, key) < route.weight:
        return Arm(route.canary, Role.CANARY, "split")
    return Arm(route.champion, Role.CHAMPION, "champion")


def slot(salt: str, key: str) -> int:
    """Where a key falls among WHOLE slots. Another salt draws anew."""
    digest = blake2b(f"{salt}\0{key}".encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % WHOLE


def shadowed(route: Route, served: int, key: int) -> int | None:
    """The version that sees this request too, or None. `key` is a uniform random integer.

    The same key always gives the same answer, so that pairs stay pairs everywhere.
    """
    if route.shadow is None or route.shadow == served:
        return None
    return route.shadow if key % WHOLE < route.shadow_percent * 100 else None


# --- changes by hand ------------------------------------------------------------------------------


def start_shadow(route: Route, version: int, percent: float) -> Route:
    """Let `version` ride along on `percent` of the requests; 0 takes the shadow away."""
    _no_other_rollout(route, None)
    if not 0 <= percent <= 100:
        raise IllegalTransition(f"a shadow sees 0 to 100 percent of the requests, not {percent:g}")
    if percent == 0:
        return replace(route, shadow=None, shadow_percent=100.0)
    _no_champion(route, version, "shadow itself")
    return replace(route, shadow=version, shadow_percent=float(percent))


def start_canary(route: Route, version: int, percent: float, salt: str) -> Route:
    """Let `version` answer `percent` of the requests; 0 takes the canary away.

    A canary that is there keeps its salt, so that a change of weight moves as few as it can.
    """
    _no_other_rollout(route, None)
    weight = round(percent * 100)
    if not 0 <= weight <= WHOLE:
        raise IllegalTransition(f"a canary answers 0 to 100 percent of requests, not {percent:g}")
    if weight == 0:
        return replace(route, canary=None, weight=0, salt="")
    _no_champion(route, version, "be its own canary")
    return replace(
        route,
        canary=version,
        weight=weight,
        salt=route.salt if route.canary == version else salt,
    )


def target(route: Route, rules: tuple[Rule, ...]) -> Route:
    """Send requests with certain headers to certain versions. Raises IllegalTransition."""
    for rule in rules:
        if (rule.equals is None) == (rule.matches is None):
            raise IllegalTransition(f"a rule on '{rule.header}' needs either equals or matches")
        try:
            re.compile(rule.matches or "")
        except re.error as error:
            sentence = f"'{rule.matches}' is no regular expression: {error}"
            raise IllegalTransition(sentence) from None
    return replace(route, rules=rules)


def promote(route: Route, version: int) -> Route:
    """Make `version` the champion and remember the old one for a roll-back."""
    if version == route.champion:
        raise IllegalTransition(
            f"version {version} of {route.model} is the champion already; "
            f"legal: shadow another version, promote another version"
        )
    _no_other_rollout(route, version)
    return replace(_without(route, version), champion=version, previous=route.champion)


def rollback(route: Route) -> Route:
    """End what is under way: the champion answers alone. Else back to the previous champion."""
    if route.rollout is not None or route.canary is not None:
        candidate = route.rollout.version if route.rollout else route.canary
        assert candidate is not None
        return _without(route, candidate)
    if route.previous is None:
        raise IllegalTransition(
            f"{route.model} has no previous champion to go back to; "
            f"legal: shadow a version, promote a version"
        )
    back = _without(route, route.previous)
    return replace(back, champion=route.previous, previous=route.champion)


def _without(route: Route, version: int) -> Route:
    """The route with neither rollout nor canary, and `version` riding no longer."""
    kept = route.shadow if route.shadow != version else None
    return replace(
        route,
        shadow=kept,
        shadow_percent=route.shadow_percent if kept is not None else 100.0,
        canary=None,
        weight=0,
        salt="",
        rules=tuple(rule for rule in route.rules if rule.version != version),
        rollout=None,
    )


# --- rollouts -------------------------------------------------------------------------------------


def begin(route: Route, rollout: Rollout) -> Route:
    """Start a rollout with its shadow."""
    _no_other_rollout(route, None)
    _no_champion(route, rollout.version, "replace itself")
    if route.canary is not None:
        raise IllegalTransition(
            f"version {route.canary} of {route.model} is a canary already; legal: rollback, "
            f"promote {route.canary}"
        )
    steps = rollout.steps
    if not steps or list(steps) != sorted(set(steps)) or not 0 < steps[0] <= steps[-1] <= WHOLE:
        raise IllegalTransition("the steps of a rollout rise from above 0 to at most 100 percent")
    return replace(
        route,
        shadow=rollout.version,
        shadow_percent=rollout.shadow_percent,
        salt=rollout.id,
        rollout=replace(rollout, step=0, paused=False),
    )


def advance(route: Route) -> Route:
    """The rollout's next step; behind the last one the version is promoted."""
    rollout = _running(route)
    if rollout.step == len(rollout.steps):
        return promote(route, rollout.version)
    after = replace(rollout, step=rollout.step + 1)
    return replace(
        route,
        canary=rollout.version,
        weight=rollout.steps[rollout.step],
        rollout=after,
    )


def pause(route: Route) -> Route:
    """Keep traffic as it is; the gates are watched but move nothing forward."""
    return replace(route, rollout=replace(_running(route), paused=True))


def resume(route: Route) -> Route:
    rollout = route.rollout
    if rollout is None or not rollout.paused:
        raise IllegalTransition(f"no rollout of {route.model} is paused; legal: {legal(route)}")
    return replace(route, rollout=replace(rollout, paused=False))


def legal(route: Route) -> str:
    """What may be done from here, for people."""
    if route.rollout is None:
        again = ", rollback" if route.previous is not None or route.canary is not None else ""
        return f"start a rollout, shadow, canary, promote{again}"
    if route.rollout.paused:
        return f"resume, rollback, promote {route.rollout.version}"
    return f"advance, pause, rollback, promote {route.rollout.version}"


def _running(route: Route) -> Rollout:
    if route.rollout is None:
        raise IllegalTransition(f"no rollout of {route.model} is under way; legal: {legal(route)}")
    if route.rollout.paused:
        raise IllegalTransition(f"the rollout of {route.model} is paused; legal: {legal(route)}")
    return route.rollout


def _no_other_rollout(route: Route, version: int | None) -> None:
    if route.rollout is not None and route.rollout.version != version:
        raise IllegalTransition(
            f"the rollout {route.rollout.id} of version {route.rollout.version} of {route.model} "
            f"is under way ({route.rollout.stage}); legal: {legal(route)}"
        )


def _no_champion(route: Route, version: int, what: str) -> None:
    if version == route.champion:
        raise IllegalTransition(
            f"version {version} of {route.model} is the champion and cannot {what}; "
            f"legal: {legal(route)}"
        )
