"""The route document in Redis: read it, and change it by one compare-and-set with audit.

Both clients are accepted: the monitor and the command line use redis.Redis, the gateway's
workers read through redis.asyncio.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import msgspec
import redis
import redis.asyncio

from models.contract import keys
from models.errors import RouteConflict
from models.rollout import Route

log = logging.getLogger("slipstream.routes")

#: Longest history of changes kept per model.
AUDIT_ENTRIES = 10_000

#: Seconds for which a change can be repeated with its idempotency key.
ONCE = 24 * 3600
#: Seconds within which a client may send a change again because its answer was lost.
RETRIED = 600

#: KEYS route, audit, once; ARGV expected revision, document, audit entry, audit length, seconds
#: of `once`, channel, model. Returns the new revision, or minus the revision that stands where it
#: is not the expected one. A repeated key returns what its first use returned.
_COMPARE_AND_SET = """
local done = redis.call('GET', KEYS[3])
if done then return tonumber(done) end
local standing = tonumber(redis.call('HGET', KEYS[1], 'revision') or '0')
if standing ~= tonumber(ARGV[1]) then return -standing end
redis.call('HSET', KEYS[1], 'revision', standing + 1, 'document', ARGV[2])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'entry', ARGV[3])
redis.call('SET', KEYS[3], standing + 1, 'EX', ARGV[5])
redis.call('PUBLISH', ARGV[6], ARGV[7])
return standing + 1
"""


def _route(fields: list[bytes | None]) -> Route | None:
    revision, document = fields
    if revision is None or document is None:
        return None
    return replace(msgspec.json.decode(document, type=Route), revision=int(revision))


def read(client: redis.Redis, model: str) -> Route | None:
    """The route that stands, or None where nobody wrote one."""
    fields = client.hmget(keys.route(model), ["revision", "document"])
    return _route(cast("list[bytes | None]", fields))


async def read_many(client: redis.asyncio.Redis, models: list[str]) -> dict[str, Route]:
    """The routes of several models in one round trip; models without one are left out."""
    pipeline = client.pipeline(transaction=False)
    for model in models:
        pipeline.hmget(keys.route(model), ["revision", "document"])
    found = {}
    for model, fields in zip(models, await pipeline.execute(), strict=True):
        try:
            route = _route(fields)
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
            log.error("the route of %s cannot be read and is left as it was: %s", model, error)
            continue
        if route is not None:
            found[model] = route
    return found


def write(
    client: redis.Redis,
    before: Route | None,
    after: Route,
    *,
    action: str,
    who: str,
    why: str,
    once: str = "",
    evidence: str = "",
) -> Route:
    """Replace `before` by `after`. Raises RouteConflict where `before` no longer stands.

    `once` is an idempotency key: a second write with it changes nothing and says what the first
    did. `evidence` names the verdict that led here.
    """
    expected = before.revision if before else 0
    entry = {
        "action": action,
        "who": who,
        "why": why,
        "evidence": evidence,
        "at_ms": int(time.time() * 1000),
        "before": msgspec.to_builtins(before) if before and before.revision else None,
        "after": {**msgspec.to_builtins(after), "revision": expected + 1},
    }
    revision = cast(
        int,
        client.eval(
            _COMPARE_AND_SET,
            3,
            keys.route(after.model),
            keys.audit(after.model),
            keys.once(after.model, once or uuid.uuid4().hex),
            str(expected),
            json.dumps(msgspec.to_builtins(after)),
            json.dumps(entry),
            str(AUDIT_ENTRIES),
            str(ONCE if once else RETRIED),
            keys.ROUTES,
            after.model,
        ),
    )
    if revision <= 0:
        raise RouteConflict(_conflict(client, after.model, -revision, expected))
    client.sadd(keys.MODELS, after.model)
    return replace(after, revision=revision)


def _conflict(client: redis.Redis, model: str, standing: int, expected: int) -> str:
    last = next(iter(audit(client, model, 1)), None)
    winner = f" by {last['who']} ({last['action']})" if last else ""
    return (
        f"the route of {model} was changed meanwhile{winner}: it stands at revision {standing}, "
        f"not {expected}; look at it (slipstream status {model}) and try again"
    )


def change(
    client: redis.Redis,
    model: str,
    transition: Callable[[Route], Route],
    *,
    first: int,
    action: str,
    who: str,
    why: str,
    once: str = "",
    evidence: str = "",
    revision: int | None = None,
) -> Route:
    """Read, apply a transition, write. `first` is the champion where no route stands.

    `revision`: the one that the caller has seen; RouteConflict where another stands.
    """
    before = read(client, model)
    done = cast("bytes | None", client.get(keys.once(model, once))) if once else None
    if done is not None and before is not None:
        return before
    start = before or Route(model, champion=first)
    if revision is not None and revision != start.revision:
        raise RouteConflict(_conflict(client, model, start.revision, revision))
    after = transition(start)
    return write(
        client, before, after, action=action, who=who, why=why, once=once, evidence=evidence
    )


def audit(client: redis.Redis, model: str, count: int = 50) -> list[dict[str, Any]]:
    """The last changes, newest first."""
    entries = cast(list[Any], client.xrevrange(keys.audit(model), count=count))
    return [json.loads(fields[b"entry"]) for _, fields in entries]
