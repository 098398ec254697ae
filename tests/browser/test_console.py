"""The console in headless Chromium, on a real monitor with real traffic."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from slipstream.client import encode
from slipstream.embedded import EmbeddedRedis
from tests.serving import Gateway, Monitor, eventually, two_versions

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
DAYS = 40


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs Chromium; `make browser` installs it")
        pytest.skip("no Chromium here; install it to run the console's tests")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def monitor(tmp_path_factory: pytest.TempPathFactory, reference: Path) -> Iterator[Monitor]:
    """Forty days of traffic whose first feature drifts, with labels and a shadow."""
    folder = tmp_path_factory.mktemp("console")
    with EmbeddedRedis(folder / "redis") as server:
        repository = two_versions(folder, server.url, "drifting", reference, (1.0, 0.8))
        gateway = Gateway(folder / "gateway", repository, server.url)
        running = Monitor(folder / "monitor", repository, server.url)
        try:
            _traffic(gateway)
            eventually(lambda: running.get("models/drifting/timeline")["compare"])
            eventually(lambda: running.get("models/drifting/timeline")["ranking"])
            yield running
        finally:
            running.stop()
            gateway.stop()


def _traffic(gateway: Gateway) -> None:
    random = np.random.default_rng(0)
    with httpx.Client(base_url=gateway.url) as http:
        for day in range(DAYS):
            labels = []
            for _ in range(6):
                x = random.normal(size=(20, 4)).astype(np.float32)
                x[:, 0] += day / 10
                body, length = encode({"x": x})
                headers = {
                    "inference-header-content-length": str(length),
                    "x-event-time": f"2013-{4 + day // 30:02}-{1 + day % 30:02}T12:00:00Z",
                }
                answer = http.post("/v2/models/drifting/infer", content=body, headers=headers)
                identifier = answer.headers["x-prediction-id"]
                truth = (x[:, 0] + random.normal(size=20) > 0).astype(int).tolist()
                labels += [
                    {"prediction_id": identifier, "row": row, "label": label}
                    for row, label in enumerate(truth)
                ]
            http.post("/v2/models/drifting/feedback", json={"feedback": labels})


@pytest.fixture
def page(browser: Browser, monitor: Monitor) -> Iterator[Page]:
    """A page that must ask nobody but the monitor and report no error."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    outside: list[str] = []
    opened.on("request", lambda r: None if r.url.startswith(monitor.url) else outside.append(r.url))
    yield opened
    context.close()
    assert problems == []
    assert outside == []


def test_the_overview_opens_with_a_sentence_and_leads_to_the_model(
    page: Page, monitor: Monitor
) -> None:
    """Verdict, vitals, one row a model; the row opens the model's page."""
    page.goto(monitor.url)
    page.get_by_test_id("overview").wait_for()
    eventually(lambda: "Covariate shift in a" in page.locator("h1").inner_text())
    row = page.get_by_test_id("model-row")
    assert row.count() == 1
    assert "v1 champion" in row.inner_text()
    assert "v2 shadow 100 %" in row.inner_text()
    row.click()
    page.get_by_test_id("timeline").wait_for()
    assert page.url.endswith("#/drifting")


def test_the_timeline_shows_drift_quality_and_the_shadow(page: Page, monitor: Monitor) -> None:
    """The drifting feature comes first and opens its histogram; both versions are compared."""
    page.goto(f"{monitor.url}/#/drifting")
    strip = page.get_by_test_id("drift-strip")
    strip.wait_for()
    assert strip.locator("button.feature").first.inner_text() in ("a", "said (score)")
    strip.locator("button.feature", has_text="a").first.click()
    histogram = page.get_by_test_id("feature-histogram")
    histogram.wait_for()
    assert histogram.locator("rect").count() >= 10
    assert "They agree on" in page.get_by_test_id("compare-block").inner_text()
    assert page.locator(".lines canvas").count() == 4


def test_it_fits_a_telephone_in_both_themes(page: Page, monitor: Monitor) -> None:
    """At 400 pixels nothing sticks out; the theme switch is kept."""
    page.set_viewport_size({"width": 400, "height": 800})
    for path, name in (("", "overview"), ("/#/drifting", "timeline")):
        page.goto("about:blank")
        page.goto(f"{monitor.url}{path}")
        page.get_by_test_id(name).wait_for()
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
    before = page.evaluate("document.documentElement.dataset.theme")
    page.locator("button.theme").click()
    page.reload()
    page.get_by_test_id("timeline").wait_for()
    assert page.evaluate("document.documentElement.dataset.theme") != before


def test_an_unknown_model_is_told_in_a_sentence(browser: Browser, monitor: Monitor) -> None:
    """The panel says what failed; nothing breaks."""
    opened = browser.new_page()
    opened.goto(f"{monitor.url}/#/nobody")
    opened.locator(".failed", has_text="no model 'nobody'; known: drifting").wait_for()
    opened.close()


def test_vendored_files_are_what_their_manifest_says() -> None:
    """Digest by digest, with a licence text each."""
    import hashlib
    import json

    import monitoring

    folder = Path(monitoring.__file__).parent / "console/vendor"
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, facts in manifest.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == facts["sha256"]
    assert len(list(folder.glob("*LICENSE.txt"))) == 4
