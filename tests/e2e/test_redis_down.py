"""Redis goes and comes back; clients never notice, ops do."""

from __future__ import annotations

from pathlib import Path

import redis

from models.contract import keys
from slipstream.embedded import EmbeddedRedis
from slipstream.processes import free_port
from tests.serving import Gateway, eventually

ROW = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}


def test_predictions_go_on_and_sampling_resumes(tmp_path: Path, repository: Path) -> None:
    """Every answer is 200; what could not be kept is counted; later facts arrive again."""
    port = free_port()
    server = EmbeddedRedis(tmp_path / "redis", port).start()
    gateway = Gateway(tmp_path, repository, server.url, SLIPSTREAM_BUFFER_FACTS="1000")
    client = redis.Redis.from_url(server.url)
    try:

        def answer(count: int) -> None:
            codes = {gateway.infer("strict", [ROW]).status_code for _ in range(count)}
            assert codes == {200}

        def entries() -> int:
            return int(client.xlen(keys.facts("strict")))  # type: ignore[arg-type]

        answer(10)
        eventually(lambda: entries() > 0)
        server.stop()
        answer(1_500)
        dropped = "slipstream_facts_dropped_total"
        eventually(lambda: gateway.metric(dropped) > 0)
        assert gateway.metric("slipstream_monitoring_degraded") == 1
        before_restart = gateway.metric(dropped)
        assert 400 <= before_restart <= 1_500
        server = EmbeddedRedis(tmp_path / "redis", port).start()
        before = entries()
        answer(10)
        eventually(lambda: entries() > before)
        eventually(lambda: gateway.metric("slipstream_monitoring_degraded") == 0)
    finally:
        gateway.stop()
        server.stop()
        client.close()
