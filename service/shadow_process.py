"""The process in which shadows run: an interpreter, sessions and a memory ceiling of its own.

Started by its path, not as a module: `service` imports BentoML, which has no business here.

    gateway --Ask--> shadow_process          gateway <--Note, Answer-- shadow_process

Every message is four bytes of length and MessagePack. Asks are answered in their order, each as
soon as it ran, so that the gateway knows which one was running when this process is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from models.contract import wire
from models.contract.records import Column
from models.errors import ModelFault, SlipstreamError
from models.repository import Repository
from models.sessions import LoadedVersion
from models.signature import Tensors
from models.version import ModelVersion

#: Seconds after which a version that nobody asked for is closed.
IDLE = 60.0
#: Share of the memory ceiling beyond which a fault is taken for a leak.
LEAK = 0.8
#: Bytes read at once.
CHUNK = 256 * 1024
_PR_SET_PDEATHSIG = 1


# --- messages -------------------------------------------------------------------------------------


class Ask(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """From the gateway: run this."""

    model: str
    version: int
    inputs: dict[str, Column]


class Answer(msgspec.Struct, array_like=True, tag=0, frozen=True, gc=False):
    """What became of an Ask: the outputs that monitoring records, else a sentence. `start` and
    `end` are nanoseconds of the monotonic clock, which all processes share."""

    start: int
    end: int
    outputs: dict[str, Column] | None = None
    error: str = ""


class Note(msgspec.Struct, array_like=True, tag=1, frozen=True, gc=False):
    """`loading` asks for patience, `ready` and `open` (a model is) end it; `leaving` wants a fresh
    process and is no fault of the Asks that are left."""

    what: Literal["loading", "ready", "open", "leaving"]


Message = Answer | Note
_encode = msgspec.msgpack.Encoder().encode
decode_ask = msgspec.msgpack.Decoder(Ask).decode
decode_message = msgspec.msgpack.Decoder(Message).decode


def frame(message: Ask | Message) -> bytes:
    data = _encode(message)
    return len(data).to_bytes(4, "big") + data


def packed(tensors: Tensors) -> dict[str, Column]:
    return {name: wire.column([array]) for name, array in tensors.items()}


class Frames:
    """Cuts a stream of bytes into the messages that are complete."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._data += data
        start = 0
        while len(self._data) >= start + 4:
            end = start + 4 + int.from_bytes(self._data[start : start + 4], "big")
            if len(self._data) < end:
                break
            yield bytes(self._data[start + 4 : end])
            start = end
        del self._data[:start]


# --- the process ----------------------------------------------------------------------------------


class Versions:
    """What is open here, by name and number; closed when nobody has asked for a while."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._open: dict[ModelVersion, LoadedVersion] = {}
        self._asked: dict[ModelVersion, float] = {}

    def get(self, version: ModelVersion) -> LoadedVersion | None:
        self._asked[version] = time.monotonic()
        return self._open.get(version)

    def load(self, version: ModelVersion) -> LoadedVersion:
        """The gateway has verified the file; nobody does so twice."""
        loaded = self._open[version] = LoadedVersion(self._repository.open(version), threads=1)
        return loaded

    def close_idle(self) -> None:
        limit = time.monotonic() - IDLE
        for version in [v for v, asked in self._asked.items() if asked < limit]:
            del self._asked[version]
            self._open.pop(version, None)


class Guest:
    """Reads Asks until the gateway is gone."""

    def __init__(self, channel: socket.socket, versions: Versions, answer_bytes: int) -> None:
        self._channel = channel
        self._versions = versions
        self._answer_bytes = answer_bytes

    def serve(self, ceiling: int) -> None:
        frames = Frames()
        self._say(Note("ready"))
        self._channel.settimeout(IDLE)
        while True:
            try:
                data = self._channel.recv(CHUNK)
            except TimeoutError:
                self._versions.close_idle()
                continue
            if not data:
                return
            for ask in frames.feed(data):
                answer = self._answer(decode_ask(ask))
                self._say(answer)
                if answer.error and memory() > LEAK * ceiling:
                    self._say(Note("leaving"))
                    return
            self._versions.close_idle()

    def _say(self, message: Message) -> None:
        self._channel.sendall(frame(message))

    def _answer(self, ask: Ask) -> Answer:
        start = time.perf_counter_ns()
        outputs, error = None, ""
        try:
            loaded = self._version(ModelVersion(ask.model, ask.version))
            tensors = wire.arrays(ask.inputs)
            start = time.perf_counter_ns()
            loaded.signature.check(tensors)
            said = loaded.run(tensors)
            end = time.perf_counter_ns()
            outputs = self._recorded(loaded, said)
        except (SlipstreamError, OSError) as fault:
            end, error = time.perf_counter_ns(), str(fault)
        except Exception as fault:  # noqa: BLE001 (a MemoryError, or what nobody foresaw)
            end, error = time.perf_counter_ns(), repr(fault)
        return Answer(start, end, outputs, error)

    def _version(self, version: ModelVersion) -> LoadedVersion:
        loaded = self._versions.get(version)
        if loaded is None:
            self._say(Note("loading"))
            try:
                loaded = self._versions.load(version)
            finally:
                self._say(Note("open"))
        return loaded

    def _recorded(self, loaded: LoadedVersion, said: Tensors) -> dict[str, Column]:
        manifest = loaded.manifest
        names = said if manifest.compares_everything else manifest.recorded_outputs
        kept = {name: said[name] for name in names}
        size = sum(array.nbytes for array in kept.values())
        if size > self._answer_bytes:
            raise ModelFault(f"{loaded.version} says {size:,} bytes, more than a shadow may")
        return packed(kept)


def memory() -> int:
    """Bytes of address space in use; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return 0
    return pages * resource.getpagesize()


def confine(more: int) -> int:
    """End with the gateway, leave no core behind, be the first whom the kernel's memory killer
    finds, and have at most `more` bytes beyond what the interpreter takes. Returns the ceiling."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
    ceiling = memory() + more
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
    return ceiling


def main(descriptor: str, repository: str, more: str, answer_bytes: str) -> None:
    ceiling = confine(int(more))
    versions = Versions(Repository(Path(repository)))
    with socket.socket(fileno=int(descriptor)) as channel, contextlib.suppress(OSError):
        Guest(channel, versions, int(answer_bytes)).serve(ceiling)
    os._exit(0)  # nothing here is worth a long goodbye


if __name__ == "__main__":
    main(*sys.argv[1:])
