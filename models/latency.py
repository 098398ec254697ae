"""Latency buckets that gateway and monitor share: log-spaced, so histograms add up.

Eight buckets an octave: neighbours differ by 9 %, so a quantile read from them is within 4.5 %.
"""

from __future__ import annotations

import math

PER_OCTAVE = 8
#: 1 microsecond to 2**26 (67 seconds); longer ones fall into the last.
BUCKETS = 26 * PER_OCTAVE


def bucket(microseconds: float) -> int:
    """The bucket of a duration."""
    if microseconds < 1:
        return 0
    return min(int(math.log2(microseconds) * PER_OCTAVE), BUCKETS - 1)


def middle(index: int) -> float:
    """The geometric middle of a bucket, in microseconds."""
    return float(2 ** ((index + 0.5) / PER_OCTAVE))
