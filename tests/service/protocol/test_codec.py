"""service.protocol.codec, against tritonclient's own encoder and decoder."""

from __future__ import annotations

import gzip
import json
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.errors import (
    BodyTooLarge,
    InvalidRequest,
    NotSupported,
    SlipstreamError,
    UnsupportedEncoding,
)
from models.signature import NUMPY, Array, Signature, TensorSpec
from service.protocol import codec

SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=3)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
#: JSON carries all but these.
JSON_TYPES = sorted(set(NUMPY) - {"FP16", "BF16"})


@st.composite
def tensors(draw: st.DrawFn, datatypes: list[str], finite: bool = False) -> tuple[str, Array]:
    """A datatype and any array of it: any bits, so NaN, infinities and -0.0 are among them."""
    datatype, shape = draw(st.sampled_from(datatypes)), draw(SHAPES)
    dtype = NUMPY[datatype]
    if datatype == "BYTES":
        count = int(np.prod(shape))
        texts = draw(st.lists(TEXTS, min_size=count, max_size=count))
        return datatype, np.array([*texts, None], object)[:-1].reshape(shape)
    if dtype.kind == "b":
        return datatype, draw(arrays.arrays(dtype, shape))
    array: Array = draw(arrays.arrays(f"u{dtype.itemsize}", shape)).view(dtype)
    return datatype, np.nan_to_num(array) if finite and dtype.kind == "f" else array


def same(one: Array, other: Array) -> bool:
    """Type, shape and bits."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype == object:
        return bool(one.tolist() == other.tolist())
    return one.tobytes() == other.tobytes()


def from_triton(*given: tuple[str, str, Array], binary: bool = True) -> codec.Request:
    """What the codec reads of what tritonclient writes."""
    inputs = []
    for name, datatype, array in given:
        inputs.append(triton.InferInput(name, list(array.shape), datatype))
        inputs[-1].set_data_from_numpy(array, binary_data=binary)
    body, size = triton.InferenceServerClient.generate_request_body(inputs, request_id="7")
    return codec.decode(body, None if size is None else str(size).encode())


def to_triton(name: str, array: Array, binary: bool, literals: bool = False) -> Array:
    """What tritonclient reads of what the codec writes."""
    head = {"model_name": "m", "model_version": "1", "id": "7"}
    body = codec.encode(head, {name: array}, None, binary, literals)
    result = triton.InferenceServerClient.parse_response_body(
        body.content, header_length=body.header_length
    )
    assert result.get_response()["id"] == "7"
    found: Array = result.as_numpy(name)
    if array.dtype == object:
        plain = [v.decode() if isinstance(v, bytes) else v for v in found.ravel().tolist()]
        found = np.array([*plain, None], object)[:-1].reshape(found.shape)
    return found


@given(tensors(sorted(NUMPY)), tensors(sorted(NUMPY)))
def test_binary_in(one: tuple[str, Array], other: tuple[str, Array]) -> None:
    """All 14 types arrive bit for bit, several in one body, empty ones too."""
    request = from_triton(("one", *one), ("other", *other))
    assert (request.id, request.binary_default) == ("7", True)
    assert same(request.tensors["one"], one[1])
    assert same(request.tensors["other"], other[1])


@given(tensors(JSON_TYPES))
def test_json_in(given: tuple[str, Array]) -> None:
    """The 12 types of JSON arrive as the same numbers; its bare NaN and Infinity are read."""
    datatype, array = given
    found = from_triton(("x", datatype, array), binary=False).tensors["x"]
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(found, array)


@given(tensors(sorted(NUMPY)))
def test_binary_out(given: tuple[str, Array]) -> None:
    """All 14 types leave bit for bit."""
    assert same(to_triton("y", given[1], binary=True), given[1])


@given(tensors(JSON_TYPES, finite=True))
def test_json_out(given: tuple[str, Array]) -> None:
    """The 12 types of JSON leave as the same numbers, in JSON that anybody reads."""
    np.testing.assert_array_equal(to_triton("y", given[1], binary=False), given[1])


@given(tensors(["FP32", "FP64"]))
def test_literals_out(given: tuple[str, Array]) -> None:
    """NaN and infinities leave as literals only for those who ask."""
    np.testing.assert_array_equal(to_triton("y", given[1], False, literals=True), given[1])


@given(tensors(sorted(NUMPY)))
def test_raw_binary_in(given: tuple[str, Array]) -> None:
    """With a header length of 0 the whole body is the only input, batch 1."""
    datatype, array = given
    shape: tuple[int, ...]
    if datatype == "BYTES":
        array = np.array(["".join(array.ravel().tolist()) or "a"], object)
        body, shape = array[0].encode(), (1,)
    else:
        array = np.resize(array, (1, 3)) if array.size else np.zeros((1, 3), array.dtype)
        body, shape = array.tobytes(), (-1, 3)
    signature = Signature((TensorSpec("x", datatype, shape),), ())
    request = codec.decode_raw(body, signature)
    assert request.binary_default
    assert same(request.tensors["x"], array)


X = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
BINARY = {"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
TEXT = {**BINARY, "datatype": "BYTES"}
NO_DATA = {"name": "x", "shape": [1, 2], "datatype": "FP32"}


def x(**changes: Any) -> dict[str, Any]:
    return {"inputs": [{**X, **changes}]}


def body_of(what: Any) -> bytes:
    return what if isinstance(what, bytes) else json.dumps(what).encode()


MALFORMED: dict[str, tuple[Any, str]] = {
    "nothing": (b"", "not JSON"),
    "half an object": (b'{"inputs": [', "not JSON"),
    "no object": (3, "protocol"),
    "no UTF-8": (b'{"inputs": [], "id": "\xff"}', "JSON"),
    "deep": (b'{"inputs": [], "a": ' + b"[" * 100_000, "JSON|nested"),
    "deep with a literal": (b'{"inputs": [], "b": NaN, "a": ' + b"[" * 100_000, "JSON|nested"),
    "a list of literals": (b"[NaN]", "protocol"),
    "inputs of numbers, with a literal": (b'{"inputs": [NaN]}', "JSON|protocol"),
    "no inputs": ({}, "inputs"),
    "an id that is a number": ({"inputs": [], "id": 5}, r"\$\.id"),
    "no name": ({"inputs": [{"shape": [1], "datatype": "FP32", "data": [1]}]}, "name"),
    "datatype of ONNX": (x(datatype="FLOAT"), "datatype 'FLOAT'; known: BOOL"),
    "datatype of numpy": (x(datatype="float32"), "known"),
    "shape of text": (x(shape=["1"]), "shape"),
    "shape of fractions": (x(shape=[1.5]), "shape"),
    "negative size": (x(shape=[-1, -2]), "negative size"),
    "more than there is": (x(shape=[2**40]), "wants 1099511627776"),
    "beyond any array": (x(shape=[0, 2**70], data=[]), "shape"),
    "rank 65": (x(shape=[1] * 64 + [2]), "shape|rank|dimension"),
    "data too deep": (x(data=json.loads("[" * 40 + "1" + "]" * 40)), "list"),
    "data of one number": (x(data=1), "needs its data in a list"),
    "data null": (x(data=None), "list"),
    "uneven numbers": (x(data=[[1], [2, 3]]), "uneven"),
    "uneven texts": (x(datatype="BYTES", data=[["a"], ["b", "c"]]), "uneven|nested"),
    "uneven depth": (x(data=[1, [2]]), "evenly nested"),
    "text for a number": (x(data=["1", "2"]), "must be numbers"),
    "true for a number": (x(data=[True, False]), "must be numbers"),
    "number for a text": (x(datatype="BYTES", data=[1, 2]), "must be strings"),
    "number for true": (x(datatype="BOOL", data=[1, 0]), "must be true or false"),
    "fraction for an integer": (x(datatype="INT64", data=[1.5, 2]), "whole numbers"),
    "NaN for an integer": (x(datatype="INT64", data=[float("nan"), 2]), "whole numbers"),
    "NaN for a text": (x(datatype="BYTES", data=[float("nan"), "a"]), "strings"),
    "-1 for UINT8": (x(datatype="UINT8", data=[-1, 0]), "range"),
    "128 for INT8": (x(datatype="INT8", data=[128, 0]), "range"),
    "2**64 for UINT64": (x(datatype="UINT64", data=[2**64, 0]), "range|whole"),
    "1e300 for FP32": (x(data=[1e300, 0]), "range"),
    "400 digits": (x(datatype="INT64", data=[10**400, 0]), "range|whole"),
    "FP16 in JSON": (x(datatype="FP16"), "FP16, which JSON does not carry"),
    "BF16 in JSON": (x(datatype="BF16"), "BF16, which JSON does not carry"),
    "half a surrogate": (
        b'{"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["\\ud800"]}],'
        b' "parameters": {"a": NaN}}',
        "UTF-8|JSON|text",
    ),
    "no data": ({"inputs": [NO_DATA]}, "no data"),
    "the same input twice": ({"inputs": [X, X]}, "given twice"),
    "the same output twice": ({**x(), "outputs": [{"name": "y"}] * 2}, "asked for twice"),
    "binary bytes of a text": (x(data=None, parameters={"binary_data_size": "8"}), "'x'"),
    "data and binary": (x(parameters={"binary_data_size": 0}), "both"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_requests(case: str) -> None:
    """Every fault of the sender is an InvalidRequest with a sentence that names it."""
    body, sentence = MALFORMED[case]
    with pytest.raises(InvalidRequest, match=sentence):
        codec.decode(body_of(body))


@pytest.mark.parametrize(
    ("tensor", "tail", "sentence"),
    [
        (BINARY, bytes(9), "1 bytes follow the last tensor"),
        (BINARY, bytes(7), "claims 8 binary bytes; 7 are left"),
        ({**BINARY, "parameters": {"binary_data_size": 4}}, bytes(4), "has 4 bytes; .* wants 8"),
        ({**BINARY, "parameters": {"binary_data_size": -1}}, bytes(8), "claims -1"),
        ({**BINARY, "parameters": {"binary_data_size": True}}, bytes(8), "claims True"),
        ({**BINARY, "parameters": {"binary_data_size": 8.0}}, bytes(8), "claims 8.0"),
        ({**BINARY, "shape": [0, 2**70], "parameters": {"binary_data_size": 0}}, b"", "shape"),
        ({**BINARY, "shape": [1] * 64 + [2]}, bytes(8), "shape|rank|dimension"),
        (X, bytes(8), "8 bytes follow"),
        (TEXT, b"\1\0\0\0a\1\0\0", "ends within a length"),
        (TEXT, b"\1\0\0\0a\xff\xff\xff", "ends within a length"),
        (TEXT, b"\xff\xff\xff\xffabcd", "ends within an element"),
        (TEXT, b"\4\0\0\0abcd", "has 1 elements; .* wants 2"),
        (TEXT, b"\4\0\0\0\xff\xff\xff\xff", "not UTF-8"),
    ],
)
def test_malformed_binary(tensor: dict[str, Any], tail: bytes, sentence: str) -> None:
    """Exactly the claimed bytes must be there, fit the shape, and be all there is."""
    head = body_of({"inputs": [tensor]})
    with pytest.raises(InvalidRequest, match=sentence):
        codec.decode(head + tail, str(len(head)).encode())


@pytest.mark.parametrize(
    "length", [b"", b"-1", b"+5", b"5.0", b"abc", b"1 ", b"999", b"00", b"\xb2", b"9" * 5_000]
)
def test_a_header_length_is_a_number_within_the_body(length: bytes) -> None:
    """Anything else would be guessed; Triton takes "abc" for 0."""
    with pytest.raises(InvalidRequest, match="must be a decimal number"):
        codec.decode(body_of(x()), length)


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([1, 2], [[1.0, 2.0]]),
        ([2], [[[1], [2]]]),
        ([], [7]),
        ([1, 0], []),
        ([0, 3], [[], []]),
    ],
)
def test_data_may_be_nested_or_flat(shape: list[int], data: list[Any]) -> None:
    """The count decides, not the nesting; a scalar and an empty tensor are tensors."""
    found = codec.decode(body_of(x(shape=shape, data=data))).tensors["x"]
    assert found.shape == tuple(shape)
    np.testing.assert_array_equal(found.ravel(), np.ravel(data))


@pytest.mark.parametrize(
    ("more", "default", "names"),
    [
        ({}, False, None),
        ({"outputs": []}, False, None),
        ({"outputs": None, "parameters": None}, False, None),
        ({"parameters": {"binary_data_output": True}}, True, None),
        ({"parameters": {"binary_data_output": 1}}, False, None),
        ({"outputs": [{"name": "y"}], "parameters": {"binary_data_output": True}}, False, ["y"]),
        ({"model_name": "ignored"}, False, None),
    ],
)
def test_what_is_asked_for(more: dict[str, Any], default: bool, names: list[str] | None) -> None:
    """No list of outputs, or an empty one, is all; binary_data_output counts only then."""
    request = codec.decode(body_of({**x(), **more}))
    listed = [output.name for output in request.outputs] if request.outputs else None
    assert (request.binary_default, listed) == (default, names)


def test_outputs_are_binary_one_by_one() -> None:
    """In one answer some are JSON and some binary, each as it was asked for."""
    wanted = [
        triton.InferRequestedOutput("a", binary_data=True),
        triton.InferRequestedOutput("b", binary_data=False),
    ]
    given = triton.InferInput("x", [1], "FP32")
    given.set_data_from_numpy(np.zeros(1, np.float32))
    body, size = triton.InferenceServerClient.generate_request_body([given], outputs=wanted)
    request = codec.decode(body, str(size).encode())
    outputs: dict[str, Array] = {"a": np.arange(3), "b": np.array(["é"], object)}
    answer = codec.encode({}, outputs, request.outputs, request.binary_default)
    head = json.loads(answer.content[: answer.header_length])
    assert [set(output) - {"name", "shape", "datatype"} for output in head["outputs"]] == [
        {"parameters"},
        {"data"},
    ]
    result = triton.InferenceServerClient.parse_response_body(
        answer.content, header_length=answer.header_length
    )
    assert result.as_numpy("a").tolist() == [0, 1, 2]
    assert result.as_numpy("b").tolist() == ["é"]


def test_classification_is_not_offered() -> None:
    """The protocol knows it, this server does not: NotSupported, not a wrong answer."""
    outputs = [{"name": "y", "parameters": {"classification": 3}}]
    with pytest.raises(NotSupported):
        codec.decode(body_of({**x(), "outputs": outputs}))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_json_never_turns_infinity_into_null(datatype: str, value: float) -> None:
    """An output that JSON cannot carry is refused, with the way out in the sentence."""
    array = np.array([1, value, value], NUMPY[datatype])
    with pytest.raises(InvalidRequest, match=r"'y' has 2 values .* ask for binary_data"):
        codec.encode({}, {"y": array}, None, False)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_json_carries_no_halves(datatype: str) -> None:
    """Both ways: the same sentence as for an input."""
    with pytest.raises(InvalidRequest, match=f"{datatype}, which JSON does not carry"):
        codec.encode({}, {"y": np.zeros(1, NUMPY[datatype])}, None, False)


@given(st.binary(max_size=2_000))
def test_compressed_bodies_inflate(body: bytes) -> None:
    """gzip as gzip writes it, deflate as zlib writes it, and both up to the limit exactly."""
    for encoding, packed in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body))):
        assert codec.decompress(packed, encoding, len(body)) == body


@pytest.mark.parametrize(
    ("encoding", "body", "error"),
    [
        ("br", b"", UnsupportedEncoding),
        ("gzip, gzip", b"", UnsupportedEncoding),
        ("gzip", b"plain", InvalidRequest),
        ("deflate", b"plain", InvalidRequest),
        ("gzip", gzip.compress(b"x" * 90)[:-3], InvalidRequest),
        ("gzip", b"", InvalidRequest),
        ("gzip", gzip.compress(bytes(101)), BodyTooLarge),
        ("gzip", gzip.compress(bytes(10_000_000)), BodyTooLarge),
        ("deflate", zlib.compress(bytes(10_000_000)), BodyTooLarge),
        ("gzip", gzip.compress(b"a") + b"trailing", InvalidRequest),
    ],
    ids=[
        *("brotli", "twice", "no gzip", "no deflate", "cut off", "empty", "one too many"),
        *("gzip bomb", "deflate bomb", "more behind it"),
    ],
)
def test_bad_compression(encoding: str, body: bytes, error: type[SlipstreamError]) -> None:
    """The limit counts what comes out; what is cut off, or has more behind it, is refused."""
    with pytest.raises(error):
        codec.decompress(body, encoding, 100)


@pytest.mark.parametrize(
    ("inputs", "body", "sentence"),
    [
        ((TensorSpec("x", "FP32", (-1, 2)),) * 2, bytes(8), "one input"),
        ((TensorSpec("x", "FP32", (-1, 2)),), b"", "empty"),
        ((TensorSpec("x", "FP32", (-1, 2)),), bytes(7), "whole number of FP32"),
        ((TensorSpec("x", "FP32", (-1, 2)),), bytes(12), "do not fill"),
        ((TensorSpec("x", "FP32", (-1, -1, -1)),), bytes(8), "do not fill"),
        ((TensorSpec("x", "BYTES", (-1,)),), b"\xff", "UTF-8"),
    ],
)
def test_malformed_raw_binary(inputs: tuple[TensorSpec, ...], body: bytes, sentence: str) -> None:
    """A raw body must be exactly one tensor of the model's only input."""
    with pytest.raises(InvalidRequest, match=sentence):
        codec.decode_raw(body, Signature(inputs, ()))


@given(st.binary(max_size=200), st.none() | st.binary(max_size=4) | st.just(b"1"))
def test_garbage_is_an_invalid_request(body: bytes, length: bytes | None) -> None:
    """Whatever the bytes, the only exception is one of ours."""
    with suppress(SlipstreamError):
        codec.decode(body, length)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.just("x") | JSON_VALUES,
            "shape": st.lists(st.integers(-1, 2**65), max_size=3) | JSON_VALUES,
            "datatype": st.sampled_from(sorted(NUMPY)) | JSON_VALUES,
            "data": JSON_VALUES,
            "parameters": st.dictionaries(st.just("binary_data_size"), JSON_VALUES) | JSON_VALUES,
        },
    )
)
def test_almost_an_input_is_an_invalid_request(almost: dict[str, Any]) -> None:
    """Right keys with wrong values, NaN literals and half surrogates among them."""
    good = {"name": "x", "shape": [0], "datatype": "FP32", "data": []}
    with suppress(SlipstreamError):
        codec.decode(json.dumps({"inputs": [{**good, **almost}]}).encode())
