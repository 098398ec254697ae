"""Which cohorts of predictions have got the labels that they will get?

The first labels are no fair sample of all: a flight that lands on time is known before one that is
hours late. So labels count only once a cohort, the predictions of an hour or a day, has about as
many as older cohorts ended up with.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

Counts = npt.NDArray[np.int64]

#: Share of the coverage that older cohorts reached from which a cohort is mature.
MATURE = 0.8
#: Rows below which a cohort says nothing about the coverage to expect.
LEAST_ROWS = 100


def plateau(labels: Counts, rows: Counts) -> float:
    """The coverage to expect, 0 to 1: the 90 % quantile of labels / rows over large cohorts.

    Not the largest, which some cohort reaches by chance. 0 where no cohort is large enough.
    """
    large = rows >= LEAST_ROWS
    if not large.any():
        return 0.0
    return float(np.quantile(labels[large] / rows[large], 0.9, method="inverted_cdf"))


def mature(labels: Counts, rows: Counts, expected: float) -> npt.NDArray[np.bool_]:
    """Whether each cohort may have MATURE of the `expected` coverage: its Wilson upper bound does.

    Cohorts without rows are mature: nothing is to come.
    """
    n = np.maximum(rows, 1)
    share, z = labels / n, float(special.ndtri(0.975))
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    high = (share + z * z / (2 * n) + half) / (1 + z * z / n)
    return np.asarray((rows == 0) | (high >= MATURE * expected))
