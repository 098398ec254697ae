"""A version is warmed up on what its model was asked before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import redis

from models.contract import keys, wire
from models.contract.records import SCHEMA, Column, Entry, Rows
from models.repository import Repository
from models.sessions import LoadedVersion
from models.version import ModelVersion
from service.recorded import Recorded
from slipstream.embedded import EmbeddedRedis
from tests import onnx_models


def rows(role: str, inputs: dict[str, Column]) -> Rows:
    return Rows(1, role, b"", b"", b"", b"", b"", inputs, {})


def test_the_newest_recorded_rows_come_one_by_one(
    redis_server: EmbeddedRedis, client: redis.Redis
) -> None:
    """Not a shadow's, nor what was not sampled; and nothing where Redis is away."""
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    inputs = {"x": wire.column([x]), "w": wire.column([np.array(["a", "b", "c"], object)])}
    kinds = [rows("champion", inputs), rows("shadow", inputs), rows("canary", {})]
    client.xadd(keys.facts("m"), {wire.FIELD: wire.pack(Entry(SCHEMA, "w", 1, 0, kinds, [], []))})
    client.xadd(keys.facts("m"), {wire.FIELD: b"not an entry"})
    found = Recorded(redis_server.url.replace("/0", "/9")).requests("m", 2)
    assert [(one["x"].tolist(), one["w"].tolist()) for one in found] == [
        ([[0, 1, 2, 3]], ["a"]),
        ([[4, 5, 6, 7]], ["b"]),
    ]
    assert Recorded("redis://127.0.0.1:1/0").requests("m") == []


def test_warming_up_skips_what_the_version_does_not_take(tmp_path: Path) -> None:
    """Its duration is that of the last row it took; 0 where it took none."""
    onnx_models.softmax(tmp_path / "m/1/model.onnx")
    package = Repository(tmp_path).open(ModelVersion("m", 1))
    loaded = LoadedVersion(package)
    loaded.seconds = 0.0
    loaded.warm([{"y": np.zeros(3)}, {"x": np.zeros((1, 4), np.float32)}])
    assert loaded.seconds > 0
