"""A version's way from push to champion, and a broken one's way back, with every process real."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import httpx
import msgspec
import pytest
import redis

from models import routes
from models.actions import Action
from models.contract import keys
from models.repository import Repository
from models.rollout import Route
from monitoring import control, rollouts
from slipstream.embedded import EmbeddedRedis
from slipstream.push import Reference, push
from tests import onnx_models
from tests.serving import Gateway, Monitor, eventually

POLICY = """
name = "test"
[evidence]
requests = 60
labels = 40
seconds = 0.5
[latency]
ratio = 3.0
slack_ms = 50
[agreement]
blocks = false
[outputs]
blocks = false
[accuracy]
margin = 0.2
"""


class House:
    """Gateway and monitor over a Redis of their own, with a client that never stops."""

    def __init__(self, gateway: Gateway, client: redis.Redis, policy: Path) -> None:
        self.gateway = gateway
        self.client = client
        self.policy = policy
        self.statuses: dict[int, int] = {}

    def ask(self, stopping: threading.Event) -> None:
        draw = Random(1)
        with httpx.Client(base_url=self.gateway.url, timeout=30) as http:
            while not stopping.is_set():
                row = {
                    "name": "x",
                    "shape": [1, 4],
                    "datatype": "FP32",
                    "data": [draw.uniform(0, 5) for _ in range(4)],
                }
                answer = http.post("/v2/models/m/infer", json={"inputs": [row]})
                self.statuses[answer.status_code] = self.statuses.get(answer.status_code, 0) + 1
                label = {
                    "prediction_id": answer.headers["x-prediction-id"],
                    "label": str(draw.randrange(2)),
                }
                http.post("/v2/models/m/feedback", json={"feedback": [label]})

    def act(self, action: Action) -> Route:
        return control.act(self.client, "m", action, first=1, who="test")

    def route(self) -> Route:
        found = routes.read(self.client, "m")
        assert found is not None
        return found


@pytest.fixture
def house(tmp_path: Path, reference: Path) -> Iterator[House]:
    repository = Repository(tmp_path / "repository")
    for weight in (1.0, 1.1):
        file = onnx_models.softmax(tmp_path / f"{weight}.onnx", weight)
        push(repository, "m", file, reference=Reference(reference, "late"))
    onnx_models.identity(tmp_path / "repository/m/3/model.onnx", "INT8")
    policy = tmp_path / "test.toml"
    policy.write_text(POLICY)
    (tmp_path / "gateway").mkdir()
    (tmp_path / "monitor").mkdir()
    with EmbeddedRedis(tmp_path / "redis") as own:
        gateway = Gateway(tmp_path / "gateway", repository.root, own.url)
        monitor = Monitor(tmp_path / "monitor", repository.root, own.url)
        client = redis.Redis.from_url(own.url)
        yield House(gateway, client, policy)
        client.close()
        gateway.stop()
        monitor.stop()


@contextmanager
def traffic(house: House) -> Iterator[None]:
    stopping = threading.Event()
    thread = threading.Thread(target=house.ask, args=(stopping,))
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def test_from_shadow_to_champion_and_a_broken_one_back(house: House) -> None:
    """By itself, on evidence; nobody gets a failure; every verdict can be computed again."""
    start = Action("start", 2, policy=str(house.policy), steps=(20, 50), reason="a new version")
    with traffic(house):
        house.act(start)
        eventually(lambda: house.route().champion == 2, 90)
        promoted = house.route()
        assert (promoted.previous, promoted.rollout, promoted.canary) == (1, None, None)
        house.act(Action("start", 3, policy=str(house.policy), steps=(20, 50)))
        eventually(lambda: house.route().rollout is None, 60)
    assert house.route() == Route("m", 2, revision=house.route().revision, previous=1)
    assert set(house.statuses) == {200}
    actions = [(e["action"], e["who"]) for e in reversed(routes.audit(house.client, "m"))]
    assert actions == [
        ("start", "test"),
        ("advance", "monitor"),
        ("advance", "monitor"),
        ("promote", "monitor"),
        ("start", "test"),
        ("rollback", "monitor"),
    ]
    kept = rollouts.verdicts(house.client, "m")
    assert [rollouts.verify(one) for _, one in kept] == [""] * len(kept)
    last = kept[0][1]
    assert (last.evidence.candidate, last.verdict.status) == (3, "fail")
    assert "failed" in last.verdict.sentence
    told = {entry["evidence"] for entry in routes.audit(house.client, "m")} - {""}
    assert told <= {name for name, _ in kept}


def test_a_verdict_that_was_touched_is_found(house: House) -> None:
    with traffic(house):
        house.act(Action("start", 2, policy=str(house.policy), steps=(50,), automatic=False))
        eventually(lambda: rollouts.verdicts(house.client, "m") != [], 60)
    _, kept = rollouts.verdicts(house.client, "m")[0]
    assert rollouts.verify(kept) == ""
    data = house.client.xrevrange(keys.verdicts("m"), count=1)[0][1][b"verdict"]  # type: ignore[index]
    for was, now in ((b'"step":0', b'"step":1'), (b'"status":"insufficient"', b'"status":"pass"')):
        touched = msgspec.json.decode(data.replace(was, now, 1), type=rollouts.Kept)
        assert rollouts.verify(touched)
