"""Keeps the watch over versions: which windows have closed, which have their labels; in Redis, so
that a monitor that starts anew goes on where the last one was."""

from __future__ import annotations

import logging
from typing import cast

import msgspec
import numpy as np
import redis

from models.contract import keys
from monitoring import watch
from monitoring.history import History
from monitoring.rules import Rules
from monitoring.stats.detector import Budget
from monitoring.stats.maturity import mature, plateau
from monitoring.watch import REMEMBERED, Watched
from monitoring.window import ANSWERING, Window

log = logging.getLogger("slipstream.watcher")

A_DAY = {"day": 1, "hour": 24}
#: Days before, against which a fault is sudden or not.
RECENT = 7
#: Days after which a window is graded with what labels there are.
PATIENCE = 7
#: Days from which the usual coverage of labels is taken; of hours there are three.
COVERED = {"day": 28, "hour": 3}
#: Windows that are looked at in one step: a monitor that catches up leaves others their turn.
AT_ONCE = 20


class Watcher:
    """One state per model and version. To be used by whoever follows the model."""

    def __init__(self, client: redis.Redis, rules: Rules) -> None:
        self._client = client
        self._rules = rules
        self._grain = rules.windows.grain
        self._a_day = A_DAY[self._grain]
        self._kept: dict[tuple[str, int], Watched] = {}

    def step(self, history: History, version: int) -> Watched:
        """Look at every window that has closed since, and grade those that have their labels."""
        try:
            return self._step(history, version)
        except ValueError:
            log.exception("what was remembered of %s v%d does not fit", history.model, version)
            state = self._first(history, version)
            self._keep(history.model, version, state)
            return state

    def _step(self, history: History, version: int) -> Watched:
        before = self.state(history, version)
        state = before
        newest = history.newest(self._grain)
        if history.layouts[version].profile is not None and newest:
            level = self.level(history, version)
            state = watch.skipped(state, newest - REMEMBERED)
            for start in range(state.next, min(newest, state.next + AT_ONCE)):
                state = self._look(state, history, version, start, level)
            if state.next == newest:
                recent = self._before(history, version, newest)
                state = watch.peek(state, self._at(history, version, newest), recent, level)
            state = self._grade(state, history, version, level)
        if state != before:
            self._keep(history.model, version, state)
        return state

    def level(self, history: History, version: int) -> Budget:
        """What may be spent, by the labels that come in a day."""
        last = history.newest("day")
        days = [
            history.window(version, ANSWERING, "day", day, day)
            for day in range(last - COVERED["day"] + 1, last + 1)
        ]
        there = sum(1 for day in days if day["rows"].sum())
        labels = float(sum(day["confusion"].sum() for day in days)) / max(there, 1)
        return watch.levels(self._rules, self._a_day, labels)

    def moves(self, state: Watched, history: History, version: int) -> bool:
        """Whether the p-values of many windows together say that inputs have moved."""
        return watch.persists(state.moved, self.level(history, version).digest.windows)

    def lasting(self, state: Watched, history: History, version: int) -> bool:
        """Whether errors have risen for good."""
        layout = history.layouts[version]
        return watch.harms(state, layout, self._rules, self.level(history, version))

    def _look(
        self, state: Watched, history: History, version: int, start: int, level: Budget
    ) -> Watched:
        window = self._at(history, version, start)
        recent = self._before(history, version, start)
        return watch.look(state, start, window, recent, level)

    def _grade(self, state: Watched, history: History, version: int, level: Budget) -> Watched:
        """A window is graded once the next one has closed, too, and its labels have come."""
        newest = history.newest(self._grain)
        last = min(newest - 1, state.next, state.to_grade + AT_ONCE)
        while state.to_grade < last:
            start = state.to_grade
            ripe = newest - start > PATIENCE * self._a_day or self._ripe(history, version, start)
            if not ripe:
                break
            window = self._at(history, version, start)
            state = watch.grade(state, start, window, self._rules, level)
        return state

    def _ripe(self, history: History, version: int, start: int) -> bool:
        covered = COVERED[self._grain] * self._a_day
        windows = [self._at(history, version, w) for w in range(start - covered, start + 1)]
        labels = np.array([window["confusion"].sum() for window in windows])
        rows = np.array([window["rows"].sum() for window in windows])
        return bool(mature(labels[-1:], rows[-1:], plateau(labels, rows))[0])

    def _before(self, history: History, version: int, start: int) -> Window:
        """The week before a window."""
        return self._sum(history, version, start - RECENT * self._a_day, start - 1)

    def _at(self, history: History, version: int, start: int) -> Window:
        return self._sum(history, version, start, start)

    def _sum(self, history: History, version: int, first: int, last: int) -> Window:
        return history.window(version, ANSWERING, self._grain, first, last)

    # --- state -------------------------------------------------------------------------------

    def state(self, history: History, version: int) -> Watched:
        """What is remembered; from the version's first window where nothing is."""
        name = history.model, version
        kept = self._kept.get(name)
        if kept is None:
            stored = self._client.hget(keys.watch(history.model), str(version))
            kept = self._read(cast("bytes | None", stored))
            if kept is None:
                return self._first(history, version)
            self._kept[name] = kept
        return kept

    def _read(self, stored: bytes | None) -> Watched | None:
        if stored is None:
            return None
        try:
            return msgspec.msgpack.decode(stored, type=Watched)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            log.warning("what was remembered of past windows cannot be read; it begins anew")
            return None

    def _first(self, history: History, version: int) -> Watched:
        starts = [
            key.start
            for key in history.windows
            if key.grain == self._grain and key.version == version and key.role in ANSWERING
        ]
        first = min(starts, default=history.newest(self._grain))
        return Watched(next=first, to_grade=first)

    def _keep(self, model: str, version: int, state: Watched) -> None:
        self._client.hset(keys.watch(model), str(version), msgspec.msgpack.encode(state))
        self._kept[model, version] = state

    def forget(self, model: str) -> None:
        """Another monitor follows the model now; what it remembers is in Redis."""
        for name in [name for name in self._kept if name[0] == model]:
            del self._kept[name]
