"""How much does the reference differ from itself, from one block of time to the next?

Rows of one hour share their weather, their hour and their customers, so windows differ by more than
the chance that tests reckon with. What is usual is learned from the reference itself: cut into
blocks as long as the windows that are watched, each block is compared with all the others. A later
window counts as different only if it would be among those blocks, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt
from scipy import special

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: So many blocks, or as many as say as much, are needed: of 19 exchangeable ones a twentieth
#: exceeds the largest in 5 %, of fewer no 95 % quantile is known at all.
LEAST_BLOCKS = 20
#: The quantile of the blocks that the scaled distribution meets.
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class TimeCalibration:
    """What is usual between blocks of the reference, for one statistic of one feature.

    A ratio is a statistic over its expectation under pure chance, so 1 on average where time does
    not matter. `ratios` [B] are those of the blocks, rising. `memory` is the correlation of
    neighbouring blocks, 0 to 1; `dispersion` >= 1 is by how much the ratios exceed chance, and
    `df` are the degrees of freedom of the chi-squared distribution that they follow when divided
    by it.
    """

    ratios: Floats
    memory: float
    dispersion: float
    df: float

    @property
    def worth(self) -> float:
        """As how many independent blocks they count: B (1 - memory) / (1 + memory)."""
        return len(self.ratios) * (1 - self.memory) / (1 + self.memory)

    @property
    def calibrated(self) -> bool:
        """False: too few blocks, or neighbours so alike that the reference itself drifts."""
        return self.worth >= LEAST_BLOCKS

    def p_value(self, ratio: float | Floats) -> Floats:
        """Of a window's ratio against chance and time: the tail of the scaled distribution.

        An extrapolation beyond the blocks, so as good as its assumption. Not to be trusted, and
        that of chance alone at worst, where not `calibrated`.
        """
        return np.asarray(special.chdtrc(self.df, self.df * np.asarray(ratio) / self.dispersion))

    def rank_p_value(self, ratio: float | Floats) -> Floats:
        """(1 + blocks at least as far off) / (1 + blocks): conformal, without any assumption but
        that blocks and window could be exchanged. Counted in blocks' `worth`; never below
        1 / (1 + worth).
        """
        beyond = len(self.ratios) - np.searchsorted(self.ratios, np.asarray(ratio), side="left")
        worth = self.worth
        return np.asarray((1 + beyond * worth / max(len(self.ratios), 1)) / (1 + worth))


def chi_squared(counts: Ints) -> TimeCalibration:
    """Calibrates Pearson's test of homogeneity; `counts` [blocks, bins] in the order of time.

    The ratio is X2 / df, of each block against the rest. Bins must be pooled before, by a rule
    that looks at the whole reference only.
    """
    used = counts[counts.sum(1) > 0]
    rest = used.sum(0) - used
    df = float(max((used.sum(0) > 0).sum() - 1, 1))
    return _calibration(_chi_squared(used, rest), _chi_squared(used[:-1], used[1:]), df)


def anderson_darling(counts: Ints) -> TimeCalibration:
    """The same for the binned Anderson-Darling statistic, of bins in their order.

    The ratio is the mean over edges of nm / (n + m) (F - G)^2 / (H (1 - H)). Under chance it is
    near a chi-squared distribution over its df of the same variance (Satterthwaite): the
    correlations of the bridge at the edges give it.
    """
    used = counts[counts.sum(1) > 0]
    whole = used.sum(0)
    below = np.cumsum(whole)[:-1] / max(whole.sum(), 1)
    odds = below[(below > 0) & (below < 1)]
    odds = odds / (1 - odds)
    # corr^2 of edges k < l: H_k (1 - H_l) / (H_l (1 - H_k))
    alike = np.minimum.outer(odds, odds) / np.maximum.outer(odds, odds)
    df = float(1 / alike.mean()) if len(odds) else 1.0
    pairs = _anderson_darling(used[:-1], used[1:])
    return _calibration(_anderson_darling(used, whole - used), pairs, df)


def chi_squared_ratio(reference: Ints, current: Ints) -> float:
    """X2 / df of a window against the whole reference, as `chi_squared` calibrates it."""
    return float(_chi_squared(current, reference))


def anderson_darling_ratio(reference: Ints, current: Ints) -> float:
    """The ratio of a window against the whole reference, as `anderson_darling` calibrates it."""
    return float(_anderson_darling(current, reference))


def _calibration(ratios: Floats, neighbours: Floats, df: float) -> TimeCalibration:
    """`neighbours` are the ratios of each block against the next.

    A block differs from the rest by the variance between blocks, from its neighbour by (1 -
    memory) of it, each beyond the chance of 1: von Neumann's ratio.
    """
    if len(ratios) < 2:
        return TimeCalibration(np.sort(ratios), 0.0, 1.0, df)
    excess, variance = float(ratios.mean()) - 1, float(ratios.var(ddof=1))
    # Under chance the mean of ratios is 1 +- sqrt(2 / df / B); only what exceeds it is time's.
    memory = 0.0
    if excess > 2 * np.sqrt(2 / df / len(ratios)):
        found = min(1 - (float(neighbours.mean()) - 1) / excess, 1.0)
        # Independent blocks show one of 0 +- 1 / sqrt(B).
        memory = found if found > 2 / np.sqrt(len(ratios)) else 0.0
        # Few things make days differ, so few degrees of freedom are left: as their variance says.
        df = min(df, max(1.0, 2 * float(ratios.mean()) ** 2 / max(variance, 1e-12)))
    rising = np.sort(ratios)
    worth = max(len(ratios) * (1 - memory) / (1 + memory), 1.0)
    # The rank that a further block exceeds in at most 5 %; the largest where there are too few.
    rank = min(ceil(LEVEL * (1 + 1 / worth) * len(ratios)), len(ratios))
    chance = float(special.chdtri(df, 1 - LEVEL)) / df
    return TimeCalibration(rising, memory, max(1.0, float(rising[rank - 1]) / chance), df)


def _chi_squared(first: Ints, second: Ints) -> Floats:
    """X2 / df over the last axis; bins empty in both are left out."""
    n, m = first.sum(-1, keepdims=True), second.sum(-1, keepdims=True)
    both = first + second
    effective = n * m / np.maximum(n + m, 1)
    differences = first / np.maximum(n, 1) - second / np.maximum(m, 1)
    pooled = np.maximum(both, 1) / np.maximum(n + m, 1)
    df = np.maximum((both > 0).sum(-1) - 1, 1)
    return np.asarray((effective * differences**2 / pooled).sum(-1) / df)


def _anderson_darling(first: Ints, second: Ints) -> Floats:
    """Mean over edges of nm / (n + m) (F - G)^2 / (H (1 - H)); edges with nothing on a side are
    left out."""
    below, other = (np.cumsum(each, -1)[..., :-1] for each in (first, second))
    n, m = (each.sum(-1, keepdims=True) for each in (first, second))
    effective = n * m / np.maximum(n + m, 1)
    share = (below + other) / np.maximum(n + m, 1)
    inside = (share > 0) & (share < 1)
    chance = np.where(inside, share * (1 - share), 1)
    squares = (below / np.maximum(n, 1) - other / np.maximum(m, 1)) ** 2 / chance
    return np.asarray((effective * squares * inside).sum(-1) / np.maximum(inside.sum(-1), 1))
