"""The facts that the gateway leaves behind, and what the monitor remembers of a prediction.

msgspec array-like structs: fields are positional on the wire, so a new one goes to the end and
has a default; none is reordered, retyped or reused.
"""

from __future__ import annotations

import msgspec

#: Raised when an old reader could no longer make sense of an entry.
SCHEMA = 1

#: Bytes of a prediction id (UUIDv7) and of a trace context (trace id, span id).
ID_BYTES = 16
TRACE_BYTES = 24


class Column(msgspec.Struct, array_like=True, frozen=True):
    """A tensor of several requests, stacked along its first axis."""

    datatype: str
    shape: tuple[int, ...]
    data: bytes


class Rows(msgspec.Struct, array_like=True, frozen=True):
    """Predictions of one version in one role, as columns.

    `ids` has 16 bytes a request, `rows` its row count (uint32), `event_ms` its time (int64,
    milliseconds since 1970), `latency_us` its duration (uint32), `traces` 24 bytes a request
    (zero where not sampled) or nothing. `inputs` is empty where payloads were not sampled.
    A shadow's rows carry what the primary said about the same requests, and what its model alone
    took (`primary_latency_us`), since that is all that a shadow takes. `reason` says why this
    version answered: champion, split, rule, url, header or fallback. `agree` has one byte a row of
    models.comparator, where the gateway compared outputs that are not recorded.
    """

    version: int
    role: str
    ids: bytes
    rows: bytes
    event_ms: bytes
    latency_us: bytes
    traces: bytes
    inputs: dict[str, Column]
    outputs: dict[str, Column]
    primary_version: int = 0
    primary_outputs: dict[str, Column] = {}
    primary_latency_us: bytes = b""
    reason: str = ""
    agree: bytes = b""


class Tally(msgspec.Struct, array_like=True, frozen=True):
    """Exact counts of requests, sampled or not.

    `kind` is ok, invalid (4xx) or error (5xx); `hour` the hour of the event time since 1970;
    `latency` maps a bucket of models.latency to a count.
    """

    version: int
    role: str
    kind: str
    hour: int
    requests: int
    rows: int
    latency: dict[int, int]


class Feedback(msgspec.Struct, array_like=True, frozen=True):
    """The true outcome of one row of a prediction. `label` as the client wrote it."""

    id: bytes
    row: int
    label: str | int | float | bool
    at_ms: int
    received_ms: int


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """One flush of one worker. `sequence` rises by one, so a gap shows what was lost.

    `dropped` counts, since the worker's start, the predictions that it could not leave behind.
    """

    schema: int
    worker: str
    sequence: int
    dropped: int
    rows: list[Rows]
    tallies: list[Tally]
    feedback: list[Feedback]


class Said(msgspec.Struct, array_like=True):
    """What one version said about the rows of a prediction. `cells` has a byte a row and segment:
    which group of the segment the row is in."""

    version: int
    role: str
    scores: list[float]
    classes: list[int]
    cells: bytes = b""


class Outcome(msgspec.Struct, array_like=True):
    """The ledger's page on one prediction: what was said, and what turned out to be true."""

    hour: int = 0
    trace: bytes = b""
    said: list[Said] = []
    labels: dict[int, int | float] = {}
