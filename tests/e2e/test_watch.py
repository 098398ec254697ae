"""From a fault upstream to a page with examples, through the real gateway and the real monitor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mean_absolute_error

from models.repository import Repository
from slipstream.client import Client, encode
from slipstream.embedded import EmbeddedRedis
from slipstream.push import push
from slipstream.reference import Reference
from tests import onnx_models
from tests.serving import Gateway, Monitor, eventually
from tests.slipstream.test_push import sklearn_version

DAYS = 4
ROWS = 400


def send(gateway: Gateway, day: int, x: np.ndarray) -> list[str]:
    """One request a row, all on one day of event time; the ids of the predictions."""
    ids = []
    with httpx.Client(base_url=gateway.url) as http:
        for row in x:
            body, length = encode({"x": row[None].astype(np.float32)})
            headers = {
                "inference-header-content-length": str(length),
                "x-event-time": f"2013-05-{day:02}T12:00:00Z",
            }
            answer = http.post("/v2/models/watched/infer", content=body, headers=headers)
            assert answer.status_code == 200, answer.text
            ids.append(answer.headers["x-prediction-id"])
    return ids


@pytest.fixture
def stage(tmp_path: Path, reference: Path) -> Any:
    with EmbeddedRedis(tmp_path / "redis") as server:
        repository = tmp_path / "repository"
        file = onnx_models.softmax(tmp_path / "m.onnx")
        push(Repository(repository), "watched", file, reference=Reference(reference, "late"))
        gateway = Gateway(tmp_path / "gateway", repository, server.url)
        monitor = Monitor(tmp_path / "monitor", repository, server.url)
        yield gateway, monitor, redis.Redis.from_url(server.url)
        monitor.stop()
        gateway.stop()


def test_a_fault_is_told_while_its_window_is_open(stage: Any) -> None:
    """Four calm days, then a column that is empty in every third row: one page, with the ids of
    predictions that had it, and what to do; the drift of one column is no page."""
    gateway, monitor, _ = stage
    chance = np.random.default_rng(1)
    for day in range(1, DAYS + 1):
        send(gateway, day, chance.normal(size=(ROWS, 4)))

    def timeline() -> Any:
        return monitor.get("models/watched/timeline")

    eventually(lambda: sum(timeline()["traffic"]["requests"]) == DAYS * ROWS)
    eventually(lambda: timeline()["verdict"]["kind"] == "steady")
    assert timeline()["findings"] == []
    broken = chance.normal(size=(ROWS, 4))
    broken[::3, 2] = np.nan
    ids = send(gateway, DAYS + 1, broken)
    eventually(lambda: any(f["kind"] == "missing" for f in timeline()["findings"]))
    told = timeline()
    (page,) = [f for f in told["findings"] if f["severity"] == "page"]
    assert page["sentence"] == "c is missing more often than in the reference"
    assert page["value"].startswith("c 3")
    assert page["examples"]
    assert set(page["examples"]) <= set(ids[::3])
    assert told["verdict"]["kind"] == "data fault"
    assert "do not retrain" in told["verdict"]["action"]


def test_a_regression_is_watched_by_its_errors(tmp_path: Path) -> None:
    """Real answers and real labels, some of them late: the mean absolute error is scikit-learn's,
    and what was promised without labels is near it."""
    x, y = load_diabetes(return_X_y=True)
    model = LinearRegression().fit(x, y)
    with EmbeddedRedis(tmp_path / "redis") as server:
        file, reference = sklearn_version(tmp_path, model, x, y)
        push(Repository(tmp_path / "repository"), "sugar", file, reference=reference)
        gateway = Gateway(tmp_path / "gateway", tmp_path / "repository", server.url)
        monitor = Monitor(tmp_path / "monitor", tmp_path / "repository", server.url)
        caller = Client(gateway.url)
        said = [caller.predict("sugar", {"X": row[None].astype(np.float32)}) for row in x]
        for one, truth in zip(said, y.tolist(), strict=True):
            caller.feedback("sugar", one.prediction_id, truth)

        def timeline() -> Any:
            return monitor.get("models/sugar/timeline")

        eventually(lambda: timeline()["coverage"]["labelled"] == [1.0])
        told = timeline()
        mae = mean_absolute_error(y, model.predict(x))
        assert told["task"] == "regression"
        assert told["error"]["champion"]["value"][-1] == pytest.approx(mae, rel=1e-3)
        assert told["error"]["reference"] == pytest.approx(mae, rel=1e-3)
        promised = told["error"]["estimate"]["value"][-1]
        assert promised == pytest.approx(mae, rel=0.05)
        caller.close()
        monitor.stop()
        gateway.stop()
