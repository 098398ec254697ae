"""Latency buckets that gateway and monitor share: log-spaced, so histograms add up.

Eight buckets an octave: neighbours differ by 9 %, so a quantile read from them is within 4.5 %.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

PER_OCTAVE = 8
#: 1 microsecond to 2**26 (67 seconds); longer ones fall into the last.
BUCKETS = 26 * PER_OCTAVE


def bucket(microseconds: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The bucket of each duration."""
    octaves = np.log2(np.maximum(microseconds, 1))
    buckets: npt.NDArray[np.int64] = np.minimum(octaves * PER_OCTAVE, BUCKETS - 1).astype(np.int64)
    return buckets


def middle(index: int) -> float:
    """The geometric middle of a bucket, in microseconds."""
    return float(2 ** ((index + 0.5) / PER_OCTAVE))
