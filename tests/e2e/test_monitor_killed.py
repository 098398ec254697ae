"""A monitor that is killed loses nothing and counts nothing twice."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path

import httpx
import numpy as np
import redis

from models.repository import Repository
from monitoring.history import History
from monitoring.stream import Store
from slipstream.client import Client, encode
from slipstream.embedded import EmbeddedRedis
from slipstream.processes import free_port
from tests.serving import Gateway, Monitor, eventually, two_versions

REQUESTS = 6_000


def send(gateway: Gateway, seed: int) -> None:
    """Real requests with labels, some labels twice and some changed."""
    chance, values = random.Random(seed), np.random.default_rng(seed)
    with httpx.Client(base_url=gateway.url) as http:
        waiting: list[str] = []
        for i in range(REQUESTS // 2):
            body, length = encode({"x": values.normal(size=(1, 4)).astype(np.float32)})
            headers = {
                "inference-header-content-length": str(length),
                "x-event-time": f"2013-{1 + i % 12:02}-{1 + i % 28:02}T{i % 24:02}:00:00Z",
            }
            answer = http.post("/v2/models/killed/infer", content=body, headers=headers)
            waiting.append(answer.headers["x-prediction-id"])
            if len(waiting) == 100:
                labels = [{"prediction_id": p, "label": chance.choice([0, 1])} for p in waiting]
                labels += [{**label, "label": 1} for label in chance.sample(labels, 20)]
                http.post("/v2/models/killed/feedback", json={"feedback": labels})
                waiting.clear()


def test_every_count_equals_that_of_an_undisturbed_run(tmp_path: Path, reference: Path) -> None:
    """Kill the monitor again and again mid-stream; then fold the very same stream in one go
    beside it and compare every window, bin by bin."""
    with EmbeddedRedis(tmp_path / "redis") as server:
        repository = two_versions(tmp_path, server.url, "killed", reference, (1.0, -1.0))
        client = redis.Redis.from_url(server.url)
        gateway = Gateway(
            tmp_path / "gateway", repository, server.url, SLIPSTREAM_SHADOW_QUEUE="100000"
        )
        senders = [threading.Thread(target=send, args=(gateway, seed)) for seed in (1, 2)]
        for sender in senders:
            sender.start()
        kills, port = 0, free_port()
        while any(sender.is_alive() for sender in senders):
            monitor = Monitor(tmp_path / "monitor", repository, server.url, port)
            senders[0].join(random.Random(kills).uniform(0.05, 0.6))
            monitor.kill()
            kills += 1
        gateway.stop()  # its last facts are in the stream now
        monitor = Monitor(tmp_path / "monitor", repository, server.url, port)
        store = Store(client)
        eventually(lambda: store.lag("killed", store.progress("killed").cursor) == 0)
        monitor.stop()
        disturbed = History("killed", store, Repository(repository))

        aside = redis.Redis.from_url(server.url.replace("/0", "/1"))
        for identifier, fields in client.xrange("slipstream:{killed}:facts"):
            aside.xadd("slipstream:{killed}:facts", fields, id=identifier)
        undisturbed = History("killed", Store(aside), Repository(repository))
        while undisturbed.step() is not None:
            continue
        assert kills >= 3
        assert disturbed.windows.keys() == undisturbed.windows.keys()
        for key, vector in undisturbed.windows.items():
            np.testing.assert_array_equal(disturbed.windows[key], vector, err_msg=str(key))
        assert disturbed.progress.totals == undisturbed.progress.totals
        assert undisturbed.progress.totals["rows"] == 2 * REQUESTS
        assert undisturbed.progress.totals["entries_lost"] == 0
        assert json.dumps(undisturbed.progress.totals)
        client.close()
        aside.close()


def test_another_monitor_takes_over(
    tmp_path: Path, repository: Path, gateway: Gateway, redis_server: EmbeddedRedis
) -> None:
    """The one that follows is killed; the other folds what comes then, and both told the same."""
    monitors = [Monitor(tmp_path / str(i), repository, redis_server.url) for i in range(2)]
    client = redis.Redis.from_url(redis_server.url)
    caller = Client(gateway.url)

    def send_and_see(count: int) -> None:
        for _ in range(count):
            caller.predict("strict", {"x": np.ones((1, 4), np.float32)})

    def folded() -> int:
        return Store(client).progress("strict").totals["requests"]

    before = folded()
    send_and_see(30)
    eventually(lambda: folded() == before + 30)
    holder = client.get("slipstream:{strict}:lease")
    assert holder is not None
    dead = next(m for m in monitors if holder.endswith(f":{m.port}".encode()))
    alive = next(m for m in monitors if m is not dead)
    dead.kill()
    send_and_see(30)
    eventually(lambda: folded() == before + 60)
    shown = alive.get("models/strict/timeline")["traffic"]["requests"]
    assert sum(shown) >= 60
    alive.stop()
    assert client.get("slipstream:{strict}:lease") is None  # who goes in peace leaves it at once
    caller.close()
    client.close()


def test_a_monitor_that_was_overtaken_changes_nothing(
    tmp_path: Path, repository: Path, gateway: Gateway, redis_server: EmbeddedRedis
) -> None:
    """Two monitors on one stream: each entry counts once, whoever seals it."""
    caller = Client(gateway.url)
    for _ in range(50):
        caller.predict("simple", {f"INPUT{i}": np.ones((1, 16), np.int32) for i in (0, 1)})
    caller.close()
    client = redis.Redis.from_url(redis_server.url)
    eventually(lambda: client.exists("slipstream:{simple}:facts"))
    one, two = (History("simple", Store(client), Repository(repository)) for _ in range(2))

    def counted() -> int:
        for history in (one, two, one, two):
            history.step()
        return one.progress.totals["requests"]

    eventually(lambda: counted() >= 50)
    assert two.progress.cursor == one.progress.cursor
    fresh = History("simple", Store(client), Repository(repository))
    day = fresh.newest("day")
    total = fresh.window(1, ("champion",), "day", fresh.oldest("day"), day)["requests"].sum()
    assert total == fresh.progress.totals["requests"]
    client.close()
