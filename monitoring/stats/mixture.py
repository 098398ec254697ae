"""How likely is a weighted sum of squared normals to be this large?

The null distribution of every quadratic statistic here (Anderson-Darling, kernel distances) is
that of sum w_i z_i^2 with independent standard normal z_i.
"""

from __future__ import annotations

from math import exp, pi, sqrt

import numpy as np
import numpy.typing as npt
from scipy import optimize

FloatArray = npt.NDArray[np.float64]

#: The smallest weights count as their mean while their squares add up to less than this share of
#: the largest one's: the tail is then wrong by less than a four-thousandth of itself.
NEGLIGIBLE = 1e-3
#: Where the integral along the contour ends, in deviations of its Gaussian, and at how many points
#: at most: five digits wherever they were compared.
_FAR = 9.0
_POINTS = np.arange(64)
#: The contour keeps this far from the pole at 0, in units of 1 / (2 largest weight).
_CLOSEST = 0.25


def tail(weights: FloatArray, value: float) -> float:
    """P(sum w_i z_i^2 > value), non-negative weights [K] and value in one unit.

    The inversion integral (1 / 2 pi i) int exp(K(s) - s value) / s ds, K(s) = -1/2 sum
    log(1 - 2 w_i s), by the trapezoidal rule along a parabola through the saddlepoint that
    bends around the cuts: the integrand dies like a Gaussian, so the *relative* error stays
    below 1e-3 however small the probability. Matching moments (Liu, Tang & Zhang 2009) is
    cheaper, but its tail falls at another rate, and far out is where many tests that share one
    alpha need it: for Anderson-Darling 1.4e-5 becomes 0.9e-5. 1 without a positive weight.
    """
    ordered = np.sort(weights)
    largest = float(ordered[-1]) if len(ordered) else 0.0
    if largest <= 0:
        return 1.0
    ordered /= largest
    small = int(np.searchsorted(np.cumsum(ordered**2), NEGLIGIBLE))
    left = value / largest - float(ordered[:small].sum())
    return min(max(_tail(ordered[small:], left), 0.0), 1.0) if left > 0 else 1.0


def _tail(weights: FloatArray, value: float) -> float:
    """The same where the largest weight is 1."""
    point = _saddlepoint(weights, value)
    ratios = weights / (1 - 2 * weights * point)
    second, third = 2 * float(np.sum(ratios**2)), 8 * float(np.sum(ratios**3))
    # Fine enough for the Gaussian around the saddlepoint and for the pole at 0.
    step = min(abs(point) / 2.5, 0.4 / sqrt(second))
    y = _POINTS[: int(_FAR / (sqrt(second) * step)) + 1] * step
    bend = third / (6 * second)  # the path of steepest descent, to second order
    s = point + bend * y**2 + 1j * y
    growth = -0.5 * np.log(1 - 2 * weights[:, None] * s).sum(axis=0) - s * value
    top = float(growth[0].real)
    if top < -740:
        return 0.0
    terms = (np.exp(growth - top) / s * (2 * bend * y + 1j)).imag
    terms[0] /= 2
    integral = exp(top) * step / pi * float(terms.sum())
    return integral if point > 0 else 1 + integral  # left of the pole at 0 it is P - 1


def _saddlepoint(weights: FloatArray, value: float) -> float:
    """Where K'(s) = value, but no nearer to 0 than the contour may come."""
    least = _CLOSEST / 2

    def slope(s: float) -> float:
        return float(np.sum(weights / (1 - 2 * weights * s))) - value

    if value < weights.sum():
        if slope(-least) <= 0:
            return -least
        return float(optimize.brentq(slope, -len(weights) / value, -least, rtol=1e-6))
    if slope(least) >= 0:
        return least
    # The largest weight alone has slope 1 / (1 - 2s) <= K'(s).
    return float(optimize.brentq(slope, least, (1 - 0.99 / value) / 2, rtol=1e-6))
