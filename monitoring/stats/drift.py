"""How different is a window from the reference, and how sure can one be?

All of it from counts in bins that the reference alone has fixed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

Numbers = npt.NDArray[np.int64] | npt.NDArray[np.float64]


class Homogeneity(NamedTuple):
    """Pearson's chi-squared test that reference and window come from one distribution.

    `effective` is nm / (n + m), with which `statistic` grows under a fixed difference.
    """

    statistic: float
    df: int
    p_value: float
    effective: float


def psi(reference: npt.NDArray[np.float64], current: npt.NDArray[np.float64]) -> float:
    """Population stability index of two vectors of positive shares: sum (q - p) ln(q / p).

    For N(0, 1) against N(d, 1) and ever finer bins it is d squared.
    """
    return float(np.sum((current - reference) * np.log(current / reference)))


def homogeneity(reference: Numbers, current: Numbers) -> Homogeneity:
    """Chi-squared homogeneity of two vectors of counts; bins empty in both are left out.

    X2 = nm/(n+m) sum (r/n - c/m)^2 / ((r+c)/(n+m)); not goodness of fit, which takes the
    reference sample for the truth and turns a nominal 5 % into 33 %.
    """
    n, m = float(reference.sum()), float(current.sum())
    used = (reference + current) > 0
    df = int(used.sum()) - 1
    if n == 0 or m == 0 or df < 1:
        return Homogeneity(0.0, max(df, 0), 1.0, 0.0 if n + m == 0 else n * m / (n + m))
    r, c = reference[used], current[used]
    effective = n * m / (n + m)
    statistic = float(effective * np.sum((r / n - c / m) ** 2 / ((r + c) / (n + m))))
    return Homogeneity(statistic, df, float(special.chdtrc(df, statistic)), effective)


def psi_lower_bound(test: Homogeneity, confidence: float = 0.95) -> float:
    """One-sided lower confidence bound of the PSI: lambda / effective.

    lambda is the smallest noncentrality that does not make the statistic surprisingly large:
    ncx2.sf(X2, df, lambda) = 1 - confidence. 0 where the test does not reject at that level.
    """
    alpha = 1 - confidence
    if test.p_value >= alpha or test.effective == 0:
        return 0.0
    noncentrality = float(special.chndtrinc(test.statistic, test.df, confidence))
    return max(noncentrality, 0.0) / test.effective


def kolmogorov_smirnov(reference: Numbers, current: Numbers) -> float:
    """Largest distance of the two cumulative shares over the bins; for people, not for tests."""
    n, m = reference.sum(), current.sum()
    if n == 0 or m == 0:
        return 0.0
    return float(np.abs(np.cumsum(reference) / n - np.cumsum(current) / m).max())


def holm(p_values: list[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    values: list[float] = adjusted.tolist()
    return values
