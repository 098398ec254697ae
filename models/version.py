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
    """Where a version stands in one worker; `models.lifecycle` says what follows on what."""

    REGISTERED = "registered"
    LOADING = "loading"
    LOADED = "loaded"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    RETIRED = "retired"
    FAILED = "failed"

    @property
    def word(self) -> str:
        """The protocol's word for it, of which there are four."""
        return _WORDS.get(self, "UNAVAILABLE")


_WORDS = {
    State.LOADING: "LOADING",
    State.LOADED: "LOADING",
    State.WARMING: "LOADING",
    State.READY: "READY",
    State.DRAINING: "UNLOADING",
}


class Role(StrEnum):
    """On whose behalf a version ran. Only a shadow answers nobody."""

    CHAMPION = "champion"
    CANARY = "canary"
    SHADOW = "shadow"
    FLOOR = "floor"
    PINNED = "pinned"
