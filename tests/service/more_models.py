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


#: What a shadow can do to whoever lets it in. Only with rows that have a number above 0: zeros,
#: as at a warm-up, are answered like anywhere else.
HOSTILE = ("slow", "raises", "nan", "hog")


def hostile(file: Path, kind: str) -> Path:
    """x [N, 4] FP32 -> y [N, 2]: two classes, and harm according to the largest number.

    `slow` takes a million turns for each 1 of it, `raises` looks beyond the end of a table, `nan`
    answers NaN, `hog` doubles a tensor eight times for each 1 of it.
    """
    held = {
        "w": np.ones((4, 2), np.float32),
        "none": np.array([0], np.int64),
        "scale": np.array({"slow": 1e6, "hog": 8.0}.get(kind, 1.0), np.float32),
        "yes": np.array(True),
        "start": np.zeros(1024 if kind == "hog" else 1, np.float32),
        "minus": np.array(-1, np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Softmax", ["z"], ["p"]),
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Mul", ["largest", "scale"], ["scaled"]),
        helper.make_node("Cast", ["scaled"], ["count"], to=TensorProto.INT64),
    ]
    if kind == "nan":
        nodes += [
            helper.make_node("Mul", ["largest", "minus"], ["negative"]),
            helper.make_node("Sqrt", ["negative"], ["harm"]),
        ]
    elif kind == "raises":
        nodes += [helper.make_node("Gather", ["start", "count"], ["harm"])]
    else:
        nodes += [
            helper.make_node("Loop", ["count", "yes", "start"], ["grown"], body=_turn(kind)),
            helper.make_node("Gather", ["grown", "none"], ["harm"]),
        ]
    nodes += [helper.make_node("Add", ["p", "harm"], ["y"])]
    graph = helper.make_graph(
        nodes,
        kind,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])],
        [numpy_helper.from_array(value, name) for name, value in held.items()],
    )
    return _save(graph, file)


def _turn(kind: str) -> onnx.GraphProto:
    flag = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("go", "on")]
    turn = helper.make_tensor_value_info("turn", TensorProto.INT64, [])
    grow = (
        helper.make_node("Concat", ["v", "v"], ["w2"], axis=0)
        if kind == "hog"
        else helper.make_node("Abs", ["v"], ["w2"])
    )
    return helper.make_graph(
        [grow, helper.make_node("Identity", ["go"], ["on"])],
        "turn",
        [turn, flag[0], _floats("v")],
        [flag[1], helper.make_tensor_value_info("w2", TensorProto.FLOAT, ["m"])],
    )
