"""How different is a window from the reference, and how sure can one be?

All of it from counts in bins that the reference alone has fixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

FloatArray = npt.NDArray[np.float64]
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


def shares(counts: Numbers) -> FloatArray:
    """Shares of counts for the PSI: half a count is added to each (models.profile says why)."""
    return np.asarray((counts + 0.5) / (counts.sum() + 0.5 * len(counts)), np.float64)


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


def dispersed(test: Homogeneity, dispersion: float) -> Homogeneity:
    """The test of rows that come in clumps: as if only one row in `dispersion` (>= 1) counted.

    The statistic of a window that keeps to itself is that many times too large (McCullagh &
    Nelder 1989, 4.5); so is the noncentrality that a given PSI brings.
    """
    statistic = test.statistic / dispersion
    p_value = float(special.chdtrc(test.df, statistic)) if test.df else 1.0
    return Homogeneity(statistic, test.df, p_value, test.effective / dispersion)


def anderson_darling(reference: Numbers, current: Numbers) -> float:
    """Two-sample Anderson-Darling statistic of counts in ordered bins.

    A2 = nm/(n+m) sum_j h_j (F_j - G_j)^2 / (H_j (1 - H_j)): F, G and H are the cumulative shares
    of reference, window and both, h the shares of both (Scholz & Stephens 1987, eq. 6, with the
    values of a bin tied; scipy's `variant="right"`). It sees what moves the whole, where
    `homogeneity` sees what moves a bin. 0 if either is empty.
    """
    n, m = float(reference.sum()), float(current.sum())
    if n == 0 or m == 0:
        return 0.0
    both = (reference + current) / (n + m)
    below = np.cumsum(both)
    apart = np.cumsum(reference / n - current / m)
    inside = (below > 0) & (below < 1 - 1e-12)
    terms = both[inside] * apart[inside] ** 2 / (below[inside] * (1 - below[inside]))
    return float(n * m / (n + m) * np.sum(terms))


def anderson_darling_weights(reference: Numbers) -> FloatArray:
    """Weights w_i for which the statistic is sum w_i z_i^2 where nothing has changed.

    Eigenvalues of D S D: S_jk = H_j (1 - H_k), j <= k, is the covariance of the Brownian bridge on
    the reference's cumulative shares, D_j^2 = h_j / (H_j (1 - H_j)). Ever finer bins of equal mass
    give 1 / (i (i + 1)) (Anderson & Darling 1952). Empty for fewer than two bins in use.
    """
    shares = reference[reference > 0] / max(float(reference.sum()), 1.0)
    below = np.cumsum(shares)[:-1]
    if len(below) == 0:
        return np.zeros(0)
    scale = np.sqrt(shares[:-1] / (below * (1 - below)))
    bridge = np.minimum.outer(below, below) * (1 - np.maximum.outer(below, below))
    weights: FloatArray = np.linalg.eigvalsh(scale[:, None] * bridge * scale)
    return np.maximum(weights, 0.0)


def wasserstein(reference: Numbers, current: Numbers, edges: FloatArray) -> float:
    """Distance that the mass has to travel, in the feature's unit; for people, not for tests.

    `edges` [K - 1] are between the K bins of the counts. The integral of |F - G| from the first
    edge to the last, rows of a bin spread evenly over it, those outside at the outermost edges.
    """
    n, m = float(reference.sum()), float(current.sum())
    if n == 0 or m == 0 or len(edges) < 2:
        return 0.0
    apart = np.cumsum(reference / n - current / m)[:-1]
    left, right = np.abs(apart[:-1]), np.abs(apart[1:])
    total = left + right
    # Where F and G cross inside a bin, two triangles are left of the trapezium.
    crossed = apart[:-1] * apart[1:] < 0
    safe = np.where(total > 0, total, 1.0)
    heights = np.where(crossed, (left**2 + right**2) / safe, total) / 2
    return float(np.sum(heights * np.diff(edges)))


def kolmogorov_smirnov(reference: Numbers, current: Numbers) -> float:
    """Largest distance of the two cumulative shares over the bins; for people, not for tests."""
    n, m = reference.sum(), current.sum()
    if n == 0 or m == 0:
        return 0.0
    return float(np.abs(np.cumsum(reference) / n - np.cumsum(current) / m).max())


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    values: list[float] = adjusted.tolist()
    return values


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values under which a list holds at most that share of false ones, on average.

    In the order given (Benjamini & Hochberg 1995). For lists that people read; `holm` is for
    alarms.
    """
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values, np.float64)[order] * count / np.arange(1, count + 1)
    adjusted = np.empty(count)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    values: list[float] = adjusted.tolist()
    return values
