"""What a shadow may have, decided from numbers. Pure: time and load come in as arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Seconds that the event loop may be late before the primaries' queue counts as standing.
LATE = 0.005
#: Share of a core that the event loop may want before there is nothing left for a guest.
BUSY = 0.85
#: What a congested interval leaves of the share, and what a calm one gives back.
DECREASE, INCREASE = 0.5, 0.02
#: Faults in a row that open the breaker, and the seconds until it lets one request try.
FAULTS, OPEN = 5, 10.0


@dataclass(frozen=True, slots=True)
class Load:
    """An interval of the event loop: how late it was, look by look, and the share of a core that
    it wanted."""

    late: Sequence[float]
    busy: float

    @property
    def congested(self) -> bool:
        """As CoDel judges a queue, by its shortest delay: a burst drains, a standing queue
        does not."""
        return min(self.late, default=0.0) > LATE or self.busy > BUSY


def next_share(share: float, load: Load, floor: float) -> float:
    """The share of its requests that a shadow gets next: halved while primaries queue, then
    given back in small steps. `floor` keeps some evidence coming."""
    if load.congested:
        return max(share * DECREASE, floor)
    return min(share + INCREASE, 1.0)


@dataclass(frozen=True, slots=True)
class Breaker:
    """Keeps requests from a version that fails each of them.

    closed --FAULTS in a row--> open --OPEN seconds--> one try --good--> closed, --bad--> open
    """

    faults: int = 0
    until: float = 0.0

    @property
    def closed(self) -> bool:
        return self.faults < FAULTS

    def ask(self, now: float) -> tuple[bool, Breaker]:
        """Whether a request may go now, and the breaker after it: a try that never comes back
        delays the next one, no more."""
        if self.closed:
            return True, self
        if now < self.until:
            return False, self
        return True, Breaker(self.faults, now + OPEN)

    def after(self, good: bool, now: float) -> Breaker:
        if good:
            return CLOSED
        return Breaker(self.faults + 1, now + OPEN)


CLOSED = Breaker()
