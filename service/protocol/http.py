"""The protocol's endpoints. Reads a call, returns an answer; knows no sockets."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import msgspec

from models import VERSION, prediction_id
from models.errors import (
    Forbidden,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    NotReady,
    NotSupported,
)
from models.rollout import Arm, decide
from models.sessions import LoadedVersion
from models.signature import TensorSpec
from models.version import State
from service import feedback, metrics
from service.orders import Order
from service.predictor import TOKEN, Prediction, Predictor, event_time
from service.protocol import codec
from service.settings import Settings
from service.telemetry import Step, TraceContext, Tracing

_encode = msgspec.json.Encoder().encode
_JSON = (b"content-type", b"application/json")
_BINARY = (b"content-type", b"application/octet-stream")
Headers = list[tuple[bytes, bytes]]


class Answer(NamedTuple):
    """Status, body and headers; `after` runs once the answer is on the wire."""

    status: int
    content: bytes
    headers: Headers
    after: Callable[[], None] | None = None


class Call(msgspec.Struct, gc=False):
    """A request as the front received it, and what its path said."""

    method: str
    headers: dict[bytes, bytes]
    started: int
    body: bytes = b""
    model: str = ""
    asked: str | None = None
    arm: Arm | None = None
    trace: TraceContext | None = None
    steps: tuple[Step, ...] = ()

    def header(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1")


class Protocol:
    """The protocol over one predictor."""

    def __init__(self, settings: Settings, predictor: Predictor, tracing: Tracing) -> None:
        self.settings = settings
        self.predictor = predictor
        self.fleet = predictor.fleet
        self.tracing = tracing

    def failed(self, call: Call, error: BaseException, status: int) -> None:
        """Count and trace a call to a model that ended in an error."""
        if call.trace is None:
            return
        ended = time.perf_counter_ns()
        self.predictor.failed(call.model, error, (ended - call.started) / 1e9, call.arm)
        self._span(call, call.trace, "infer", ended, {"http.response.status_code": status})

    def _span(
        self, call: Call, trace: TraceContext, what: str, ended: int, more: dict[str, Any]
    ) -> None:
        if not trace.sampled:
            return
        route = f"/v2/models/{{model}}/{what}"
        status = more["http.response.status_code"]
        attributes = {
            "http.request.method": call.method,
            "http.route": route,
            "slipstream.model": call.model,
            **more,
        }
        whole = Step("", call.started, ended)
        name = f"{call.method} {route}"
        self.tracing.request(trace, name, whole, call.steps, attributes, status >= 500)


# --- predictions and labels -----------------------------------------------------------------------


async def infer(protocol: Protocol, call: Call) -> Answer:
    """POST /v2/models/{m}[/versions/{v}]/infer"""
    trace = call.trace = protocol.tracing.begin(call.headers.get(b"traceparent"))
    predictor, clock = protocol.predictor, time.perf_counter_ns
    received = clock()
    request = _decode(protocol, call)
    event_ms = _event_ms(call, request.parameters)
    decoded = clock()
    identifier = prediction_id.new()
    key = request.id or identifier
    route, call.arm, loaded = predictor.route(call.model, call.asked, call.headers, key)
    routed = clock()
    names = [output.name for output in request.outputs] if request.outputs else None
    answer = await predictor.answer(route, call.arm, loaded, request.tensors, names)
    inferred = clock()
    model_us = (inferred - routed) / 1_000
    prediction = Prediction.of(answer, route, event_ms, identifier, model_us)
    body = _encoded(prediction, request, names)
    encoded = clock()
    if trace.sampled:
        call.steps = (
            Step("decode", received, decoded),
            Step("route", decoded, routed),
            Step("infer", routed, inferred),
            Step("encode", inferred, encoded),
        )
    after = partial(_finish, protocol, call, prediction, request.tensors, trace)
    headers = _infer_headers(prediction, trace, body.header_length)
    return Answer(200, body.content, headers, after)


def _decode(protocol: Protocol, call: Call) -> codec.Request:
    body = call.body
    encoding = call.headers.get(b"content-encoding")
    if encoding:
        body = codec.decompress(body, encoding.decode("latin-1"), protocol.settings.body_limit)
    length = call.headers.get(b"inference-header-content-length")
    if length == b"0":
        return codec.decode_raw(body, protocol.predictor.route(call.model, call.asked)[2].signature)
    return codec.decode(body, length)


def _event_ms(call: Call, parameters: dict[str, Any]) -> int:
    written = call.headers.get(b"x-event-time")
    if written is not None:
        return event_time(written.decode("latin-1"))
    if "event_time" in parameters:
        return event_time(parameters["event_time"])
    return time.time_ns() // 1_000_000


def _encoded(prediction: Prediction, request: codec.Request, names: list[str] | None) -> codec.Body:
    version = prediction.loaded.version
    text = prediction.text
    head = {
        "model_name": version.model,
        "model_version": str(version.number),
        "id": request.id or text,
        "parameters": {"prediction_id": text},
    }
    outputs = prediction.outputs
    if names is not None:
        outputs = {name: outputs[name] for name in names}
    literals = request.parameters.get("non_finite") == "literal"
    return codec.encode(head, outputs, request.outputs, request.binary_default, literals)


def _infer_headers(prediction: Prediction, trace: TraceContext, length: int | None) -> Headers:
    headers = [
        _JSON if length is None else _BINARY,
        (b"x-prediction-id", prediction.text.encode()),
        (b"traceparent", trace.traceparent),
        *_arm_headers(prediction.arm, prediction.route.revision),
    ]
    if length is not None:
        headers.append((b"inference-header-content-length", b"%d" % length))
    return headers


@lru_cache(1_024)
def _arm_headers(arm: Arm, revision: int) -> Headers:
    return [
        (b"x-model-version", b"%d" % arm.version),
        (b"x-model-role", arm.role.encode()),
        (b"x-route-reason", arm.reason.encode()),
        (b"x-route-revision", b"%d" % revision),
    ]


def _finish(
    protocol: Protocol, call: Call, prediction: Prediction, tensors: Any, trace: TraceContext
) -> None:
    ended = time.perf_counter_ns()
    seconds = (ended - call.started) / 1e9
    protocol.predictor.finish(prediction, tensors, seconds, trace, len(call.body))
    if trace.sampled:
        facts = {
            "http.response.status_code": 200,
            "slipstream.version": prediction.arm.version,
            "slipstream.role": str(prediction.arm.role),
            "slipstream.reason": prediction.arm.reason,
            "slipstream.prediction_id": prediction.text,
        }
        protocol._span(call, trace, "infer", ended, facts)


async def give_feedback(protocol: Protocol, call: Call) -> Answer:
    """POST /v2/models/{m}/feedback"""
    protocol.fleet.route(call.model)
    labels, rejected = feedback.read(call.body, call.header(b"content-type"))
    protocol.predictor.recorder.feedback(call.model, labels)
    return _json({"accepted": len(labels), "rejected": rejected})


# --- metadata and health --------------------------------------------------------------------------


async def server(protocol: Protocol, call: Call) -> Answer:
    """GET /v2"""
    extensions = ["binary_tensor_data", "model_repository"]
    return _json({"name": "slipstream", "version": VERSION, "extensions": extensions})


async def live(protocol: Protocol, call: Call) -> Answer:
    """GET /v2/health/live; both keys, since clients look for either."""
    return _json({"live": True, "ready": protocol.fleet.ready})


async def ready(protocol: Protocol, call: Call) -> Answer:
    """GET /v2/health/ready"""
    if not protocol.fleet.ready:
        raise NotReady("the gateway is loading its models")
    return await live(protocol, call)


async def metadata(protocol: Protocol, call: Call) -> Answer:
    """GET /v2/models/{m}[/versions/{v}]"""
    loaded = _loaded(protocol, call)
    number = loaded.version.number
    versions = [number] if call.asked else protocol.fleet.versions(call.model)
    return _json(
        {
            "name": call.model,
            "versions": [str(v) for v in versions],
            "platform": "onnxruntime_onnx",
            "inputs": [_spec(spec) for spec in loaded.signature.inputs],
            "outputs": [_spec(spec) for spec in loaded.signature.outputs],
        }
    )


async def model_ready(protocol: Protocol, call: Call) -> Answer:
    """GET /v2/models/{m}[/versions/{v}]/ready"""
    _loaded(protocol, call)
    return _json({"name": call.model, "ready": True})


async def config(protocol: Protocol, call: Call) -> Answer:
    """GET /v2/models/{m}[/versions/{v}]/config"""
    loaded = _loaded(protocol, call)
    return _json(
        {
            "name": call.model,
            "platform": "onnxruntime_onnx",
            "backend": "onnxruntime",
            "max_batch_size": 0,
            "input": [_config(spec) for spec in loaded.signature.inputs],
            "output": [_config(spec) for spec in loaded.signature.outputs],
        }
    )


async def models(protocol: Protocol, call: Call) -> Answer:
    """GET /v2/models"""
    return _json({"models": protocol.fleet.models()})


async def index(protocol: Protocol, call: Call) -> Answer:
    """POST /v2/repository/index"""
    wanted = _object(call.body)
    return _json(
        [
            {"name": v.model, "version": str(v.number), "state": state.word, "reason": reason}
            for v, state, reason in protocol.fleet.index()
            if not wanted.get("ready") or state == State.READY
        ]
    )


async def load(protocol: Protocol, call: Call) -> Answer:
    """POST /v2/repository/models/{m}/load: 200 when ready. Never moves traffic."""
    _check_operator(protocol, call)
    number, others = _version_asked(call)
    if others:
        raise NotSupported(
            f"a model is loaded from the repository; the parameter '{others[0]}' is not taken"
        )
    await asyncio.to_thread(protocol.fleet.load, call.model, number)
    await protocol.fleet.orders.give(Order("load", call.model, number))
    return Answer(200, b"", [])


async def unload(protocol: Protocol, call: Call) -> Answer:
    """POST /v2/repository/models/{m}/unload: 200 when no new request gets it. Never moves traffic.

    The protocol's unload_dependents and whatever else it may say concern ensembles only.
    """
    _check_operator(protocol, call)
    number, _ = _version_asked(call)
    await asyncio.to_thread(protocol.fleet.unload, call.model, number)
    await protocol.fleet.orders.give(Order("unload", call.model, number))
    return Answer(200, b"", [])


def _check_operator(protocol: Protocol, call: Call) -> None:
    """Raise Forbidden where a token is set and the call does not show it."""
    token = protocol.settings.token.encode()
    if token and not hmac.compare_digest(call.headers.get(TOKEN, b""), token):
        raise Forbidden("loading and unloading need the right x-slipstream-token")


def _version_asked(call: Call) -> tuple[int | None, list[str]]:
    """The version that our own parameter `version` names, and the names of the others."""
    parameters = _object(call.body).get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InvalidRequest("parameters must be a JSON object")
    others = [name for name in parameters if name != "version"]
    asked = parameters.get("version")
    if asked is None:
        return None, others
    text = str(asked)
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidRequest(f"version '{text[:40]}' is not a positive integer")
    return int(text), others


async def scrape(protocol: Protocol, call: Call) -> Answer:
    """GET /metrics"""
    folder = protocol.settings.prometheus_dir
    content, kind = await asyncio.to_thread(metrics.exposition, folder)
    return Answer(200, content, [(b"content-type", kind.encode())])


def _loaded(protocol: Protocol, call: Call) -> LoadedVersion:
    arm = decide(protocol.fleet.route(call.model), call.asked)
    return protocol.fleet.version(call.model, arm.version)


def _spec(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape or ())}


def _config(spec: TensorSpec) -> dict[str, Any]:
    kind = "TYPE_STRING" if spec.datatype == "BYTES" else f"TYPE_{spec.datatype}"
    return {"name": spec.name, "data_type": kind, "dims": list(spec.shape or ())}


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object, or empty")
    return value


def _json(value: Any) -> Answer:
    return Answer(200, _encode(value), [_JSON])


# --- paths ----------------------------------------------------------------------------------------

Handler = Callable[[Protocol, Call], Awaitable[Answer]]


_FIXED: dict[str, tuple[str, Handler]] = {
    "v2": ("GET", server),
    "v2/health/live": ("GET", live),
    "v2/health/ready": ("GET", ready),
    "v2/models": ("GET", models),
    "v2/repository/index": ("POST", index),
    "metrics": ("GET", scrape),
}
_OF_MODEL: dict[str, tuple[str, Handler]] = {
    "": ("GET", metadata),
    "ready": ("GET", model_ready),
    "config": ("GET", config),
    "infer": ("POST", infer),
}
_OF_ENTRY: dict[str, Handler] = {"load": load, "unload": unload}


def parse(path: str, call: Call) -> tuple[Handler, str]:
    """The handler of a path and the name it has in metrics; model and version go into `call`.

    Raises NotFound, or MethodNotAllowed. The name is one of a fixed few, whatever the path.
    """
    target = _target(path)
    if target is None:
        raise NotFound(f"there is nothing at {path[:100]}")
    if call.method != target.method:
        raise MethodNotAllowed(f"{path[:100]} takes {target.method}, not {call.method}")
    call.model, call.asked = target.model, target.asked
    return target.handler, target.kind


class _Target(NamedTuple):
    """What a path leads to."""

    kind: str
    method: str
    handler: Handler
    model: str = ""
    asked: str | None = None


@lru_cache(1_024)  # clients ask the same few paths again and again
def _target(path: str) -> _Target | None:
    parts = path.strip("/").split("/")
    kind = "/".join(parts)
    if kind in _FIXED:
        return _Target(kind, *_FIXED[kind])
    if parts[:2] == ["v2", "models"] and len(parts) > 2:
        return _model_target(parts[2], parts[3:])
    if parts[:3] == ["v2", "repository", "models"] and len(parts) == 5 and parts[4] in _OF_ENTRY:
        return _Target(parts[4], "POST", _OF_ENTRY[parts[4]], parts[3])
    return None


def _model_target(model: str, rest: list[str]) -> _Target | None:
    asked = None
    if len(rest) >= 2 and rest[0] == "versions":
        asked, rest = rest[1], rest[2:]
    elif rest == ["feedback"]:
        return _Target("feedback", "POST", give_feedback, model)
    what = "/".join(rest)
    if what not in _OF_MODEL:
        return None
    return _Target(what or "metadata", *_OF_MODEL[what], model, asked)
