"""Which monitor follows which model: a lease in Redis that its holder renews while it lives.

A lease only spares work. What makes counts exact is the cursor: a monitor that believes in a lease
it has lost cannot seal anything (`stream.Store.seal`).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from math import ceil
from typing import cast

import redis

from models.contract import keys

#: Seconds without a sign of life until a monitor's models are others' to take.
PATIENCE = 5.0
#: Seconds between looks.
EVERY = 1.0

_MS = int(PATIENCE * 1_000)
_TAKE = """
local holder = redis.call('get', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('set', KEYS[1], ARGV[1], 'px', ARGV[2])
return 1
"""
_LEAVE = """
if redis.call('get', KEYS[1]) == ARGV[1] then redis.call('del', KEYS[1]) end
"""


class Leases:
    """The share of the models that this monitor follows."""

    def __init__(self, client: redis.Redis, port: int) -> None:
        # A monitor that is started anew at its old place goes on with what it had.
        self.name = f"{socket.gethostname()}:{port}"
        self._client = client
        self._take = client.register_script(_TAKE)
        self._leave = client.register_script(_LEAVE)
        self._held: set[str] = set()
        self._seen: set[str] = set()
        self._looked = 0.0

    def share(self, models: Sequence[str]) -> set[str]:
        """Renew what is held, leave what is more than a fair share, take what nobody holds."""
        if time.monotonic() - self._looked < EVERY and self._seen == set(models):
            return self._held
        self._looked, self._seen = time.monotonic(), set(models)
        fair = ceil(len(models) / self._alive()) if models else 0
        kept = sorted(self._held & set(models))[:fair]
        for model in self._held - set(kept):
            self._leave(keys=[keys.lease(model)], args=[self.name])
        held: set[str] = set()
        for model in [*kept, *(m for m in models if m not in kept)]:
            if len(held) < fair and self._take(keys=[keys.lease(model)], args=[self.name, _MS]):
                held.add(model)
        self._held = held
        return held

    def give_up(self) -> None:
        """Leave everything, so that others need not wait."""
        for model in self._held:
            self._leave(keys=[keys.lease(model)], args=[self.name])
        self._client.zrem(keys.MONITORS, self.name)
        self._held = set()

    def _alive(self) -> int:
        """How many monitors there are, this one included."""
        seconds, microseconds = self._client.time()
        now = seconds + microseconds / 1e6  # Redis' clock: ours may differ from others'
        pipeline = self._client.pipeline()
        pipeline.zadd(keys.MONITORS, {self.name: now})
        pipeline.zremrangebyscore(keys.MONITORS, "-inf", now - PATIENCE)
        pipeline.zcard(keys.MONITORS)
        return cast(int, pipeline.execute()[-1])
