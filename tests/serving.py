"""Real processes for tests: a gateway, a monitor."""

from __future__ import annotations

import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import httpx
import redis

from models import rollout, routes
from models.repository import Repository
from slipstream.launch import answers
from slipstream.processes import free_port, spawn, stop
from slipstream.push import push
from slipstream.reference import Reference
from tests import onnx_models

ROOT = Path(__file__).parent.parent


class Process:
    """A child that is waited for and stopped."""

    def __init__(self, command: list[str], folder: Path, ready: str, env: dict[str, str]) -> None:
        self.log = folder / "log"
        self._process = spawn(command, self.log, {"PYTHONPATH": str(ROOT), **env})
        self.pid = self._process.pid
        end = time.monotonic() + 60
        while not answers(ready):
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(self.log.read_text()[-3_000:])
            time.sleep(0.1)

    def stop(self) -> None:
        stop(self._process, 20)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Gateway(Process):
    """`bentoml serve service:Gateway` on a free port."""

    def __init__(self, folder: Path, repository: Path, redis_url: str, **env: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.redis_url = redis_url
        command = [sys.executable, "-m", "bentoml", "serve", "service:Gateway"]
        command += ["--working-dir", str(ROOT), "--host", "127.0.0.1", "--port", str(self.port)]
        environment = {
            "BENTOML_HOME": str(folder / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            "SLIPSTREAM_HOME": str(folder),
            "SLIPSTREAM_REPOSITORY": str(repository),
            "SLIPSTREAM_REDIS_URL": redis_url,
            "SLIPSTREAM_SHADOW_FLOOR": "1",  # tests share their machine with everything
            **env,
        }
        super().__init__(command, folder, f"{self.url}/readyz", environment)
        self.http = httpx.Client(base_url=self.url, timeout=30)

    def infer(self, model: str, inputs: list[dict[str, Any]], **more: Any) -> httpx.Response:
        headers = more.pop("headers", {})
        path = more.pop("path", f"/v2/models/{model}/infer")
        return self.http.post(path, json={"inputs": inputs, **more}, headers=headers)

    def metric(self, start: str) -> float:
        """The sum of the samples whose line starts so."""
        lines = self.http.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(start))

    def stop(self) -> None:
        self.http.close()
        super().stop()


class Monitor(Process):
    """`python -m monitoring` on a free port, or on one that it had before."""

    def __init__(
        self, folder: Path, repository: Path, redis_url: str, port: int = 0, **env: str
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {
            "SLIPSTREAM_REPOSITORY": str(repository),
            "SLIPSTREAM_REDIS_URL": redis_url,
            "SLIPSTREAM_MONITOR_PORT": str(self.port),
            **env,
        }
        command = [sys.executable, "-m", "monitoring"]
        super().__init__(command, folder, f"{self.url}/readyz", environment)

    def get(self, path: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{path}", timeout=60)
        answer.raise_for_status()
        return answer.json()


def two_versions(
    folder: Path, redis_url: str, model: str, reference: Path, weights: tuple[float, float]
) -> Path:
    """A repository in `folder` with two versions of `model`; the second shadows every request."""
    root = folder / "repository"
    for weight in weights:
        file = onnx_models.softmax(folder / f"{weight}.onnx", weight)
        push(Repository(root), model, file, reference=Reference(reference, "late"))
    client = redis.Redis.from_url(redis_url)
    routes.change(
        client,
        model,
        lambda route: rollout.start_shadow(route, 2, 100),
        first=1,
        action="shadow",
        who="test",
        why="a second opinion",
    )
    client.close()
    return root


def eventually(condition: Any, seconds: float = 20) -> None:
    """Wait until `condition()` is true; fail with its name where it never is."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {condition}"
        time.sleep(0.05)


def text(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        found: str = answer.read().decode()
        return found
