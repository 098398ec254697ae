"""The clients' door, through real HTTP."""

from __future__ import annotations

import gzip
import socket
from typing import Any

import bentoml
import httpx
import numpy as np
import psutil
import pytest
import redis
import tritonclient.http as triton

from models import rollout, routes
from models.signature import NUMPY
from slipstream.client import Client
from slipstream.embedded import EmbeddedRedis
from tests.onnx_models import TYPES
from tests.serving import Gateway, eventually

ROW = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0, 2.0, 3.0, 4.0]}


def expected(x: np.ndarray[Any, Any], weight: float = 1.0) -> np.ndarray[Any, Any]:
    z = x @ ((np.arange(8).reshape(4, 2) - 3.5) * weight / 10)
    return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)


def test_an_answer_says_who_gave_it(gateway: Gateway) -> None:
    """Body and headers carry version, role, prediction id, route revision and trace."""
    answer = gateway.infer("strict", [ROW], id="mine")
    body = answer.json()
    assert (body["model_name"], body["model_version"], body["id"]) == ("strict", "1", "mine")
    assert answer.headers["x-model-version"] == "1"
    assert answer.headers["x-model-role"] == "champion"
    assert answer.headers["x-prediction-id"] == body["parameters"]["prediction_id"]
    assert answer.headers["traceparent"].startswith("00-")
    np.testing.assert_allclose(
        np.reshape(body["outputs"][0]["data"], (1, 2)),
        expected(np.array([[1, 2, 3, 4]]), 2.0),
        rtol=1e-5,
    )


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2, 3, 4]]], ids=["flat", "nested"])
def test_data_may_be_flat_or_nested(gateway: Gateway, data: Any) -> None:
    """Both spellings of the same tensor give the same answer."""
    answer = gateway.infer("strict", [{**ROW, "data": data}])
    assert answer.status_code == 200
    assert answer.json()["outputs"][0]["shape"] == [1, 2]


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_tritons_client_infers_unmodified(gateway: Gateway, binary: bool) -> None:
    """tritonclient.http, in its default binary form and in JSON."""
    client = triton.InferenceServerClient(f"127.0.0.1:{gateway.port}")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("simple")
    zero, one = np.arange(16, dtype=np.int32).reshape(1, 16), np.ones((1, 16), np.int32)
    inputs = []
    for name, array in (("INPUT0", zero), ("INPUT1", one)):
        inputs.append(triton.InferInput(name, [1, 16], "INT32"))
        inputs[-1].set_data_from_numpy(array, binary_data=binary)
    wanted = [
        triton.InferRequestedOutput(name, binary_data=binary) for name in ("OUTPUT0", "OUTPUT1")
    ]
    result = client.infer("simple", inputs, outputs=wanted, request_id="7")
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), zero + one)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), zero - one)
    assert result.get_response()["id"] == "7"
    default = client.infer("simple", inputs)
    np.testing.assert_array_equal(default.as_numpy("OUTPUT0"), zero + one)
    client.close()


def test_tritons_client_reads_metadata_and_index(gateway: Gateway) -> None:
    """Metadata, configuration and repository index in the form that tritonclient expects."""
    client = triton.InferenceServerClient(f"127.0.0.1:{gateway.port}")
    assert client.get_server_metadata()["name"] == "slipstream"
    metadata = client.get_model_metadata("simple")
    assert [(i["name"], i["datatype"], i["shape"]) for i in metadata["inputs"]] == [
        ("INPUT0", "INT32", [-1, 16]),
        ("INPUT1", "INT32", [-1, 16]),
    ]
    index = {entry["name"]: entry for entry in client.get_model_repository_index()}
    assert index["simple"]["state"] == "READY"
    assert index["sequence"]["state"] == "UNAVAILABLE"
    assert "Open Inference Protocol cannot express" in index["sequence"]["reason"]
    client.load_model("simple")
    client.close()


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compressed_requests_are_read(gateway: Gateway, compression: str) -> None:
    """tritonclient's own compression, both kinds."""
    client = triton.InferenceServerClient(f"127.0.0.1:{gateway.port}")
    given = triton.InferInput("x", [1, 4], "FP32")
    given.set_data_from_numpy(np.ones((1, 4), np.float32))
    result = client.infer("strict", [given], request_compression_algorithm=compression)
    assert result.as_numpy("y").shape == (1, 2)
    client.close()


@pytest.mark.parametrize("datatype", TYPES)
def test_every_datatype_comes_back_bit_for_bit(gateway: Gateway, datatype: str) -> None:
    """Binary in, binary out, through an identity model of each type of the protocol."""
    array: Any
    if datatype == "BYTES":
        array = np.array([["", "é", "a\nb"]], dtype=object)
    else:
        array = np.array([[0, 1, 1]]).astype(NUMPY[datatype])
    client = Client(gateway.url)
    answer = client.predict(f"identity_{datatype.lower()}", {"x": array})
    assert answer.outputs["y"].dtype == array.dtype
    np.testing.assert_array_equal(answer.outputs["y"], array)
    client.close()


def with_row(**changes: Any) -> dict[str, Any]:
    return {"inputs": [{**ROW, **changes}]}


MALFORMED: dict[str, tuple[str, Any, int, str]] = {
    "no json": ("strict", b"{", 400, "not JSON"),
    "empty": ("strict", b"", 400, "not JSON"),
    "a list": ("strict", [], 400, "does not fit"),
    "no inputs": ("strict", {}, 400, "inputs"),
    "inputs empty": ("strict", {"inputs": []}, 400, "'x' is missing"),
    "string for a number": ("strict", with_row(data=["a", 2, 3, 4]), 400, "must be numbers"),
    "null for a number": ("strict", with_row(data=[None, 2, 3, 4]), 400, "must be numbers"),
    "bool for a number": ("strict", with_row(data=[True, 2, 3, 4]), 400, "must be numbers"),
    "ragged": ("strict", with_row(shape=[2, 2], data=[[1, 2, 3], [4]]), 400, "unevenly"),
    "too few": ("strict", with_row(data=[1, 2]), 400, "wants 4"),
    "not a list": ("strict", with_row(data=1), 400, "in a list"),
    "no data": ("strict", {"inputs": [{k: ROW[k] for k in ("name", "shape", "datatype")}]}, 400, "no data"),
    "wrong shape": ("strict", with_row(shape=[4, 1]), 400, "has shape [4, 1]"),
    "wrong rank": ("strict", with_row(shape=[4]), 400, "has shape [4]"),
    "negative size": ("strict", with_row(shape=[-1, -4]), 400, "negative"),
    "wrong datatype": ("strict", with_row(datatype="INT32", data=[1, 2, 3, 4]), 400, "takes FP32"),
    "no datatype": ("strict", with_row(datatype="FLOAT"), 400, "known: BOOL"),
    "half in json": ("identity_fp16", with_row(datatype="FP16"), 400, "send it binary"),
    "unknown input": ("strict", {"inputs": [ROW, {**ROW, "name": "z"}]}, 400, "unknown input 'z'"),
    "input twice": ("strict", {"inputs": [ROW, ROW]}, 400, "given twice"),
    "unknown output": ("strict", {**with_row(), "outputs": [{"name": "q"}]}, 400, "no output 'q'"),
    "output twice": ("strict", {**with_row(), "outputs": [{"name": "y"}] * 2}, 400, "twice"),
    "NaN where forbidden": ("strict", b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[NaN,1,2,3]}]}', 400, "refuses"),
    "out of range": ("identity_int8", {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "INT8", "data": [300]}]}, 400, "range"),
    "fraction": ("identity_int8", {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "INT8", "data": [0.5]}]}, 400, "whole numbers"),
    "binary too long": ("strict", with_row(data=[], parameters={"binary_data_size": 16}), 400, "both"),
    "event time to come": ("strict", {**with_row(), "parameters": {"event_time": "2199-12-31T00:00:00Z"}}, 400, "in the future"),
    "event time": ("strict", {**with_row(), "parameters": {"event_time": "yesterday"}}, 400, "RFC 3339"),
    "unknown model": ("nobody", with_row(), 404, "no model 'nobody'"),
    "unservable model": ("sequence", with_row(), 503, "cannot be served"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_requests_get_a_status_and_a_sentence(gateway: Gateway, case: str) -> None:
    """Never a 5xx for what the sender did wrong, and always {"error": sentence}."""
    model, body, status, words = MALFORMED[case]
    path = f"/v2/models/{model}/infer"
    if isinstance(body, bytes):
        answer = gateway.http.post(path, content=body)
    else:
        answer = gateway.http.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert words in answer.json()["error"]


def test_trailing_bytes_are_refused(gateway: Gateway) -> None:
    """Bytes behind the last binary tensor belong to nothing."""
    json = b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","parameters":{"binary_data_size":16}}]}'
    headers = {"inference-header-content-length": str(len(json))}
    path = "/v2/models/strict/infer"
    assert gateway.http.post(path, content=json + bytes(16), headers=headers).status_code == 200
    answer = gateway.http.post(path, content=json + bytes(19), headers=headers)
    assert answer.status_code == 400
    assert "3 bytes follow" in answer.json()["error"]
    headers["inference-header-content-length"] = "abc"
    assert gateway.http.post(path, content=json, headers=headers).status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/strict/infer", 405),
        ("POST", "/v2/models/strict", 405),
        ("GET", "/v2/models/strict/versions/9", 404),
        ("GET", "/v2/models/strict/versions/newest", 400),
        ("GET", "/v2/models/strict/versions/previous", 404),
        ("GET", "/v2/nothing/here", 404),
    ],
)
def test_paths_and_methods(gateway: Gateway, method: str, path: str, status: int) -> None:
    """What is not there is a 404, what may not be done there a 405."""
    answer = gateway.http.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"feedback": 3}', b'{"feedback": null}', b"\xff\xfe"]
)
def test_malformed_feedback_is_refused(gateway: Gateway, body: bytes) -> None:
    """A body that is no feedback at all is a 400."""
    assert gateway.http.post("/v2/models/strict/feedback", content=body).status_code == 400


def test_feedback_tells_which_labels_it_refused(gateway: Gateway) -> None:
    """Good labels are taken, bad ones come back with their index and a sentence."""
    good = gateway.infer("strict", [ROW]).headers["x-prediction-id"]
    labels = [
        {"prediction_id": good, "label": 1},
        {"prediction_id": "no id", "label": 1},
        {"prediction_id": good},
        {"prediction_id": "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "label": 1},
    ]
    answer = gateway.http.post("/v2/models/strict/feedback", json={"feedback": labels}).json()
    assert answer["accepted"] == 1
    assert [refused["index"] for refused in answer["rejected"]] == [1, 2, 3]


def worker_memory(gateway: Gateway) -> int:
    family = [psutil.Process(gateway.pid), *psutil.Process(gateway.pid).children(recursive=True)]
    return sum(process.memory_info().rss for process in family)


def test_a_body_over_the_limit_is_refused_while_it_is_read(gateway: Gateway) -> None:
    """Claimed or chunked, 200 MB are refused and leave the worker's memory as it was."""
    before = worker_memory(gateway)
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        connection.sendall(
            b"POST /v2/models/strict/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 200000000\r\n\r\n"
        )
        assert b" 413 " in connection.recv(1000)

    sent = 0

    def chunks() -> Any:
        nonlocal sent
        for _ in range(200):
            sent += 1_000_000
            yield bytes(1_000_000)

    try:
        answer = httpx.post(f"{gateway.url}/v2/models/strict/infer", content=chunks(), timeout=30)
        assert answer.status_code == 413
    except httpx.WriteError:
        assert sent < 200_000_000  # the connection was closed before all of it was sent
    assert worker_memory(gateway) - before < 40_000_000


def test_a_bomb_is_refused(gateway: Gateway) -> None:
    """The limit counts what comes out of the compression."""
    bomb = gzip.compress(bytes(50_000_000))
    answer = gateway.http.post(
        "/v2/models/strict/infer", content=bomb, headers={"content-encoding": "gzip"}
    )
    assert answer.status_code == 413


def test_junk_paths_add_no_series(gateway: Gateway) -> None:
    """A caller cannot make the metrics grow."""
    for path in ("/metrics", "/v2/junk/0", "/junk/0", "/v2/models/junk0/infer"):
        gateway.http.get(path)
    before = len(gateway.http.get("/metrics").text.splitlines())
    for i in range(100):
        gateway.http.get(f"/v2/junk/{i}")
        gateway.http.get(f"/junk/{i}")
        gateway.http.get(f"/v2/models/junk{i}/infer")
    assert len(gateway.http.get("/metrics").text.splitlines()) == before


def test_bentomls_own_client_predicts_and_gives_feedback(gateway: Gateway) -> None:
    """`/predict` and `/feedback` are BentoML's doors to the same house."""
    with bentoml.SyncHTTPClient(gateway.url) as client:
        answer = client.predict(model="strict", inputs=[[1, 2, 3, 4]])
        assert (answer["version"], answer["role"]) == (1, "champion")
        np.testing.assert_allclose(
            answer["outputs"]["y"], expected(np.array([[1, 2, 3, 4]]), 2.0), rtol=1e-5
        )
        label = {"prediction_id": answer["prediction_id"], "label": 1}
        assert client.feedback(model="strict", feedback=[label]) == {"accepted": 1, "rejected": []}
    refused = gateway.http.post("/predict", json={"model": "nobody", "inputs": []})
    assert refused.status_code == 404
    assert "no model 'nobody'" in refused.json()["error"]


def test_a_shadow_rides_along_and_a_promotion_moves_traffic(
    gateway: Gateway, redis_server: EmbeddedRedis
) -> None:
    """A route is applied by a running worker; pinned versions answer beside it."""
    client = redis.Redis.from_url(redis_server.url)
    assert gateway.infer("pushed", [ROW]).headers["x-model-version"] == "2"

    def change(action: str, transition: Any) -> int:
        return routes.change(
            client, "pushed", transition, first=2, action=action, who="test", why=""
        ).revision

    def applied(revision: int) -> bool:
        return gateway.metric('slipstream_route_revision{model="pushed"}') == revision

    revision = change("shadow", lambda route: rollout.start_shadow(route, 1, 100))
    eventually(lambda: applied(revision))
    assert gateway.infer("pushed", [ROW]).headers["x-model-version"] == "2"
    ran = 'slipstream_shadow_total{model="pushed",outcome="ran",version="1"}'
    eventually(lambda: gateway.metric(ran) == 1)
    revision = change("promote", lambda route: rollout.promote(route, 1))
    eventually(lambda: applied(revision))
    assert gateway.infer("pushed", [ROW]).headers["x-model-version"] == "1"
    pinned = gateway.infer("pushed", [ROW], path="/v2/models/pushed/versions/2/infer")
    assert pinned.headers["x-model-role"] == "pinned"
    previous = gateway.infer("pushed", [ROW], path="/v2/models/pushed/versions/previous/infer")
    assert previous.headers["x-model-version"] == "2"
    client.close()
