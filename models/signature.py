"""What a version takes and gives: names, data types and shapes.

The data types are the Open Inference Protocol's; numpy arrays carry the values. BYTES are
object arrays of `str`, since ONNX strings are UTF-8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import numpy.typing as npt

from models.errors import InvalidRequest

Array = npt.NDArray[np.generic]
Tensors = dict[str, Array]

#: protocol name -> numpy type
NUMPY: dict[str, np.dtype[np.generic]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(object),
}

#: numpy type -> protocol name
DATATYPE_OF = {dtype: name for name, dtype in NUMPY.items()}

#: ONNX Runtime's name -> protocol name
DATATYPES: dict[str, str] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}

FLOATS = frozenset({"FP16", "BF16", "FP32", "FP64"})


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output. `shape` has -1 where any size goes; None where the rank is unknown."""

    name: str
    datatype: str
    shape: tuple[int, ...] | None

    def accepts(self, shape: tuple[int, ...]) -> bool:
        wanted = self.shape
        if wanted is None:
            return True
        if len(shape) != len(wanted):
            return False
        for want, have in zip(wanted, shape, strict=True):  # noqa: SIM110 (all() costs twice as much)
            if want not in (-1, have):
                return False
        return True


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs of a version, in the model's order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def check(self, tensors: Mapping[str, Array]) -> None:
        """Raise InvalidRequest, in a sentence, unless `tensors` fit the inputs."""
        for spec in self.inputs:
            array = tensors.get(spec.name)
            if array is None:
                raise InvalidRequest(
                    f"input '{spec.name}' is missing; the model takes: {names_of(self.inputs)}"
                )
            if array.dtype != NUMPY[spec.datatype]:
                raise InvalidRequest(
                    f"input '{spec.name}' is {DATATYPE_OF[array.dtype]}, "
                    f"the model takes {spec.datatype}"
                )
            if not spec.accepts(array.shape):
                raise InvalidRequest(
                    f"input '{spec.name}' has shape {list(array.shape)}, the model takes "
                    f"{list(spec.shape or ())} (-1: any size)"
                )
        if len(tensors) > len(self.inputs):
            known = {spec.name for spec in self.inputs}
            extra = next(name for name in tensors if name not in known)
            raise InvalidRequest(
                f"unknown input '{extra}'; the model takes: {names_of(self.inputs)}"
            )

    def input(self, name: str) -> TensorSpec | None:
        return next((spec for spec in self.inputs if spec.name == name), None)


def names_of(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{s.name} ({s.datatype})" for s in specs) or "none"
