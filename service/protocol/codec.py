"""Bytes <-> tensors of the Open Inference Protocol, JSON and binary. Pure.

    body -> split -> InferRequest + binary tail -> tensors -> (model) -> outputs -> body

Every fault of the sender is an InvalidRequest with a sentence. Binary tensors become views of
the body, not copies.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Annotated, Any

import msgspec
import numpy as np

from models.errors import BodyTooLarge, InvalidRequest, NotSupported, UnsupportedEncoding
from models.signature import DATATYPE_OF, NUMPY, Array, Signature, Tensors

#: Deepest nesting of `data` that is read; ONNX models seldom go beyond rank 8.
MAX_DEPTH = 32
LARGEST_FP32 = float(np.finfo(np.float32).max)
#: Largest size of one dimension: more elements than any body within the limit could hold.
MAX_SIZE = 2**48
#: Datatypes that the protocol does not write in JSON.
_BINARY_ONLY = ("FP16", "BF16")
_NO_DATA = msgspec.Raw()
_NOTHING = memoryview(b"")


class RequestInput(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: msgspec.Raw = _NO_DATA


class RequestedOutput(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


class InferRequest(msgspec.Struct):
    inputs: list[RequestInput]
    id: str = ""
    parameters: dict[str, Any] | None = None
    outputs: list[RequestedOutput] | None = None


class Request(msgspec.Struct, frozen=True):
    """A decoded request. `binary_default`: outputs are binary unless listed otherwise."""

    id: str
    parameters: dict[str, Any]
    tensors: Tensors
    outputs: list[RequestedOutput] | None
    binary_default: bool


class Body(msgspec.Struct, frozen=True):
    """An encoded answer. `header_length` is None where all of it is JSON."""

    content: bytes
    header_length: int | None


_request = msgspec.json.Decoder(InferRequest)
_encode = msgspec.json.Encoder().encode


# --- in -----------------------------------------------------------------------------------------


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Undo Content-Encoding; the limit counts what comes out, so a bomb stops early."""
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise UnsupportedEncoding(f"Content-Encoding '{encoding}' is not read; use gzip or deflate")
    reader = zlib.decompressobj(wbits=31 if encoding == "gzip" else 15)
    try:
        plain = reader.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidRequest(f"the body is not valid {encoding}: {error}") from None
    if len(plain) > limit:
        raise BodyTooLarge(f"the body inflates to more than the limit of {limit} bytes")
    if reader.unused_data:
        raise InvalidRequest(f"something follows the {encoding} body")
    if not reader.eof:
        raise InvalidRequest(f"the {encoding} body ends too early")
    return plain


def decode(body: bytes, header_length: bytes | None = None) -> Request:
    """Decode an infer request whose JSON part has `header_length` bytes (None: all of it)."""
    if header_length is None:
        head, tail = body, _NOTHING
    else:
        size = _header_length(header_length, len(body))
        head, tail = body[:size], memoryview(body)[size:]
    request, literal = _parse(head)
    tensors: Tensors = {}
    for given in request.inputs:
        if given.name in tensors:
            raise InvalidRequest(f"input '{given.name}' is given twice")
        tensors[given.name], tail = _tensor(given, tail, literal)
    if len(tail):
        raise InvalidRequest(f"{len(tail)} bytes follow the last tensor; nothing accounts for them")
    if request.outputs:
        _check_outputs(request.outputs)
    parameters = request.parameters or {}
    return Request(
        id=request.id,
        parameters=parameters,
        tensors=tensors,
        outputs=request.outputs or None,
        binary_default=not request.outputs and parameters.get("binary_data_output") is True,
    )


def decode_raw(body: bytes, signature: Signature) -> Request:
    """A raw binary request: no JSON at all, the body is the model's only input, batch 1."""
    if len(signature.inputs) != 1:
        raise InvalidRequest(
            f"a raw binary request needs a model with one input; "
            f"this one takes {len(signature.inputs)}"
        )
    if not body:
        raise InvalidRequest("the body is empty; a raw binary request holds one tensor")
    spec = signature.inputs[0]
    if spec.datatype == "BYTES":
        array: Array = np.array([_utf8(body, spec.name)], dtype=object)
    else:
        dtype = NUMPY[spec.datatype]
        if len(body) % dtype.itemsize:
            raise InvalidRequest(f"{len(body)} bytes are no whole number of {spec.datatype}")
        array = np.frombuffer(body, dtype)
    shape = [1 if i == 0 and size == -1 else size for i, size in enumerate(spec.shape or (-1,))]
    try:
        array = array.reshape(shape)
    except ValueError:
        raise InvalidRequest(
            f"{len(body)} bytes do not fill input '{spec.name}' of shape {shape}"
        ) from None
    return Request("", {}, {spec.name: array}, None, binary_default=True)


def _header_length(written: bytes, body: int) -> int:
    if not (written.isdigit() and len(written) < 16 and 0 < int(written) <= body):
        raise InvalidRequest(
            f"Inference-Header-Content-Length is '{written.decode('latin-1')[:32]}'; "
            f"it must be a decimal number from 1 to the body's length, {body}"
        )
    return int(written)


def _parse(text: bytes) -> tuple[InferRequest, bool]:
    """The JSON part; True where it needed the NaN and Infinity literals of Python's dialect."""
    try:
        return _request.decode(text), False
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the request does not fit the protocol: {error}") from None
    except UnicodeDecodeError:
        raise InvalidRequest("the body is not JSON: it is not UTF-8") from None
    except msgspec.DecodeError as error:
        if b"NaN" in text or b"Infinity" in text:
            return _parse_literals(text), True
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None


def _parse_literals(text: bytes) -> InferRequest:
    """tritonclient writes a bare NaN, which is not JSON; the standard library reads it."""
    try:
        loose = json.loads(text)
        for given in loose["inputs"]:
            if "data" in given:
                given["data"] = msgspec.Raw(json.dumps(given["data"]).encode())
        return msgspec.convert(loose, InferRequest)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the request does not fit the protocol: {error}") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None


def _tensor(given: RequestInput, tail: memoryview, literal: bool) -> tuple[Array, memoryview]:
    if given.datatype not in NUMPY:
        raise InvalidRequest(
            f"input '{given.name}' has datatype '{given.datatype}'; known: {', '.join(NUMPY)}"
        )
    count = _count(given)
    if given.parameters is None and not literal:
        array = _flat(given, count)
        if array is not None:
            return array, tail
    size = (given.parameters or {}).get("binary_data_size")
    if size is None:
        return _listed_data(given, count, literal), tail
    if len(given.data):
        raise InvalidRequest(f"input '{given.name}' has both data and binary_data_size")
    if type(size) is not int or not 0 <= size <= len(tail):
        raise InvalidRequest(
            f"input '{given.name}' claims {size} binary bytes; {len(tail)} are left"
        )
    return _binary(given, count, tail[:size]), tail[size:]


def _flat(given: RequestInput, count: int) -> Array | None:
    """What most clients send: one list of numbers, each within its type's range.

    Anything else, right or wrong, is None: the long way reads it, or has the sentence.
    """
    decoder = _FLAT.get(given.datatype)
    if decoder is None:
        return None
    try:
        values = decoder.decode(given.data)
    except msgspec.DecodeError:
        return None
    if len(values) != count:
        return None
    return np.array(values, NUMPY[given.datatype]).reshape(given.shape)


def _listed_data(given: RequestInput, count: int, literal: bool) -> Array:
    if not len(given.data):
        raise InvalidRequest(f"input '{given.name}' has no data")
    values = _json_values(given, literal)
    try:
        with np.errstate(over="raise"):
            array = np.array(values, NUMPY[given.datatype])
    except (OverflowError, FloatingPointError):
        raise InvalidRequest(
            f"input '{given.name}' has a value out of {given.datatype}'s range"
        ) from None
    except ValueError:
        raise InvalidRequest(f"input '{given.name}' is nested unevenly") from None
    if array.dtype == object:
        array = _texts(given.name, array)
    if array.size != count:
        raise InvalidRequest(
            f"input '{given.name}' has {array.size} values; its shape {given.shape} wants {count}"
        )
    return array.reshape(given.shape)


def _texts(name: str, array: Array) -> Array:
    """numpy takes uneven lists for objects, and JSON takes half a character for a text."""
    flat = array.ravel()
    if not all(isinstance(value, str) for value in flat.tolist()):
        raise InvalidRequest(f"input '{name}' is nested unevenly")
    try:
        "".join(flat).encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"input '{name}' is not UTF-8; ONNX strings are") from None
    return array


def _count(given: RequestInput) -> int:
    shape = given.shape
    if len(shape) > MAX_DEPTH:
        raise InvalidRequest(f"input '{given.name}' has more than {MAX_DEPTH} dimensions")
    if shape and not 0 <= min(shape) <= max(shape) <= MAX_SIZE:
        wrong = "a negative size" if min(shape) < 0 else "a size beyond all memory"
        raise InvalidRequest(f"input '{given.name}' has {wrong} in its shape")
    return math.prod(shape)


_ELEMENT: dict[str, type] = {"BOOL": bool, "BYTES": str, "FP32": float, "FP64": float}


def _in_range(datatype: str) -> Any:
    """The element type whose values fit; msgspec looks while it reads, which costs nothing."""
    if datatype == "BOOL":
        return bool
    if datatype == "FP64":
        return float
    if datatype == "FP32":
        return Annotated[float, msgspec.Meta(ge=-LARGEST_FP32, le=LARGEST_FP32)]
    limits = np.iinfo(NUMPY[datatype])  # type: ignore[type-var]
    return Annotated[int, msgspec.Meta(ge=int(limits.min), le=int(limits.max))]


#: UINT64 does not fit msgspec's bounds, and texts are looked at one by one.
_FLAT: dict[str, msgspec.json.Decoder[list[Any]]] = {
    datatype: msgspec.json.Decoder(list[_in_range(datatype)])  # type: ignore[misc]
    for datatype in NUMPY
    if datatype not in (*_BINARY_ONLY, "UINT64", "BYTES")
}
_WORD = {bool: "true or false", str: "strings", float: "numbers", int: "whole numbers"}


@cache
def _decoder(element: type, depth: int) -> msgspec.json.Decoder[Any]:
    kind: Any = element
    for _ in range(depth):
        kind = list[kind]
    return msgspec.json.Decoder(kind)


def _json_values(given: RequestInput, literal: bool) -> Any:
    if given.datatype in _BINARY_ONLY:
        raise InvalidRequest(
            f"input '{given.name}' is {given.datatype}, which JSON does not carry; send it binary"
        )
    element = _ELEMENT.get(given.datatype, int)
    text = bytes(given.data)
    depth = len(text) - len(text.lstrip(b"[ \t\r\n"))
    depth = text[:depth].count(b"[")
    if not 0 < depth <= MAX_DEPTH:
        raise InvalidRequest(f"input '{given.name}' needs its data in a list")
    try:
        if literal:
            return _literal_values(json.loads(text), element, depth)
        return _decoder(element, depth).decode(text)
    except (msgspec.ValidationError, TypeError):
        raise InvalidRequest(
            f"input '{given.name}' is {given.datatype}; its data must be {_WORD[element]}, "
            f"evenly nested"
        ) from None


def _literal_values(values: Any, element: type, depth: int) -> Any:
    """What the typed decoder checks, for values that the standard library has read."""
    if depth:
        if not isinstance(values, list):
            raise TypeError
        return [_literal_values(v, element, depth - 1) for v in values]
    if type(values) is element or (element is float and type(values) is int):
        return values
    raise TypeError


def _binary(given: RequestInput, count: int, data: memoryview) -> Array:
    if given.datatype == "BYTES":
        return _strings(given, count, bytes(data))
    dtype = NUMPY[given.datatype]
    if len(data) != count * dtype.itemsize:
        raise InvalidRequest(
            f"input '{given.name}' has {len(data)} bytes; shape {given.shape} of "
            f"{given.datatype} wants {count * dtype.itemsize}"
        )
    return np.frombuffer(data, dtype).reshape(given.shape)


def _strings(given: RequestInput, count: int, data: bytes) -> Array:
    """Elements are a little-endian uint32 length and that many bytes."""
    values: list[str] = []
    at, end = 0, len(data)
    while at < end:
        if at + 4 > end:
            raise InvalidRequest(f"input '{given.name}' ends within a length")
        (length,) = struct.unpack_from("<I", data, at)
        at += 4
        if at + length > end:
            raise InvalidRequest(f"input '{given.name}' ends within an element")
        values.append(_utf8(data[at : at + length], given.name))
        at += length
    if len(values) != count:
        raise InvalidRequest(
            f"input '{given.name}' has {len(values)} elements; shape {given.shape} wants {count}"
        )
    return _objects(values).reshape(given.shape)


def _objects(values: list[str]) -> Array:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _utf8(data: bytes, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"input '{name}' is not UTF-8; ONNX strings are") from None


def _check_outputs(outputs: Iterable[RequestedOutput]) -> None:
    seen = set()
    for output in outputs:
        if output.name in seen:
            raise InvalidRequest(f"output '{output.name}' is asked for twice")
        if (output.parameters or {}).get("classification"):
            raise NotSupported("the classification extension is not offered; ask for the scores")
        seen.add(output.name)


# --- out ----------------------------------------------------------------------------------------


def encode(
    head: dict[str, Any],
    outputs: Tensors,
    requested: list[RequestedOutput] | None,
    binary_default: bool,
    literals: bool = False,
) -> Body:
    """Encode an answer: `head` (model_name and so on) and the outputs.

    `literals`: the caller reads NaN and Infinity in JSON; else such an output is refused.
    """
    binary = (
        {o.name for o in requested if (o.parameters or {}).get("binary_data") is True}
        if requested
        else None
    )
    blobs: list[bytes] = []
    described: list[dict[str, Any]] = []
    for name, array in outputs.items():
        datatype = DATATYPE_OF[array.dtype]
        tensor: dict[str, Any] = {"name": name, "shape": array.shape, "datatype": datatype}
        if binary_default if binary is None else name in binary:
            blobs.append(_blob(array))
            tensor["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            if datatype in _BINARY_ONLY:
                raise InvalidRequest(
                    f"output '{name}' is {datatype}, which JSON does not carry; ask for binary_data"
                )
            tensor["data"] = array.ravel().tolist()
        described.append(tensor)
    head["outputs"] = described
    header = json.dumps(head).encode() if literals else _encode(head)
    if b"null" in header and not literals:  # what NaN becomes, if it is not a part of a text
        for tensor in described:
            _check_finite(tensor["name"], tensor.get("data", ()))
    if not blobs:
        return Body(header, None)
    return Body(b"".join((header, *blobs)), len(header))


def _check_finite(name: str, listed: Sequence[Any]) -> None:
    count = sum(isinstance(value, float) and not math.isfinite(value) for value in listed)
    if count:
        raise InvalidRequest(
            f"output '{name}' has {count} values that JSON cannot carry (NaN or infinite); "
            f"ask for binary_data, or set parameters.non_finite to 'literal'"
        )


def _blob(array: Array) -> bytes:
    if array.dtype != object:
        return array.tobytes()
    parts: list[bytes] = []
    for value in array.ravel().tolist():
        data = value.encode()
        parts += (struct.pack("<I", len(data)), data)
    return b"".join(parts)
