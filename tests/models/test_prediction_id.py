"""models.prediction_id, against the standard library's uuid."""

from __future__ import annotations

import time
import uuid

import pytest

from models import prediction_id
from models.errors import InvalidRequest


def test_ids_are_uuids_of_version_7() -> None:
    """Version and variant as RFC 9562 has them, and no two alike."""
    ids = [prediction_id.new() for _ in range(10_000)]
    found = {(u.version, u.variant) for u in (uuid.UUID(int=i) for i in ids)}
    assert found == {(7, uuid.RFC_4122)}
    assert len(set(ids)) == len(ids)


def test_text_is_what_uuid_writes() -> None:
    """The fast spelling is the canonical one, and is read back."""
    for number in (prediction_id.new() for _ in range(1_000)):
        written = prediction_id.text(number)
        assert written == str(uuid.UUID(int=number))
        assert prediction_id.parse(written) == number.to_bytes(16, "big")


def test_the_hour_follows_from_the_id() -> None:
    """48 bits of milliseconds come first."""
    before = time.time() // 3600
    hour = prediction_id.hour(prediction_id.new().to_bytes(16, "big"))
    assert before <= hour <= time.time() // 3600


@pytest.mark.parametrize(
    "written", ["", "yes", str(uuid.uuid4()), str(uuid.UUID(int=0)), "x" * 1_000, "é" * 36]
)
def test_other_ids_are_refused(written: str) -> None:
    """A label for an id that nobody gave out cannot be joined; its sender is told, in short."""
    with pytest.raises(InvalidRequest) as refused:
        prediction_id.parse(written)
    assert len(str(refused.value)) < 200
