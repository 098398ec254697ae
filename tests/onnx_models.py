"""Tiny ONNX models, and how they get into a repository."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from models.manifest import Manifest, digest_of, write_manifest

#: protocol name -> ONNX type
ONNX_TYPES: dict[str, int] = {
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

Shape = list[int | str | None]


def tensor(name: str, datatype: str, shape: Shape) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, ONNX_TYPES[datatype], shape)


def model(
    nodes: list[NodeProto],
    inputs: list[ValueInfoProto],
    outputs: list[ValueInfoProto],
    constants: dict[str, np.ndarray] | None = None,
) -> ModelProto:
    held = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, held)
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])


def affine(seed: int = 0) -> ModelProto:
    """x FP32 [-1, 4] -> y FP32 [-1, 2]: softmax(x W + b)."""
    random = np.random.default_rng(seed)
    weights = random.normal(size=(4, 2)).astype(np.float32)
    bias = random.normal(size=2).astype(np.float32)
    nodes = [
        helper.make_node("Gemm", ["x", "W", "b"], ["z"]),
        helper.make_node("Softmax", ["z"], ["y"], axis=1),
    ]
    return model(
        nodes,
        [tensor("x", "FP32", ["n", 4])],
        [tensor("y", "FP32", ["n", 2])],
        {"W": weights, "b": bias},
    )


def simple() -> ModelProto:
    """Triton's example: sum and difference of two INT32 [-1, 16]."""
    nodes = [
        helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
        helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
    ]
    shape: Shape = ["n", 16]
    return model(
        nodes,
        [tensor("INPUT0", "INT32", shape), tensor("INPUT1", "INT32", shape)],
        [tensor("OUTPUT0", "INT32", shape), tensor("OUTPUT1", "INT32", shape)],
    )


def identity(datatype: str) -> ModelProto:
    """x [-1, -1] -> y, the same."""
    return model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [tensor("x", datatype, ["n", "m"])],
        [tensor("y", datatype, ["n", "m"])],
    )


def log() -> ModelProto:
    """x FP32 [-1] -> y, its logarithm: infinite at 0, NaN below."""
    return model(
        [helper.make_node("Log", ["x"], ["y"])],
        [tensor("x", "FP32", ["n"])],
        [tensor("y", "FP32", ["n"])],
    )


def slow(turns: int) -> ModelProto:
    """x FP32 [-1] -> y: x + 1 + 1 …, a million turns a second or so."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["v", "one"], ["w"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            tensor("v", "FP32", ["n"]),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), tensor("w", "FP32", ["n"])],
    )
    return model(
        [helper.make_node("Loop", ["turns", "yes", "x"], ["y"], body=body)],
        [tensor("x", "FP32", ["n"])],
        [tensor("y", "FP32", ["n"])],
        {
            "turns": np.array(turns, np.int64),
            "yes": np.array(True),
            "one": np.array([1], np.float32),
        },
    )


def put(
    repository: Path,
    name: str,
    onnx: ModelProto,
    version: int = 1,
    manifest: Manifest | None = None,
) -> Path:
    """Write `<name>/<version>/model.onnx` as Triton has it, or with a manifest as pushed."""
    folder = repository / name / str(version)
    folder.mkdir(parents=True)
    file = folder / "model.onnx"
    file.write_bytes(onnx.SerializeToString())
    if manifest is not None:
        known = {"model": name, "version": version, "digest": digest_of(file)}
        fields = {f: getattr(manifest, f) for f in manifest.__struct_fields__} | known
        write_manifest(folder / "manifest.toml", Manifest(**fields))
    return file
