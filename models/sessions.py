"""What is loaded in ONNX Runtime: open, warm, run, retire."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from models.comparator import Comparator, chosen
from models.errors import BadModel, InvalidRequest, ModelFault
from models.repository import Package
from models.signature import DATATYPES, NUMPY, Array, Signature, Tensors, TensorSpec

BF16 = NUMPY["BF16"]
_ONNX_BF16 = 16  # onnx.TensorProto.BFLOAT16

ort.set_default_logger_severity(3)  # ORT warns of declared output shapes, request by request

Terminate = Callable[[], None]


class LoadedVersion:
    """One version, open. Safe to call from several threads.

    `seconds` is what one row took at warm-up, 0 before; who runs it decides by that where to
    run it. `load_seconds` it took to open and warm, and the process grew by `memory` bytes
    meanwhile: about what the version holds, as far as nothing else grew.
    """

    def __init__(self, package: Package, threads: int = 1) -> None:
        """Raises BadModel where ONNX Runtime or the protocol cannot take the model."""
        began, self._before = time.monotonic(), resident()
        self.package = package
        self.manifest = package.manifest
        self.version = package.version
        self._session = open_session(package, threads)
        self.signature = signature_of(self._session, str(package.version))
        missing = set(self.manifest.recorded_outputs) - {s.name for s in self.signature.outputs}
        if missing:
            raise BadModel(
                f"{self.version} cannot be served: its manifest reads the output "
                f"'{min(missing)}', which the model does not have"
            )
        # Without its wrapper, which checks again what the signature has checked: 1 us of 6.
        self._run: Any = getattr(self._session, "_sess", self._session).run
        self._names = [spec.name for spec in self.signature.outputs]
        self._bf16 = any(
            spec.datatype == "BF16" for spec in (*self.signature.inputs, *self.signature.outputs)
        )
        self.seconds = 0.0
        self.load_seconds = time.monotonic() - began
        self.memory = max(resident() - self._before, 0)

    @cached_property
    def comparators(self) -> dict[str, Comparator]:
        """How each output is compared with that of another version."""
        score = self.manifest.score.output if self.manifest.score else None
        known = self.manifest.compare
        return {
            spec.name: known.get(spec.name) or chosen(spec, spec.name == score)
            for spec in self.signature.outputs
        }

    def run(
        self, tensors: Tensors, outputs: Sequence[str] | None = None, options: Any = None
    ) -> Tensors:
        """Outputs by name, in the order asked for (the model's, where None).

        Raises InvalidRequest where ONNX Runtime finds the input at fault, else ModelFault.
        """
        names = self._names if outputs is None else list(outputs)
        try:
            if self._bf16:
                values = self._run_bf16(names, tensors, options)
            else:
                values = self._run(names, tensors, options)
        except Exception as error:  # ORT's errors share no public base class
            raise self._fault(error) from error
        return {
            name: value if isinstance(value, np.ndarray) else np.asarray(value)
            for name, value in zip(names, values, strict=True)
        }

    def _run_bf16(self, names: list[str], tensors: Tensors, options: Any) -> list[Array]:
        """numpy has no bfloat16, so those tensors travel as OrtValues over their bits."""
        feed = {name: _to_ort(array) for name, array in tensors.items()}
        return [
            _from_ort(value) for value in self._session.run_with_ort_values(names, feed, options)
        ]

    def _fault(self, error: Exception) -> InvalidRequest | ModelFault:
        sentence = str(error).split("\n", 1)[0][:300]
        if type(error).__name__ == "InvalidArgument":
            return InvalidRequest(f"{self.version} cannot take this input: {sentence}")
        return ModelFault(f"{self.version} failed: {sentence}")

    def warm(self, recorded: Iterable[Tensors] = ()) -> None:
        """Run on zeros, then on recorded rows, and keep what the last took.

        Some models refuse zeros, and a recorded row may be from a version that took other inputs;
        0 where the model refused all.
        """
        began = time.monotonic()
        zeros = {spec.name: _zeros(spec) for spec in self.signature.inputs}
        for feed in (zeros, zeros, *recorded):
            start = time.perf_counter()
            try:
                self.signature.check(feed)
                self.run(feed)
            except (InvalidRequest, ModelFault):
                continue
            self.seconds = time.perf_counter() - start
        self.load_seconds += time.monotonic() - began
        self.memory = max(resident() - self._before, 0)


class Retiring:
    """A version that no new request gets. Its session is closed when nobody holds it any more.

    Whoever runs a version holds the LoadedVersion itself: a request, a shadow's job, a thread.
    Python counts these references anyway, so asking a weak one whether the last is gone costs the
    request path nothing, and no way out of a request can forget to give its reference back. The
    session is held here, so that its memory is freed by `close` and not on the event loop by
    whichever request comes last.
    """

    def __init__(self, loaded: LoadedVersion) -> None:
        self.since = time.monotonic()
        self._version = weakref.ref(loaded)
        self._session: Any = loaded._session

    @property
    def held(self) -> LoadedVersion | None:
        return self._version()

    def close(self) -> None:
        """Free the session's memory and give it back to the operating system."""
        self._session = None
        if sys.platform == "linux":
            # glibc keeps freed pages for later; a model's weights are worth giving back. Other
            # C libraries have no such call.
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
            if trim is not None:
                trim(0)


def resident() -> int:
    """Bytes of memory that this process holds now; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return 0


def open_session(package: Package, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(package.file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ORT's errors share no public base class
        sentence = str(error).split("\n", 1)[0][:300]
        raise BadModel(f"{package.version} cannot be loaded: {sentence}") from error


def signature_of(session: ort.InferenceSession, what: str) -> Signature:
    """The signature in the protocol's terms. Raises BadModel where it has no word for a type."""
    return Signature(
        tuple(_spec(node, what, "input") for node in session.get_inputs()),
        tuple(_spec(node, what, "output") for node in session.get_outputs()),
    )


def _spec(node: Any, what: str, side: str) -> TensorSpec:
    datatype = DATATYPES.get(node.type)
    if datatype is None:
        raise BadModel(
            f"{what} cannot be served: its {side} '{node.name}' is a {node.type}, which the Open "
            f"Inference Protocol cannot express; export it with plain tensors"
        )
    # ORT tells an unknown rank from a scalar by nothing: both are []. A scalar's check is
    # left to the model, and outputs are never trusted anyway.
    shape = tuple(d if isinstance(d, int) and d >= 0 else -1 for d in node.shape)
    return TensorSpec(node.name, datatype, shape or None)


def _zeros(spec: TensorSpec) -> Array:
    shape = tuple(1 if size == -1 else size for size in spec.shape or ())
    if spec.datatype == "BYTES":
        return np.full(shape, "", dtype=object)
    return np.zeros(shape, NUMPY[spec.datatype])


def _to_ort(array: Array) -> ort.OrtValue:
    if array.dtype == BF16:
        bits = np.asarray(array, order="C").view(np.uint16)
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _ONNX_BF16)
    return ort.OrtValue.ortvalue_from_numpy(np.asarray(array, order="C"))


def _from_ort(value: ort.OrtValue) -> Array:
    if value.data_type() != "tensor(bfloat16)":
        return np.asarray(value.numpy())
    shape = tuple(value.shape())
    size = int(np.prod(shape))
    if size == 0:
        return np.zeros(shape, BF16)
    bits = (ctypes.c_uint16 * size).from_address(value.data_ptr())
    return np.array(bits, np.uint16).view(BF16).reshape(shape)
