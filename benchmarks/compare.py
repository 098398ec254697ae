"""Floor, idiomatic BentoML and Slipstream with everything on, interleaved in one run.

Each server has core 0, load generator (wrk), Redis, monitor and collector have core 1. Ratios
count, not figures: the rounds are interleaved, and the median of the ratios within a round is what
is told. BentoML runs twice: in an environment of its own, as its documentation installs it, and in
ours, where it profits from uvloop and httptools, which it does not ask for.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars
import redis
from rich.progress import track
from rich.table import Table
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier

from models.repository import Repository
from monitoring.stream import Store
from slipstream.embedded import EmbeddedRedis
from slipstream.launch import answers
from slipstream.places import screen
from slipstream.processes import free_port, spawn, stop
from slipstream.push import push
from slipstream.reference import Reference
from tests.otlp import receiver

ROUNDS = 5
SECONDS = 4
CONNECTIONS = (1, 8, 64)
ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "RESULTS.md"


@dataclass(frozen=True)
class Result:
    """Requests per second, and milliseconds at p50 and p99."""

    rate: float
    p50: float
    p99: float


@dataclass(frozen=True)
class Server:
    name: str
    url: str
    script: Path


def train(folder: Path) -> tuple[Path, Path, list[float]]:
    """100 boosted trees over 30 features of real data: model, reference, one row."""
    data = load_breast_cancer()
    x, y = data.data.astype(np.float32), data.target
    model = HistGradientBoostingClassifier(max_iter=100, max_depth=6, random_state=0).fit(x, y)
    file = folder / "trees.onnx"
    exported = to_onnx(model, x[:1], options={"zipmap": False}, target_opset=17)
    exported.graph.input[0].name = "x"
    for node in exported.graph.node:
        node.input[:] = ["x" if name == "X" else name for name in node.input]
    file.write_bytes(exported.SerializeToString())
    columns = {f"f{i}": x[:, i] for i in range(30)}
    reference = folder / "reference.parquet"
    polars.DataFrame({**columns, "y": y}).write_parquet(reference)
    return file, reference, x[0].tolist()


def wrk(server: Server, connections: int) -> Result:
    """A closed loop on core 1. Raises where an answer was no 200."""
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s"]
    command += ["--latency", "-s", str(server.script), server.url]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise RuntimeError(f"{server.name} did not answer every request:\n{out}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    assert rate is not None, out
    return Result(float(rate[1]), _percentile(out, "50"), _percentile(out, "99"))


def _percentile(out: str, which: str) -> float:
    found = re.search(rf"{which}%\s+([\d.]+)(us|ms|s)", out)
    assert found is not None, out
    return float(found[1]) * {"us": 0.001, "ms": 1, "s": 1000}[found[2]]


def lua(folder: Path, name: str, body: str) -> Path:
    script = folder / f"{name}.lua"
    script.write_text(
        f"wrk.method = 'POST'\nwrk.body = [==[{body}]==]\n"
        "wrk.headers['content-type'] = 'application/json'\n"
    )
    return script


def _start(
    stack: ExitStack, folder: Path, name: str, core: int, command: list[str], env: dict[str, str]
) -> None:
    process = spawn(["taskset", "-c", str(core), *command], folder / f"{name}.log", env)
    stack.callback(stop, process, 20)


def _wait(url: str, log: Path) -> None:
    end = time.monotonic() + 60
    while not answers(url):
        if time.monotonic() > end:
            raise RuntimeError(f"{url} did not come up:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)


def servers(stack: ExitStack, folder: Path, plain: str) -> tuple[list[Server], str]:
    """All of them, running; `plain` is the Python of BentoML's own environment.

    Also the URL of the Redis that Slipstream's facts go to.
    """
    file, reference, row = train(folder)
    push(Repository(folder / "repository"), "trees", file, reference=Reference(reference, "y"))
    oip = {"inputs": [{"name": "x", "shape": [1, 30], "datatype": "FP32", "data": row}]}
    oip_script = lua(folder, "oip", json.dumps(oip))
    bento_script = lua(folder, "bento", json.dumps({"inputs": [row]}))
    python, ports = sys.executable, [free_port() for _ in range(5)]
    floor, bento, gateway, monitor, faster = (f"http://127.0.0.1:{port}" for port in ports)
    common = {
        "MODEL": str(file),
        "PYTHONPATH": str(ROOT),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    uvicorn = [python, "-m", "uvicorn", "benchmarks.floor:app", "--port", str(ports[0])]
    _start(stack, folder, "floor", 0, [*uvicorn, "--no-access-log"], common)
    serve = ["-m", "bentoml", "serve", "--working-dir", str(ROOT), "--host", "127.0.0.1"]
    for name, interpreter, port in (("bento", plain, ports[1]), ("faster", python, ports[4])):
        home = {"BENTOML_HOME": str(folder / f"home-{name}")}
        command = [interpreter, *serve, "--port", str(port), "benchmarks.bento:Peer"]
        _start(stack, folder, name, 0, command, {**common, **home})
    embedded = stack.enter_context(EmbeddedRedis(folder / "redis"))
    os.sched_setaffinity(embedded.pid, {1})
    collector = stack.enter_context(receiver())
    everything = {
        **common,
        "BENTOML_HOME": str(folder / "home-slipstream"),
        "SLIPSTREAM_HOME": str(folder),
        "SLIPSTREAM_REPOSITORY": str(folder / "repository"),
        "SLIPSTREAM_REDIS_URL": embedded.url,
        "SLIPSTREAM_MONITOR_PORT": str(ports[3]),
        "SLIPSTREAM_SAMPLE": "1.0",
    }
    traced = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.01",
    }
    command = [python, *serve, "--port", str(ports[2]), "service:Gateway"]
    _start(stack, folder, "gateway", 0, command, {**everything, **traced})
    _start(stack, folder, "monitor", 1, [python, "-m", "monitoring"], everything)
    for url, name in (
        (f"{floor}/", "floor"),
        (f"{bento}/readyz", "bento"),
        (f"{faster}/readyz", "faster"),
        (f"{gateway}/readyz", "gateway"),
        (f"{monitor}/readyz", "monitor"),
    ):
        _wait(url, folder / f"{name}.log")
    return [
        Server("bare ASGI floor", f"{floor}/v2/models/trees/infer", oip_script),
        Server("BentoML", f"{bento}/predict", bento_script),
        Server("BentoML with uvloop", f"{faster}/predict", bento_script),
        Server("Slipstream", f"{gateway}/v2/models/trees/infer", oip_script),
    ], embedded.url


def measure(running: list[Server]) -> dict[tuple[str, int], list[Result]]:
    """ROUNDS interleaved rounds of every server at every number of connections."""
    for server in running:
        wrk(server, 8)
    results: dict[tuple[str, int], list[Result]] = {}
    for _ in track(range(ROUNDS), "rounds", console=screen):
        for connections in CONNECTIONS:
            for server in running:
                results.setdefault((server.name, connections), []).append(wrk(server, connections))
    return results


def lag(url: str) -> tuple[int, float, dict[str, int]]:
    """Entries the monitor is behind at the end, seconds until it is not, and its totals."""
    store = Store(redis.Redis.from_url(url))
    behind = store.lag("trees", store.progress("trees").cursor)
    start = time.monotonic()
    while store.lag("trees", store.progress("trees").cursor) and time.monotonic() - start < 60:
        time.sleep(0.05)
    return behind, time.monotonic() - start, dict(store.progress("trees").totals)


def ratio(
    results: dict[tuple[str, int], list[Result]], one: str, other: str, connections: int
) -> float:
    """Median over the rounds of one's rate over the other's."""
    pairs = zip(results[one, connections], results[other, connections], strict=True)
    return statistics.median(a.rate / b.rate for a, b in pairs)


def report(results: dict[tuple[str, int], list[Result]], running: list[Server]) -> list[str]:
    names = [server.name for server in running]
    table = Table("server", *(f"{c} connections" for c in CONNECTIONS))
    lines = [
        "| server | " + " | ".join(f"{c} connections" for c in CONNECTIONS) + " |",
        "|---|" + "---|" * len(CONNECTIONS),
    ]
    for name in names:
        cells = [_cell(results[name, connections]) for connections in CONNECTIONS]
        table.add_row(name, *cells)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for other in names[:-1]:
        cells = [f"{ratio(results, names[-1], other, c):.2f}x" for c in CONNECTIONS]
        table.add_row(f"Slipstream over {other}", *cells)
        lines.append(f"| **Slipstream over {other}** | {' | '.join(cells)} |")
    screen.print(table)
    return lines


def _cell(results: list[Result]) -> str:
    rate, p50, p99 = (
        statistics.median(getattr(result, part) for result in results)
        for part in ("rate", "p50", "p99")
    )
    return f"{rate:,.0f}/s, p50 {p50:.2f}, p99 {p99:.2f} ms"


def main() -> None:
    if shutil.which("wrk") is None or shutil.which("taskset") is None:
        sys.exit("the benchmark needs wrk and taskset; install them (Debian: wrk, util-linux)")
    os.sched_setaffinity(0, {1})
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        running, redis_url = servers(stack, Path(folder), *sys.argv[1:])
        results = measure(running)
        lines = report(results, running)
        behind, seconds, totals = lag(redis_url)
    told = (
        f"The monitor was {behind} entries behind when the load ended and had folded all after "
        f"{seconds:.1f} s: {totals['rows']:,} rows of {totals['requests']:,} requests, "
        f"{totals.get('dropped', 0):,} dropped, {totals.get('entries_lost', 0):,} entries lost."
    )
    screen.print(told)
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    head = [
        "# Results of `make bench`",
        "",
        f"{when}, {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}. Server on one core, all else on the other. "
        f"Medians of {ROUNDS} interleaved rounds of {SECONDS} s; one row of 30 floats in JSON, "
        f"100 boosted trees. Slipstream: every payload sampled into Redis, metrics, 1 % traced.",
        "",
    ]
    RESULTS.write_text("\n".join([*head, *lines, "", told, ""]))


if __name__ == "__main__":
    main()
