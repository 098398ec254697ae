"""Facts as columns: where they are split makes no difference, and every row comes back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import prediction_id
from models.contract import wire
from models.latency import bucket
from models.manifest import Manifest, Score
from models.prediction_id import HOUR_MS
from service.block import Block, Count, Fact, TallyKey, alike

MANIFEST = Manifest(model="m", version=1, digest="d", score=Score("p", 1))


def fact(i: int, rows: int = 1, **more: object) -> Fact:
    inputs = {
        "x": np.full((rows, 3), i, np.float32),
        "w": np.array([f"é{i}"] * rows, object),
        "once": np.arange(7),  # no row of its own for each row of the request
    }
    known = {"kind": "ok", "event_ms": i * HOUR_MS // 3, "latency_us": 10.0 + i, "rows": rows}
    outputs = {"p": np.full((rows, 2), i / 10, np.float32), "unread": np.zeros(rows)}
    identifier = prediction_id.new()
    given = {**known, "inputs": inputs, "outputs": outputs, "identifier": identifier, **more}
    return Fact("m", 1, "champion", manifest=MANIFEST, **given)  # type: ignore[arg-type]


@settings(max_examples=50)
@given(st.lists(st.sampled_from([1, 2, 5]), min_size=1, max_size=20), st.data())
def test_a_block_is_the_same_however_its_facts_came(counts: list[int], data: st.DataObject) -> None:
    facts = [fact(i, rows) for i, rows in enumerate(counts)]
    whole: Block | None = None
    at = 0
    while at < len(facts):
        size = data.draw(st.integers(1, 5))
        for group in alike(facts[at : at + size]):
            block = Block(group)
            if whole is None:
                whole = block
            else:
                assert block.key == whole.key
                whole.absorb(block)
        at += size
    assert whole is not None
    rows = whole.rows()
    total = sum(counts)
    assert len(whole) == len(counts)
    assert sorted(rows.inputs) == ["w", "x"]
    assert list(rows.outputs) == ["p"]
    by_id = {f.identifier: f for f in facts}
    order = [
        by_id[int.from_bytes(rows.ids[i : i + 16], "big")] for i in range(0, len(rows.ids), 16)
    ]
    assert len(order) == len(facts)
    for name, column in {**rows.inputs, **rows.outputs}.items():
        expected = np.concatenate([{**f.inputs, **f.outputs}[name] for f in order])  # type: ignore[dict-item]
        assert column.shape[0] == total
        np.testing.assert_array_equal(wire.array(column), expected)
    assert np.frombuffer(rows.latency_us, "<u4").tolist() == [int(f.latency_us) for f in order]


def test_a_tally_counts_every_request_in_its_hour() -> None:
    facts = [fact(i) for i in range(10)]
    tallies: dict[TallyKey, Count] = {}
    Block(facts).tally(tallies)
    assert {key[3]: count.requests for key, count in tallies.items()} == {0: 3, 1: 3, 2: 3, 3: 1}
    latency = sum((count.latency for count in tallies.values()), start=Count().latency)
    expected = Count()
    expected.add(10, [f.latency_us for f in facts])
    assert latency == expected.latency
    assert latency[int(bucket(10.0))] > 0


def test_what_differs_does_not_stack() -> None:
    """Other shapes, no payload, another version: each is a group, and none has another's key."""
    other = fact(1, inputs={"x": np.zeros((1, 4), np.float32)})
    unsampled = fact(2, inputs=None)
    groups = list(alike([fact(0), other, unsampled, fact(3)]))
    assert [len(group) for group in groups] == [2, 1, 1]
    assert len({Block(group).key for group in groups}) == 3
    assert Block([unsampled]).rows().inputs == {}


def test_what_cannot_be_stacked_raises_before_anything_is_kept() -> None:
    with pytest.raises((OverflowError, KeyError)):
        Block([fact(0), fact(1, identifier=-1)])


def test_a_shadows_rows_carry_what_the_primary_said() -> None:
    primaries = [fact(i) for i in range(3)]
    riders = [fact(i, primary=p, trace=b"t" * 24) for i, p in enumerate(primaries)]
    rows = Block(riders).rows()
    assert rows.primary_version == 1
    assert rows.traces == b"t" * 72
    np.testing.assert_array_equal(
        wire.array(rows.primary_outputs["p"]),
        np.concatenate([p.outputs["p"] for p in primaries if p.outputs]),
    )
