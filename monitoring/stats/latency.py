"""Quantiles of a histogram with known bucket middles."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def quantile(
    counts: npt.NDArray[np.int64], middles: npt.NDArray[np.float64], share: float
) -> float | None:
    """The middle of the bucket that holds the `share`-quantile; None without observations."""
    total = int(counts.sum())
    if total == 0:
        return None
    rank = max(int(np.ceil(share * total)), 1)
    return float(middles[int(np.searchsorted(np.cumsum(counts), rank))])
