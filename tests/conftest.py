"""What several rooms share: a real Redis, and gateways that are stopped afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from slipstream.embedded import EmbeddedRedis
from tests.serving import Gateway

StartGateway = Callable[..., Gateway]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """One Redis for the session; tests keep apart by the names of their models."""
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_client(redis_server: EmbeddedRedis) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(redis_server.url)
    yield client
    client.close()


@pytest.fixture(scope="module")
def start_gateway() -> Iterator[StartGateway]:
    """Starts gateways: `start_gateway(repository, redis_url, {"SLIPSTREAM_…": …})`."""
    started: list[Gateway] = []

    def start(
        repository: Path, redis_url: str, environment: dict[str, str] | None = None
    ) -> Gateway:
        started.append(Gateway(repository, redis_url, environment).start())
        return started[-1]

    yield start
    for gateway in started:
        gateway.stop()
