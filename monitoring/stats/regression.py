"""How far off were the numbers predicted? From sums of whole numbers, so windows add up exactly.

Truth and error are counted in steps, a 256th of what is usual in the reference: of its standard
deviation and of its root mean squared error. A step is far below the noise, the sums of steps and
of their squares fit 64 bits, and no order of adding changes them.
"""

from __future__ import annotations

from math import exp, sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from monitoring.stats.performance import Estimate, mean

Counts = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

#: Steps in the unit of the truth and in that of the error.
STEPS = 256
#: Values more steps from the centre count as this many: 1,024 units.
FARTHEST = 1 << 18
#: The sums of a window, in this order. Third and fourth powers are only needed by intervals; each
#: is kept in two numbers, the low one below 2^36: the largest is 2^72, and one would not hold it.
SUMS = (
    "rows",
    "beyond",  # rows with a value or an error that was cut to FARTHEST
    "error",
    "absolute",
    "squared",
    "truth",
    "truth^2",
    *(f"{power} {part}" for power in ("e^4", "e^2 y", "e^2 y^2", "y^3", "y^4") for part in "lh"),
)
_LOW = float(1 << 36)


class Scale(NamedTuple):
    """In what the truth and the error are counted: fixed by the reference, kept with it.

    Truth is counted from `centre`, in 256ths of `spread`; errors in 256ths of `error`. All in the
    unit of the truth.
    """

    centre: float
    spread: float
    error: float


class Regression(NamedTuple):
    """Errors are prediction minus truth, in the unit of the truth.

    `beyond` rows count with less than their value. R2 is None where the truth does not vary.
    """

    labels: int
    beyond: int
    mae: Estimate | None
    rmse: Estimate | None
    bias: Estimate | None
    r2: Estimate | None


def scale(truth: npt.ArrayLike, said: npt.ArrayLike) -> Scale:
    """The scale of a reference's hold-out rows."""
    y, e = _there(truth, said)
    spread = float(np.std(y)) if len(y) else 0.0
    error = float(np.sqrt(np.mean(e**2))) if len(y) else 0.0
    spread = spread or abs(error) or 1.0
    return Scale(float(np.mean(y)) if len(y) else 0.0, spread, error or spread / STEPS)


def sums(unit: Scale, truth: npt.ArrayLike, said: npt.ArrayLike) -> Counts:
    """The sums of labelled rows, [len(SUMS)], int64. Rows without a number on a side are left out.

    A window of up to 2^26 rows, however wild, does not overflow.
    """
    values, errors = _there(truth, said)
    y, y_far = _steps(values - unit.centre, unit.spread)
    e, e_far = _steps(errors, unit.error)
    simple = [len(y), int(np.sum(y_far | e_far)), e.sum(), abs(e).sum(), (e * e).sum()]
    simple += [y.sum(), (y * y).sum()]
    e2, y2 = (e * e).astype(np.float64), (y * y).astype(np.float64)
    powers = np.array([e2 * e2, e2 * y, e2 * y2, y2 * y, y2 * y2])
    high = np.floor(powers / _LOW)
    low = powers - high * _LOW
    halves = np.stack([low, high], axis=1).astype(np.int64)
    return np.concatenate([np.array(simple, np.int64), halves.sum(axis=2).ravel()])


def regression(unit: Scale, window: Counts, confidence: float = 0.95) -> Regression | None:
    """MAE, RMSE, bias and R2 with intervals; None without labels.

    Student's t for MAE and bias. RMSE by the delta method on log mean(e^2), R2 = 1 - MSE / V on
    log(1 - R2) = log MSE - log V: both from fourth moments, without assuming normal errors, and
    on the logarithm because squares are skewed. Intervals need two rows.
    """
    n, beyond, error, absolute, squared, truth, truth2 = (int(value) for value in window[:7])
    if n == 0:
        return None
    step = unit.error / STEPS
    mae = mean(n, absolute * step, squared * step**2, confidence, least=0.0)
    bias = mean(n, error * step, squared * step**2, confidence)
    if n < 2 or squared == 0:
        exact = Estimate(0.0, 0.0, 0.0, n) if n >= 2 else None
        perfect = Estimate(1.0, 1.0, 1.0, n) if n >= 2 and n * truth2 > truth**2 else None
        return Regression(n, beyond, mae, exact, bias, perfect)
    t = float(special.stdtrit(n - 1, 0.5 + confidence / 2))
    mse = squared / n
    e4, e2y, e2y2, y3, y4 = _powers(window[7:], n)
    rmse_spread = sqrt(max(e4 / mse**2 - 1, 0.0) / (n - 1))
    rmse = _around(sqrt(mse) * step, t * rmse_spread / 2, n)
    variance = (n * truth2 - truth**2) / n**2  # whole numbers above: nothing cancels
    if variance == 0:
        return Regression(n, beyond, mae, rmse, bias, None)
    m = truth / n
    e2d2 = e2y2 - 2 * m * e2y + m**2 * mse
    d4 = y4 - 4 * m * y3 + 6 * m**2 * (truth2 / n) - 3 * m**4
    spread = e4 / mse**2 - 2 * e2d2 / (mse * variance) + d4 / variance**2
    unexplained = mse * step**2 / (variance * (unit.spread / STEPS) ** 2)
    around = _around(unexplained, t * sqrt(max(spread, 0.0) / (n - 1)), n)
    r2 = Estimate(1 - around.value, 1 - around.high, 1 - around.low, n)
    return Regression(n, beyond, mae, rmse, bias, r2)


def _there(truth: npt.ArrayLike, said: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Truth and errors of the rows that have both."""
    y = np.asarray(truth, np.float64)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        e = np.asarray(said, np.float64) - y
    there = ~(np.isnan(y) | np.isnan(e))
    return y[there], e[there]


def _steps(values: FloatArray, unit: float) -> tuple[Counts, npt.NDArray[np.bool_]]:
    """Values in whole steps, and which were cut."""
    steps = np.rint(values / unit * STEPS)
    cut = np.clip(steps, -FARTHEST, FARTHEST)
    return cut.astype(np.int64), cut != steps


def _powers(pairs: Counts, n: int) -> list[float]:
    """Means of the third and fourth powers, from their two halves."""
    return [(int(low) + int(high) * int(_LOW)) / n for low, high in pairs.reshape(-1, 2)]


def _around(value: float, half: float, n: int) -> Estimate:
    """An interval that is symmetric on the logarithm."""
    half = min(half, 700.0)  # of two rows: e^700 is still a number
    return Estimate(value, value * exp(-half), value * exp(half), n)
