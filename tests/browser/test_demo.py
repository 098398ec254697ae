"""The demo as a newcomer sees it: its words, its pages, its end.

`make screenshots` replays the whole year and keeps the pictures in docs/.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, sync_playwright

from slipstream.processes import free_port
from tests.browser.test_console import CHROMIUM, FLAGS
from tests.serving import ROOT, eventually

#: Where the pictures go; without it they are taken and thrown away.
KEEP = os.environ.get("SLIPSTREAM_SCREENSHOTS")
ROWS = os.environ.get("SLIPSTREAM_SCREENSHOT_ROWS", "12000")
SHOTS = (
    ("overview", "", 1280, "light"),
    ("model", "/#/flights-delay", 1280, "light"),
    ("model-dark", "/#/flights-delay", 1280, "dark"),
    ("overview-400", "", 400, "light"),
    ("model-400", "/#/flights-delay", 400, "light"),
)


def shoot(browser: Browser, url: str, folder: Path, shot: tuple[str, str, int, str]) -> Path:
    name, path, width, theme = shot
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=theme,  # type: ignore[arg-type]
    )
    page = context.new_page()
    page.goto(f"{url}{path}")
    page.get_by_test_id("timeline" if path else "overview").wait_for(timeout=60_000)
    page.wait_for_timeout(1_000)
    if name == "model-dark":
        page.locator("button.feature").first.click()
        page.get_by_test_id("feature-histogram").wait_for()
    file = folder / f"console-{name}.png"
    page.screenshot(path=file, full_page=True)
    context.close()
    return file


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_demo_runs_shows_itself_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    """It says where it is, checks itself against scikit-learn, and leaves no process behind."""
    ports = free_port(), free_port()
    command = [sys.executable, "-m", "slipstream", "demo", "--rows", ROWS]
    command += ["--port", str(ports[0]), "--monitor-port", str(ports[1])]
    log = tmp_path / "demo.log"
    folder = Path(KEEP) if KEEP else tmp_path
    with log.open("wb") as out:
        environment = {**os.environ, "SLIPSTREAM_HOME": str(tmp_path / "home"), "COLUMNS": "120"}
        demo = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, env=environment)
    try:
        end = time.monotonic() + 900
        while "the console stays at" not in log.read_text():
            assert demo.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        children = psutil.Process(demo.pid).children(recursive=True)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            for shot in SHOTS:
                file = shoot(browser, f"http://127.0.0.1:{ports[1]}", folder, shot)
                assert file.stat().st_size > 20_000
            browser.close()
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 0
    finally:
        if demo.poll() is None:
            demo.kill()
    said = log.read_text()
    for words in (f"gateway http://127.0.0.1:{ports[0]}", f"console http://127.0.0.1:{ports[1]}"):
        assert words in said
    assert "\nready\n" in said
    assert "2013-01" in said
    assert "largest difference 0.00" in said
    eventually(lambda: not any(child.is_running() for child in children))
