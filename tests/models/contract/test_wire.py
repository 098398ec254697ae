"""models.contract: facts survive the trip between the processes."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.contract import keys, wire
from models.contract.records import SCHEMA, Column, Entry, Feedback, Outcome, Rows, Said, Tally
from models.signature import DATATYPE_OF, NUMPY

LABELS = st.one_of(
    st.text(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.booleans()
)
UINT32 = st.integers(0, 2**32 - 1)
FEEDBACK = st.builds(Feedback, st.binary(min_size=16, max_size=16), UINT32, LABELS, UINT32, UINT32)
TALLIES = st.builds(
    Tally,
    UINT32,
    st.sampled_from(["champion", "shadow", "pinned"]),
    st.sampled_from(["ok", "invalid", "error"]),
    st.integers(-(2**40), 2**40),
    UINT32,
    UINT32,
    st.dictionaries(st.integers(0, 207), UINT32),
)
COLUMNS = st.dictionaries(
    st.text(),
    st.builds(
        Column, st.sampled_from(list(NUMPY)), st.tuples(UINT32, UINT32), st.binary(max_size=64)
    ),
    max_size=3,
)
ROWS = st.builds(
    Rows,
    UINT32,
    st.just("champion"),
    *[st.binary(max_size=32)] * 5,
    COLUMNS,
    COLUMNS,
    UINT32,
    COLUMNS,
    st.binary(max_size=32),
)
ENTRIES = st.builds(
    Entry,
    st.just(SCHEMA),
    st.text(),
    UINT32,
    UINT32,
    st.lists(ROWS, max_size=3),
    st.lists(TALLIES, max_size=3),
    st.lists(FEEDBACK, max_size=3),
)


@given(ENTRIES)
def test_an_entry_survives(entry: Entry) -> None:
    """What a worker packs is what the monitor unpacks; a label keeps its type."""
    again = wire.unpack(wire.pack(entry))
    assert again == entry
    assert [type(f.label) for f in again.feedback] == [type(f.label) for f in entry.feedback]


@given(st.binary())
def test_garbage_is_unreadable(data: bytes) -> None:
    """Bytes that are no entry raise UnreadableEntry and nothing else."""
    try:
        entry = wire.unpack(data)
    except wire.UnreadableEntry:
        return
    assert isinstance(entry, Entry)


def test_another_schema_is_unreadable() -> None:
    """An entry of a later schema says so instead of being misread."""
    with pytest.raises(wire.UnreadableEntry, match=f"schema {SCHEMA + 1}"):
        wire.unpack(wire.pack(Entry(SCHEMA + 1, "w", 1, 0, [], [], [])))


def test_an_older_writer_is_understood() -> None:
    """New fields go to the end with a default, so rows without them still decode."""
    rows = Rows(1, "champion", b"", b"", b"", b"", b"", {}, {})
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(rows))
    old = msgspec.msgpack.encode(fields[:9])
    assert msgspec.msgpack.decode(old, type=Rows) == rows


@given(st.data(), st.sampled_from(sorted(set(NUMPY) - {"BYTES"})))
def test_tensors_survive_stacked(data: st.DataObject, datatype: str) -> None:
    """Requests of several rows, none included, come back stacked, bit for bit."""
    dtype = NUMPY[datatype]
    bits = np.dtype(f"u{dtype.itemsize}") if dtype.kind != "b" else dtype
    width = data.draw(st.integers(0, 3))
    counts = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4))
    parts = [data.draw(arrays.arrays(bits, (n, width))).view(dtype) for n in counts]
    packed = wire.column(parts)
    again = wire.array(packed)
    assert (packed.datatype, again.shape) == (datatype, (sum(counts), width))
    assert again.tobytes() == np.concatenate(parts).tobytes()


@given(st.lists(st.lists(st.text(), max_size=4), min_size=1, max_size=4))
def test_strings_survive_stacked(texts: list[list[str]]) -> None:
    """The same for BYTES, whatever characters they hold."""
    parts = [np.array([*t, None], object)[:-1] for t in texts]
    again = wire.array(wire.column(parts))
    assert again.tolist() == [text for part in texts for text in part]
    assert DATATYPE_OF[again.dtype] == "BYTES"


def test_an_outcome_survives() -> None:
    """The ledger's page: what was said, NaN included, and what turned out to be true."""
    outcome = Outcome(5, b"t" * 24, [Said(1, "champion", [0.5], [1])], {0: 1, 7: -1})
    assert wire.unpack_outcome(wire.pack_outcome(outcome)) == outcome


def test_all_keys_of_a_model_share_a_slot() -> None:
    """The model's name is the hash tag, so one script or pipeline may touch all of them."""
    named = [
        keys.route("m"),
        keys.audit("m"),
        keys.facts("m"),
        keys.ledger("m", 1),
        keys.windows("m", "hour", 1, "champion"),
        keys.lease("m"),
        keys.watch("m"),
        keys.cursor("m"),
        keys.findings("m"),
    ]
    assert all(key.startswith("slipstream:{m}:") for key in named)
    assert len(set(named)) == len(named)
