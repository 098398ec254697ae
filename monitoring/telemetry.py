"""The monitor's spans and metrics."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from prometheus_client import Counter, Gauge

FOLDED = Counter("slipstream_monitor_rows_total", "Predictions folded into windows", ["model"])
LABELS = Counter("slipstream_monitor_labels_total", "Labels read from the stream", ["model"])
LAG = Gauge("slipstream_monitor_lag_entries", "Stream entries not folded yet", ["model"])
LOST = Gauge(
    "slipstream_monitor_entries_lost", "Entries trimmed before they were folded", ["model"]
)
UNJUDGED = Counter(
    "slipstream_monitor_unjudged_total", "Looks at a model that failed; the log says why", ["model"]
)
FINDINGS = Gauge("slipstream_findings", "Open findings", ["model", "severity"])
PSI = Gauge("slipstream_drift_psi", "Lower bound of the PSI", ["model", "version", "feature"])
QUALITY = Gauge(
    "slipstream_quality", "Quality on feedback: auc, accuracy", ["model", "version", "metric"]
)


class Tracing:
    """Feedback spans, linked to the trace of the prediction that they are about."""

    def __init__(self, endpoint: str) -> None:
        self._provider: TracerProvider | None = None
        if endpoint:
            self._provider = TracerProvider(
                resource=Resource.create({"service.name": "slipstream-monitor"})
            )
            self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=2)))
            self._tracer = self._provider.get_tracer("slipstream")

    def feedback(self, model: str, predictions: list[bytes]) -> None:
        """One span for each label that met a traced prediction."""
        if self._provider is None:
            return
        for packed in predictions:
            context = SpanContext(
                int.from_bytes(packed[:16], "big"),
                int.from_bytes(packed[16:24], "big"),
                is_remote=True,
                trace_flags=TraceFlags(TraceFlags.SAMPLED),
            )
            self._tracer.start_span(
                f"feedback {model}",
                Context(),
                SpanKind.CONSUMER,
                {"slipstream.model": model},
                links=[Link(context, {"slipstream.link": "feedback_on"})],
            ).end()

    def shutdown(self) -> None:
        if self._provider is not None:
            self._provider.shutdown()
