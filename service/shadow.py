"""Runs shadows after the reply: in a process of their own, bounded, never waited for.

The primary cannot tell that a shadow exists. Its answer is on the wire before the job is even
queued; a shadow that raises, hangs, eats memory or dies takes only its own process with it.

    offer -> queue, drops the oldest -> a few at a time to the child -> answer -> fact
             |                          |
             oversize, budget, full     stale, breaker

Everything in the gateway happens on the event loop, in turns of a few jobs: a thread would fight
the loop for the interpreter's lock, and one wake-up for each answer would cost more than reading
it. No job is ever tried twice.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict, deque

import msgspec

from models.comparator import Comparator, agreement
from models.contract import wire
from models.manifest import Manifest
from models.signature import Tensors
from models.version import ModelVersion, Role
from service import metrics
from service.block import Fact
from service.recorder import Recorder
from service.settings import Settings
from service.shadow_child import Child, Gone
from service.shadow_policy import CLOSED, Breaker, Load, next_share
from service.shadow_process import Answer, Ask, Message, frame, packed
from service.telemetry import Step, Tracing

log = logging.getLogger("slipstream.shadow")

#: Bytes of requests that may wait.
QUEUE_BYTES = 32 * 1024 * 1024
#: Jobs, and about how many of their bytes, that one turn hands over; jobs not yet answered.
TURN, TURN_BYTES, FLYING = 16, 256 * 1024, 48
#: Seconds between turns: while there is something to do, and while there is nothing.
SOON, LATER = 0.002, 0.02
#: Seconds that opening a model, or the process itself, may take.
LOADING = 60.0
#: Seconds until a process that was lost is replaced: at first, and after many in a row.
BACKOFF, LONGEST_BACKOFF = 0.1, 10.0
#: Share of a core below which a process that wants one is starved, not slow; and how many
#: deadlines it gets then.
STARVED, STARVING = 0.5, 6
#: Seconds between looks at the event loop, and looks until the share is set anew.
LOOK, LOOKS = 0.01, 5


class Job(msgspec.Struct, frozen=True, gc=False):
    """A request that a shadow sees too, and what the primary left behind of it.

    `role` is floor where the champion itself is asked again. `comparators` are for outputs that
    the monitor does not see.
    """

    version: ModelVersion
    manifest: Manifest
    tensors: Tensors
    primary: Fact
    role: str = Role.SHADOW
    comparators: dict[str, Comparator] = {}
    since: float = msgspec.field(default_factory=time.monotonic)


class Shadow:
    """A queue bounded in jobs and bytes that drops the oldest, and the child that works it off.

    To be used from the event loop only.
    """

    def __init__(self, recorder: Recorder, tracing: Tracing, settings: Settings) -> None:
        self._recorder = recorder
        self._tracing = tracing
        self._settings = settings
        self._jobs: deque[Job] = deque()
        self._bytes = 0
        self._flying: deque[Job] = deque()
        self._breakers: defaultdict[ModelVersion, Breaker] = defaultdict(lambda: CLOSED)
        self._governor: Governor | None = None
        self._turn_due: asyncio.TimerHandle | None = None
        self._child: Child | None = None
        self._lost: Child | None = None
        self._loading = False
        self._heard = self._start_at = self._ran = 0.0
        self._backoff = BACKOFF

    def offer(self, job: Job) -> None:
        """Queue a request that was answered, unless it is too large or primaries need the time."""
        if self._governor is None:
            self._governor = Governor(self._settings.shadow_floor)
        size = job.primary.bytes
        if size > self._settings.shadow_bytes:
            _count(job, "dropped_oversize")
            return
        if random.random() >= self._governor.share:
            _count(job, "dropped_budget")
            return
        self._jobs.append(job)
        self._bytes += size
        while len(self._jobs) > self._settings.shadow_queue or self._bytes > QUEUE_BYTES:
            _count(self._take(), "dropped_full")
        if self._turn_due is None:
            self._turn_in(SOON)

    async def stop(self, seconds: float = 5.0) -> None:
        """Finish what is queued, for at most `seconds`, and end the process."""
        end = time.monotonic() + seconds
        while (self._jobs or self._flying) and time.monotonic() < end:
            await asyncio.sleep(SOON)
        if self._turn_due is not None:
            self._turn_due.cancel()
        if self._governor is not None:
            self._governor.stop()
        if self._child is not None:
            self._child.kill()

    def _take(self) -> Job:
        job = self._jobs.popleft()
        self._bytes -= job.primary.bytes
        return job

    # --- turns --------------------------------------------------------------------------------

    def _turn_in(self, seconds: float) -> None:
        self._turn_due = asyncio.get_running_loop().call_later(seconds, self._turn, seconds)

    def _turn(self, pause: float) -> None:
        moved = False
        try:
            moved = self._work(time.monotonic())
        except Gone as gone:
            self._lose(str(gone), "died")
        except Exception:
            log.exception("the shadow's queue failed in a way nobody foresaw; it goes on")
        if not self._jobs and not self._flying:
            self._turn_due = None
        else:
            self._turn_in(SOON if moved else min(pause * 2, LATER))

    def _work(self, now: float) -> bool:
        """Whether anything went either way. Raises Gone where the child has ended."""
        heard = self._child.read() if self._child is not None else []
        for message in heard:
            try:
                self._hear(message, now)
            except Exception:  # answers come in the order of their jobs: one must not cost another
                log.exception("a shadow's answer cannot be taken, and is left out")
        patience = LOADING if self._loading else self._settings.shadow_deadline
        if self._flying and now - self._heard > patience:
            self._late(now, patience)
        batch = self._batch(now)
        if self._child is not None and (batch or self._child.congested):
            self._child.write(batch)
        return bool(heard or batch)

    def _late(self, now: float, patience: float) -> None:
        """No answer in time: the model's fault, or that of a machine that has no time for it."""
        version = self._flying[0].version
        assert self._child is not None
        ran, self._ran = self._ran, self._child.ran
        fed = self._ran - ran > STARVED * (now - self._heard)
        if fed or not self._child.wants_a_core:
            log.warning("%s did not answer within %g s", version, patience)
            self._lose("it was killed", "deadline")
        elif now - self._flying[0].since < STARVING * patience:
            self._heard = now
        else:
            log.warning("the machine has no time for %s", version)
            _count(self._flying.popleft(), "dropped_stale")
            self._lose("it was starved", "starved")

    def _batch(self, now: float) -> bytes:
        """The next jobs for the child, as far as it may and can have them; drops the others."""
        frames: list[bytes] = []
        size = 0
        room = min(TURN, FLYING - len(self._flying))
        while self._jobs and size < TURN_BYTES:
            if now - self._jobs[0].since > self._settings.shadow_deadline:
                _count(self._take(), "dropped_stale")
                continue
            if len(frames) == room or not self._ready(now):
                break
            job = self._take()
            may, self._breakers[job.version] = self._breakers[job.version].ask(now)
            if not may:
                _count(job, "dropped_breaker")
                continue
            if not self._flying and self._child is not None:
                self._heard, self._ran = now, self._child.ran
            try:
                frames.append(frame(Ask(*job.version, packed(job.tensors))))
            except Exception:
                log.exception("what %s was to see cannot be packed", job.version)
                self._fail(job, 0.0, now)
                continue
            self._flying.append(job)
            size += len(frames[-1])
        return b"".join(frames)

    def _ready(self, now: float) -> bool:
        """Whether there is a child that takes jobs; starts one where it is time."""
        if self._child is not None:
            return not self._child.congested
        if now < self._start_at or (self._lost is not None and not self._lost.ended):
            return False
        self._lost = None
        try:
            self._child = Child(self._settings)
        except OSError as error:
            log.warning("no process for shadows: %s", error)
            self._back_off(now)
            return False
        self._loading = True
        return True

    def _lose(self, why: str, reason: str) -> None:
        """The child is gone: the job it was at failed, those behind it are as good as new."""
        now = time.monotonic()
        if self._child is not None:
            self._child.kill()
            self._lost, self._child = self._child, None
        metrics.RESTARTS.labels(reason).inc()
        self._back_off(now)
        if self._flying and reason not in ("leak", "starved"):
            job = self._flying.popleft()
            log.warning("the shadow's process is gone while it ran %s: %s", job.version, why)
            self._fail(job, now - self._heard, now)
        while self._flying:
            job = self._flying.pop()
            self._jobs.appendleft(job)
            self._bytes += job.primary.bytes

    def _back_off(self, now: float) -> None:
        self._start_at = now + self._backoff
        self._backoff = min(self._backoff * 2, LONGEST_BACKOFF)

    # --- answers ------------------------------------------------------------------------------

    def _hear(self, message: Message, now: float) -> None:
        self._heard = now
        if isinstance(message, Answer):
            self._backoff = BACKOFF
            self._answered(self._flying.popleft(), message, now)
        elif message.what == "leaving":
            self._lose("its memory is used up", "leak")
        else:
            self._loading = message.what == "loading"
            if message.what == "open" and self._child and self._settings.shadow_floor < 1:
                self._child.be_a_guest()

    def _answered(self, job: Job, answer: Answer, now: float) -> None:
        good = answer.outputs is not None
        if answer.error:
            log.debug("shadow: %s", answer.error)  # counted and recorded below
        outputs = None if answer.outputs is None else wire.arrays(answer.outputs)
        self._leave(job, outputs, answer.start, answer.end)
        self._breakers[job.version] = self._breakers[job.version].after(good, now)

    def _fail(self, job: Job, seconds: float, now: float) -> None:
        end = time.perf_counter_ns()
        self._leave(job, None, end - int(seconds * 1e9), end)
        self._breakers[job.version] = self._breakers[job.version].after(False, now)

    def _leave(self, job: Job, outputs: Tensors | None, start: int, end: int) -> None:
        """Count it, leave a fact behind, and a span where the primary was traced."""
        failed = outputs is None
        primary, (model, number) = job.primary, job.version
        _count(job, "failed" if failed else "ran")
        microseconds = (end - start) / 1_000
        self._recorder.record(
            Fact(
                model=model,
                version=number,
                role=job.role,
                agree=_agreement(job, outputs),
                kind="error" if failed else "ok",
                event_ms=primary.event_ms,
                latency_us=microseconds,
                model_us=microseconds,
                manifest=job.manifest,
                identifier=primary.identifier,
                rows=primary.rows,
                trace=primary.trace,
                inputs=primary.inputs,
                outputs=outputs,
                primary=primary,
                bytes=primary.bytes,
            )
        )
        if primary.trace and job.role == Role.SHADOW:
            self._tracing.shadow(
                primary.trace,
                Step(f"shadow {model}", start, end),
                {"slipstream.model": model, "slipstream.version": number},
                failed,
            )


def _agreement(job: Job, outputs: Tensors | None) -> bytes:
    """One byte a row, where the gateway compares; nothing where the monitor does."""
    said = job.primary.outputs
    if not job.comparators or outputs is None or said is None:
        return b""
    return agreement(job.comparators, said, outputs, job.primary.rows).tobytes()


def _count(job: Job, outcome: str) -> None:
    if job.role == Role.SHADOW:
        metrics.shadowed(job.version, outcome)


class Governor:
    """Looks at the event loop that it runs on, and sets the share that a shadow gets."""

    def __init__(self, floor: float) -> None:
        self.share = 1.0
        self._floor = floor
        self._late: list[float] = []
        self._since, self._used = time.monotonic(), _core_seconds()
        self._look_soon()

    def _look_soon(self) -> None:
        self._due = time.monotonic() + LOOK
        self._next = asyncio.get_running_loop().call_later(LOOK, self._look)

    def _look(self) -> None:
        now = time.monotonic()
        self._late.append(now - self._due)
        if len(self._late) == LOOKS:
            used = _core_seconds()
            load = Load(self._late, (used - self._used) / (now - self._since))
            self._set(next_share(self.share, load, self._floor))
            self._late, self._since, self._used = [], now, used
        self._look_soon()

    def _set(self, share: float) -> None:
        if share != self.share:
            self.share = share
            metrics.SHADOW_SHARE.set(share)

    def stop(self) -> None:
        self._next.cancel()


def _core_seconds() -> float:
    """Seconds that this thread ran or wanted to run: on a core that others use as well it may be
    overloaded while it runs half of the time."""
    try:
        with open("/proc/thread-self/schedstat", "rb") as file:
            ran, waited, _ = file.read().split()
    except (OSError, ValueError):  # not Linux, or a kernel that does not count
        return time.thread_time()
    return (int(ran) + int(waited)) / 1e9
