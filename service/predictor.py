"""One prediction: route, run, leave a fact, let the shadow ride along.

Both doors, the protocol's and BentoML's own, come through here.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import numpy as np
import onnxruntime as ort

from models import prediction_id
from models.errors import (
    DeadlineExceeded,
    Forbidden,
    InvalidRequest,
    ModelFault,
    Overloaded,
    SlipstreamError,
)
from models.rollout import Arm, Route, decide, pinned, shadowed, split
from models.sessions import LoadedVersion
from models.signature import FLOATS, Tensors
from models.version import Role
from service.block import Fact
from service.errors import status_of
from service.fleet import Fleet
from service.recorder import Recorder
from service.settings import Settings
from service.shadow import Job, Shadow
from service.telemetry import TraceContext

log = logging.getLogger("slipstream.predictor")

Headers = Mapping[bytes, bytes]
NO_HEADERS: Headers = {}
#: Headers that ask for a version, and that show that one may.
PIN, TOKEN = b"x-slipstream-version", b"x-slipstream-token"
#: Header that keeps a caller in the same arm.
STICKY = b"x-routing-key"
#: Seconds of model time that may be spent on the event loop: a hop to a thread costs a tenth of
#: a millisecond, which a fast model should not pay and a slow one does not notice.
INLINE = 0.002
SLOW_THREADS = 2
#: One in so many shadowed requests is put to the champion again: how noisy is it by itself?
FLOOR = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
#: By how much a caller's clock may be ahead.
AHEAD_MS = 3_600_000


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """An answer and where it came from. `text` spells the identifier."""

    loaded: LoadedVersion
    route: Route
    arm: Arm
    outputs: Tensors
    event_ms: int
    identifier: int
    text: str
    model_us: float

    @classmethod
    def of(
        cls, answer: Answered, route: Route, event_ms: int, identifier: int, model_us: float
    ) -> Prediction:
        arm, loaded, outputs = answer
        text = prediction_id.text(identifier)
        return cls(loaded, route, arm, outputs, event_ms, identifier, text, model_us)


class Answered(NamedTuple):
    """Who answered in the end, and what."""

    arm: Arm
    loaded: LoadedVersion
    outputs: Tensors


class Predictor:
    """Answers requests with the versions of the fleet."""

    def __init__(
        self, settings: Settings, fleet: Fleet, recorder: Recorder, shadow: Shadow
    ) -> None:
        self.fleet = fleet
        self.recorder = recorder
        self._deadline = settings.deadline
        self._backlog = settings.backlog
        self._shadow = shadow
        self._token = settings.token.encode()
        self._waiting = 0
        self._threads = ThreadPoolExecutor(SLOW_THREADS, thread_name_prefix="slow-model")

    def route(
        self,
        model: str,
        asked: str | None,
        headers: Headers = NO_HEADERS,
        key: str | int = "",
    ) -> tuple[Route, Arm, LoadedVersion]:
        """Who answers: the URL's version, else the header's, else rules, canary, champion.

        `key` is what splits where the caller sends no x-routing-key. Raises UnknownModel,
        UnknownVersion, BadModel, InvalidRequest or Forbidden.
        """
        route = self.fleet.route(model)
        if asked is None and (wanted := headers.get(PIN)) is not None:
            self._check_token(headers)
            arm = pinned(route, wanted.decode("latin-1"), "header")
        elif asked is not None or route.plain:
            arm = decide(route, asked)
        else:
            sticky = headers.get(STICKY)
            arm = split(route, headers, sticky.decode("latin-1") if sticky else str(key))
        return route, arm, self.fleet.version(model, arm.version)

    def _check_token(self, headers: Headers) -> None:
        if not self._token:
            raise Forbidden(
                "x-slipstream-version needs a token, and this gateway has none set "
                "(SLIPSTREAM_TOKEN); name the version in the URL instead"
            )
        if not hmac.compare_digest(headers.get(TOKEN, b""), self._token):
            raise Forbidden("x-slipstream-version needs the right x-slipstream-token")

    async def answer(
        self,
        route: Route,
        arm: Arm,
        loaded: LoadedVersion,
        tensors: Tensors,
        outputs: Sequence[str] | None,
    ) -> Answered:
        """The outputs, of the champion where its canary cannot: nobody pays for a candidate."""
        if arm.role != Role.CANARY:
            check_tensors(loaded, tensors)
            return Answered(arm, loaded, await self.run(loaded, tensors, outputs))
        # Held from here on: while the canary runs, the route may change and this one be unloaded.
        champion = self.fleet.version(route.model, route.champion)
        started = time.perf_counter()
        try:
            check_tensors(loaded, tensors)
            return Answered(arm, loaded, await self.run(loaded, tensors, outputs))
        except (InvalidRequest, ModelFault) as error:
            fault = str(error)  # the error itself would hold this frame, and with it the version
        failed = time.perf_counter() - started
        check_tensors(champion, tensors)
        said = await self.run(champion, tensors, outputs)
        log.warning("the champion answers for %s: %s", loaded.version, fault)
        self.failed(route.model, ModelFault(fault), failed, arm)
        return Answered(Arm(route.champion, Role.CHAMPION, "fallback"), champion, said)

    async def run(
        self, loaded: LoadedVersion, tensors: Tensors, outputs: Sequence[str] | None
    ) -> Tensors:
        """The version's outputs: those asked for and those that monitoring needs."""
        names = None if outputs is None else _needed(loaded, outputs)
        if 0 < loaded.seconds * rows_of(tensors) < INLINE:
            return loaded.run(tensors, names)
        return await self._run_slow(loaded, tensors, names)

    async def _run_slow(
        self, loaded: LoadedVersion, tensors: Tensors, names: Sequence[str] | None
    ) -> Tensors:
        if self._waiting >= self._backlog:
            raise Overloaded(
                f"{self._waiting} requests wait for a slow model already; try again in a second"
            )
        options = ort.RunOptions()
        self._waiting += 1
        work = asyncio.get_running_loop().run_in_executor(
            self._threads, loaded.run, tensors, names, options
        )
        work.add_done_callback(self._release)  # when the work ends, not when its caller gives up
        try:
            return await asyncio.wait_for(asyncio.shield(work), self._deadline)
        except TimeoutError:
            options.terminate = True  # ONNX Runtime stops at the next node
            raise DeadlineExceeded(
                f"{loaded.version} did not answer within {self._deadline:g} seconds"
            ) from None

    def _release(self, work: asyncio.Future[Any]) -> None:
        self._waiting -= 1
        if not work.cancelled():
            work.exception()  # seen, so that an abandoned failure is no surprise in the log

    def finish(
        self,
        prediction: Prediction,
        tensors: Tensors,
        seconds: float,
        trace: TraceContext,
        size: int,
    ) -> None:
        """After the reply: measure, record, and offer the request to the shadow. `size`: bytes
        of the request, which its tensors hold on to."""
        loaded, arm = prediction.loaded, prediction.arm
        fact = Fact(
            model=loaded.version.model,
            version=arm.version,
            role=arm.role,
            kind="ok",
            event_ms=prediction.event_ms,
            latency_us=seconds * 1e6,
            model_us=prediction.model_us,
            manifest=loaded.manifest,
            identifier=prediction.identifier,
            rows=rows_of(tensors),
            trace=trace.packed,
            inputs=tensors,
            outputs=prediction.outputs,
            bytes=512 + size,
            reason=arm.reason,
        )
        self.recorder.record(fact)
        if prediction.route.shadow is not None:
            self._ride_along(prediction, tensors, fact)

    def _ride_along(self, prediction: Prediction, tensors: Tensors, fact: Fact) -> None:
        rider = shadowed(prediction.route, fact.version, fact.identifier)
        ready = self.fleet.ready_version(fact.model, rider) if rider else None
        if ready is None:
            return
        self._shadow.offer(_job(ready, tensors, fact, Role.SHADOW))
        if fact.role == Role.CHAMPION and (fact.identifier >> 32) % FLOOR == 0:
            self._shadow.offer(_job(prediction.loaded, tensors, fact, Role.FLOOR))

    def failed(
        self, model: str, error: BaseException, seconds: float, arm: Arm | None = None
    ) -> None:
        """Count a request that got no answer against the version that would have given one."""
        try:
            route = self.fleet.route(model)
        except SlipstreamError:
            return  # a model that is not there has no windows to count in
        kind = "error" if status_of(error) >= 500 else "invalid"
        now = time.time_ns() // 1_000_000
        version, role, reason = arm or decide(route, None)
        fact = Fact(model, version, role, kind, now, seconds * 1e6, reason=reason)
        self.recorder.record(fact)

    def stop(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _job(loaded: LoadedVersion, tensors: Tensors, fact: Fact, role: Role) -> Job:
    manifest = loaded.manifest
    comparators = loaded.comparators if manifest.compares_everything else {}
    return Job(loaded.version, manifest, tensors, fact, role, comparators)


def _needed(loaded: LoadedVersion, outputs: Sequence[str]) -> Sequence[str]:
    known = {spec.name for spec in loaded.signature.outputs}
    unknown = next((name for name in outputs if name not in known), None)
    if unknown is not None:
        raise InvalidRequest(
            f"{loaded.version} has no output '{unknown}'; it gives: {', '.join(sorted(known))}"
        )
    return list(dict.fromkeys((*outputs, *loaded.manifest.recorded_outputs)))


def rows_of(tensors: Tensors) -> int:
    """Rows of a request: the first axis of its first input; 1 where there is none."""
    for first in tensors.values():
        return first.shape[0] if first.shape else 1
    return 1


def check_tensors(loaded: LoadedVersion, tensors: Tensors) -> None:
    """Raise InvalidRequest unless the version takes these tensors."""
    loaded.signature.check(tensors)
    if loaded.manifest.non_finite == "refuse":
        _refuse_non_finite(loaded, tensors)


def _refuse_non_finite(loaded: LoadedVersion, tensors: Tensors) -> None:
    for spec in loaded.signature.inputs:
        if spec.datatype in FLOATS and not np.isfinite(tensors[spec.name]).all():
            raise InvalidRequest(
                f"input '{spec.name}' has NaN or infinite values, "
                f"which {loaded.version} refuses (non_finite in its manifest)"
            )


def event_time(written: object) -> int:
    """Milliseconds since 1970 of an RFC 3339 time; raises InvalidRequest where it is none."""
    try:
        moment = datetime.fromisoformat(str(written))
    except ValueError:
        raise InvalidRequest(
            f"event time '{str(written)[:40]}' is not RFC 3339, e.g. 2013-07-01T06:30:00Z"
        ) from None
    if moment.tzinfo is None:
        raise InvalidRequest(f"event time '{written}' has no time zone; add Z or an offset")
    milliseconds = (moment - _EPOCH) // _MILLISECOND
    if milliseconds < 0:
        raise InvalidRequest(f"event time '{written}' is before 1970")
    if milliseconds > time.time_ns() // 1_000_000 + AHEAD_MS:
        # One such row would make today's windows look long past.
        raise InvalidRequest(f"event time '{written}' lies more than an hour in the future")
    return milliseconds
