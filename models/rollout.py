"""The route of a model and the pure decision made from it once per request."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from models.errors import IllegalTransition, InvalidRequest, UnknownVersion
from models.version import Role

ALIASES = ("champion", "challenger", "previous")


@dataclass(frozen=True, slots=True)
class Route:
    """Who answers and who rides along.

    `revision` rises by one with every change; 0 means that nobody wrote a route yet.
    `shadow_percent` is the share of requests, 0 to 100, that the shadow sees too.
    """

    model: str
    champion: int
    revision: int = 0
    previous: int | None = None
    shadow: int | None = None
    shadow_percent: float = 100.0

    def versions(self) -> set[int]:
        """The versions that must be ready before this route may be applied."""
        return {self.champion} | ({self.shadow} if self.shadow is not None else set())


class Arm(NamedTuple):
    """The outcome of a decision: which version answers, and in which role."""

    version: int
    role: Role


def decide(route: Route, asked: str | None) -> Arm:
    """Pick the version that answers; `asked` is the version or alias of the URL, if any."""
    if asked is None or asked == "champion":
        return Arm(route.champion, Role.CHAMPION)
    if asked.isascii() and asked.isdigit() and len(asked) < 10:
        return Arm(int(asked), Role.PINNED)
    if asked not in ALIASES:
        raise InvalidRequest(
            f"version '{asked}' is neither a positive integer nor one of: {', '.join(ALIASES)}"
        )
    number = route.shadow if asked == "challenger" else route.previous
    if number is None:
        raise UnknownVersion(route.model, asked, route.versions())
    return Arm(number, Role.PINNED)


def shadowed(route: Route, served: int, key: int) -> int | None:
    """The version that sees this request too, or None. `key` is a uniform random integer.

    The same key always gives the same answer, so that pairs stay pairs everywhere.
    """
    if route.shadow is None or route.shadow == served:
        return None
    return route.shadow if key % 10_000 < route.shadow_percent * 100 else None


def start_shadow(route: Route, version: int, percent: float) -> Route:
    """Let `version` ride along on `percent` of the requests; 0 takes the shadow away."""
    if not 0 <= percent <= 100:
        raise IllegalTransition(f"a shadow sees 0 to 100 percent of the requests, not {percent:g}")
    if percent == 0:
        return replace(route, shadow=None, shadow_percent=100.0)
    if version == route.champion:
        raise IllegalTransition(
            f"version {version} of {route.model} is the champion and cannot shadow itself; "
            f"legal: shadow another version, rollback"
        )
    return replace(route, shadow=version, shadow_percent=float(percent))


def promote(route: Route, version: int) -> Route:
    """Make `version` the champion and remember the old one for a roll-back."""
    if version == route.champion:
        raise IllegalTransition(
            f"version {version} of {route.model} is the champion already; "
            f"legal: shadow another version, promote another version"
        )
    shadow = None if route.shadow == version else route.shadow
    return replace(
        route,
        champion=version,
        previous=route.champion,
        shadow=shadow,
        shadow_percent=route.shadow_percent if shadow is not None else 100.0,
    )


def rollback(route: Route) -> Route:
    """Give the traffic back to the previous champion."""
    if route.previous is None:
        raise IllegalTransition(
            f"{route.model} has no previous champion to go back to; "
            f"legal: shadow a version, promote a version"
        )
    shadow = None if route.shadow == route.previous else route.shadow
    return replace(route, champion=route.previous, previous=route.champion, shadow=shadow)
