"""models.comparator: what counts as the same, row by row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models.comparator import (
    AGREE,
    DISAGREE,
    INCOMPARABLE,
    Comparator,
    agreement,
    chosen,
    compared,
)
from models.signature import Array, TensorSpec

NAN = float("nan")


@pytest.mark.parametrize(
    ("spec", "scores", "kind"),
    [
        (TensorSpec("y", "INT64", (-1,)), False, "exact"),
        (TensorSpec("y", "BYTES", (-1, 1)), False, "exact"),
        (TensorSpec("p", "FP32", (-1, 3)), True, "argmax"),
        (TensorSpec("p", "FP32", (-1, 1)), True, "close"),
        (TensorSpec("e", "FP32", (-1, 128)), False, "close"),
        (TensorSpec("e", "FP16", None), True, "close"),
    ],
)
def test_chosen(spec: TensorSpec, scores: bool, kind: str) -> None:
    """Whole numbers and texts exactly; scores by their class; other numbers within a tolerance."""
    assert chosen(spec, scores).kind == kind


@pytest.mark.parametrize(
    ("comparator", "a", "b", "same"),
    [
        (Comparator("exact"), [[1, 2], [3, 4]], [[1, 2], [3, 5]], [True, False]),
        (Comparator("exact"), [[NAN], [NAN]], [[NAN], [1.0]], [True, False]),
        (Comparator("close"), [[1.0], [1.0]], [[1.0005], [1.01]], [True, False]),
        (Comparator("close", rtol=0, atol=0.5), [[1.0], [1.0]], [[1.4], [1.6]], [True, False]),
        (Comparator("argmax"), [[0.1, 0.9], [0.6, 0.4]], [[0.4, 0.6], [0.4, 0.6]], [True, False]),
        (Comparator("topk", k=2), [[1, 2, 3], [1, 2, 3]], [[0, 3, 2], [3, 2, 1]], [True, False]),
        (Comparator("topk", k=9), [[1, 2, 3]], [[3, 2, 1]], [True]),
        (Comparator("cosine"), [[1.0, 0.0], [1.0, 0.0]], [[5.0, 0.1], [0.0, 1.0]], [True, False]),
        (Comparator("cosine"), [[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]], [True, False]),
    ],
)
def test_compared(
    comparator: Comparator, a: list[list[float]], b: list[list[float]], same: list[bool]
) -> None:
    found = compared(comparator, np.array(a), np.array(b), len(a))
    assert found is not None
    assert found.tolist() == same


def test_texts_are_equal_or_not() -> None:
    a, b = (np.array([["x"], [last]], object) for last in ("é", "e"))
    found = compared(Comparator("close"), a, b, 2)
    assert found is not None
    assert found.tolist() == [True, False]


@pytest.mark.parametrize("other", [np.zeros((2, 3)), np.zeros((3, 2)), np.zeros(4), np.zeros(())])
def test_other_shapes_cannot_be_compared(other: Array) -> None:
    assert compared(Comparator("exact"), np.zeros((2, 2)), other, 2) is None


def test_a_row_agrees_where_all_its_outputs_do() -> None:
    """An output that one of them lacks is left out; with none left, nothing can be said."""
    comparators = {"y": Comparator("exact"), "p": Comparator("close"), "x": Comparator("ignore")}
    first = {"y": np.array([1, 1, 2]), "p": np.array([0.1, 0.1, 0.1]), "x": np.zeros(3)}
    second = {"y": np.array([1, 2, 2]), "p": np.array([0.1, 0.1, 0.9]), "x": np.ones(3)}
    assert agreement(comparators, first, second, 3).tolist() == [AGREE, DISAGREE, DISAGREE]
    assert agreement(comparators, first, {"y": second["y"]}, 3).tolist() == [1, 0, 1]
    assert agreement(comparators, first, {}, 3).tolist() == [INCOMPARABLE] * 3
    assert agreement(comparators, first, {"y": np.zeros(9)}, 3).tolist() == [INCOMPARABLE] * 3


ROWS = hnp.arrays(np.float64, (4, 3), elements=st.floats(-100, 100))


@given(ROWS, st.sampled_from(["exact", "close", "argmax", "topk", "cosine"]))
def test_everything_agrees_with_itself(rows: Array, kind: str) -> None:
    found = compared(Comparator(kind), rows, rows.copy(), 4)  # type: ignore[arg-type]
    assert found is not None
    assert found.all()


@given(ROWS, ROWS, st.sampled_from(["exact", "argmax", "topk", "cosine"]))
def test_order_makes_no_difference(a: Array, b: Array, kind: str) -> None:
    one, other = (
        compared(Comparator(kind), *pair, 4)  # type: ignore[arg-type]
        for pair in ((a, b), (b, a))
    )
    np.testing.assert_array_equal(one, other)


def test_no_rows_are_no_fault() -> None:
    """A request of none is answered, and there is nothing to compare."""
    empty = np.zeros((0, 3), np.float32)
    for kind in ("exact", "close", "argmax", "topk", "cosine"):
        found = agreement({"y": Comparator(kind)}, {"y": empty}, {"y": empty}, 0)
        assert found.shape == (0,)
