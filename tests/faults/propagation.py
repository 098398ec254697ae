"""How soon a change of route reaches every worker.

    python -m tests.faults.propagation [changes] [workers]

From the call of `routes.change` to the answers of the last worker that carry the new revision.
Each worker is asked over a connection of its own: connections are opened until every worker holds
one, and the kernel is asked whose they are.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import redis
from rich.table import Table

from models import rollout, routes
from models.rollout import Route
from slipstream.embedded import EmbeddedRedis
from slipstream.places import screen
from tests import onnx_models
from tests.faults.people import MODEL, applied_by, workers_of
from tests.serving import Gateway, eventually

CHANGES, WORKERS = 20, 4
#: Seconds between two changes, and between two questions to the same worker.
PAUSE, ASK = 0.35, 0.002
BODY = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 1, 1, 1]}]}
)


def run(folder: Path, changes: int, workers: int) -> list[float]:
    """Seconds for each change, promotions and roll-backs in turn."""
    for number in (1, 2):
        onnx_models.softmax(folder / f"repository/{MODEL}/{number}/model.onnx", number)
    (folder / "gateway").mkdir()
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedRedis(folder / "redis"))
        client = stack.enter_context(redis.Redis.from_url(server.url))
        routes.write(client, None, Route(MODEL, 1), action="push", who="test", why="")
        gateway = Gateway(
            folder / "gateway", folder / "repository", server.url, SLIPSTREAM_WORKERS=str(workers)
        )
        stack.callback(gateway.stop)
        eventually(lambda: list(applied_by(client).values()) == [1] * workers, 60)
        lines = stack.enter_context(one_line_each(gateway, workers))
        return [measure(client, lines, change) for change in range(changes)]


def measure(client: redis.Redis, lines: dict[int, http.client.HTTPConnection], i: int) -> float:
    """Change the route; ask every worker until each one answers by it."""
    time.sleep(PAUSE + 0.013 * i)  # not in step with the workers' looks
    transition, action = (rollout.rollback, "rollback")
    if i % 2 == 0:
        transition, action = partial(rollout.promote, version=2), "promote"
    start = time.monotonic()
    route = routes.change(
        client, MODEL, transition, first=1, action=action, who="test", why="to be measured"
    )
    waiting = dict(lines)
    while waiting:
        for pid, line in list(waiting.items()):
            line.request("POST", f"/v2/models/{MODEL}/infer", BODY)
            answer = line.getresponse()
            answer.read()
            assert answer.status == 200
            if answer.headers["x-route-revision"] == str(route.revision):
                assert answer.headers["x-model-version"] == str(route.champion)
                del waiting[pid]
        assert time.monotonic() - start < 30, f"workers {set(waiting)} never applied it"
        time.sleep(ASK)
    return time.monotonic() - start


@contextmanager
def one_line_each(
    gateway: Gateway, workers: int
) -> Iterator[dict[int, http.client.HTTPConnection]]:
    """Process id of each worker -> a connection to it."""
    lines: dict[int, http.client.HTTPConnection] = {}
    spare: list[http.client.HTTPConnection] = []
    try:
        for _ in range(2_000):
            line = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
            line.request("GET", "/v2/health/live")
            line.getresponse().read()
            port = line.sock.getsockname()[1]
            pid = _accepted_by(port, workers_of(gateway.pid))
            if pid is None or pid in lines:
                spare.append(line)
            else:
                lines[pid] = line
            if len(lines) == workers:
                break
        assert len(lines) == workers, f"only {len(lines)} workers ever took a connection"
        for line in spare:
            line.close()
        yield lines
    finally:
        for line in (*lines.values(), *spare):
            line.close()


def _accepted_by(port: int, pids: list[int]) -> int | None:
    """The process that holds the server's end of the connection from `port`."""
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    inode = next((r.split()[9] for r in rows if r.split()[2].endswith(f":{port:04X}")), None)
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(descriptor))
            except OSError:
                continue
            if found and found[1] == inode:
                return pid
    return None


def main(arguments: list[str]) -> int:
    changes = int(arguments[0]) if arguments else CHANGES
    workers = int(arguments[1]) if len(arguments) > 1 else WORKERS
    with tempfile.TemporaryDirectory() as folder:
        seconds = run(Path(folder), changes, workers)
    table = Table("what", "measured", "wanted", title=f"{changes} changes, {workers} workers")
    table.add_row("median", f"{1e3 * statistics.median(seconds):.0f} ms", "")
    table.add_row("worst", f"{1e3 * max(seconds):.0f} ms", "below 1,000 ms")
    screen.print(table)
    return int(max(seconds) >= 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
