"""All windows of one model in memory, and what a folded slice changes about them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from redis.exceptions import RedisError

from models.contract.records import Entry
from models.errors import SlipstreamError
from models.manifest import Manifest
from models.repository import Repository
from models.version import ModelVersion
from monitoring.fold import Fold, Folded, touched, versions_of
from monitoring.stream import (
    DAYS_KEPT,
    HOURS_A_DAY,
    HOURS_KEPT,
    Overtaken,
    Progress,
    Slice,
    Store,
    WindowKey,
)
from monitoring.window import PAIRED, Layout, PairLayout, Vector, Window

log = logging.getLogger("slipstream.history")

T = TypeVar("T")

#: Most entries, and about how many rows and panes, that are folded at a time: a seal stays small,
#: and so does the memory that it takes.
SLICE, SLICE_ROWS, SLICE_PANES = 200, 8_000, 500


class History:
    """The windows of one model. One monitor writes it; reading is free."""

    def __init__(self, model: str, store: Store, repository: Repository) -> None:
        self.model = model
        self.layouts: dict[int, Layout] = {}
        self.missing: dict[int, str] = {}
        self._store = store
        self._repository = repository
        self._pair = PairLayout()
        self._stamps: Counter[int] = Counter()
        self._kept: dict[Any, tuple[int, Any]] = {}
        self._count = 10
        self._reload()

    def _reload(self) -> None:
        self.progress = self._store.progress(self.model)
        self._stamps[0] += 1
        self.windows: dict[WindowKey, Vector] = {}
        for number in self._repository.versions(self.model):
            self.learn(number)
        for version, role in self._store.groups(self.model):
            self.learn(version)
            for grain in ("day", "hour"):
                stored = self._store.windows(self.model, grain, version, role)
                layout = self.layout(version, role)
                for start, vector in stored.items():
                    key = WindowKey(grain, version, role, start)
                    self.windows[key] = layout.fitted(vector)

    def refresh(self) -> bool:
        """Read again what another monitor has folded meanwhile; False where there is nothing."""
        if self._store.progress(self.model).cursor == self.progress.cursor:
            return False
        self._reload()
        return True

    def learn(self, number: int) -> None:
        """Read manifest and profile of a version, which never change."""
        if number in self.layouts:
            return
        version = ModelVersion(self.model, number)
        try:
            package = self._repository.open(version)
            self.layouts[number] = Layout(package.manifest, package.profile)
            self.missing[number] = package.missing
        except SlipstreamError as error:
            self.layouts[number] = Layout(Manifest(self.model, number, ""), None)
            self.missing[number] = f"{error}: only traffic and latency are monitored"

    # --- follow ------------------------------------------------------------------------------

    def step(self) -> Folded | None:
        """Fold and seal the next slice; None where there is nothing new."""
        try:
            return self._step(self._count)
        except Overtaken:
            self._reload()
            return None
        except (RedisError, OSError):
            raise
        except Exception:
            log.exception(
                "a slice of %s does not fold; its entries are tried one by one", self.model
            )
            return self._step_carefully()

    def _step_carefully(self) -> Folded | None:
        """Fold one entry; step over it where even that fails, and count it."""
        try:
            return self._step(1)
        except (Overtaken, RedisError, OSError):
            raise
        except Exception:
            log.exception("an entry of %s cannot be folded and is stepped over", self.model)
            found = self._store.read(self.model, self.progress.cursor, 1)
            assert found is not None
            return self._seal(found._replace(entries=[], unreadable=1), Folded())

    def _step(self, count: int) -> Folded | None:
        found = self._store.read(self.model, self.progress.cursor, count)
        if found is None:
            return None
        for number in versions_of(found.entries):
            self.learn(number)
        if not self.layouts:
            self.learn(1)  # a label came before any version was seen
        known = self._store.pages(self.model, touched(found.entries))
        folded = Fold(self.layouts, known).run(found.entries)
        entries = len(found.entries)
        by_rows = SLICE_ROWS * entries // max(folded.totals["rows"], 1)
        by_panes = SLICE_PANES * entries // max(len(folded.panes), 1)
        self._count = max(min(by_rows, by_panes, SLICE, 2 * self._count), 1)
        return self._seal(found, folded)

    def _seal(self, found: Slice, folded: Folded) -> Folded:
        after = advanced(self.progress, found.entries, found.cursor, folded)
        after.totals["unreadable"] += found.unreadable
        changed = self._changed(folded)
        stale = self._stale(changed)
        self._store.seal(self.model, self.progress, after, changed, stale, folded)
        self.windows.update(changed)
        for key in stale:
            self.windows.pop(key, None)
        self._stamps.update(key.start for key in changed if key.grain == "day")
        self.progress = after
        return folded

    def _changed(self, folded: Folded) -> dict[WindowKey, Vector]:
        changed: dict[WindowKey, Vector] = {}
        newest = max([key.hour for key in folded.panes] + [self.newest("hour")], default=0)
        for pane, vector in folded.panes.items():
            keys = [WindowKey("day", pane.version, pane.role, pane.hour // HOURS_A_DAY)]
            if pane.hour > newest - HOURS_KEPT:
                keys.append(WindowKey("hour", pane.version, pane.role, pane.hour))
            for key in keys:
                before = changed.get(key, self.windows.get(key))
                changed[key] = vector if before is None else before + vector
        return changed

    def _stale(self, changed: dict[WindowKey, Vector]) -> list[WindowKey]:
        newest = {"hour": self.newest("hour"), "day": self.newest("day")}
        for key in changed:
            newest[key.grain] = max(newest[key.grain], key.start)
        kept = {"hour": HOURS_KEPT, "day": DAYS_KEPT}
        return [k for k in self.windows if k.start <= newest[k.grain] - kept[k.grain]]

    # --- read --------------------------------------------------------------------------------

    def newest(self, grain: str) -> int:
        """Start of the newest window; 0 where there is none."""
        return max((key.start for key in self.windows if key.grain == grain), default=0)

    def oldest(self, grain: str) -> int:
        return min((key.start for key in self.windows if key.grain == grain), default=0)

    def layout(self, version: int, role: str) -> Layout:
        return self._pair if role in PAIRED else self.layouts[version]

    def window(
        self, version: int, roles: Iterable[str], grain: str, first: int, last: int
    ) -> Window:
        """The sum of the windows from `first` to `last`, both included."""
        roles = tuple(roles)
        layout = self.layout(version, roles[0])
        vectors = [
            vector
            for start in range(first, last + 1)
            for role in roles
            if (vector := self.windows.get(WindowKey(grain, version, role, start))) is not None
        ]
        return Window(layout, np.sum(vectors, axis=0) if vectors else layout.zeros())

    def total(self, version: int, role: str) -> Window:
        """Everything that is kept of a version in a role."""
        return self.window(version, (role,), "day", self.oldest("day"), self.newest("day"))

    def measured(
        self,
        version: int,
        roles: Sequence[str],
        first: int,
        last: int,
        measure: Callable[[Window], T],
    ) -> T:
        """`measure` of the window from day `first` to `last`, computed once until it changes."""
        key = (version, tuple(roles), first, last, measure)
        stamp = self.stamp(first, last)
        kept = self._kept.get(key)
        if kept is None or kept[0] != stamp:
            kept = stamp, measure(self.window(version, roles, "day", first, last))
            self._kept[key] = kept
        value: T = kept[1]
        return value

    def stamp(self, first: int, last: int) -> int:
        """Rises whenever one of these days changes; what was computed from them may be kept."""
        return self._stamps[0] + sum(self._stamps[day] for day in range(first, last + 1))

    def versions(self) -> list[int]:
        return sorted(self.layouts)

    def roles(self, version: int) -> list[str]:
        return sorted({key.role for key in self.windows if key.version == version} - {*PAIRED})


def advanced(before: Progress, entries: Iterable[Entry], cursor: str, folded: Folded) -> Progress:
    """Progress after a slice. A gap in a worker's sequence is an entry that was lost."""
    after = Progress(
        cursor, before.totals + folded.totals, dict(before.sequences), dict(before.dropped)
    )
    for entry in entries:
        last = after.sequences.pop(entry.worker, None)
        if last is not None:
            after.totals["entries_lost"] += max(entry.sequence - last - 1, 0)
        after.sequences[entry.worker] = entry.sequence
        after.dropped[entry.worker] = entry.dropped
    after.totals["dropped"] = sum(after.dropped.values())
    return after
