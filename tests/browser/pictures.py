"""Takes the pictures of the compare page in docs: `make screenshots` runs it, the tests do not."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
from playwright.sync_api import Browser

from models.contract import keys
from tests.browser.test_compare import Stage, browser, stage, traffic

__all__ = ["browser", "stage"]  # the fixtures

DOCS = Path(__file__).parents[2] / "docs"


def test_the_compare_page(browser: Browser, stage: Stage) -> None:
    """A rollout under way. Verdicts are kept more often than once a minute, to have a line."""
    stage.rows, stage.pause = 12, 0.03
    url = f"{stage.monitor.url}/api/v1/models/m/rollout"
    start = {"action": "start", "version": 2, "automatic": False, "reason": "v2 takes d in"}
    with traffic(stage):
        assert httpx.post(url, json=start).is_success
        end = time.monotonic() + 75
        wait, advanced = 0.6, False
        while time.monotonic() < end:
            time.sleep(wait)
            wait = min(wait * 1.05, 3)
            standing = stage.client.get(keys.verdict("m"))
            if standing:
                stage.client.xadd(keys.verdicts("m"), {"verdict": standing})
            if not advanced and time.monotonic() > end - 25:
                step = {"action": "advance", "reason": "every gate passes", "force": True}
                advanced = httpx.post(url, json=step).is_success
        for name, width in (("compare", 1280), ("compare-400", 400)):
            context = browser.new_context(viewport={"width": width, "height": 900})
            opened = context.new_page()
            opened.goto(stage.url)
            opened.get_by_test_id("slices").wait_for()
            opened.wait_for_timeout(1_000)
            opened.screenshot(path=DOCS / f"console-{name}.png", full_page=True)
            context.close()
        assert httpx.post(url, json={"action": "rollback", "reason": "enough"}).is_success
