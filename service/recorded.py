"""Requests that the stream still has, to warm a version up on what it will be asked."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from typing import Any, cast

import redis
from redis.exceptions import RedisError

from models.contract import keys, wire
from models.contract.records import Rows
from models.signature import Tensors
from models.version import Role

log = logging.getLogger("slipstream.fleet")

#: Entries that are looked through, the newest first.
ENTRIES = 5


class Recorded:
    """Reads from threads; where Redis is away, nothing was recorded."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url, socket_timeout=0.5, socket_connect_timeout=0.2)

    def requests(self, model: str, count: int = 20) -> list[Tensors]:
        """At most `count` rows that the model was asked lately, each as a request of its own."""
        try:
            found = cast(Any, self._client.xrevrange(keys.facts(model), count=ENTRIES))
        except (RedisError, OSError) as error:
            log.debug("no recorded requests of %s: %s", model, str(error))
            _let_go(error)
            return []
        requests: list[Tensors] = []
        for _, fields in found:
            try:
                entry = wire.unpack(fields[wire.FIELD])
            except wire.UnreadableEntry:
                continue
            for rows in entry.rows:
                requests += _alone(rows)
        return requests[:count]


def _let_go(error: BaseException | None) -> None:
    """Errors of the Redis client are in a cycle with their frames, whose callers' frames hold the
    version that is warmed up: it could not be closed before the next garbage collection."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _alone(rows: Rows) -> Iterator[Tensors]:
    if rows.role == Role.SHADOW or not rows.inputs:
        return
    inputs = wire.arrays(rows.inputs)
    for row in range(min(len(array) for array in inputs.values())):
        yield {name: array[row : row + 1] for name, array in inputs.items()}
