"""service.telemetry: whose trace, and whether it is sampled."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from service.settings import Settings
from service.telemetry import TRACES_PER_SECOND, Step, Tracing, parse_traceparent, sampler

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (f"00-{TRACE}-{PARENT}-01", True),
        (f"00-{TRACE}-{PARENT}-00", False),
        (f"00-{TRACE}-{PARENT}-03", True),
        (f"cc-{TRACE}-{PARENT}-01-what-comes-later", True),
    ],
)
def test_a_callers_context_is_read(header: str, sampled: bool) -> None:
    """W3C Trace Context: flags are bits, later versions may say more."""
    assert parse_traceparent(header.encode()) == (int(TRACE, 16), int(PARENT, 16), sampled)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{PARENT}-01",
        f"00-{'g' * 32}-{PARENT}-01",
        f"00-{TRACE[:-2]}\xff\xff-{PARENT}-01",
    ],
)
def test_what_is_no_context_starts_a_new_trace(header: str) -> None:
    """A broken header is ignored, as the standard says; the request goes on."""
    assert parse_traceparent(header.encode("latin-1")) is None


@pytest.mark.parametrize(
    ("name", "argument", "expected"),
    [
        ("parentbased_always_on", "", (True, 1.0)),
        ("always_on", "", (False, 1.0)),
        ("ALWAYS_OFF", "", (False, 0.0)),
        ("parentbased_always_off", "", (True, 0.0)),
        ("parentbased_traceidratio", "0.25", (True, 0.25)),
        ("traceidratio", "", (False, 1.0)),
    ],
)
def test_opentelemetrys_samplers(name: str, argument: str, expected: tuple[bool, float]) -> None:
    """The names that its specification gives them."""
    assert sampler(Settings(traces_sampler=name, traces_sampler_arg=argument)) == expected


def test_an_unknown_sampler_is_named() -> None:
    """Found out at start, not by traces that never come."""
    with pytest.raises(ValueError, match="OTEL_TRACES_SAMPLER='jaeger'"):
        sampler(Settings(traces_sampler="jaeger"))


class Kept(SpanExporter):
    """Keeps the spans that it is given."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans.extend(spans)
        return SpanExportResult.SUCCESS


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    """Where spans go instead of to a collector; real processors and ids."""
    exporter = Kept()
    monkeypatch.setattr(
        "service.telemetry.BatchSpanProcessor", lambda _: SimpleSpanProcessor(exporter)
    )
    return exporter


def test_callers_cannot_make_us_trace_everything(kept: Kept) -> None:
    """However many ask to be sampled, TRACES_PER_SECOND are; a turn of the second gives as many
    again."""
    tracing = Tracing(Settings(otlp_endpoint="http://127.0.0.1:1"))
    header = f"00-{TRACE}-{PARENT}-01".encode()
    sampled = sum(tracing.begin(header).sampled for _ in range(3 * TRACES_PER_SECOND))
    assert TRACES_PER_SECOND <= sampled <= 2 * TRACES_PER_SECOND


def test_without_a_collector_nothing_is_sampled() -> None:
    """Ids are drawn all the same: the caller gets a traceparent."""
    context = Tracing(Settings()).begin(f"00-{TRACE}-{PARENT}-01".encode())
    assert (context.sampled, context.packed) == (False, b"")
    assert context.traceparent.startswith(f"00-{TRACE}-".encode())
    assert context.traceparent.endswith(b"-00")


def test_spans_have_the_ids_that_were_handed_out(kept: Kept) -> None:
    """The caller has the id already, and the shadow's link names it: a shadow that ends in its
    own thread at the same time must not take it away."""
    tracing = Tracing(Settings(otlp_endpoint="http://127.0.0.1:1", traces_sampler="always_on"))
    assert isinstance(tracing._provider, TracerProvider)
    primary, done = tracing.begin(None).packed, threading.Event()

    def shadow() -> None:
        while not done.is_set():
            tracing.shadow(primary, Step("shadow", 0, 1), {}, False)

    thread = threading.Thread(target=shadow)
    thread.start()
    wanted = set()
    for _ in range(10_000):
        context = tracing.begin(None)._replace(sampled=True)
        wanted.add((context.trace_id, context.span_id))
        tracing.request(context, "request", Step("", 0, 1), [Step("infer", 0, 1)], {}, False)
    done.set()
    thread.join()
    found = {(s.context.trace_id, s.context.span_id) for s in kept.spans if s.name == "request"}
    assert wanted == found
