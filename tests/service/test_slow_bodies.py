"""Bodies that come late, in pieces, or never."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipstream.embedded import EmbeddedRedis
from tests.serving import Gateway

BODY = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
).encode()
HEAD = b"POST /v2/models/strict/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(BODY)


@pytest.fixture(scope="module")
def hasty(
    tmp_path_factory: pytest.TempPathFactory, repository: Path, redis_server: EmbeddedRedis
) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("hasty")
    running = Gateway(folder, repository, redis_server.url, SLIPSTREAM_DEADLINE="1")
    yield running
    running.stop()


def test_a_body_in_pieces_is_put_together(hasty: Gateway) -> None:
    """Pauses between headers and pieces change nothing within the deadline."""
    with socket.create_connection(("127.0.0.1", hasty.port)) as connection:
        for piece in (HEAD, BODY[:10], BODY[10:60], BODY[60:]):
            connection.sendall(piece)
            time.sleep(0.1)
        assert b" 200 OK" in connection.recv(4_000)


@pytest.mark.parametrize("sent", [0, 10], ids=["nothing", "a part"])
def test_a_body_that_does_not_arrive_is_a_504(hasty: Gateway, sent: int) -> None:
    """The deadline holds while the body is read; the next request is answered as ever."""
    with socket.create_connection(("127.0.0.1", hasty.port)) as connection:
        connection.sendall(HEAD + BODY[:sent])
        connection.settimeout(10)
        answer = connection.recv(4_000)
        while b"did not arrive in time" not in answer:  # head and body may come apart
            more = connection.recv(4_000)
            assert more, answer
            answer += more
        assert b" 504 " in answer
    assert hasty.http.post("/v2/models/strict/infer", content=BODY).status_code == 200


def test_a_caller_that_leaves_harms_nobody(hasty: Gateway) -> None:
    """Half a request and a closed connection: counted as 499, nothing else."""
    with socket.create_connection(("127.0.0.1", hasty.port)) as connection:
        connection.sendall(HEAD + BODY[:10])
    assert hasty.http.post("/v2/models/strict/infer", content=BODY).status_code == 200
