"""Traces, built late: timestamps during the request, spans afterwards and only if sampled.

An OpenTelemetry span tree costs 38 us a request even when nobody samples it; taking six
timestamps costs one. BentoML keeps a tracer of its own whose unsampled spans would silence ours
as their parent, so ours never hang under its.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags
from opentelemetry.util.types import AttributeValue

from service.settings import Settings

#: Requests traced per second at most, whatever callers ask for with their traceparent.
TRACES_PER_SECOND = 500
#: Seconds that shutting down may wait for a collector.
SHUTDOWN = 2

_RATIO_SPACE = 1 << 64


class TraceContext(NamedTuple):
    """Ids drawn when a request arrives. `parent` is the caller's span id, 0 where none came."""

    trace_id: int
    span_id: int
    parent: int
    sampled: bool

    @property
    def traceparent(self) -> bytes:
        return b"00-%032x-%016x-%02x" % (self.trace_id, self.span_id, self.sampled)

    @property
    def packed(self) -> bytes:
        """24 bytes for the record, or none where nobody will ever see the trace."""
        if not self.sampled:
            return b""
        return self.trace_id.to_bytes(16, "big") + self.span_id.to_bytes(8, "big")


class Step(NamedTuple):
    """A part of a request: name, start and end on the monotonic clock, in nanoseconds."""

    name: str
    start: int
    end: int


Attributes = dict[str, AttributeValue]


class _DrawnIds(threading.local, IdGenerator):
    """Hands the SDK the ids that were drawn when the request arrived; each thread its own."""

    trace_id = 0
    span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        drawn, self.span_id = self.span_id, 0
        return drawn or random.getrandbits(64) or 1


class Tracing:
    """Draws trace contexts and turns finished requests into spans."""

    def __init__(self, settings: Settings, service: str = "slipstream-gateway") -> None:
        self.enabled = bool(settings.otlp_endpoint) and not settings.otel_disabled
        self._parent_based, self._ratio = sampler(settings)
        self._second, self._left = 0, TRACES_PER_SECOND
        self._ids = _DrawnIds()
        self._provider: TracerProvider | None = None
        if self.enabled:
            resource = Resource.create({"service.name": service})
            self._provider = TracerProvider(
                sampler=ALWAYS_ON, id_generator=self._ids, resource=resource
            )
            self._provider.add_span_processor(
                BatchSpanProcessor(OTLPSpanExporter(timeout=SHUTDOWN))
            )
            self._tracer = self._provider.get_tracer("slipstream")

    def begin(self, traceparent: bytes | None) -> TraceContext:
        """The context of a new request: the caller's trace where there is a valid one."""
        span_id = random.getrandbits(64) or 1
        caller = parse_traceparent(traceparent) if traceparent else None
        if caller is None:
            trace_id = random.getrandbits(128) or 1
            return TraceContext(trace_id, span_id, 0, self._sample(trace_id, None))
        trace_id, parent, flagged = caller
        return TraceContext(trace_id, span_id, parent, self._sample(trace_id, flagged))

    def _sample(self, trace_id: int, flagged: bool | None) -> bool:
        if not self.enabled:
            return False
        if self._parent_based and flagged is not None:
            wanted = flagged
        else:
            wanted = trace_id % _RATIO_SPACE < self._ratio * _RATIO_SPACE
        return wanted and self._within_rate()

    def _within_rate(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._left = second, TRACES_PER_SECOND
        self._left -= 1
        return self._left >= 0

    def request(
        self,
        context: TraceContext,
        name: str,
        whole: Step,
        steps: Sequence[Step],
        attributes: Attributes,
        failed: bool,
    ) -> None:
        """One server span with its steps as children. Only for sampled contexts."""
        if not context.sampled:
            return
        parent = _remote(context.trace_id, context.parent) if context.parent else Context()
        self._ids.trace_id, self._ids.span_id = context.trace_id, context.span_id
        offset = time.time_ns() - time.perf_counter_ns()
        span = self._tracer.start_span(
            name, parent, SpanKind.SERVER, attributes, start_time=whole.start + offset
        )
        if failed:
            span.set_status(trace.StatusCode.ERROR)
        inside = trace.set_span_in_context(span, Context())
        for step in steps:
            child = self._tracer.start_span(step.name, inside, start_time=step.start + offset)
            child.end(step.end + offset)
        span.end(whole.end + offset)

    def shadow(self, primary: bytes, step: Step, attributes: Attributes, failed: bool) -> None:
        """A trace of its own, linked to the primary's: a child would mix their latencies."""
        if not primary or self._provider is None:
            return
        self._ids.trace_id = random.getrandbits(128) or 1
        offset = time.time_ns() - time.perf_counter_ns()
        link = Link(span_context(primary), {"slipstream.link": "shadow_of"})
        span = self._tracer.start_span(
            step.name,
            Context(),
            SpanKind.INTERNAL,
            attributes,
            links=[link],
            start_time=step.start + offset,
        )
        if failed:
            span.set_status(trace.StatusCode.ERROR)
        span.end(step.end + offset)

    def shutdown(self) -> None:
        """Send what is left. Blocks for SHUTDOWN seconds at most where no collector answers."""
        if self._provider is not None:
            self._provider.shutdown()


def sampler(settings: Settings) -> tuple[bool, float]:
    """OTEL_TRACES_SAMPLER and its argument as (follows its parent, ratio)."""
    name = settings.traces_sampler.lower()
    parent_based = name.startswith("parentbased_")
    kind = name.removeprefix("parentbased_")
    if kind == "always_on":
        return parent_based, 1.0
    if kind == "always_off":
        return parent_based, 0.0
    if kind == "traceidratio":
        return parent_based, float(settings.traces_sampler_arg or 1.0)
    raise ValueError(
        f"OTEL_TRACES_SAMPLER={settings.traces_sampler!r} is not known; use always_on, "
        f"always_off or traceidratio, alone or behind 'parentbased_'"
    )


def parse_traceparent(header: bytes) -> tuple[int, int, bool] | None:
    """(trace id, parent span id, sampled) of a W3C traceparent, or None where it is not one."""
    parts = header.split(b"-")
    if len(parts) < 4 or [len(p) for p in parts[:4]] != [2, 32, 16, 2] or parts[0] == b"ff":
        return None
    try:
        trace_id, parent, flags = (int(part, 16) for part in parts[1:4])
    except ValueError:
        return None
    if not trace_id or not parent:
        return None
    return trace_id, parent, bool(flags & 1)


def span_context(packed: bytes) -> SpanContext:
    """The context that a record carries."""
    return SpanContext(
        int.from_bytes(packed[:16], "big"),
        int.from_bytes(packed[16:24], "big"),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )


def _remote(trace_id: int, span_id: int) -> Context:
    context = SpanContext(trace_id, span_id, True, TraceFlags(TraceFlags.SAMPLED))
    return trace.set_span_in_context(NonRecordingSpan(context), Context())
