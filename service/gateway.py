"""The BentoML service, and the only place that wires the gateway together."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from typing import Any, TypeVar

import bentoml
import numpy as np
from _bentoml_sdk.service.factory import Service

from models import prediction_id
from models.errors import InvalidRequest, SlipstreamError
from models.repository import Repository
from models.sessions import LoadedVersion
from models.signature import NUMPY, Array, Tensors
from service import feedback as labels
from service.errors import sentence_of, status_of
from service.fleet import Fleet
from service.front import App, Front
from service.predictor import Prediction, Predictor, event_time
from service.protocol.http import Protocol
from service.recorder import Recorder, connect
from service.settings import Settings
from service.shadow import Shadow
from service.telemetry import Tracing

log = logging.getLogger("slipstream.gateway")

T = TypeVar("T", bound=object)

#: The old generation holds BentoML's imports; walking them costs tens of milliseconds.
GC_THRESHOLD = 50_000


class GatewayService(Service[T]):
    """BentoML's service with our application in front of its own."""

    def to_asgi(self, is_main: bool = True) -> App:
        return Front(super().to_asgi(is_main), _current)


def _current() -> Protocol:
    gateway: Gateway | None = bentoml.get_current_service()
    assert gateway is not None, "BentoML has not started the service"
    return gateway.protocol


@bentoml.service(
    name="gateway",
    workers=Settings.from_environment().workers,
    traffic={"timeout": Settings.from_environment().deadline},
    metrics={"enabled": False},  # its series carry raw paths; ours are at /metrics
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},  # its unsampled spans would be the parents of ours
    service_class=GatewayService,
)
class Gateway:
    """Serves versioned ONNX models; a shadow rides along; every prediction leaves a fact."""

    def __init__(self) -> None:
        self.settings = Settings.from_environment()
        self.redis = connect(self.settings.redis_url)
        self.tracing = Tracing(self.settings)
        self.recorder = Recorder(self.settings, self.redis)
        self.shadow = Shadow(self.recorder, self.tracing, self.settings)
        self.fleet = Fleet(Repository(self.settings.repository), self.redis, self.settings)
        self.predictor = Predictor(self.settings, self.fleet, self.recorder, self.shadow)
        self.protocol = Protocol(self.settings, self.predictor, self.tracing)
        self._tasks: list[asyncio.Task[None]] = []

    @bentoml.on_startup
    async def start(self) -> None:
        await self.fleet.read_orders()  # from here on; what comes while versions load is heard
        await asyncio.to_thread(self.fleet.load_all)
        await self.fleet.read_routes()
        self._tasks = [
            asyncio.create_task(work)
            for work in (self.recorder.run(), self.fleet.follow(), self._beat())
        ]
        self.fleet.ready = True
        _silence_uvicorns_access_log()
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 20, 100)

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """Let the shadow finish, send the last facts and spans."""
        self.fleet.ready = False
        await self.shadow.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.predictor.stop()
        await asyncio.to_thread(self.tracing.shutdown)
        await self.redis.aclose()

    async def _beat(self) -> None:
        while True:
            await self.recorder.heartbeat(self.fleet.revisions, self.fleet.costs)
            await asyncio.sleep(1)

    async def __is_ready__(self) -> bool:
        return self.fleet.ready

    @bentoml.api(route="/predict")
    async def predict(
        self,
        model: str,
        inputs: Any,
        ctx: bentoml.Context,
        version: str | None = None,
        event_time: str | None = None,
    ) -> dict[str, Any]:
        """BentoML's own door: rows for a model with one input, or a list of values per input."""
        started = time.perf_counter()
        try:
            return await self._predict(model, inputs, version, event_time)
        except SlipstreamError as error:
            self.predictor.failed(model, error, time.perf_counter() - started)
            ctx.response.status_code = status_of(error)
            return {"error": sentence_of(error)}

    async def _predict(
        self, model: str, inputs: Any, version: str | None, at: str | None
    ) -> dict[str, Any]:
        started = time.perf_counter()
        trace = self.tracing.begin(None)
        event_ms = event_time(at) if at else time.time_ns() // 1_000_000
        identifier = prediction_id.new()
        route, arm, loaded = self.predictor.route(model, version, key=identifier)
        tensors = tensors_of(loaded, inputs)
        routed = time.perf_counter()
        answer = await self.predictor.answer(route, arm, loaded, tensors, None)
        model_us = (time.perf_counter() - routed) * 1e6
        prediction = Prediction.of(answer, route, event_ms, identifier, model_us)
        size = sum(array.nbytes for array in tensors.values())
        self.predictor.finish(prediction, tensors, time.perf_counter() - started, trace, size)
        return {
            "model": model,
            "version": answer.arm.version,
            "role": str(answer.arm.role),
            "prediction_id": prediction.text,
            "outputs": {name: array.tolist() for name, array in answer.outputs.items()},
        }

    @bentoml.api(route="/feedback")
    async def feedback(
        self, model: str, feedback: list[dict[str, Any]], ctx: bentoml.Context
    ) -> dict[str, Any]:
        """True outcomes, as at /v2/models/{m}/feedback."""
        try:
            self.fleet.route(model)
            accepted, rejected = labels.accept(feedback)
        except SlipstreamError as error:
            ctx.response.status_code = status_of(error)
            return {"error": sentence_of(error)}
        self.recorder.feedback(model, accepted)
        return {"accepted": len(accepted), "rejected": rejected}


def _silence_uvicorns_access_log() -> None:
    """BentoML filters its lines out, but uvicorn builds each of them as long as anybody listens."""
    logger = logging.getLogger("uvicorn.access")
    logger.handlers.clear()
    logger.propagate = False


def tensors_of(loaded: LoadedVersion, inputs: Any) -> Tensors:
    """Loose JSON values as the tensors that the version takes."""
    specs = loaded.signature.inputs
    if not isinstance(inputs, dict):
        if len(specs) != 1:
            names = ", ".join(spec.name for spec in specs)
            raise InvalidRequest(f"{loaded.version} takes an object with the inputs: {names}")
        inputs = {specs[0].name: inputs}
    tensors: Tensors = {}
    for name, values in inputs.items():
        spec = loaded.signature.input(name)
        if spec is None:
            raise InvalidRequest(f"unknown input '{name}' of {loaded.version}")
        try:
            tensors[name] = _tensor(values, spec.datatype)
        except (ValueError, TypeError, OverflowError) as error:
            raise InvalidRequest(f"input '{name}' is no {spec.datatype} tensor: {error}") from None
    return tensors


def _tensor(values: Any, datatype: str) -> Array:
    array = np.array(values, NUMPY[datatype])
    if datatype == "BYTES" and not all(isinstance(value, str) for value in array.ravel()):
        raise ValueError("it takes texts, evenly nested")
    return array
