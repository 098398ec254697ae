"""`slipstream up`: Redis, gateway and monitor as child processes, started and stopped together."""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

from slipstream.embedded import EmbeddedRedis
from slipstream.processes import spawn, stop

#: Seconds that a process may take to say that it is ready.
READY = 90
#: Seconds that a process may take to finish its work when told to stop.
STOP = 20


class LaunchFailed(RuntimeError):
    """A process did not come up; the sentence says where its log is."""


@dataclass
class House:
    """The three processes. `start` waits until all are ready; `stop` loses nothing."""

    home: Path
    repository: Path
    host: str = "127.0.0.1"
    port: int = 3000
    monitor_port: int = 3001
    workers: int = 1
    redis_url: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    _redis: EmbeddedRedis | None = None
    _gateway: Popen[bytes] | None = None
    _monitor: Popen[bytes] | None = None

    @property
    def gateway_url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def console_url(self) -> str:
        return f"http://127.0.0.1:{self.monitor_port}"

    def start(self) -> None:
        """Raises LaunchFailed or RedisUnavailable; what had started is stopped again."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        if self.redis_url is None:
            self._redis = EmbeddedRedis(self.home / "redis").start()
            self.redis_url = self._redis.url
            (self.home / "redis.url").write_text(self.redis_url)
        self._monitor = self._spawn("monitor", [sys.executable, "-m", "monitoring"])
        self._gateway = self._spawn("gateway", self._serve())
        self._wait(self._monitor, "monitor", f"{self.console_url}/readyz")
        self._wait(self._gateway, "gateway", f"{self.gateway_url}/readyz")

    def _serve(self) -> list[str]:
        root = Path(__file__).parent.parent
        return [
            *(sys.executable, "-m", "bentoml", "serve", "service:Gateway"),
            *("--working-dir", str(root), "--host", self.host, "--port", str(self.port)),
            *("--timeout-graceful-shutdown", str(STOP)),
        ]

    def _spawn(self, name: str, command: list[str]) -> Popen[bytes]:
        home = self.home.resolve()
        assert self.redis_url is not None
        environment = {
            "SLIPSTREAM_HOME": str(home),
            "SLIPSTREAM_REPOSITORY": str(self.repository.resolve()),
            "SLIPSTREAM_REDIS_URL": self.redis_url,
            "SLIPSTREAM_MONITOR_PORT": str(self.monitor_port),
            "SLIPSTREAM_WORKERS": str(self.workers),
            "BENTOML_HOME": str(home / "bentoml"),  # two servers sharing one break each other
            "BENTOML_DO_NOT_TRACK": "True",
            **self.environment,
        }
        return spawn(command, self.log(name), environment)

    def log(self, name: str) -> Path:
        return self.home / "logs" / f"{name}.log"

    def _wait(self, process: Popen[bytes], name: str, url: str) -> None:
        end = time.monotonic() + READY
        while time.monotonic() < end:
            if process.poll() is not None:
                break
            if answers(url):
                return
            time.sleep(0.1)
        tail = self.log(name).read_text(errors="replace")[-2_000:]
        raise LaunchFailed(f"the {name} did not come up; the end of {self.log(name)}:\n{tail}")

    def watch(self, until: Callable[[], bool]) -> None:
        """Return once `until` says so. Raises LaunchFailed where a process ends by itself."""
        while not until():
            for name, process in (("gateway", self._gateway), ("monitor", self._monitor)):
                if process is not None and process.poll() is not None:
                    raise LaunchFailed(f"the {name} ended by itself; see {self.log(name)}")
            time.sleep(0.2)

    def stop(self) -> None:
        """The gateway first, so that the monitor still folds its last facts; Redis last."""
        for process in (self._gateway, self._monitor):
            if process is not None:
                stop(process, STOP)
        if self._redis is not None:
            self._redis.stop()


def answers(url: str) -> bool:
    """Whether a GET of `url` is answered 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
