"""Prediction ids: UUIDv7 (RFC 9562), so the hour of a prediction follows from its id."""

from __future__ import annotations

import random
import time
import uuid

from models.errors import InvalidRequest

HOUR_MS = 3_600_000


def new() -> int:
    """48 bits of Unix milliseconds, then version, variant and 74 random bits."""
    bits = random.getrandbits(74)
    return (
        (time.time_ns() // 1_000_000) << 80
        | 0x7000 << 64
        | (bits >> 62) << 64
        | 0x2 << 62
        | (bits & 0x3FFFFFFFFFFFFFFF)
    )


def text(number: int) -> str:
    """The canonical spelling; `str(uuid.UUID(int=…))` without its cost."""
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def parse(written: str) -> bytes:
    """16 bytes of an id. Raises InvalidRequest where it is none of ours."""
    try:
        number = uuid.UUID(written)
    except ValueError:
        raise InvalidRequest(f"'{written[:64]}' is not a prediction id (a UUID)") from None
    if number.version != 7:
        raise InvalidRequest(f"'{written}' is not a prediction id: those are UUIDs of version 7")
    return number.bytes


def hour(identifier: bytes) -> int:
    """The hour since 1970 in which the id was made."""
    return int.from_bytes(identifier[:6], "big") // HOUR_MS
