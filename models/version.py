"""A version of a model and the states it can be in."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class ModelVersion(NamedTuple):
    """Names one immutable version. `number` counts from 1."""

    model: str
    number: int

    def __str__(self) -> str:
        return f"{self.model} v{self.number}"


class State(StrEnum):
    """Where a version stands in one worker. The names are the protocol's."""

    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


class Role(StrEnum):
    """On whose behalf a version ran. Only a shadow answers nobody."""

    CHAMPION = "champion"
    CANARY = "canary"
    SHADOW = "shadow"
    PINNED = "pinned"
