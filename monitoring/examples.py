"""Predictions that show what a finding means: their ids, from what the stream still holds."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import numpy as np
import numpy.typing as npt

from models.contract import wire
from models.contract.records import ID_BYTES, Entry, Rows
from models.profile import FeatureProfile, feature_values
from monitoring.examine import beyond
from monitoring.stream import Store
from monitoring.watch import Fault
from monitoring.window import ANSWERING, Layout

#: Entries of the stream that are searched, from the newest on.
SEARCHED = 100
#: Examples of a finding.
SHOWN = 3


def of_fault(store: Store, model: str, version: int, layout: Layout, fault: Fault) -> list[str]:
    """Ids of the newest predictions with such a value; fewer, or none, where the stream has them
    no more."""
    found = (
        identifier
        for entry in store.newest(model, SEARCHED)
        for rows in entry.rows
        if rows.version == version and rows.role in ANSWERING
        for identifier in _with_fault(rows, layout, fault)
    )
    return _first(found)


def of_harm(store: Store, model: str, version: int) -> list[str]:
    """Ids of predictions that turned out to be wrong, by the newest labels."""
    entries = store.newest(model, SEARCHED)
    return _first(_wrong(store, model, version, entries))


def _wrong(store: Store, model: str, version: int, entries: list[Entry]) -> Iterator[str]:
    pages = store.pages(model, {label.id for entry in entries for label in entry.feedback})
    for identifier, page in pages.items():
        for said in page.said:
            if said.version == version and any(
                row < len(said.classes) and said.classes[row] != label
                for row, label in page.labels.items()
            ):
                yield str(UUID(bytes=identifier))


def _first(found: Iterator[str]) -> list[str]:
    shown: dict[str, None] = {}
    for identifier in found:
        shown[identifier] = None
        if len(shown) == SHOWN:
            break
    return list(shown)


def _with_fault(rows: Rows, layout: Layout, fault: Fault) -> Iterator[str]:
    profile = layout.profile
    at = next((i for i, f in enumerate(layout.manifest.features) if f.name == fault.feature), None)
    if profile is None or at is None:
        return
    counts = np.frombuffer(rows.rows, "<u4").astype(np.int64)
    inputs = wire.arrays(rows.inputs)
    values = feature_values(layout.manifest.features[at], inputs, int(counts.sum()))
    if values is None:
        return
    one = profile.features[at]
    hit = np.isin(one.index(values), _bins(one, fault))
    requests = np.repeat(np.arange(len(counts)), counts)[hit]
    for request in np.unique(requests).tolist():
        yield str(UUID(bytes=rows.ids[request * ID_BYTES : (request + 1) * ID_BYTES]))


def _bins(profile: FeatureProfile, fault: Fault) -> npt.NDArray[np.int64]:
    """The bins that the fault is about."""
    last = len(profile.counts)
    if fault.test == "missing":
        return np.array([last])
    if fault.test == "spike":
        return np.array([fault.bin])
    return beyond(profile.counts) if fault.test == "outside" else np.array([last - 1])
