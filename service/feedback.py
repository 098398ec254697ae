"""True outcomes: a body of labels in, facts out, and a list of what was refused."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from models import prediction_id
from models.contract.records import Feedback
from models.errors import InvalidRequest
from service.predictor import event_time

#: Longest label.
LABEL = 256
#: Labels in one call.
LIMIT = 10_000

_decode = msgspec.json.Decoder().decode
_lines = msgspec.json.Decoder().decode_lines


class Item(msgspec.Struct):
    """One label as clients send it."""

    prediction_id: str
    label: str | int | float | bool
    row: int = 0
    at: str | None = None


def read(body: bytes, content_type: str) -> tuple[list[Feedback], list[dict[str, Any]]]:
    """Accepted labels, and what is wrong with the others. Raises InvalidRequest for all of it."""
    try:
        if content_type.startswith("application/x-ndjson"):
            items = _lines(body)
        else:
            items = _decode(body)["feedback"]
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, RecursionError):
        raise InvalidRequest(
            'feedback is {"feedback": [{"prediction_id": …, "row": 0, "label": …}]}, '
            "or one such object a line as application/x-ndjson"
        ) from None
    return accept(items)


def accept(items: Any) -> tuple[list[Feedback], list[dict[str, Any]]]:
    """Sort loose objects into labels and refusals."""
    if not isinstance(items, list):
        raise InvalidRequest("'feedback' must be a list")
    if len(items) > LIMIT:
        raise InvalidRequest(f"{len(items)} labels in one call; at most {LIMIT} are taken")
    accepted: list[Feedback] = []
    rejected: list[dict[str, Any]] = []
    for index, loose in enumerate(items):
        try:
            accepted.append(_feedback(msgspec.convert(loose, Item)))
        except (InvalidRequest, msgspec.ValidationError) as error:
            rejected.append({"index": index, "error": str(error)})
    return accepted, rejected


def _feedback(item: Item) -> Feedback:
    now = time.time_ns() // 1_000_000
    if not 0 <= item.row < 2**31:
        raise InvalidRequest(f"row {item.row} is not a row number")
    if isinstance(item.label, int) and not -(2**63) <= item.label < 2**63:
        raise InvalidRequest("a label that is a number must fit into 64 bits")
    if isinstance(item.label, str) and not _is_class(item.label):
        raise InvalidRequest(f"a label of text has up to {LABEL} characters of UTF-8")
    at = event_time(item.at) if item.at else now
    return Feedback(prediction_id.parse(item.prediction_id), item.row, item.label, at, now)


def _is_class(label: str) -> bool:
    try:
        return len(label.encode()) <= LABEL
    except UnicodeEncodeError:
        return False
