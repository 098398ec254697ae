"""Replays flights in the order of the year, each outcome sent when it would have been known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import aiohttp
import numpy as np
import polars

from examples.flights.data import CATEGORICAL, FEATURES
from slipstream.client import encode

#: Requests in flight at a time.
CONNECTIONS = 16
#: Labels in one call to the gateway.
LABELS = 500
#: Requests that the shadow may be behind. It drops what it cannot follow, which is right in
#: production; here every flight is to be seen by both versions.
BEHIND = 1_000

Progress = Callable[[int], None]


@dataclass
class Replayed:
    """What became of a replay."""

    predictions: int = 0
    labels: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Replay:
    """Sends `frame`, whose rows are in the order of their event time.

    `complete`: waits now and then, so that a shadow sees every flight.
    """

    def __init__(
        self,
        url: str,
        model: str,
        frame: polars.DataFrame,
        rate: float | None,
        complete: bool = True,
    ) -> None:
        self._infer = f"{url}/v2/models/{model}/infer"
        self._feedback = f"{url}/v2/models/{model}/feedback"
        self._metrics = f"{url}/metrics"
        self._rate = rate
        self._complete = complete
        self._columns = [_column(frame, name) for name in FEATURES]
        self._event_ms = frame["event_ms"].to_numpy()
        known = frame["known_ms"].fill_null(np.iinfo(np.int64).max).to_numpy()
        labelled = frame["late"].is_not_null().to_numpy()
        self._late = frame["late"].fill_null(0).to_numpy()
        order = np.argsort(known, kind="stable")
        self._due = [(int(known[i]), int(i)) for i in order if labelled[i]]
        self._ids: list[str | None] = [None] * len(frame)
        self._next_label = 0
        self.result = Replayed()

    async def run(self, progress: Progress) -> Replayed:
        started = time.monotonic()
        rows = iter(range(len(self._ids)))
        connector = aiohttp.TCPConnector(limit=CONNECTIONS + 1)
        async with aiohttp.ClientSession(connector=connector) as session:
            workers = [self._send(session, rows, started, progress) for _ in range(CONNECTIONS)]
            await asyncio.gather(*workers)
            while await self._send_labels(session, None):
                pass
        self.result.seconds = time.monotonic() - started
        return self.result

    async def _send(
        self,
        session: aiohttp.ClientSession,
        rows: Iterator[int],
        started: float,
        progress: Progress,
    ) -> None:
        for row in rows:
            if self._rate:
                await asyncio.sleep(max(started + row / self._rate - time.monotonic(), 0))
            await self._predict(session, row)
            progress(1)
            if row % LABELS == 0:
                await self._send_labels(session, int(self._event_ms[row]))
                if self._complete:
                    await self._wait_for_shadow(session)

    async def _wait_for_shadow(self, session: aiohttp.ClientSession) -> None:
        for _ in range(600):
            async with session.get(self._metrics) as answer:
                seen = _shadowed(await answer.text())
            if seen is None or self.result.predictions - seen < BEHIND:
                return
            await asyncio.sleep(0.05)

    async def _predict(self, session: aiohttp.ClientSession, row: int) -> None:
        inputs = {name: c[row : row + 1] for name, c in zip(FEATURES, self._columns, strict=True)}
        body, length = encode(inputs)
        moment = datetime.fromtimestamp(self._event_ms[row] / 1000, UTC)
        headers = {
            "inference-header-content-length": str(length),
            "x-event-time": moment.isoformat(),
        }
        async with session.post(self._infer, data=body, headers=headers) as answer:
            if answer.status != 200:
                self.result.failures.append(await answer.text())
                return
            await answer.read()
            self._ids[row] = answer.headers["x-prediction-id"]
            self.result.predictions += 1

    async def _send_labels(self, session: aiohttp.ClientSession, now: int | None) -> bool:
        """Send the outcomes known by `now` (None: all that are left); False where none is due."""
        batch: list[dict[str, object]] = []
        while self._next_label < len(self._due) and len(batch) < 10 * LABELS:
            known, row = self._due[self._next_label]
            if now is not None and (known > now or self._ids[row] is None):
                break
            self._next_label += 1
            if self._ids[row] is not None:
                at = datetime.fromtimestamp(known / 1000, UTC).isoformat()
                label = int(self._late[row])
                batch.append({"prediction_id": self._ids[row], "label": label, "at": at})
        if not batch:
            return False
        async with session.post(self._feedback, json={"feedback": batch}) as answer:
            told = await answer.json()
        self.result.labels += told.get("accepted", 0)
        self.result.failures += [str(each) for each in told.get("rejected", [told.get("error")])]
        return True


def _shadowed(metrics: str) -> int | None:
    """Requests that the shadow is done with, one way or another; None where there is none."""
    lines = [line for line in metrics.splitlines() if line.startswith("slipstream_shadow_total{")]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines) if lines else None


def _column(
    frame: polars.DataFrame, name: str
) -> np.ndarray[tuple[int, int], np.dtype[np.generic]]:
    """One feature as the tensor that the model takes: shape [rows, 1]."""
    if name in CATEGORICAL:
        return frame[name].fill_null("").to_numpy().astype(object).reshape(-1, 1)
    return frame[name].cast(polars.Float32).to_numpy().astype(np.float32).reshape(-1, 1)
