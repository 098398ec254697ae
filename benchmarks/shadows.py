"""What a primary pays for its shadow: the same champion with and without one, interleaved.

The gateway has core 0, and so have its children, the shadows' process among them, as wherever a
gateway is pinned; wrk, Redis and this script have core 1, as if they were another machine. Each
kind of shadow is a model of its own with the same champion; `without` is the same champion under
another name, asked in the same round. Two loads: eight callers that pause for 4 ms between
requests, where the shadow gets everything, and eight that never pause.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
import numpy.typing as npt
import psutil
import redis
from rich.progress import track
from rich.table import Table

from benchmarks.compare import ROOT, lua
from models import rollout, routes
from models.manifest import Manifest, Score, digest_of
from models.repository import Repository
from models.version import ModelVersion
from service.block import Fact
from service.recorder import Recorder
from service.settings import Settings
from service.shadow import Job, Shadow
from service.telemetry import Tracing
from slipstream.embedded import EmbeddedRedis
from slipstream.launch import answers
from slipstream.places import screen
from slipstream.processes import free_port, spawn, stop
from tests import onnx_models
from tests.service import more_models

ROUNDS = 12
SECONDS = 1
DEADLINE = 0.5
PAGE = Path(__file__).parent / "SHADOWS.md"
KINDS = {
    "none": "none: the noise",
    "good": "answers",
    "slow": "runs for 20 s",
    "raises": "raises",
    "nan": "returns NaN",
    "hog": "allocates without end",
    "killed": "is killed every 0.5 s",
}
ALONE = "alone"
LOADS = {"paced": 4, "saturated": 0}
ROW = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [20.0, 1.0, 2.0, 3.0]}


#: Told to wrk: every latency that it saw, in microseconds, and how often.
DONE = """
function done(summary, latency, requests)
  for i = 1, #latency do
    local value, count = latency(i)
    io.write(string.format("seen %d %d\\n", value, count))
  end
end
"""


@dataclass(frozen=True)
class Result:
    """A round: the latency of each request, in microseconds."""

    latencies: npt.NDArray[np.int64]
    failed: int


def shelf(folder: Path) -> Path:
    repository = Repository(folder / "repository")
    for kind in (*KINDS, ALONE):
        for number in (1, 2):
            file = folder / f"{kind}-{number}.onnx"
            if number == 2 and kind in more_models.HOSTILE:
                more_models.hostile(file, kind)
            else:
                onnx_models.softmax(file)
            manifest = Manifest(kind, number, digest_of(file), score=Score("y", 1))
            repository.push(file, manifest, None)
    return repository.root


def let_them_ride(url: str) -> None:
    client = redis.Redis.from_url(url)
    for kind in (*KINDS, ALONE):
        routes.change(
            client,
            kind,
            lambda route, kind=kind: rollout.start_shadow(
                route, 2, 0 if kind in (ALONE, "none") else 100
            ),
            first=1,
            action="shadow",
            who="benchmark",
            why="",
        )
    client.close()


def wrk(url: str, script: Path) -> Result:
    command = ["wrk", "-t1", "-c8", f"-d{SECONDS:g}s", "-s", str(script), url]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seen = np.array(re.findall(r"^seen (\d+) (\d+)$", out, re.MULTILINE), np.int64)
    return Result(np.repeat(seen[:, 0], seen[:, 1]), sum(_failures(out)))


def _failures(out: str) -> Iterator[int]:
    for line in out.splitlines():
        if "Non-2xx" in line or "Socket errors" in line:
            yield from (int(word) for word in re.findall(r"\b\d+\b", line.replace("2xx", "")))


def processes(gateway: int) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(gateway).children(recursive=True):
        try:
            if any("shadow_process" in word for word in process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


@contextmanager
def killed(gateway: int, kill: bool) -> Iterator[None]:
    """If `kill`, the shadows' processes are, twice a second."""
    stopping = threading.Event()

    def watch() -> None:
        while kill and not stopping.wait(0.5):
            for process in processes(gateway):
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    stopping.set()
    thread.join()


Results = dict[tuple[str, str, str], list[Result]]


def measure(url: str, gateway: int, scripts: dict[str, Path]) -> Results:
    """Kind by kind and load by load, rounds with and without, in turn and in alternating order."""
    results: Results = {}
    for kind in track(KINDS, "kinds", console=screen):
        for load, script in scripts.items():
            for number in range(ROUNDS):
                both = [(kind, "with"), (ALONE, "without")]
                for model, which in both if number % 2 else reversed(both):
                    with killed(gateway, kill=(model, which) == ("killed", "with")):
                        result = wrk(f"{url}/v2/models/{model}/infer", script)
                    results.setdefault((kind, load, which), []).append(result)
                    settle(gateway, model)
    return results


def settle(gateway: int, model: str) -> None:
    """What a shadow is still at must not be charged to the next round: let it finish, or wait
    until what it was to see is stale and then end it."""
    if model != "slow":
        time.sleep(0.1)
        return
    time.sleep(DEADLINE + 0.1)
    for process in processes(gateway):
        process.kill()


def outcomes(url: str, kind: str) -> str:
    counts = []
    for line in httpx.get(f"{url}/metrics").text.splitlines():
        if line.startswith("slipstream_shadow_total") and f'model="{kind}"' in line:
            outcome = line.split('outcome="')[1].split('"')[0]
            counts.append(f"{outcome} {float(line.rsplit(' ', 1)[1]):,.0f}")
    return ", ".join(sorted(counts))


def cost(repository: Path, jobs: int = 8_000) -> tuple[float, float]:
    """Microseconds of the gateway's event loop per shadowed request, and longest start of a
    process in milliseconds."""

    class Sink:
        heard = 0

        def record(self, _: Fact) -> None:
            self.heard += 1

    async def run() -> tuple[float, float]:
        sink, settings = Sink(), Settings(repository=repository, shadow_queue=jobs)
        shadow = Shadow(cast("Recorder", sink), Tracing(settings), settings)
        tensors: Any = {"x": np.zeros((1, 4), np.float32)}
        manifest = Manifest("good", 2, "", score=Score("y", 1))
        fact = Fact("good", 1, "champion", "ok", 0, 1.0, rows=1, bytes=700, inputs=tensors)
        began, first = time.thread_time(), 0.0
        for number in range(1, jobs + 1):
            shadow.offer(Job(ModelVersion("good", 2), manifest, tensors, fact))
            if number == 1:
                while not sink.heard:
                    await asyncio.sleep(0.01)
                first, began = time.thread_time() - began, time.thread_time()
            if number % 16 == 0:
                await asyncio.sleep(0.004)
        while sink.heard < jobs:
            await asyncio.sleep(0.01)
        spent = time.thread_time() - began
        await shadow.stop()
        began = time.thread_time()
        for _ in range(jobs // 16):
            await asyncio.sleep(0.004)
        return (spent - (time.thread_time() - began)) / jobs * 1e6, first * 1e3

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


COLUMNS = ("the shadow", "load", "without p50/p99", "with p50/p99", "p99 ratio", "95 %", "failed")


def report(results: Results, url: str) -> None:
    rows = [_row(results, kind, load) for kind in KINDS for load in LOADS]
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*row)
    screen.print(table)
    told = [f"{KINDS[kind]}: {outcomes(url, kind)}" for kind in [*KINDS][1:]]
    for line in told:
        screen.print(line)
    if not sys.argv[1:]:
        PAGE.write_text(_page(rows, told))
        screen.print(f"kept in {PAGE.relative_to(ROOT)}")


def _row(results: Results, kind: str, load: str) -> tuple[str, ...]:
    without, beside = results[kind, load, "without"], results[kind, load, "with"]
    failed = sum(result.failed for result in (*without, *beside))
    cells = (
        f"{quantile(each, 0.5) / 1e3:.2f} / {quantile(each, 0.99) / 1e3:.2f} ms"
        for each in (without, beside)
    )
    ratio, low, high = ratio_of(without, beside)
    return (KINDS[kind], load, *cells, f"{ratio:.2f}", f"{low:.2f} to {high:.2f}", str(failed))


def _page(rows: list[tuple[str, ...]], told: list[str]) -> str:
    lines = [
        "# What a primary pays for its shadow",
        "",
        f"Printed by `make bench` ({datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores): the same "
        f"champion with and without a shadow, {ROUNDS} rounds of {SECONDS} s each in turn, pooled. "
        "The gateway and its shadow have one core, the load and Redis the other. "
        "Intervals by drawing pairs of rounds anew; first, the champion with itself.",
        "",
        *(f"| {' | '.join(cells)} |" for cells in (COLUMNS, ("---",) * len(COLUMNS), *rows)),
        "",
        *(f"- {line}" for line in told),
    ]
    return "\n".join(lines) + "\n"


def quantile(results: list[Result], share: float) -> float:
    """Of all requests of all rounds, in microseconds."""
    values = np.concatenate([result.latencies for result in results])
    return float(np.quantile(values, share, method="inverted_cdf"))


def ratio_of(without: list[Result], beside: list[Result]) -> tuple[float, float, float]:
    """p99 with over p99 without, and its 95 % interval: pairs of rounds are drawn anew."""
    chance = np.random.default_rng(0)
    draws = []
    for _ in range(200):
        rounds = chance.integers(0, len(without), len(without))
        pair = ([each[i] for i in rounds] for each in (beside, without))
        one, two = (quantile(each, 0.99) for each in pair)
        draws.append(one / two)
    ratio = quantile(beside, 0.99) / quantile(without, 0.99)
    return ratio, *(float(bound) for bound in np.quantile(draws, [0.025, 0.975]))


def main() -> None:
    for kind in sys.argv[1:]:
        KINDS.pop(kind)
    if shutil.which("wrk") is None or shutil.which("taskset") is None:
        sys.exit("the benchmark needs wrk and taskset; install them (Debian: wrk, util-linux)")
    os.sched_setaffinity(0, {1})
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        repository = shelf(folder)
        each, first = cost(repository)
        screen.print(
            f"Event loop: {each:.1f} us per shadowed request; {first:.1f} ms to start a process"
        )
        embedded = stack.enter_context(EmbeddedRedis(folder / "redis"))
        os.sched_setaffinity(embedded.pid, {1})
        let_them_ride(embedded.url)
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        command = [
            "taskset",
            "-c",
            "0",
            sys.executable,
            "-m",
            "bentoml",
            "serve",
            "--working-dir",
            str(ROOT),
        ]
        command += ["--host", "127.0.0.1", "--port", str(port), "service:Gateway"]
        environment = {
            "PYTHONPATH": str(ROOT),
            "BENTOML_DO_NOT_TRACK": "True",
            "BENTOML_HOME": str(folder / "bentoml"),
            "SLIPSTREAM_HOME": str(folder),
            "SLIPSTREAM_REPOSITORY": str(repository),
            "SLIPSTREAM_REDIS_URL": embedded.url,
            "SLIPSTREAM_SHADOW_DEADLINE": str(DEADLINE),
        }
        gateway = spawn(command, folder / "log", environment)
        stack.callback(stop, gateway, 20)
        while not answers(f"{url}/readyz"):
            if gateway.poll() is not None:
                sys.exit((folder / "log").read_text()[-2_000:])
            time.sleep(0.1)
        scripts = {}
        for load, pause in LOADS.items():
            scripts[load] = lua(folder, load, json.dumps({"inputs": [ROW]}))
            with scripts[load].open("a") as file:
                file.write(f"function delay() return {pause} end\n" if pause else "")
                file.write(DONE)
        for script in scripts.values():
            wrk(f"{url}/v2/models/{ALONE}/infer", script)
        report(measure(url, gateway.pid, scripts), url)


if __name__ == "__main__":
    main()
