"""What operators ask of one worker, passed on to the others: load this, unload that.

A worker that starts has loaded everything, and follows the orders that come from then on.
"""

from __future__ import annotations

import logging
import uuid
from typing import Any, Literal, NamedTuple, cast

import redis.asyncio

from models.contract import keys
from service.recorder import AWAY

log = logging.getLogger("slipstream.orders")

#: Orders that are kept, for workers that were cut off for a while.
KEPT = 1_000

Action = Literal["load", "unload"]


class Order(NamedTuple):
    """Load or unload a version of a model, or, without a number, what there is of it."""

    action: Action
    model: str
    number: int | None


class Orders:
    """Gives orders to the other workers, and hears theirs."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._name = uuid.uuid4().hex
        self._heard: str | None = None

    async def give(self, order: Order) -> bool:
        """Pass on what was done here; False where nobody can be told."""
        number = "" if order.number is None else str(order.number)
        fields = {"by": self._name, "do": order.action, "model": order.model, "version": number}
        try:
            await self._client.xadd(keys.ORDERS, cast(Any, fields), maxlen=KEPT, approximate=True)
        except AWAY as error:
            log.warning("only this worker could %s %s: %s", order.action, order.model, error)
            return False
        return True

    async def heard(self) -> list[Order]:
        """What the others were asked since the last look; nothing at the first one.

        Raises redis' errors where it is away.
        """
        if self._heard is None:
            last = cast(list[Any], await self._client.xrevrange(keys.ORDERS, count=1))
            self._heard = last[0][0].decode() if last else "0-0"
            return []
        found = cast(list[Any], await self._client.xrange(keys.ORDERS, f"({self._heard}", "+"))
        if found:
            self._heard = found[-1][0].decode()
        return [_order(fields) for _, fields in found if fields[b"by"].decode() != self._name]


def _order(fields: dict[bytes, bytes]) -> Order:
    number = fields[b"version"].decode()
    action = cast(Action, fields[b"do"].decode())
    return Order(action, fields[b"model"].decode(), int(number) if number else None)
