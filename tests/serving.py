"""A gateway as users run it: its own process, its own port, real sockets."""

from __future__ import annotations

import http.client
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psutil

from slipstream.launch import answers
from slipstream.processes import free_port, spawn, stop

ROOT = Path(__file__).parent.parent


class Reply(NamedTuple):
    """Status, headers with lower-case names, body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def error(self) -> str:
        """The sentence of an error body, which has nothing else in it."""
        assert self.headers["content-type"] == "application/json", self
        assert set(self.json) == {"error"}, self
        sentence: str = self.json["error"]
        return sentence


class Gateway:
    """`python -m bentoml serve service:Gateway` over a repository. Log and home lie beside it."""

    def __init__(
        self, repository: Path, redis_url: str, environment: dict[str, str] | None = None
    ) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.address}"
        home = repository.with_name(f"{repository.name}-gateway-{self.port}")
        self.log = home / "gateway.log"
        self._command = [
            *(sys.executable, "-m", "bentoml", "serve", "service:Gateway"),
            *("--working-dir", str(ROOT), "--host", "127.0.0.1", "--port", str(self.port)),
        ]
        self._environment = {
            "SLIPSTREAM_REPOSITORY": str(repository),
            "SLIPSTREAM_REDIS_URL": redis_url,
            "BENTOML_HOME": str(home / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            **(environment or {}),
        }

    def start(self, seconds: float = 90) -> Gateway:
        """Return once /readyz answers 200."""
        self._process = spawn(self._command, self.log, self._environment)
        end = time.monotonic() + seconds
        while not answers(f"{self.url}/readyz"):
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise AssertionError(f"no gateway:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.1)
        return self

    def stop(self) -> None:
        stop(self._process, 20)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | object = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """One request on a connection of its own. Objects go as JSON, iterators as chunks."""
        raw = body is None or isinstance(body, bytes) or hasattr(body, "__next__")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            content: Any = body if raw else msgspec.json.encode(body)
            connection.request(method, path, content, headers or {})
            answer = connection.getresponse()
            lowered = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, lowered, answer.read())
        finally:
            connection.close()

    def infer(
        self, model: str, inputs: list[dict[str, Any]], more: dict[str, Any] | None = None
    ) -> Reply:
        return self.request("POST", f"/v2/models/{model}/infer", {"inputs": inputs, **(more or {})})

    def series(self) -> dict[str, float]:
        """What /metrics says: `name{labels}` -> value."""
        text = self.request("GET", "/metrics").body.decode()
        pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the series of a metric that carry these labels."""
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        return sum(
            value
            for series, value in self.series().items()
            if series.split("{")[0] == name and wanted <= set(re.findall(r'\w+="[^"]*"', series))
        )

    def memory(self) -> int:
        """Resident bytes of the server and its workers."""
        family = psutil.Process(self._process.pid)
        return sum(p.memory_info().rss for p in (family, *family.children(recursive=True)))


def eventually(what: Callable[[], Any], seconds: float = 20) -> Any:
    """The first true answer of `what`; asks until it comes, fails when it never does."""
    end = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < end, f"{what} did not come true within {seconds} s"
        time.sleep(0.05)
    return answer
