"""models.signature: what a version takes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from models.errors import InvalidRequest
from models.signature import DATATYPE_OF, NUMPY, Array, Signature, TensorSpec

SIGNATURE = Signature(
    inputs=(TensorSpec("x", "FP32", (-1, 4)), TensorSpec("s", "BYTES", None)),
    outputs=(TensorSpec("y", "FP32", (-1, 2)),),
)
GOOD: dict[str, Array] = {"x": np.zeros((3, 4), np.float32), "s": np.array(["a"], object)}


@pytest.mark.parametrize(
    ("shape", "given", "fits"),
    [
        (None, (), True),
        (None, (7, 7), True),
        ((), (), True),
        ((-1,), (0,), True),
        ((-1, 4), (9, 4), True),
        ((-1, 4), (9, 5), False),
        ((-1, 4), (9,), False),
        ((-1, 4), (9, 4, 1), False),
    ],
)
def test_minus_one_takes_any_size_and_no_shape_any_rank(
    shape: tuple[int, ...] | None, given: tuple[int, ...], fits: bool
) -> None:
    """-1 is any size, None any rank; everything else must be equal."""
    assert TensorSpec("x", "FP32", shape).accepts(given) is fits


def test_fitting_tensors_pass() -> None:
    """Inputs are told apart by name; their order does not matter."""
    SIGNATURE.check(GOOD)
    SIGNATURE.check(dict(reversed(GOOD.items())))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"x": None}, r"'x' is missing.*x \(FP32\), s \(BYTES\)"),
        ({"x": np.zeros((3, 4))}, "'x' is FP64, the model takes FP32"),
        ({"x": np.zeros((3, 5), np.float32)}, r"shape \[3, 5\], the model takes \[-1, 4\]"),
        ({"z": np.zeros(1)}, "unknown input 'z'"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Array | None], sentence: str) -> None:
    """The sentence names the input, what came, and what the model takes."""
    tensors = {name: array for name, array in {**GOOD, **change}.items() if array is not None}
    with pytest.raises(InvalidRequest, match=sentence):
        SIGNATURE.check(tensors)


def test_the_fourteen_datatypes_have_one_numpy_type_each() -> None:
    """The protocol's table, both ways, bfloat16 included."""
    assert len(NUMPY) == len(DATATYPE_OF) == 14
    assert all(DATATYPE_OF[dtype] == name for name, dtype in NUMPY.items())
    assert NUMPY["BF16"] == ml_dtypes.bfloat16
