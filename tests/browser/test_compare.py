"""The compare page on a real rollout: click it on, promote it against its gates, take it back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
import redis
from onnx import TensorProto, helper
from playwright.sync_api import Browser, Page

from models import routes
from models.repository import Repository
from models.rollout import Route
from slipstream.client import encode
from slipstream.embedded import EmbeddedRedis
from slipstream.push import push
from slipstream.reference import Reference
from tests.browser.test_console import browser
from tests.serving import Gateway, Monitor, eventually

__all__ = ["browser"]  # the fixture

#: What each version makes of the four features; the truth is nearer to the second.
WEIGHTS = ((1.2, 0.2, 0.0, 0.0), (1.2, 0.3, 0.0, 0.9))
TRUTH = np.array((1.3, 0.2, 0.0, 0.7))


class Stage:
    """Gateway and monitor over a Redis of their own, and somebody who never stops asking."""

    def __init__(
        self, repository: Path, gateway: Gateway, monitor: Monitor, client: redis.Redis
    ) -> None:
        self.repository = repository
        self.gateway = gateway
        self.monitor = monitor
        self.client = client
        self.rows = 8
        self.pause = 0.1  # so slow that the gates stay open for half a minute

    @property
    def url(self) -> str:
        return f"{self.monitor.url}/#/m/compare"

    def route(self) -> Route:
        found = routes.read(self.client, "m")
        assert found is not None
        return found

    def ask(self, stopping: threading.Event) -> None:
        random = np.random.default_rng(3)
        with httpx.Client(base_url=self.gateway.url, timeout=30) as http:
            while not stopping.wait(self.pause):
                x = random.normal(size=(self.rows, 4)).astype(np.float32)
                body, length = encode({"x": x})
                headers = {"inference-header-content-length": str(length)}
                answer = http.post("/v2/models/m/infer", content=body, headers=headers)
                assert answer.status_code == 200, answer.text
                late = x @ TRUTH + random.normal(size=self.rows) > 0
                identifier = answer.headers["x-prediction-id"]
                labels = [
                    {"prediction_id": identifier, "row": row, "label": int(label)}
                    for row, label in enumerate(late)
                ]
                http.post("/v2/models/m/feedback", json={"feedback": labels})


def linear(file: Path, weights: tuple[float, ...]) -> Path:
    """x [N, 4] FP32 -> y [N, 2] FP32: a logistic regression."""
    columns = np.stack([np.zeros(4), np.array(weights)], axis=1).astype(np.float32)
    w = helper.make_tensor("w", TensorProto.FLOAT, [4, 2], columns.ravel())
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"])]
    nodes.append(helper.make_node("Softmax", ["z"], ["y"]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])]
    graph = helper.make_graph(nodes, "linear", inputs, outputs, [w])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(file))
    return file


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, reference: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("compare")
    repository = Repository(folder / "repository")
    for number, weights in enumerate(WEIGHTS):
        file = linear(folder / f"{number}.onnx", weights)
        push(repository, "m", file, reference=Reference(reference, "late"))
    for name in ("gateway", "monitor"):
        (folder / name).mkdir()
    with EmbeddedRedis(folder / "redis") as own:
        client = redis.Redis.from_url(own.url)
        routes.write(client, None, Route("m", 1), action="push", who="test", why="first version")
        gateway = Gateway(folder / "gateway", repository.root, own.url)
        monitor = Monitor(folder / "monitor", repository.root, own.url)
        yield Stage(repository.root, gateway, monitor, client)
        client.close()
        gateway.stop()
        monitor.stop()


@contextmanager
def traffic(stage: Stage) -> Iterator[None]:
    stopping = threading.Event()
    thread = threading.Thread(target=stage.ask, args=(stopping,))
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


@pytest.fixture
def page(browser: Browser, stage: Stage) -> Iterator[Page]:
    """A page that must ask nobody but the monitor and report no error but a refusal."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    yield opened
    context.close()
    assert [text for text in problems if "409" not in text] == []


def confirm(page: Page, reason: str, button: str) -> None:
    """Reason, button, dialog, yes."""
    page.get_by_label("reason").fill(reason)
    page.get_by_test_id("decide").get_by_role("button", name=button).click()
    page.locator("dialog button[type=submit]").click()
    page.locator("dialog").wait_for(state="detached")


def test_a_rollout_from_click_to_click(page: Page, stage: Stage) -> None:
    """Start, watch the gates, promote against them with a reason, roll back with another."""
    with traffic(stage):
        eventually(lambda: httpx.get(f"{stage.monitor.url}/api/v1/models/m/rollout").is_success)
        page.goto(stage.url)
        page.get_by_role("heading", name="No candidate: v1 answers alone.").wait_for()
        assert "slipstream rollout start m VERSION" in page.locator("pre").inner_text()
        start = page.get_by_role("button", name="Start rollout of v2")
        start.click()
        page.get_by_text("A reason first.").wait_for()
        page.get_by_label("moves").select_option("hand")
        confirm(page, "trees see d", "Start rollout of v2")
        eventually(lambda: stage.route().rollout is not None)
        gates = page.get_by_test_id("gates").locator("li")
        gates.nth(6).wait_for(timeout=30_000)
        page.get_by_test_id("pairs").wait_for(timeout=30_000)
        assert page.locator("[aria-current=step]").inner_text().startswith("shadow")
        page.get_by_label("reason").fill("the old one must go")
        page.get_by_role("button", name="Promote v2").click()
        dialog = page.locator("dialog")
        words = dialog.inner_text()
        assert "v2 becomes champion" in words
        assert f"route revision {stage.route().revision}" in words
        assert "slipstream rollback m" in words
        submit = dialog.locator("button[type=submit]")
        assert "open gate" in words
        assert submit.is_disabled()
        dialog.get_by_role("checkbox").check()
        submit.click()
        dialog.wait_for(state="detached")
        eventually(lambda: stage.route().champion == 2)
        page.get_by_role("heading", name="No candidate: v2 answers alone.").wait_for()
        page.get_by_label("reason").fill("complaints")
        page.get_by_role("button", name="Roll back to v1").click()
        eventually(lambda: stage.route().champion == 1)
        page.get_by_test_id("changes").get_by_text("“complaints”").wait_for()
    told = page.get_by_test_id("changes").inner_text()
    assert "the old one must go (against " in told
    assert "by console" in told
    assert page.locator("dialog").count() == 0


def test_somebody_was_faster(page: Page, stage: Stage) -> None:
    """A conflict says what stands, and shows it. Behind an open dialog nothing moves."""
    with traffic(stage):
        page.goto(stage.url)
        page.get_by_label("reason").fill("mine")
        page.get_by_role("button", name="Start rollout of v2").click()
        before = page.locator("h1").inner_text()
        behind = stage.route().revision
        url = f"{stage.monitor.url}/api/v1/models/m/rollout"
        theirs = {"action": "start", "version": 2, "automatic": False, "reason": "theirs"}
        assert httpx.post(url, json=theirs).is_success
        page.wait_for_timeout(1_500)
        assert page.locator("h1").inner_text() == before
        page.locator("dialog button[type=submit]").click()
        page.get_by_role("alert").get_by_text(f"not {behind}").wait_for()
        page.get_by_test_id("gates").wait_for()
        page.set_viewport_size({"width": 400, "height": 800})
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        page.get_by_label("reason").fill("enough")
        page.get_by_role("button", name="Promote v2").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        page.locator("dialog[open]").wait_for()
        page.keyboard.press("Escape")
        page.locator("dialog").wait_for(state="detached")
        assert page.get_by_label("reason").input_value() == "enough"
        page.get_by_role("button", name="Roll back", exact=True).click()
        eventually(lambda: stage.route().rollout is None)


def test_the_token_is_asked_for_where_the_monitor_wants_one(
    browser: Browser, stage: Stage, tmp_path: Path
) -> None:
    """Only after a refusal, and it is kept for this tab."""
    asking = Monitor(tmp_path, stage.repository, stage.gateway.redis_url, SLIPSTREAM_TOKEN="s3cret")
    opened = browser.new_page()
    try:
        opened.goto(f"{asking.url}/#/m/compare")
        opened.get_by_label("reason").fill("with a token")
        opened.get_by_role("button", name="Start rollout of v2").click()
        assert opened.locator("input[type=password]").count() == 0
        opened.locator("dialog button[type=submit]").click()
        opened.locator("input[type=password]").fill("s3cret")
        opened.locator("dialog button[type=submit]").click()
        opened.locator("dialog").wait_for(state="detached")
        eventually(lambda: stage.route().rollout is not None)
        opened.get_by_label("reason").fill("enough")
        opened.get_by_role("button", name="Roll back", exact=True).click()
        eventually(lambda: stage.route().rollout is None)
    finally:
        opened.close()
        asking.stop()
