"""Counts what a slice of the stream says. Pure: entries and the ledger's pages in, panes out.

A pane holds what one slice adds to a window: of one version, in one role, in one hour.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.comparator import AGREE
from models.contract import wire
from models.contract.records import ID_BYTES, TRACE_BYTES, Entry, Outcome, Rows, Said, Tally
from models.latency import BUCKETS
from models.manifest import UNKNOWN_CLASS, Manifest
from models.manifest import Said as Opinion
from models.prediction_id import HOUR_MS
from models.profile import feature_values, whole_rows
from models.signature import Array
from models.version import Role
from monitoring.grading import Grading, Truth
from monitoring.stats import kernel
from monitoring.window import (
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
#: One in so many requests is looked at as a whole.
ONE_IN = 8
#: Hours that are counted in one go: many of them, at a row each, would take much memory.
HOURS_AT_ONCE = 32
#: Scores further apart count as this far, so that sums have room.
LARGEST_DISTANCE = 1e6
#: The bin of a value that was not recorded; a profile has fewer bins.
NOWHERE = 255


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


class Fold:
    """Folds entries in the order of the stream. `known` holds the ledger's pages they touch."""

    def __init__(self, layouts: dict[int, Layout], known: dict[bytes, Outcome]) -> None:
        self._layouts = layouts
        self._pair = PairLayout()
        self._known = known
        self._result = Folded()
        self._rows: dict[tuple[int, str], list[_Batch]] = {}
        self._truths: dict[PaneKey, list[Truth]] = {}

    def run(self, entries: Iterable[Entry]) -> Folded:
        entries = list(entries)
        for entry in entries:
            for tally in entry.tallies:
                self._tally(tally)
            for rows in entry.rows:
                self._take(rows)
        for (version, role), batches in self._rows.items():
            self._index(version, role, batches)
            self._fold_rows(version, role, batches)
            for batch in batches:
                self._remember(version, role, batch)
        for entry in entries:
            for label in entry.feedback:
                self._label(label.id, label.row, label.label)
        for key, truths in self._truths.items():
            Grading(self._layouts[key.version], truths).add_to(self.pane(*key))
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

    def _take(self, rows: Rows) -> None:
        batch = _Batch.of(rows, self._layouts[rows.version].manifest)
        if rows.role == Role.FLOOR:
            self._fold_floor(batch)
            return
        self._rows.setdefault((rows.version, rows.role), []).append(batch)
        self._result.totals["rows"] += len(batch.hours)

    def _index(self, version: int, role: str, batches: list[_Batch]) -> None:
        """Look up bins and cells of every value, feature by feature for many batches at once."""
        layout = self._layouts[version]
        alike: dict[object, list[_Batch]] = {}
        for batch in batches:
            alike.setdefault(_form(batch.inputs), []).append(batch)
        profiles = layout.profile.features if layout.profile else ()
        for group in alike.values():
            inputs = {
                name: np.concatenate([batch.inputs[name] for batch in group])
                for name in group[0].inputs
            }
            size = sum(len(batch.hours) for batch in group)
            index = np.full((size, len(profiles)), NOWHERE, np.uint8)
            for at, profile in enumerate(profiles):
                values = feature_values(layout.manifest.features[at], inputs, size)
                if values is not None:
                    index[:, at] = profile.index(values)
            if layout.whole is not None:
                self._fold_whole(version, role, group, inputs)
            cells = _cells(index, layout)
            start = 0
            for batch in group:
                rows = slice(start, start + len(batch.hours))
                batch.index, batch.cells = index[rows], cells[rows]
                start = rows.stop

    def _fold_whole(
        self, version: int, role: str, group: list[_Batch], inputs: dict[str, Array]
    ) -> None:
        """Some requests' rows as a whole, chosen by their ids: always the same ones."""
        layout = self._layouts[version]
        profile, reference = layout.profile, layout.whole
        assert profile is not None
        assert profile.whole is not None
        assert reference is not None
        chosen = np.concatenate([batch.chosen for batch in group])
        hours = np.concatenate([batch.hours for batch in group])
        rows = whole_rows(profile.whole.input, layout.manifest, inputs, len(hours))
        if rows is None or rows[:1].size != reference.columns:
            return
        rows, hours = rows[chosen], hours[chosen]
        for hour in np.unique(hours).tolist():
            state = kernel.state(reference, rows[hours == hour])
            self.pane(version, role, hour)[layout.sections["whole"]] += state

    def _fold_rows(self, version: int, role: str, batches: list[_Batch]) -> None:
        """All counts of a version's rows in one go: a row adds one at each of some positions."""
        layout = self._layouts[version]
        sections = layout.sections
        whole = _Batch.joined(batches)
        span = _Hours(whole.hours)
        base = span.inverse * layout.size
        known = len(layout.manifest.classes)
        classes = np.where(whole.classes < 0, known, whole.classes)
        places = [base + sections["rows"].start, base + sections["classes"].start + classes]
        if layout.profile is not None:
            score = layout.profile.score
            if score is not None:
                bins = score.index(whole.scores)
                places.append(base + sections["score"].start + bins)
                if layout.manifest.task == "binary":
                    yes = whole.classes == 1
                    places.append(base + sections["spoken"].start + bins * 2 + yes)
            for at, profile in enumerate(layout.profile.features):
                there = whole.index[:, at] != NOWHERE
                start = sections[f"feature:{profile.name}"].start
                places.append((base + start + whole.index[:, at])[there])
        there = np.isfinite(whole.scores)
        limit = 1 if layout.manifest.task == "binary" else 1e6
        scores = np.clip(whole.scores[there], -limit, limit)
        micro = np.round(scores * MICRO).astype(np.int64)
        flat = np.concatenate(places)
        for first in range(0, len(span.hours), HOURS_AT_ONCE):
            hours = span.hours[first : first + HOURS_AT_ONCE].tolist()
            size, start = len(hours) * layout.size, first * layout.size
            inside = flat[(flat >= start) & (flat < start + size)] - start
            counts = np.bincount(inside, minlength=size).reshape(-1, layout.size)
            sums = counts[:, sections["said"]]
            row = span.inverse[there] - first
            here = (row >= 0) & (row < len(hours))
            np.add.at(sums[:, 0], row[here], 1)
            np.add.at(sums[:, 1], row[here], micro[here])
            for hour, vector in zip(hours, counts, strict=True):
                pane = self.pane(version, role, hour)
                pane += vector
        if role == Role.SHADOW:
            for batch in batches:
                self._fold_pairs(batch)

    def _remember(self, version: int, role: str, batch: _Batch) -> None:
        """Write into the ledger what was said; labels that came before find it there."""
        scores, classes = batch.scores.tolist(), batch.classes.tolist()
        for identifier, hour, trace, part in batch.predictions():
            page = self._page(identifier)
            page.hour, page.trace = hour, trace or page.trace
            said = Said(version, role, scores[part], classes[part], batch.cells[part].tobytes())
            page.said = [*page.said, said]
            for row, label in page.labels.items():
                self._join(page, said, row, label, 1)
                self._join_pair(page, row, label, 1)
                self._result.totals["labels_waiting"] -= len(page.said) == 1

    def _fold_pairs(self, batch: _Batch) -> None:
        rows = batch.rows
        layout = self._layouts.get(rows.primary_version)
        if layout is None or not (rows.primary_outputs or rows.agree):
            return
        primary = layout.manifest
        other = primary.said(wire.arrays(rows.primary_outputs), len(batch.hours))
        own = self._layouts[rows.version].manifest
        agree = _agreeing(batch, other, own, primary)
        self._fold_differences(batch, ~agree, other.scores)
        with np.errstate(invalid="ignore"):  # the difference of two infinite scores is none
            apart = np.abs(batch.scores - other.scores)
        distance = np.minimum(np.nan_to_num(apart, posinf=0, neginf=0), LARGEST_DISTANCE)
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

    def _fold_floor(self, batch: _Batch) -> None:
        """The champion beside itself: how alike two answers of one version are."""
        rows = batch.rows
        manifest = self._layouts[rows.version].manifest
        other = manifest.said(wire.arrays(rows.primary_outputs), len(batch.hours))
        agree = _agreeing(batch, other, manifest, manifest)
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
            bins = np.minimum((np.clip(there, 0, 1) * SCORES).astype(np.int64), SCORES - 1)
            where = self._pair.sections[f"score_{name}"]
            vector[where] += np.bincount(bins, minlength=SCORES)

    def _fold_differences(
        self, batch: _Batch, differ: npt.NDArray[np.bool_], before: Floats
    ) -> None:
        """Where a shadow disagrees: counts by feature, and a few examples."""
        rows = batch.rows
        layout = self._layouts[rows.version]
        for hour in np.unique(batch.hours[differ]).tolist():
            vector = self.pane(rows.version, rows.role, hour)
            index = batch.index[differ & (batch.hours == hour)]
            for at, profile in enumerate(layout.profile.features if layout.profile else ()):
                counts = vector[layout.sections[f"differ:{profile.name}"]]
                there = index[:, at][index[:, at] != NOWHERE]
                counts += np.bincount(there, minlength=len(counts))
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
        label = self._truth_of(page, written)
        totals["labels"] += 1
        if label is None:
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
        page.labels[row] = label
        self._count(page, row, label, 1)
        if page.said and page.trace:
            self._result.joined.append(page.trace)

    def _truth_of(self, page: Outcome, written: str | int | float | bool) -> int | float | None:
        """The label as the version that answered knows it; as the newest where none has yet."""
        version = page.said[0].version if page.said else max(self._layouts)
        layout = self._layouts.get(version)
        return layout.manifest.truth(written) if layout else None

    def _count(self, page: Outcome, row: int, label: int | float, sign: int) -> None:
        for said in page.said:
            self._join(page, said, row, label, sign)
        if len(page.said) > 1:
            self._join_pair(page, row, label, sign)

    def _as_known_by(self, version: int, page: Outcome, label: int | float) -> int | float | None:
        """A label of the page in the classes of one of its versions; None where it has none."""
        own, first = self._layouts.get(version), self._layouts.get(page.said[0].version)
        if own is None or first is None or own.manifest.classes == first.manifest.classes:
            return label
        if own.manifest.task == "regression":
            return None
        index = own.manifest.class_index(first.manifest.classes[int(label)])
        return None if index == UNKNOWN_CLASS else index

    def _join(self, page: Outcome, said: Said, row: int, label: int | float, sign: int) -> None:
        if row >= len(said.classes):
            self._result.totals["labels_no_such_row"] += sign
            return
        known = self._as_known_by(said.version, page, label)
        if known is None:
            return
        width = len(said.cells) // len(said.classes)
        cells = said.cells[row * width : (row + 1) * width]
        truth = Truth(said.scores[row], said.classes[row], known, sign, cells)
        key = PaneKey(said.version, said.role, page.hour)
        self._truths.setdefault(key, []).append(truth)

    def _join_pair(self, page: Outcome, row: int, label: int | float, sign: int) -> None:
        shadow = next((said for said in page.said if said.role == "shadow"), None)
        primary = next((said for said in page.said if said.role != "shadow"), None)
        if shadow is None or primary is None or row >= len(primary.classes):
            return
        one, two = (self._as_known_by(said.version, page, label) for said in (primary, shadow))
        right = (primary.classes[row] == one, shadow.classes[row] == two)
        slot = {(True, True): 0, (True, False): 1, (False, True): 2, (False, False): 3}[right]
        vector = self.pane(shadow.version, PAIR, page.hour)
        vector[self._pair.sections["right"].start + slot] += sign


def _form(inputs: dict[str, Array]) -> object:
    """What must be the same for tensors to be stacked."""
    return tuple((name, array.dtype, array.shape[1:]) for name, array in inputs.items())


def _cells(index: npt.NDArray[np.uint8], layout: Layout) -> npt.NDArray[np.uint8]:
    """The cell of every segment, row by row; NOWHERE where the input was not recorded."""
    cells = np.zeros((len(index), len(layout.segments)), np.uint8)
    for at, segment in enumerate(layout.segments):
        bins = index[:, segment.at]
        known = segment.cells[np.minimum(bins, len(segment.cells) - 1)]
        cells[:, at] = np.where(bins == NOWHERE, NOWHERE, known)
    return cells


class _Hours:
    """The distinct hours of some rows, how many rows each has, and which row is in which."""

    def __init__(self, hours: Vector) -> None:
        self.hours, self.inverse, self.counts = np.unique(
            hours, return_inverse=True, return_counts=True
        )


@dataclass
class _Batch:
    """Rows unpacked; everything per row but `request_hours` and `counts`, which are per request.

    `index` has the bin of every profiled feature, NOWHERE where its input was not recorded;
    `cells` the cell of every segment.
    """

    rows: Rows
    hours: Vector
    request_hours: Vector
    counts: Vector
    scores: Floats
    classes: npt.NDArray[np.int32]
    inputs: dict[str, Array]
    index: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0), np.uint8))
    cells: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0), np.uint8))

    @property
    def chosen(self) -> npt.NDArray[np.bool_]:
        """Per row, whether its request is one of the few that are looked at as a whole: by the
        random end of the id."""
        ends = np.frombuffer(self.rows.ids, np.uint8).reshape(-1, ID_BYTES)[:, -1]
        return np.repeat(ends % ONE_IN == 0, self.counts)

    @classmethod
    def of(cls, rows: Rows, manifest: Manifest) -> _Batch:
        counts = np.frombuffer(rows.rows, "<u4").astype(np.int64)
        hours = np.frombuffer(rows.event_ms, "<i8") // HOUR_MS
        said = manifest.said(wire.arrays(rows.outputs), int(counts.sum()))
        return cls(
            rows=rows,
            hours=np.repeat(hours, counts),
            request_hours=hours,
            counts=counts,
            scores=said.scores,
            classes=said.classes,
            inputs=wire.arrays(rows.inputs),
        )

    @classmethod
    def joined(cls, batches: list[_Batch]) -> _Batch:
        """The rows of all of them, as far as they are counted alike."""
        first = batches[0]

        def together(part: str) -> Any:
            return np.concatenate([getattr(batch, part) for batch in batches])

        return cls(
            rows=first.rows,
            hours=together("hours"),
            request_hours=together("request_hours"),
            counts=together("counts"),
            scores=together("scores"),
            classes=together("classes"),
            inputs={},
            index=together("index"),
        )

    def predictions(self) -> Iterator[tuple[bytes, int, bytes, slice]]:
        """Id, hour, trace and rows of each request."""
        ids, traces, start = self.rows.ids, self.rows.traces, 0
        for i, (count, hour) in enumerate(
            zip(self.counts.tolist(), self.request_hours.tolist(), strict=True)
        ):
            trace = traces[i * TRACE_BYTES : (i + 1) * TRACE_BYTES]
            identifier = ids[i * ID_BYTES : (i + 1) * ID_BYTES]
            yield identifier, hour, trace if any(trace) else b"", slice(start, start + count)
            start += count


def _agreeing(
    batch: _Batch, other: Opinion, own: Manifest, primary: Manifest
) -> npt.NDArray[np.bool_]:
    """On which rows both said the same: as the gateway compared them, else the same class, by
    its name."""
    if batch.rows.agree:
        return np.asarray(np.frombuffer(batch.rows.agree, np.uint8) == AGREE)
    if not primary.classes:  # the same score to six digits
        return np.isclose(batch.scores, other.scores, rtol=1e-6, equal_nan=False)
    classes = batch.classes
    if own.classes != primary.classes:
        known = [primary.class_index(name) for name in own.classes]
        classes = np.array([*known, UNKNOWN_CLASS])[classes]  # unknown is -1, the last
    return np.asarray((classes == other.classes) & (other.classes != UNKNOWN_CLASS))


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
