"""Runs shadows after the reply: bounded, in a thread of low priority, never waited for.

The primary cannot tell that a shadow exists: its answer is on the wire before the job is even
queued, and a shadow that raises, sleeps or says nonsense only changes what is recorded of it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from dataclasses import dataclass

from models.errors import SlipstreamError
from models.sessions import LoadedVersion
from models.signature import Tensors
from models.version import Role
from service import metrics
from service.block import Fact
from service.recorder import Recorder
from service.telemetry import Step, Tracing

log = logging.getLogger("slipstream.shadow")

#: How much less the operating system favours the shadow's thread.
NICENESS = 10
#: Bytes of requests that may wait.
QUEUE_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Job:
    """A request that a shadow sees too, and what the primary left behind of it."""

    shadow: LoadedVersion
    tensors: Tensors
    primary: Fact


class Shadow:
    """A queue bounded in jobs and bytes that drops the oldest, and the thread that works it off."""

    def __init__(self, recorder: Recorder, tracing: Tracing, queue: int) -> None:
        self._recorder = recorder
        self._tracing = tracing
        self._limit = queue
        self._jobs: deque[Job] = deque()
        self._bytes = 0
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
        self._thread.start()

    def offer(self, job: Job) -> None:
        """Queue a job; never waits longer than the queue's lock."""
        with self._wake:
            self._jobs.append(job)
            self._bytes += job.primary.bytes
            while len(self._jobs) > self._limit or self._bytes > QUEUE_BYTES:
                dropped = self._jobs.popleft()
                self._bytes -= dropped.primary.bytes
                _count(dropped.shadow, "dropped_full")
            self._wake.notify()

    def stop(self, seconds: float = 5.0) -> None:
        """Finish what is queued, for at most `seconds`."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(seconds)

    def _work(self) -> None:
        if hasattr(os, "setpriority"):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while (job := self._next()) is not None:
            self._run(job)

    def _next(self) -> Job | None:
        with self._wake:
            while not self._jobs:
                if self._stopping:
                    return None
                self._wake.wait()
            job = self._jobs.popleft()
            self._bytes -= job.primary.bytes
            return job

    def _run(self, job: Job) -> None:
        start = time.perf_counter_ns()
        outputs: Tensors | None = None
        try:
            job.shadow.signature.check(job.tensors)
            outputs = job.shadow.run(job.tensors)
        except SlipstreamError as error:
            log.debug("shadow: %s", error)  # counted and recorded below
        except Exception:
            log.exception("the shadow %s failed in a way nobody foresaw", job.shadow.version)
        end = time.perf_counter_ns()
        failed = outputs is None
        _count(job.shadow, "failed" if failed else "ran")
        self._record(job, outputs, (end - start) / 1_000)
        version = job.shadow.version
        self._tracing.shadow(
            job.primary.trace,
            Step(f"shadow {version.model}", start, end),
            {"slipstream.model": version.model, "slipstream.version": version.number},
            failed,
        )

    def _record(self, job: Job, outputs: Tensors | None, microseconds: float) -> None:
        primary, version = job.primary, job.shadow.version
        self._recorder.record_elsewhere(
            Fact(
                model=version.model,
                version=version.number,
                role=Role.SHADOW,
                kind="error" if outputs is None else "ok",
                event_ms=primary.event_ms,
                latency_us=microseconds,
                model_us=microseconds,
                manifest=job.shadow.manifest,
                identifier=primary.identifier,
                rows=primary.rows,
                trace=primary.trace,
                inputs=primary.inputs,
                outputs=outputs,
                primary=primary,
                bytes=primary.bytes,
            )
        )


def _count(shadow: LoadedVersion, outcome: str) -> None:
    metrics.SHADOWS.labels(shadow.version.model, str(shadow.version.number), outcome).inc()
