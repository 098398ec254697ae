"""One request's whole life as spans, in a receiver that is not ours."""

from __future__ import annotations

from pathlib import Path

from slipstream.embedded import EmbeddedRedis
from tests.otlp import receiver
from tests.serving import Gateway, Monitor, eventually, two_versions

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ROW = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}


def test_a_request_its_shadow_and_its_label_are_linked(tmp_path: Path, reference: Path) -> None:
    """The server span hangs under the caller's and has the four steps; shadow and feedback are
    traces of their own that link to it."""
    with EmbeddedRedis(tmp_path / "redis") as server, receiver() as collector:
        repository = two_versions(tmp_path, server.url, "traced", reference, (1.0, -1.0))
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        gateway = Gateway(tmp_path / "gateway", repository, server.url, **environment)
        monitor = Monitor(tmp_path / "monitor", repository, server.url, **environment)
        try:
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
            answer = gateway.infer("traced", [ROW], headers=headers)
            assert answer.headers["traceparent"].split("-")[1] == TRACE
            eventually(lambda: collector.named("shadow traced"))
            label = {"prediction_id": answer.headers["x-prediction-id"], "label": 1}
            gateway.http.post("/v2/models/traced/feedback", json={"feedback": [label]})
            eventually(lambda: collector.named("feedback traced"))
            eventually(lambda: collector.named("POST"))
        finally:
            gateway.stop()
            monitor.stop()
    (whole,) = collector.named("POST /v2/models/{model}/infer")
    assert whole.trace_id.hex() == TRACE
    assert whole.parent_span_id.hex() == PARENT
    children = [span for span in collector.spans if span.parent_span_id == whole.span_id]
    assert {span.name for span in children} == {"decode", "route", "infer", "encode"}
    assert all(
        whole.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        for span in children
    )
    for other in (*collector.named("shadow traced"), *collector.named("feedback traced")):
        assert other.trace_id != whole.trace_id
        assert [link.span_id for link in other.links] == [whole.span_id]
