"""Prometheus metrics of the gateway. No label that a client can choose.

The catalogue with meanings stands in docs/metrics.md; a test keeps the two together.
"""

from __future__ import annotations

import os
from collections import Counter as Counted
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from models.version import ModelVersion

# A worker is exec'd, never forked, so its id need not be asked for at every increment.
if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    values.ValueClass = values.MultiProcessValue(partial(int, os.getpid()))  # type: ignore[no-untyped-call]

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

DURATION = Histogram(
    "slipstream_request_duration_seconds",
    "Time from the request's arrival to the answer, by version that answered",
    ["model", "version", "role"],
    buckets=_BUCKETS,
)
REQUESTS = Counter(
    "slipstream_requests_total", "Answers, by kind of call and status", ["route", "code"]
)
DROPPED = Counter(
    "slipstream_facts_dropped_total",
    "Predictions and labels that monitoring never saw, by reason",
    ["reason"],
)
SHADOWS = Counter(
    "slipstream_shadow_total",
    "Requests that a shadow was to see, by what became of them",
    ["model", "version", "outcome"],
)
RESTARTS = Counter(
    "slipstream_shadow_restarts_total",
    "Processes of shadows that were lost and replaced, by reason",
    ["reason"],
)
SHADOW_SHARE = Gauge(
    "slipstream_shadow_share",
    "Share of its requests that a shadow gets",
    multiprocess_mode="livemin",
)
REVISION = Gauge(
    "slipstream_route_revision",
    "Revision of the route that this worker applies",
    ["model"],
    multiprocess_mode="livemin",
)
DEGRADED = Gauge(
    "slipstream_monitoring_degraded",
    "1 while a worker cannot reach Redis; predictions go on",
    multiprocess_mode="livemax",
)


_answers: Counted[tuple[str, int]] = Counted()
_shadowed: Counted[tuple[ModelVersion, str]] = Counted()
_durations: defaultdict[tuple[str, int, str], list[float]] = defaultdict(list)


def answered(route: str, code: int) -> None:
    """Count an answer. Written out by `publish`: a dictionary is a tenth of a metric's cost."""
    _answers[route, code] += 1


def took(model: str, version: int, role: str, seconds: list[float]) -> None:
    """Observe durations, written out by `publish` too."""
    _durations[model, version, role] += seconds


def shadowed(version: ModelVersion, outcome: str) -> None:
    """Count what became of a shadow's request, written out by `publish` too."""
    _shadowed[version, outcome] += 1


def publish() -> None:
    """Write out what was counted; the recorder does at every flush, a scrape before it reads."""
    while _answers:
        (route, code), count = _answers.popitem()
        REQUESTS.labels(route, str(code)).inc(count)
    while _shadowed:
        ((model, version), outcome), count = _shadowed.popitem()
        SHADOWS.labels(model, str(version), outcome).inc(count)
    while _durations:
        (model, version, role), seconds = _durations.popitem()
        _observe(DURATION.labels(model, str(version), role), seconds)


def _observe(histogram: Histogram, seconds: list[float]) -> None:
    """`observe` of each at once: the library has no such call, so this uses its parts."""
    histogram._sum.inc(sum(seconds))
    slots = np.searchsorted(histogram._upper_bounds, seconds)
    for slot, count in Counted(slots.tolist()).items():
        histogram._buckets[slot].inc(count)


def exposition(folder: str) -> tuple[bytes, str]:
    """The text for a scrape and its content type; `folder` sums over several workers."""
    publish()
    if not folder:
        return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
    _bury_the_dead(Path(folder))
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST


def _bury_the_dead(folder: Path) -> None:
    """A worker that was killed leaves its live gauges behind; nobody else removes them."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = int(file.stem.rsplit("_", 1)[1])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
        except PermissionError:
            continue  # alive, and somebody else's
