"""Real parts for every test: a Redis, a repository, a gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars
import pytest
import redis

from models.repository import Repository
from slipstream.embedded import EmbeddedRedis
from slipstream.push import push
from slipstream.reference import Reference
from tests import onnx_models
from tests.serving import Gateway


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def client(redis_server: EmbeddedRedis) -> Iterator[redis.Redis]:
    """An empty database of its own."""
    url = redis_server.url.replace("/0", "/9")
    connection = redis.Redis.from_url(url)
    connection.flushdb()
    yield connection
    connection.close()


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5,000 rows of four normal numbers and what they come to."""
    random = np.random.default_rng(1)
    x = random.normal(size=(5_000, 4)).astype(np.float32)
    late = (x[:, 0] + random.normal(size=5_000) > 0).astype(int)
    file = tmp_path_factory.mktemp("reference") / "data.parquet"
    columns = {name: x[:, i] for i, name in enumerate("abcd")}
    polars.DataFrame({**columns, "late": late}).write_parquet(file)
    return file


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory, reference: Path) -> Path:
    """`pushed` (two versions with a profile), `strict`, Triton-style folders, one unservable."""
    root, files = tmp_path_factory.mktemp("repository"), tmp_path_factory.mktemp("files")
    data = Reference(reference, "late")
    for version, weight in ((1, 1.0), (2, -1.0)):
        file = onnx_models.softmax(files / f"{version}.onnx", weight)
        push(Repository(root), "pushed", file, reference=data)
    strict = onnx_models.softmax(files / "strict.onnx", 2.0)
    push(Repository(root), "strict", strict, reference=data, non_finite="refuse")
    onnx_models.simple(root / "simple/1/model.onnx")
    onnx_models.sequence(root / "sequence/1/model.onnx")
    for datatype in onnx_models.TYPES:
        onnx_models.identity(root / f"identity_{datatype.lower()}/1/model.onnx", datatype)
    return root


@pytest.fixture(scope="session")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, repository: Path, redis_server: EmbeddedRedis
) -> Iterator[Gateway]:
    running = Gateway(tmp_path_factory.mktemp("gateway"), repository, redis_server.url)
    yield running
    running.stop()
