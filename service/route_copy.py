"""The routes that this gateway applied last, on disk: what it starts with while Redis is away."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import msgspec

from models.rollout import Route

log = logging.getLogger("slipstream.fleet")


class RouteCopy:
    """One file beside the gateway's data; several workers write the same into it."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def write(self, routes: dict[str, Route]) -> None:
        """Replace the file at once. A disk that is full costs the copy, not the route."""
        body = msgspec.json.encode(sorted(routes.values(), key=lambda route: route.model))
        unfinished = self._file.with_suffix(f".{os.getpid()}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(_checksum(body) + b"\n" + body)
            unfinished.replace(self._file)
        except OSError as error:
            log.warning("the local copy of the routes cannot be written: %s", error)

    def read(self) -> list[Route]:
        """Nothing where there is no copy, or one that was damaged."""
        try:
            checksum, _, body = self._file.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            log.warning("the local copy of the routes cannot be read: %s", error)
            return []
        if checksum != _checksum(body):
            log.warning("%s is damaged and not used; the routes come from Redis", self._file)
            return []
        return msgspec.json.decode(body, type=list[Route])


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
