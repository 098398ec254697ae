"""Requests that mean harm: none is a 5xx, and none blinds the monitoring of the next one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from models.contract import keys, wire
from slipstream.embedded import EmbeddedRedis
from tests import onnx_models
from tests.serving import Gateway, eventually

ROW = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
TEXT = {"name": "x", "shape": [1, 2], "datatype": "BYTES", "data": ["a", "b"]}
INFER = "/v2/models/numbers/infer"
TEXTS = "/v2/models/texts/infer"


@pytest.fixture(scope="module")
def exposed(
    tmp_path_factory: pytest.TempPathFactory, redis_server: EmbeddedRedis
) -> Iterator[Gateway]:
    """A gateway of their own: what breaks here breaks no other test."""
    repository = tmp_path_factory.mktemp("hostile") / "repository"
    onnx_models.softmax(repository / "numbers/1/model.onnx")
    onnx_models.identity(repository / "texts/1/model.onnx", "BYTES")
    running = Gateway(tmp_path_factory.mktemp("exposed"), repository, redis_server.url)
    yield running
    running.stop()


def inputs(tensor: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps({"inputs": [{**tensor, **changes}]}).encode()


def label(exposed: Gateway, path: str, written: str) -> None:
    """Feedback with a label as it stands in the body."""
    made = exposed.infer("numbers", [ROW]).headers["x-prediction-id"]
    feedback = f'[{{"prediction_id":"{made}","label":{written}}}]'
    exposed.http.post(path, content=f'{{"model":"numbers","feedback":{feedback}}}')


POISON: dict[str, Any] = {
    "no rows": lambda g: g.infer("numbers", [{**ROW, "shape": [0, 4], "data": []}]),
    "the year 1": lambda g: g.infer(
        "numbers", [ROW], headers={"x-event-time": "0001-01-01T00:00:00+23:59"}
    ),
    "the year 9999": lambda g: g.infer(
        "numbers", [ROW], headers={"x-event-time": "9999-12-31T23:59:59-23:59"}
    ),
    "uneven texts": lambda g: g.infer("texts", [{**TEXT, "data": [["a"], ["b", "c"]]}]),
    "numbers as texts": lambda g: g.http.post(
        "/predict", json={"model": "texts", "inputs": [[1, 2]]}
    ),
    "a label beyond 64 bits": lambda g: label(g, "/v2/models/numbers/feedback", str(2**70)),
    "the same through BentoML": lambda g: label(g, "/feedback", str(2**70)),
    "a number beyond 64 bits as text": lambda g: g.http.post(
        "/predict", json={"model": "texts", "inputs": [[2**70]]}
    ),
}


@pytest.mark.parametrize("case", POISON)
def test_no_request_blinds_monitoring(
    exposed: Gateway, redis_server: EmbeddedRedis, case: str
) -> None:
    """Whatever was sent, later facts still arrive, and every entry can be read by the monitor."""
    client = redis.Redis.from_url(redis_server.url)
    client.delete(keys.facts("numbers"), keys.facts("texts"))
    POISON[case](exposed)

    def newest() -> Any:
        entries: Any = client.xrevrange(keys.facts("numbers"), count=1)
        return entries[0][0] if entries else None

    before = newest()
    exposed.infer("numbers", [ROW])
    eventually(lambda: newest() != before, 5)
    for model in ("numbers", "texts"):
        entries: Any = client.xrange(keys.facts(model))
        for _, fields in entries:
            for rows in wire.unpack(fields[wire.FIELD]).rows:
                wire.arrays(rows.inputs)
                wire.arrays(rows.outputs)
    client.close()


DEEP = b'{"a":' * 100_000
HOSTILE: dict[str, tuple[str, bytes, dict[str, str]]] = {
    "version of 5,000 digits": (
        f"/v2/models/numbers/versions/{'9' * 5_000}/infer",
        inputs(ROW),
        {},
    ),
    "header length of 5,000 digits": (
        INFER,
        inputs(ROW),
        {"inference-header-content-length": "9" * 5_000},
    ),
    "rank 65": (INFER, inputs(ROW, shape=[1] * 64 + [4]), {}),
    "size 2**70": (INFER, inputs(ROW, shape=[0, 2**70], data=[]), {}),
    "not UTF-8": (INFER, b'{"id":"\xff"}', {}),
    "half a surrogate": (TEXTS, inputs(TEXT, data=["\ud800", "b"])[:-1] + b',"a":NaN}', {}),
    "uneven texts": (TEXTS, inputs(TEXT, data=[["a"], ["b", "c"]]), {}),
    "deep infer": (INFER, DEEP, {}),
    "deep index": ("/v2/repository/index", DEEP, {}),
    "deep load": ("/v2/repository/models/numbers/load", DEEP, {}),
    "deep feedback": ("/v2/models/numbers/feedback", DEEP, {}),
    "feedback not UTF-8": ("/v2/models/numbers/feedback", b'{"feedback":"\xff"}', {}),
    "index not UTF-8": ("/v2/repository/index", b'{"ready":"\xff"}', {}),
    "encoding not read": (INFER, inputs(ROW), {"content-encoding": "br"}),
    "predict, 5,000 digits": (
        "/predict",
        json.dumps({"model": "numbers", "inputs": [[1] * 4], "version": "9" * 5_000}).encode(),
        {},
    ),
    "predict, an object for a number": (
        "/predict",
        b'{"model":"numbers","inputs":[[1,2,3,{}]]}',
        {},
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_requests_are_the_senders_fault(exposed: Gateway, case: str) -> None:
    """A 4xx and a sentence; a 5xx would page somebody and count against the model."""
    path, body, headers = HOSTILE[case]
    answer = exposed.http.post(path, content=body, headers=headers)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["error"]
