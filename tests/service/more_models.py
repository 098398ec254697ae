"""ONNX models that only the gateway's own tests need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def _save(graph: onnx.GraphProto, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(file))
    return file


def _floats(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"])


def log(file: Path) -> Path:
    """x [N] FP32 -> y, its logarithm: infinite at 0, NaN below."""
    nodes = [helper.make_node("Log", ["x"], ["y"])]
    return _save(helper.make_graph(nodes, "log", [_floats("x")], [_floats("y")]), file)


def slow(file: Path, turns: int) -> Path:
    """x [N] FP32 -> y = x + turns, one at a time: about a microsecond each."""
    flag = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("go", "on")]
    turn = helper.make_tensor_value_info("turn", TensorProto.INT64, [])
    nodes = [
        helper.make_node("Add", ["v", "one"], ["w"]),
        helper.make_node("Identity", ["go"], ["on"]),
    ]
    body = helper.make_graph(nodes, "body", [turn, flag[0], _floats("v")], [flag[1], _floats("w")])
    constants = {
        "turns": np.array(turns, np.int64),
        "yes": np.array(True),
        "one": np.array([1], np.float32),
    }
    held = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    loop = [helper.make_node("Loop", ["turns", "yes", "x"], ["y"], body=body)]
    return _save(helper.make_graph(loop, "slow", [_floats("x")], [_floats("y")], held), file)
