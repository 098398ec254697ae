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
from click.testing import CliRunner, Result

from models import routes
from models.actions import Action
from models.contract import keys
from models.repository import Repository
from models.rollout import Route
from monitoring import control, rollouts
from monitoring.stream import Store
from slipstream.cli import main
from slipstream.embedded import EmbeddedRedis
from slipstream.push import push
from slipstream.reference import Reference
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

    def __init__(
        self, gateway: Gateway, monitor: Monitor, client: redis.Redis, policy: Path
    ) -> None:
        self.gateway = gateway
        self.monitor = monitor
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
                assert answer.status_code == 200, answer.text
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
    for weight in (1.0, -1.0):
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
        routes.write(client, None, Route("m", 1), action="push", who="test", why="first version")
        eventually(lambda: gateway.metric('slipstream_route_revision{model="m"') == 1, 5)
        yield House(gateway, monitor, client, policy)
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
        ("push", "test"),
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


def test_the_control_api_and_the_command_line(house: House, tmp_path: Path) -> None:
    """Gates, slices and audit over HTTP; against the gates only by force, and with a reason."""
    url = f"{house.monitor.url}/api/v1/models/m"

    def post(headers: dict[str, str] | None = None, **action: object) -> httpx.Response:
        return httpx.post(f"{url}/rollout", json=action, headers=headers, timeout=30)

    def run(*arguments: str) -> Result:
        places = {
            "SLIPSTREAM_REPOSITORY": str(tmp_path / "repository"),
            "SLIPSTREAM_REDIS_URL": house.gateway.redis_url,
        }
        return CliRunner(env=places).invoke(main, arguments)

    with traffic(house):
        eventually(lambda: httpx.get(f"{url}/rollout").status_code == 200, 20)
        once = {"idempotency-key": "k1"}
        started = post(once, action="start", version=2, automatic=False, steps=[10])
        assert started.status_code == 200, started.text
        again = post(once, action="start", version=2, automatic=False, steps=[10])
        assert again.json()["revision"] == started.json()["revision"]
        eventually(lambda: len(_gates(url)) == 8 and _compared(url) > 50, 30)
        told = run("verdict", "m")
        assert told.exit_code == 4
        assert "Not yet" in told.output
        seen = httpx.get(f"{url}/rollout").json()
        assert seen["candidate"] == 2
        assert seen["comparison"]["agreement"]["value"] < 1
        assert seen["examples"]
        assert "advance" in seen["legal"]
    early = post(action="promote", version=2, reason="soon")
    assert (early.status_code, "Not yet" in early.json()["error"]) == (409, True)
    assert post(action="promote", version=2, force=True).status_code == 409
    assert run("advance", "m").exit_code == 4
    assert run("start-what").exit_code == 2
    behind = post(action="pause", revision=0)
    assert (behind.status_code, "revision" in behind.json()["error"]) == (409, True)
    forced = post(action="promote", version=2, force=True, reason="the old one must go")
    assert forced.status_code == 200, forced.text
    newest = httpx.get(f"{url}/audit").json()[0]
    assert "against" in newest["why"]
    assert run("promote", "m", "2").exit_code == 5
    assert run("rollback", "m", "--reason", "back").exit_code == 0
    assert house.route().champion == 1
    assert "v2 answers" in run("rollback", "m").output
    assert run("verdict", "m", "--verify").exit_code == 0
    form = httpx.post(f"{url}/rollout", content=b"{}", headers={"content-type": "text/plain"})
    assert form.status_code == 401
    assert post(action="start", version=2, policy="/etc/passwd").status_code == 400
    assert post(action="dance").status_code == 400
    assert post(action="promote", version=9).status_code in (400, 404)


def _gates(url: str) -> list[str]:
    verdict = httpx.get(f"{url}/rollout").json()["verdict"]
    return [gate["name"] for gate in verdict["gates"]] if verdict else []


def _compared(url: str) -> int:
    found = httpx.get(f"{url}/rollout").json()["comparison"]
    return int(found["compared"]) if found else 0


def test_a_version_is_tried_on_what_was_recorded(house: House, tmp_path: Path) -> None:
    """Before anybody is exposed: the good one on its evidence, the broken one with exit code 3."""
    with traffic(house):
        eventually(lambda: sum(house.statuses.values()) > 150, 30)
    places = {
        "SLIPSTREAM_REPOSITORY": str(tmp_path / "repository"),
        "SLIPSTREAM_REDIS_URL": house.gateway.redis_url,
    }

    def tried(version: str, *more: str) -> Result:
        command = ["replay", "m", version, "--policy", str(house.policy), *more]
        return CliRunner(env=places).invoke(main, command)

    store = Store(house.client)
    eventually(lambda: store.lag("m", store.progress("m").cursor) == 0)
    good = tried("2")
    assert good.exit_code in (0, 4), good.output  # as random labels will have it
    assert f"{house.statuses[200]} requests" in good.output
    broken = tried("3")
    assert broken.exit_code == 3, broken.output
    assert "the model takes INT8" in broken.output
    assert house.route().champion == 1
    assert tried("2", "--last", "soon").exit_code == 2
    gates = msgspec.json.decode(tried("2", "--json").output)["gates"]
    accuracy = next(gate for gate in gates if gate["name"] == "accuracy")
    assert "the same" in accuracy["sentence"]
    compared = CliRunner(env=places).invoke(main, ["compare", "m", "2"])
    assert (compared.exit_code, "rode along with nobody" in compared.output) == (0, True)
