"""Counts what a slice of the stream says. Pure: entries and the ledger's pages in, panes out.

A pane holds what one slice adds to a window: of one version, in one role, in one hour.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.comparator import AGREE
from models.contract import wire
from models.contract.records import ID_BYTES, TRACE_BYTES, Entry, Outcome, Rows, Said, Tally
from models.latency import BUCKETS
from models.manifest import UNKNOWN_CLASS, Manifest
from models.manifest import Said as Opinion
from models.prediction_id import HOUR_MS
from models.profile import feature_values
from models.signature import Array
from models.version import Role
from monitoring.window import (
    GRID,
    KINDS,
    MICRO,
    PAIR,
    PAIRED,
    SCORES,
    Floats,
    Layout,
    PairLayout,
    Vector,
)

#: Disagreements of a slice that are kept as examples.
EXAMPLES = 50
#: Scores are kept away from 0 and 1 by this before a logarithm is taken.
EPSILON = 1e-7


class PaneKey(NamedTuple):
    """Whose counts, and of which hour since 1970."""

    version: int
    role: str
    hour: int


class Disagreement(NamedTuple):
    """A prediction on which a shadow and its primary said different things."""

    id: bytes
    shadow: int
    row: int
    primary_score: float
    shadow_score: float


@dataclass
class Folded:
    """What a slice of the stream comes to."""

    panes: dict[PaneKey, Vector] = field(default_factory=dict)
    outcomes: dict[bytes, Outcome] = field(default_factory=dict)
    totals: Counter[str] = field(default_factory=Counter)
    joined: list[bytes] = field(default_factory=list)  # trace contexts of labels that were joined
    disagreements: list[Disagreement] = field(default_factory=list)


class _Truth(NamedTuple):
    """A label that met a prediction; `sign` is -1 where a later label takes it back."""

    key: PaneKey
    score: float
    said: int
    label: int
    sign: int


class Fold:
    """Folds entries in the order of the stream. `known` holds the ledger's pages they touch."""

    def __init__(self, layouts: dict[int, Layout], known: dict[bytes, Outcome]) -> None:
        self._layouts = layouts
        self._pair = PairLayout()
        self._known = known
        self._result = Folded()
        self._rows: dict[tuple[int, str], list[_Batch]] = {}
        self._truths: list[_Truth] = []

    def run(self, entries: Iterable[Entry]) -> Folded:
        for entry in entries:
            for tally in entry.tallies:
                self._tally(tally)
            for rows in entry.rows:
                self._add_rows(rows)
            for label in entry.feedback:
                self._label(label.id, label.row, label.label)
        for (version, role), batches in self._rows.items():
            self._fold_rows(version, role, batches)
        self._fold_truths()
        return self._result

    def pane(self, version: int, role: str, hour: int) -> Vector:
        key = PaneKey(version, role, hour)
        vector = self._result.panes.get(key)
        if vector is None:
            layout = self._pair if role in PAIRED else self._layouts[version]
            vector = self._result.panes[key] = layout.zeros()
        return vector

    def _tally(self, tally: Tally) -> None:
        if tally.role == Role.FLOOR:
            return  # nobody asked for these; only their agreement counts
        layout = self._layouts[tally.version]
        vector = self.pane(tally.version, tally.role, tally.hour)
        kind = KINDS.index(tally.kind) if tally.kind in KINDS else 2
        vector[layout.sections["requests"].start + kind] += tally.requests
        latency = vector[layout.sections["latency"]]
        for bucket, count in tally.latency.items():
            latency[min(bucket, BUCKETS - 1)] += count
        self._result.totals["requests"] += tally.requests

    # --- predictions -------------------------------------------------------------------------

    def _add_rows(self, rows: Rows) -> None:
        batch = _Batch.of(rows, self._layouts[rows.version].manifest)
        if rows.role == Role.FLOOR:
            self._fold_floor(rows, batch)
            return
        self._rows.setdefault((rows.version, rows.role), []).append(batch)
        self._result.totals["rows"] += len(batch.hours)
        primary = self._layouts.get(rows.primary_version)
        comparable = rows.primary_outputs or rows.agree
        if rows.role == "shadow" and primary is not None and comparable:
            self._fold_pairs(rows, batch, primary.manifest)
        for identifier, hour, trace, scores, classes in batch.predictions(rows):
            page = self._page(identifier)
            page.hour, page.trace = hour, trace or page.trace
            said = Said(rows.version, rows.role, scores, classes)
            page.said = [*page.said, said]
            for row, label in page.labels.items():
                self._join(page, said, row, label, 1)
                self._join_pair(page, row, label, 1)
                self._result.totals["labels_waiting"] -= len(page.said) == 1

    def _fold_rows(self, version: int, role: str, batches: list[_Batch]) -> None:
        layout = self._layouts[version]
        hours = np.concatenate([batch.hours for batch in batches])
        scores = np.concatenate([batch.scores for batch in batches])
        classes = np.concatenate([batch.classes for batch in batches])
        span = _Hours(hours)
        for i, vector in enumerate(self.pane(version, role, int(h)) for h in span.hours):
            vector[layout.sections["rows"]] += span.counts[i]
        there = ~np.isnan(scores)
        known = len(layout.manifest.classes)
        self._spread(version, role, "classes", hours, np.where(classes < 0, known, classes))
        self._add_sums(version, role, hours[there], scores[there])
        if layout.profile is None:
            return
        if layout.profile.score is not None:
            self._spread(version, role, "score", hours, layout.profile.score.index(scores))
        for feature, profile in zip(layout.manifest.features, layout.profile.features, strict=True):
            parts = [
                (batch.hours, values)
                for batch in batches
                if (values := feature_values(feature, batch.inputs, len(batch.hours))) is not None
            ]
            if parts:
                values = np.concatenate([part[1] for part in parts])
                index = profile.bins.index(values)  # type: ignore[arg-type]
                at = np.concatenate([part[0] for part in parts])
                self._spread(version, role, f"feature:{profile.name}", at, index)

    def _spread(self, version: int, role: str, section: str, hours: Vector, index: Array) -> None:
        """Count `index` into a section of the pane of each row's hour."""
        where = self._layouts[version].sections[section]
        width = where.stop - where.start
        span = _Hours(hours)
        flat = np.bincount(span.inverse * width + index, minlength=len(span.hours) * width)
        for hour, counts in zip(span.hours, flat.reshape(-1, width), strict=True):
            self.pane(version, role, int(hour))[where] += counts

    def _add_sums(
        self, version: int, role: str, hours: Vector, scores: npt.NDArray[np.float64]
    ) -> None:
        where = self._layouts[version].sections["said"]
        span = _Hours(hours)
        micro = np.round(np.clip(scores, -1e6, 1e6) * MICRO).astype(np.int64)
        for i, hour in enumerate(span.hours):
            total = micro[span.inverse == i].sum()
            self.pane(version, role, int(hour))[where] += (span.counts[i], total)

    def _fold_pairs(self, rows: Rows, batch: _Batch, primary: Manifest) -> None:
        other = primary.said(wire.arrays(rows.primary_outputs), len(batch.hours))
        agree = _agreeing(rows, batch, other, primary)
        self._fold_differences(rows, batch, ~agree, other.scores)
        distance = np.nan_to_num(np.abs(batch.scores - other.scores), posinf=0, neginf=0)
        micro = np.round(distance * MICRO).astype(np.int64)
        shadow_us = np.frombuffer(rows.latency_us, "<u4")
        primary_us = np.frombuffer(rows.primary_latency_us, "<u4")
        for hour in np.unique(batch.hours):
            vector = self.pane(rows.version, PAIR, int(hour))
            here = batch.hours == hour
            vector[self._pair.sections["rows"]] += (here.sum(), agree[here].sum())
            vector[self._pair.sections["distance"]] += micro[here].sum()
            self._fold_scores(vector, primary, other.scores[here], batch.scores[here])
            requests = batch.request_hours == hour
            for name, values in (("primary", primary_us), ("shadow", shadow_us)):
                where = self._pair.sections[f"latency_{name}"]
                vector[where] += _latency_counts(values[requests])

    def _fold_floor(self, rows: Rows, batch: _Batch) -> None:
        """The champion beside itself: how alike two answers of one version are."""
        manifest = self._layouts[rows.version].manifest
        other = manifest.said(wire.arrays(rows.primary_outputs), len(batch.hours))
        agree = _agreeing(rows, batch, other, manifest)
        for hour in np.unique(batch.hours):
            here = batch.hours == hour
            vector = self.pane(rows.version, Role.FLOOR, int(hour))
            vector[self._pair.sections["rows"]] += (here.sum(), agree[here].sum())

    def _fold_scores(
        self, vector: Vector, primary: Manifest, before: Floats, after: Floats
    ) -> None:
        lost = ~np.isfinite(after) & np.isfinite(before)
        vector[self._pair.sections["non_finite"]] += lost.sum()
        if primary.task != "binary":
            return
        for name, scores in (("primary", before), ("shadow", after)):
            there = scores[np.isfinite(scores)]
            bins = np.clip((there * SCORES).astype(np.int64), 0, SCORES - 1)
            where = self._pair.sections[f"score_{name}"]
            vector[where] += np.bincount(bins, minlength=SCORES)

    def _fold_differences(
        self, rows: Rows, batch: _Batch, differ: npt.NDArray[np.bool_], before: Floats
    ) -> None:
        """Where a shadow disagrees: counts by feature, and a few examples."""
        if not differ.any():
            return
        layout = self._layouts[rows.version]
        hours = batch.hours[differ]
        features = layout.profile.features if layout.profile else ()
        for feature, profile in zip(layout.manifest.features, features, strict=False):
            values = feature_values(feature, batch.inputs, len(batch.hours))
            if values is not None:
                index = profile.bins.index(values[differ])  # type: ignore[arg-type]
                self._spread(rows.version, rows.role, f"differ:{profile.name}", hours, index)
        starts = np.cumsum(batch.counts) - batch.counts
        kept = self._result.disagreements
        for at in np.flatnonzero(differ)[: EXAMPLES - len(kept)].tolist():
            request = int(np.searchsorted(starts, at, side="right")) - 1
            identifier = rows.ids[request * ID_BYTES : (request + 1) * ID_BYTES]
            row = at - int(starts[request])
            scores = float(before[at]), float(batch.scores[at])
            kept.append(Disagreement(identifier, rows.version, row, *scores))

    # --- labels ------------------------------------------------------------------------------

    def _page(self, identifier: bytes) -> Outcome:
        page = self._result.outcomes.get(identifier)
        if page is None:
            page = self._known.get(identifier) or Outcome()
            self._result.outcomes[identifier] = page
        return page

    def _label(self, identifier: bytes, row: int, written: str | int | float | bool) -> None:
        totals = self._result.totals
        page = self._page(identifier)
        label = self._class_of(page, written)
        totals["labels"] += 1
        if label == UNKNOWN_CLASS:
            totals["labels_unknown"] += 1
            return
        before = page.labels.get(row)
        if before == label:
            totals["labels_repeated"] += 1
            return
        if before is not None:
            totals["labels_changed"] += 1
            self._count(page, row, before, -1)
        elif not page.said:
            totals["labels_waiting"] += 1
        page.labels = {**page.labels, row: label}
        self._count(page, row, label, 1)
        if page.said and page.trace:
            self._result.joined.append(page.trace)

    def _class_of(self, page: Outcome, written: str | int | float | bool) -> int:
        """The label's index by the version that answered; by the newest where none has yet."""
        version = page.said[0].version if page.said else max(self._layouts)
        layout = self._layouts.get(version)
        return layout.manifest.class_index(written) if layout else UNKNOWN_CLASS

    def _count(self, page: Outcome, row: int, label: int, sign: int) -> None:
        for said in page.said:
            self._join(page, said, row, label, sign)
        if len(page.said) > 1:
            self._join_pair(page, row, label, sign)

    def _join(self, page: Outcome, said: Said, row: int, label: int, sign: int) -> None:
        if row >= len(said.classes):
            self._result.totals["labels_no_such_row"] += sign
            return
        key = PaneKey(said.version, said.role, page.hour)
        self._truths.append(_Truth(key, said.scores[row], said.classes[row], label, sign))

    def _join_pair(self, page: Outcome, row: int, label: int, sign: int) -> None:
        shadow = next((said for said in page.said if said.role == "shadow"), None)
        primary = next((said for said in page.said if said.role != "shadow"), None)
        if shadow is None or primary is None or row >= len(primary.classes):
            return
        right = (primary.classes[row] == label, shadow.classes[row] == label)
        slot = {(True, True): 0, (True, False): 1, (False, True): 2, (False, False): 3}[right]
        vector = self.pane(shadow.version, PAIR, page.hour)
        vector[self._pair.sections["right"].start + slot] += sign

    def _fold_truths(self) -> None:
        for truth in self._truths:
            layout = self._layouts[truth.key.version]
            vector = self.pane(*truth.key)
            classes = len(layout.manifest.classes)
            said = truth.said if truth.said >= 0 else classes
            at = layout.sections["confusion"].start + truth.label * (classes + 1) + said
            vector[at] += truth.sign
            if layout.manifest.task == "binary" and truth.score == truth.score:
                _add_score(vector, layout, truth)


def _add_score(vector: Vector, layout: Layout, truth: _Truth) -> None:
    bin_ = min(max(int(truth.score * GRID), 0), GRID - 1)
    vector[layout.sections["labelled"].start + truth.label * GRID + bin_] += truth.sign
    score = min(max(truth.score, EPSILON), 1 - EPSILON)
    loss = -np.log(score if truth.label == 1 else 1 - score)
    where = layout.sections["loss"]
    sums = (1.0, loss, (truth.score - truth.label) ** 2, truth.score)
    whole = [1, *(round(float(value) * MICRO) for value in sums[1:])]
    vector[where] += np.array(whole, np.int64) * truth.sign


class _Hours:
    """The distinct hours of some rows, how many rows each has, and which row is in which."""

    def __init__(self, hours: Vector) -> None:
        self.hours, self.inverse, self.counts = np.unique(
            hours, return_inverse=True, return_counts=True
        )


@dataclass
class _Batch:
    """Rows unpacked; everything per row but `request_hours` and `counts`, which are per request."""

    hours: Vector
    request_hours: Vector
    counts: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int32]
    inputs: dict[str, Array]

    @classmethod
    def of(cls, rows: Rows, manifest: Manifest) -> _Batch:
        counts = np.frombuffer(rows.rows, "<u4").astype(np.int64)
        hours = np.frombuffer(rows.event_ms, "<i8") // HOUR_MS
        said = manifest.said(wire.arrays(rows.outputs), int(counts.sum()))
        return cls(
            hours=np.repeat(hours, counts),
            request_hours=hours,
            counts=counts,
            scores=said.scores,
            classes=said.classes,
            inputs=wire.arrays(rows.inputs),
        )

    def predictions(self, rows: Rows) -> Iterator[tuple[bytes, int, bytes, list[float], list[int]]]:
        """Id, hour, trace, scores and classes of each request."""
        scores, classes = self.scores.tolist(), self.classes.tolist()
        start = 0
        for i, (count, hour) in enumerate(
            zip(self.counts.tolist(), self.request_hours.tolist(), strict=True)
        ):
            trace = rows.traces[i * TRACE_BYTES : (i + 1) * TRACE_BYTES]
            yield (
                rows.ids[i * ID_BYTES : (i + 1) * ID_BYTES],
                hour,
                trace if any(trace) else b"",
                scores[start : start + count],
                classes[start : start + count],
            )
            start += count


def _agreeing(
    rows: Rows, batch: _Batch, other: Opinion, primary: Manifest
) -> npt.NDArray[np.bool_]:
    """On which rows both said the same: as the gateway compared them, else the same class."""
    if rows.agree:
        return np.asarray(np.frombuffer(rows.agree, np.uint8) == AGREE)
    if not primary.classes:  # the same score to six digits
        return np.isclose(batch.scores, other.scores, rtol=1e-6, equal_nan=False)
    return np.asarray((batch.classes == other.classes) & (batch.classes != UNKNOWN_CLASS))


def touched(entries: Iterable[Entry]) -> set[bytes]:
    """The prediction ids whose pages a slice reads or writes."""
    ids: set[bytes] = set()
    for entry in entries:
        for rows in entry.rows:
            if rows.role != Role.FLOOR:
                ids.update(rows.ids[at : at + ID_BYTES] for at in range(0, len(rows.ids), ID_BYTES))
        ids.update(label.id for label in entry.feedback)
    return ids


def versions_of(entries: Iterable[Entry]) -> set[int]:
    """The versions that a slice speaks of."""
    found: set[int] = set()
    for entry in entries:
        found.update(rows.version for rows in entry.rows)
        found.update(rows.primary_version for rows in entry.rows if rows.primary_version)
        found.update(tally.version for tally in entry.tallies)
    return found


def _latency_counts(microseconds: npt.NDArray[np.uint32]) -> Vector:
    octaves = np.log2(np.maximum(microseconds, 1).astype(np.float64))
    index = np.minimum((octaves * (BUCKETS // 26)).astype(np.int64), BUCKETS - 1)
    return np.bincount(index, minlength=BUCKETS)
