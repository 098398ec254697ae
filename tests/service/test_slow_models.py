"""Models that take long: a deadline, a bound on what waits, and nobody else notices."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from slipstream.embedded import EmbeddedRedis
from tests import onnx_models
from tests.service import more_models
from tests.serving import Gateway, eventually

ROW = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}
FAST = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}


@pytest.fixture(scope="module")
def hurried(
    tmp_path_factory: pytest.TempPathFactory, redis_server: EmbeddedRedis
) -> Iterator[Gateway]:
    """Half a second for each request, two may wait; one model takes seconds, one is fast."""
    repository = tmp_path_factory.mktemp("slow") / "repository"
    more_models.slow(repository / "endless/1/model.onnx", 3_000_000)
    more_models.slow(repository / "slow/1/model.onnx", 30_000)
    more_models.log(repository / "log/1/model.onnx")
    onnx_models.softmax(repository / "fast/1/model.onnx")
    environment = {"SLIPSTREAM_DEADLINE": "0.5", "SLIPSTREAM_BACKLOG": "2"}
    running = Gateway(
        tmp_path_factory.mktemp("hurried"), repository, redis_server.url, **environment
    )
    yield running
    running.stop()


def test_the_deadline_is_a_504_with_a_sentence(hurried: Gateway) -> None:
    """The caller is told; the run is ended and its place is free again."""
    answer = hurried.infer("endless", [ROW])
    assert answer.status_code == 504
    assert "endless v1 did not answer within 0.5 seconds" in answer.json()["error"]
    eventually(lambda: hurried.infer("slow", [ROW]).status_code == 200)


def test_a_slow_answer_is_still_right(hurried: Gateway) -> None:
    """In a thread of its own the model says what it says elsewhere."""
    answer = hurried.infer("slow", [ROW])
    assert answer.json()["outputs"][0]["data"] == [30_001]


def test_too_many_are_a_429_and_others_go_on(hurried: Gateway) -> None:
    """Beyond the bound: 429 with Retry-After; a fast model answers all the while."""
    with ThreadPoolExecutor(9) as pool:
        waiting = [pool.submit(hurried.infer, "endless", [ROW]) for _ in range(8)]
        fast = [hurried.infer("fast", [FAST]).status_code for _ in range(20)]
        answers = [future.result() for future in waiting]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.status_code for answer in answers} == {429, 504}
    assert all(answer.headers["retry-after"] == "1" for answer in refused)
    assert set(fast) == {200}
    eventually(lambda: hurried.infer("slow", [ROW]).status_code == 200)


@pytest.mark.parametrize(
    ("more", "status", "data"),
    [
        ({}, 400, None),
        ({"parameters": {"non_finite": "literal"}}, 200, ["-Infinity", "NaN"]),
    ],
)
def test_an_output_that_json_cannot_carry(
    hurried: Gateway, more: dict[str, object], status: int, data: list[str] | None
) -> None:
    """Refused with the way out, or literal for who asks; never null."""
    answer = hurried.infer("log", [{**ROW, "shape": [2], "data": [0, -1]}], **more)
    assert answer.status_code == status
    if data is None:
        assert "ask for binary_data" in answer.json()["error"]
    else:
        assert "".join(answer.text.split()).endswith(f'"data":[{",".join(data)}]}}]}}')
