"""What must hold whatever dies: one pure function over all that was observed.

A history is what an onlooker noted: the audit, the route as it was read again and again, every
answer, every failure, every kill. `broken` says in sentences what should not have happened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from models.rollout import WHOLE

#: Actions that may change who answers. To push, load or unload is none of them.
MOVES_CHAMPION = ("promote", "rollback", "advance")  # an advance behind the last step promotes
MOVES_CANARY = ("advance", "promote", "rollback", "canary")


class Answer(NamedTuple):
    """What a client got. `said` is the version whose numbers the body carries, 0 for nobody's."""

    status: int
    version: int
    role: str
    revision: int
    said: int
    redis: bool = True


class Seen(NamedTuple):
    """The route as it was read; `told` is the revision of the newest audit entry beside it."""

    at: float
    revision: int
    document: dict[str, Any]
    told: int


class Failure(NamedTuple):
    """A request without an answer. `since`: when its connection was last known to be good.
    `again`: what happened to its one repetition on a new connection; empty where it was answered.
    """

    since: float
    at: float
    what: str
    again: str = ""


class Kill(NamedTuple):
    at: float
    kind: str


class Write(NamedTuple):
    """A change that somebody asked for under a name used once, and what they were told.

    "unknown": the connection broke before an answer came, so it may have been done or not.
    """

    who: str
    told: Literal["done", "refused", "unknown"]
    revision: int = 0
    sentence: str = ""


@dataclass
class History:
    """All that was observed. `steps` counts, per connection, the revisions that followed on
    each other; `stuck` and `verdicts` hold sentences of those who looked after that."""

    loadable: set[int]
    audit: list[dict[str, Any]] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    answers: Counter[Answer] = field(default_factory=Counter)
    steps: Counter[tuple[int, int]] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)


def broken(history: History) -> list[str]:
    """A sentence for everything that should not have happened."""
    return [
        *_audit(history),
        *_routes(history),
        *_moves(history),
        *_seen(history),
        *_answers(history),
        *_failures(history),
        *_writes(history),
        *history.stuck,
        *history.verdicts,
    ]


def _audit(history: History) -> Iterator[str]:
    """The revision rises by one, and each one has exactly one entry."""
    revisions = [entry["after"]["revision"] for entry in history.audit]
    if revisions != list(range(1, len(revisions) + 1)):
        yield f"the audit does not count from 1 by one: {revisions}"
    for before, after in zip(history.audit, history.audit[1:], strict=False):
        if after["before"] != before["after"]:
            yield (
                f"revision {after['after']['revision']} was made from something else than what "
                f"revision {before['after']['revision']} left"
            )


def _routes(history: History) -> Iterator[str]:
    """One champion that can be loaded; a canary that is another version, with a lawful weight."""
    for route in (entry["after"] for entry in history.audit):
        at = f"revision {route['revision']}"
        if route["champion"] not in history.loadable:
            yield f"{at}: no version {route['champion']} can be loaded, and it is the champion"
        if not 0 <= route["weight"] <= WHOLE:
            yield f"{at}: the weight {route['weight']} is not within 0 and {WHOLE}"
        if route["weight"] and route["canary"] is None:
            yield f"{at}: a weight without a canary"
        for role in ("canary", "shadow"):
            if route[role] == route["champion"]:
                yield f"{at}: the {role} is the champion"
        rollout = route["rollout"]
        if rollout is not None and rollout["version"] == route["champion"]:
            yield f"{at}: the rollout's version is the champion already"


def _moves(history: History) -> Iterator[str]:
    """Traffic moves by what is meant to move it, and by nothing else."""
    for entry in history.audit:
        before, after = entry["before"], entry["after"]
        if before is None:
            continue
        at = f"revision {after['revision']}: '{entry['action']}'"
        if before["champion"] != after["champion"] and entry["action"] not in MOVES_CHAMPION:
            yield f"{at} replaced the champion"
        canary = (before["canary"], before["weight"]) != (after["canary"], after["weight"])
        if canary and entry["action"] not in MOVES_CANARY:
            yield f"{at} moved traffic of the canary"


def _seen(history: History) -> Iterator[str]:
    """Who reads the route sees what the audit says, and never goes back in time."""
    written = {entry["after"]["revision"]: entry["after"] for entry in history.audit}
    for before, after in zip(history.seen, history.seen[1:], strict=False):
        if after.revision < before.revision:
            yield f"the route went back from revision {before.revision} to {after.revision}"
    for seen in history.seen:
        if seen.told != seen.revision:
            yield f"beside revision {seen.revision} the audit's last entry was {seen.told}"
        if {**seen.document, "revision": seen.revision} != written.get(seen.revision):
            yield f"revision {seen.revision} was read as something that the audit does not know"


def _answers(history: History) -> Iterator[str]:
    """Every answer is one, comes from a version that its route names, and is not another's."""
    written = {entry["after"]["revision"]: entry["after"] for entry in history.audit}
    for answer, count in history.answers.items():
        if answer.status != 200:
            away = "" if answer.redis else " while Redis was away"
            yield f"{count} requests were answered {answer.status}{away}"
            continue
        if answer.said != answer.version:
            yield f"{count} answers say version {answer.version} and carry {answer.said}'s numbers"
        route = written.get(answer.revision)
        if route is None:
            yield f"{count} answers at revision {answer.revision}, which nobody wrote"
            continue
        named = {
            "champion": route["champion"],
            "canary": route["canary"] if route["weight"] else None,
        }
        if named.get(answer.role) != answer.version:
            yield (
                f"{count} answers of version {answer.version} as {answer.role} at revision "
                f"{answer.revision}, whose route names {named}"
            )
    for (before, after), count in history.steps.items():
        if after < before:
            yield f"{count} times a worker went back from revision {before} to {after}"


def _failures(history: History) -> Iterator[str]:
    """A request fails only with the worker that held it, and never twice."""
    kills = [kill.at for kill in history.kills if kill.kind == "worker"]
    for failure in history.failures:
        if not any(failure.since - 0.1 <= at <= failure.at + 0.1 for at in kills):
            yield f"a request failed though no worker died: {failure.what}"
        if failure.again:
            yield f"a request failed on a new connection too: {failure.what}, {failure.again}"


def _writes(history: History) -> Iterator[str]:
    """What was said to be done was done once; what was refused was not done."""
    made: dict[str, list[int]] = {}
    for entry in history.audit:
        made.setdefault(entry["who"], []).append(entry["after"]["revision"])
    for write in history.writes:
        found = made.get(write.who, [])
        if write.told == "done" and found != [write.revision]:
            yield f"{write.who} was told of revision {write.revision}, the audit knows {found}"
        if write.told == "refused" and found:
            yield f"{write.who} was refused ({write.sentence}), and yet made revision {found}"
        if len(found) > 1:
            yield f"{write.who} asked once and made the revisions {found}"
