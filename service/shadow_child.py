"""The gateway's end of the shadow's process: start, write, read, kill. Never waits.

A process is started anew (exec), never forked: a worker has threads and an event loop, which a
fork would copy in whatever state they are.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

from service import shadow_process
from service.settings import Settings
from service.shadow_process import CHUNK, Frames, Message

#: How much less the operating system favours the process.
NICENESS = 10
_ROOT = Path(__file__).parent.parent


class Gone(Exception):
    """The process has ended, or its end of the channel is closed."""


class Child:
    """A running process. Raises OSError where none can be started."""

    def __init__(self, settings: Settings) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            command = [sys.executable, "-P", shadow_process.__file__, str(theirs.fileno())]
            command += [str(settings.repository)]
            command += [str(settings.shadow_memory), str(settings.shadow_bytes)]
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    env=_environment(),
                    pass_fds=[theirs.fileno()],
                    # A Ctrl-C is the gateway's to handle. Not a session of its own: Linux weighs
                    # sessions against each other first, and between them idle counts for little.
                    process_group=0,
                )
            except OSError:
                ours.close()
                raise
        os.setpriority(os.PRIO_PROCESS, self._process.pid, NICENESS)
        self._channel = ours
        self._frames = Frames()
        self._unsent = memoryview(b"")

    def be_a_guest(self) -> None:
        """From now on run where nobody else wants to, and interrupt nobody.

        Not before a model is open: on a busy machine that would never end.
        """
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # it may have ended
                os.sched_setscheduler(self.pid, os.SCHED_IDLE, os.sched_param(0))

    @property
    def ran(self) -> float:
        """Seconds of a core that it has had; 0 where the system does not tell."""
        try:
            return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[0]) / 1e9
        except (OSError, ValueError, IndexError):
            return 0.0

    @property
    def wants_a_core(self) -> bool:
        """It runs, or would if it could: it does not sleep."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "R"
        except (OSError, IndexError):
            return False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def congested(self) -> bool:
        """What was written last has not gone out as a whole."""
        return bool(self._unsent)

    def write(self, data: bytes) -> None:
        """Send `data` and what was left before, as far as goes now. Where the process has ended,
        `read` tells, once its last answers are read."""
        self._unsent = memoryview(bytes(self._unsent) + data)
        try:
            while self._unsent:
                self._unsent = self._unsent[self._channel.send(self._unsent) :]
        except OSError:
            return

    def read(self) -> list[Message]:
        """What has been said since. Raises Gone once everything has been read."""
        try:
            data = self._channel.recv(CHUNK)
        except BlockingIOError:
            return []
        except OSError as error:
            raise Gone(str(error)) from None
        if not data:
            raise Gone("it ended")
        return [shadow_process.decode_message(frame) for frame in self._frames.feed(data)]

    def kill(self) -> None:
        self._process.kill()
        self._channel.close()

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None


def _environment() -> dict[str, str]:
    """One thread for whatever numpy brings along, and the same modules."""
    paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
