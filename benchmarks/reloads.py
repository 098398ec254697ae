"""Load, unload and promote again and again under load: who notices, and what memory remains.

    python -m benchmarks.reloads [cycles]

Three versions of one model, 8 MB each. A cycle takes the version that the route does not need,
unloads it, loads it, and promotes it. All the while another process asks at a steady rate and
checks each answer against the version that claims to have given it.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import redis
from onnx import TensorProto, helper, numpy_helper
from rich.table import Table

from models import rollout, routes
from slipstream.cli import screen
from slipstream.embedded import EmbeddedRedis
from tests.serving import ROOT, Gateway, eventually

CYCLES = 300
VERSIONS = (1, 2, 3)
MEGABYTES = 8
#: Connections of the load, and the requests per second of each.
CONNECTIONS, RATE = 2, 100
#: Seconds of load without reloads, before and again after them. A worker under load grows by a few
#: MB in its first ten seconds, whether or not anything is reloaded.
CALM = 10.0
#: The share of the cycles in which memory is still growing into its size.
WARM_UP = 0.2
BODY = json.dumps(
    {"inputs": [{"name": "at", "shape": [1], "datatype": "INT64", "data": [7]}]}
).encode()


@dataclass(frozen=True)
class Report:
    """What a run found. Times in milliseconds; `slope` in kB per cycle."""

    cycles: int
    seconds: float
    requests: int
    failures: list[str]
    calm_p99: float
    p99: float
    slowest: float
    slope: float
    resident: list[int]
    index: list[dict[str, str]]


def table_model(file: Path, value: float, megabytes: int = MEGABYTES) -> Path:
    """at [N] INT64 -> y [N] FP32, looked up in a big table that holds `value` everywhere."""
    held = np.full(megabytes * 1024 * 256, value, np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "at"], ["y"])],
        "table",
        [helper.make_tensor_value_info("at", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(held, "table")],
    )
    opsets = [helper.make_opsetid("", 17)]
    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(file))
    return file


# --- the load, in a process of its own ------------------------------------------------------------


def ask_steadily(port: int, stop: threading.Event, told: list[tuple[float, float, str]]) -> None:
    """Ask every 1 / RATE seconds; note when, for how long, and what was wrong."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    due = time.monotonic()
    while not stop.is_set():
        # A request that is late is asked at once, but is not owed twice: the load is bounded.
        due = max(due + 1 / RATE, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
        start = time.monotonic()
        try:
            connection.request("POST", "/v2/models/table/infer", BODY)
            answer = connection.getresponse()
            wrong = _wrong(answer.status, answer.read())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            wrong = repr(error)
        told.append((start, time.monotonic() - start, wrong))
    connection.close()


def _wrong(status: int, body: bytes) -> str:
    if status != 200:
        return f"{status}: {body[:200].decode(errors='replace')}"
    answer = json.loads(body)
    said = answer["outputs"][0]["data"]
    return "" if said == [float(answer["model_version"])] else f"a wrong answer: {answer}"


def load(port: int) -> None:
    """Ask until standard input ends, then write down what happened."""
    told: list[tuple[float, float, str]] = []
    stop = threading.Event()
    arguments = (port, stop, told)
    threads = [threading.Thread(target=ask_steadily, args=arguments) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    json.dump(told, sys.stdout)


# --- the reloads ----------------------------------------------------------------------------------


def _asked(gateway: Gateway) -> float:
    lines = gateway.http.get("/metrics").text.splitlines()
    asked = [line for line in lines if line.startswith("slipstream_requests_total{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in asked if 'route="infer"' in line)


def run(folder: Path, redis_url: str, cycles: int, calm: float = CALM) -> Report:
    """A gateway, its load, and `cycles` reloads."""
    for number in VERSIONS:
        table_model(folder / f"repository/table/{number}/model.onnx", number)
    gateway = Gateway(folder, folder / "repository", redis_url)
    client = redis.Redis.from_url(redis_url)
    command = [sys.executable, "-m", "benchmarks.reloads", "load", str(gateway.port)]
    asking = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        worker = worker_of(gateway.pid)
        _promote(gateway, client, 1)
        _promote(gateway, client, 2)
        eventually(lambda: _asked(gateway) > 10 * CONNECTIONS, 60)  # its interpreter has to start
        time.sleep(calm)
        start, resident = time.monotonic(), []
        for _ in range(cycles):
            cycle(gateway, client)
            resident.append(resident_kb(worker))
        end = time.monotonic()
        time.sleep(calm)
        told = json.loads(asking.communicate("")[0])
        index = gateway.http.post("/v2/repository/index").json()
    finally:
        asking.kill()
        asking.wait()
        client.close()
        gateway.stop()
    took = np.array([row[:2] for row in told])
    reloading = (took[:, 0] + took[:, 1] >= start) & (took[:, 0] <= end)
    # The very first requests find a gateway that has not answered any yet.
    calm_ms, ms = took[~reloading, 1][CONNECTIONS:] * 1e3, took[reloading, 1] * 1e3
    settled = resident[int(cycles * WARM_UP) :]
    return Report(
        cycles=cycles,
        seconds=end - start,
        requests=len(told),
        failures=[wrong for _, _, wrong in told if wrong],
        calm_p99=float(np.percentile(calm_ms, 99)),
        p99=float(np.percentile(ms, 99)),
        slowest=float(ms.max()),
        slope=float(np.polyfit(np.arange(len(settled)), settled, 1)[0]),
        resident=resident,
        index=index,
    )


def cycle(gateway: Gateway, client: redis.Redis) -> None:
    """Unload the version that the route does not need, load it, promote it."""
    route = routes.read(client, "table")
    assert route is not None
    (spare,) = set(VERSIONS) - {route.champion, route.previous}
    for what in ("unload", "load"):
        answer = gateway.http.post(
            f"/v2/repository/models/table/{what}", json={"parameters": {"version": str(spare)}}
        )
        assert answer.status_code == 200, answer.text
    _promote(gateway, client, spare)


def _promote(gateway: Gateway, client: redis.Redis, number: int) -> None:
    """Promote and wait until the gateway applies it."""
    route = routes.change(
        client,
        "table",
        lambda route: rollout.promote(route, number),
        first=3,
        action="promote",
        who="benchmark",
        why="",
    )
    eventually(lambda: _revision(gateway) == route.revision)


def _revision(gateway: Gateway) -> int:
    headers = {"content-type": "application/json"}
    answer = gateway.http.post("/v2/models/table/infer", content=BODY, headers=headers)
    return int(answer.headers["x-route-revision"])


def worker_of(pid: int) -> int:
    """The biggest of a process and its descendants: BentoML's worker is one of them."""
    family = [pid]
    for parent in family:
        for tasks in Path(f"/proc/{parent}/task").glob("*/children"):
            family += [int(child) for child in tasks.read_text().split()]
    return max(family, key=resident_kb)


def resident_kb(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def show(report: Report) -> None:
    table = Table("what", "measured", "wanted", title=f"{report.cycles} reloads under load")
    rows: list[tuple[str, str, str, bool]] = [
        (
            "failed requests",
            f"{len(report.failures)} of {report.requests:,}",
            "0",
            not report.failures,
        ),
        (
            "slowest request",
            f"{report.slowest:.1f} ms (p99 {report.p99:.1f})",
            f"below 10 x the p99 without reloads, {10 * report.calm_p99:.1f} ms",
            report.slowest < 10 * report.calm_p99,
        ),
        (
            "memory",
            f"{report.slope:+.1f} kB a cycle, {report.resident[-1] / 1024:.0f} MB at the end",
            f"far from the {MEGABYTES * 1024:,} kB of a version",
            report.slope < MEGABYTES * 10,
        ),
        ("a cycle", f"{1e3 * report.seconds / report.cycles:.0f} ms", "", True),
    ]
    for what, measured, wanted, good in rows:
        table.add_row(what, measured, wanted, style="" if good else "red")
    screen.print(table)
    for wrong in report.failures[:5]:
        screen.print(wrong)


def main(arguments: list[str]) -> Any:
    if arguments[:1] == ["load"]:
        return load(int(arguments[1]))
    cycles = int(arguments[0]) if arguments else CYCLES
    with tempfile.TemporaryDirectory() as folder, EmbeddedRedis(Path(folder) / "redis") as server:
        report = run(Path(folder) / "gateway", server.url, cycles)
    show(report)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
