"""Small real ONNX models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def _save(graph: onnx.GraphProto, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(file))
    return file


def _value(name: str, kind: int, shape: list[int | None]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def softmax(file: Path, weight: float = 1.0) -> Path:
    """x [N, 4] FP32 -> y [N, 2] FP32: two classes from four numbers."""
    values = (np.arange(8, dtype=np.float32).reshape(4, 2) - 3.5) * weight / 10
    w = helper.make_tensor("w", TensorProto.FLOAT, [4, 2], values.ravel())
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Softmax", ["z"], ["y"]),
    ]
    inputs = [_value("x", TensorProto.FLOAT, [None, 4])]
    outputs = [_value("y", TensorProto.FLOAT, [None, 2])]
    return _save(helper.make_graph(nodes, "softmax", inputs, outputs, [w]), file)


def images(file: Path, weights: np.ndarray, bias: np.ndarray) -> Path:
    """image [N, 8, 8] FP32 -> y [N, 10]: the probabilities of a linear model of the pixels."""
    held = [
        helper.make_tensor(
            "w", TensorProto.FLOAT, list(weights.shape), weights.astype("f").ravel()
        ),
        helper.make_tensor("b", TensorProto.FLOAT, list(bias.shape), bias.astype("f")),
    ]
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["z"]),
        helper.make_node("Softmax", ["z"], ["y"]),
    ]
    inputs = [_value("image", TensorProto.FLOAT, [None, 8, 8])]
    outputs = [_value("y", TensorProto.FLOAT, [None, len(bias)])]
    return _save(helper.make_graph(nodes, "images", inputs, outputs, held), file)


def simple(file: Path) -> Path:
    """Triton's example: INPUT0, INPUT1 [N, 16] INT32 -> OUTPUT0 their sum, OUTPUT1 difference."""
    nodes = [
        helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
        helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
    ]
    kind, shape = TensorProto.INT32, [None, 16]
    inputs = [_value(name, kind, shape) for name in ("INPUT0", "INPUT1")]
    outputs = [_value(name, kind, shape) for name in ("OUTPUT0", "OUTPUT1")]
    return _save(helper.make_graph(nodes, "simple", inputs, outputs), file)


def identity(file: Path, datatype: str) -> Path:
    """x [any, any] -> y, the same."""
    kind = TYPES[datatype]
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    inputs, outputs = [_value("x", kind, [None, None])], [_value("y", kind, [None, None])]
    return _save(helper.make_graph(nodes, "identity", inputs, outputs), file)


def sequence(file: Path) -> Path:
    """A model whose output no tensor protocol can express."""
    nodes = [helper.make_node("SequenceConstruct", ["x"], ["y"])]
    inputs = [_value("x", TensorProto.FLOAT, [None])]
    y = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    return _save(helper.make_graph(nodes, "sequence", inputs, [y]), file)
