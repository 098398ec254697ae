"""Has something changed for the worse? Evidence that is gathered for as long as it takes.

Both detectors here are Shiryaev-Roberts sums of e-values ("e-detectors", Shin, Ramdas & Rinaldo
2022): S <- (S + starts) e, where e has expectation at most one while nothing is wrong. Each moment
is a possible beginning of trouble, so nothing need be restarted, and S minus the number of starts
never rises on average. Hence, with evidence log(1 + S) compared with log(1 + A):

- the first false alarm comes after A starts on average, or later;
- within n starts there is one with probability at most n / A (Doob's inequality);
- the mean of several S, over bets or over subjects, is as good as one.

A state is an array of floats, [..., length]; leading axes are detectors side by side. What a state
holds is log(1 + S), so it neither overflows nor starts at minus infinity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]
Numbers = float | Floats | npt.NDArray[np.int64]

#: How many times the odds of a loss grow in the changes looked for. Simulated for .10 -> .15 and
#: .10 -> .20 labels; finer or wider grids cost up to log(their number) of evidence.
ODDS = (1.3, 1.7, 2.5)
#: Rates that stand for a baseline known by a sample, and how many standard errors they span.
NODES, SPAN = 16, 3.0
#: Powers of the calibrator e = kappa p^(kappa - 1) (Vovk & Wang 2021): a small kappa waits for tiny
#: p-values, a large one lives on many that are a little too small.
KAPPAS = (0.1, 0.3, 0.5, 0.7)
#: No p-value is taken for smaller.
LEAST_P = 1e-300


@dataclass(frozen=True, eq=False)
class RateDetector:
    """Watches losses in [0, 1], errors above all, for a mean that rises above its baseline.

    While nothing is wrong the rate is one of `rates` [G], as likely as exp(`log_weights`) says;
    `worse` [K] are the rates that are bet on. The state is [total, n, log(1 + S_1) ...]. Arrays
    with leading axes are detectors side by side, each with its own baseline.
    """

    rates: Floats
    log_weights: Floats
    worse: Floats

    def start(self) -> Floats:
        """The state before the first loss: shape [..., 2 + K]."""
        return np.zeros((*self.worse.shape[:-1], 2 + self.worse.shape[-1]))

    def after(
        self, state: Floats, total: Numbers, n: Numbers, squares: Numbers | None = None
    ) -> Floats:
        """The state after `n` more losses that sum to `total`, in any order: shape [..., 2 + K].

        The e-value of a batch is the product of the likelihood ratios of its losses, in which the
        order cancels; all of its `n` starts are counted at its beginning, S <- (S + n) e, so A
        still counts losses. Counts of one time that come from several places are added first.
        A loss between 0 and 1 enters as that share of an error: the chord lies below the concave
        log(1 + lam (x - limit)), so this is less than the product and still valid. With the sum
        of squares, and a limit instead of a learned baseline, a sharper bound is used.
        """
        more_total, more = np.asarray(total, np.float64)[..., None], np.asarray(n)[..., None]
        null = self._log_null(state[..., 0] + total, state[..., 1] + n)
        null = null - self._log_null(state[..., 0], state[..., 1])
        log_e = self._log_ratio(more_total, more) - null[..., None]
        if squares is not None and self.rates.shape[-1] == 1:
            log_e = np.maximum(log_e, self._log_e(more_total, more, np.asarray(squares)[..., None]))
        with np.errstate(divide="ignore"):  # no further start in a batch of one
            starts = np.log(np.maximum(more - 1, 0))
        grown = np.logaddexp(0, np.logaddexp(state[..., 2:], starts) + log_e)
        sums = np.concatenate(np.broadcast_arrays(more_total, more), -1) + state[..., :2]
        return np.concatenate([sums, np.where(more > 0, grown, state[..., 2:])], -1)

    def through(self, state: Floats, losses: Floats) -> Floats:
        """All the states on the way of one detector through `losses` [n], in order: [n, 2 + K].

        S_n = P_n (1 + S_0 + sum_{j < n} 1 / P_j) with P the cumulated products of e, so one pass
        of cumulated sums of logarithms does it.
        """
        totals = state[0] + np.cumsum(losses)
        counts = state[1] + np.arange(1, len(losses) + 1)
        if self.rates.shape[-1] == 1:
            products = np.cumsum(np.log1p(self._bets * (losses[:, None] - self.rates)), 0)
        else:
            null = self._log_null(totals, counts) - self._log_null(state[0], state[1])
            more = counts - state[1]
            products = self._log_ratio((totals - state[0])[:, None], more[:, None])
            products -= null[:, None]
        begun = np.concatenate([state[None, 2:], -products[:-1]])
        grown = np.logaddexp(0, products + np.logaddexp.accumulate(begun, 0))
        return np.concatenate([totals[:, None], counts[:, None], grown], 1)

    def evidence(self, state: Floats) -> Floats:
        """log(1 + mean S) over the bets: shape [...]."""
        return pooled(state[..., 2:])

    @cached_property
    def _bets(self) -> Floats:
        """lam in 1 + lam (x - limit), which for x in {0, 1} is the likelihood ratio."""
        limit = self.rates
        return np.asarray((self.worse - limit) / (limit * (1 - limit)))

    def _log_ratio(self, total: Floats, n: Floats) -> Floats:
        """Log-likelihood under each of the worse rates."""
        return total * np.log(self.worse) + (n - total) * np.log1p(-self.worse)

    def _log_null(self, total: Numbers, n: Numbers) -> Floats:
        """Log-likelihood of all losses so far, averaged over what the baseline may be."""
        right = np.asarray(np.asarray(n) - total)[..., None]
        each = np.asarray(total)[..., None] * np.log(self.rates) + right * np.log1p(-self.rates)
        return _log_sum(each + self.log_weights)

    def _log_e(self, total: Floats, n: Floats, squares: Floats) -> Floats:
        """Losses of small variance, y = x - c with limit c: log(1 + lam y) is at least
        lam y + y^2 (log(1 - lam c) + lam c) / c^2 for y >= -c (Fan, Grama & Liu 2015, lemma 4.1).
        """
        limit = self.rates
        reach = self._bets * limit
        around = squares - 2 * limit * total + n * limit**2
        bend = (np.log1p(-reach) + reach) / limit**2
        return np.asarray(self._bets * (total - n * limit) + around * bend)


def at_most(limit: float, odds: Sequence[float] = ODDS) -> RateDetector:
    """A detector against "the mean loss is at most `limit`", 0 < limit < 1, whatever came before.

    Any losses in [0, 1] with E[x | past] <= limit: they may depend on each other and wander. The
    smaller their variance, the larger the `odds` that pay: bets are lam = (worse - limit) /
    (limit (1 - limit)), the best one is the rise over the variance.
    """
    return RateDetector(np.array([limit]), np.zeros(1), _worse(limit, odds))


def learned(
    errors: int, labels: int, tolerance: float = 0.0, odds: Sequence[float] = ODDS
) -> RateDetector:
    """A detector for a baseline known by `errors` of `labels` reference rows only.

    The baseline may lie within three standard errors of what the reference says (Jeffreys), plus
    anything up to `tolerance`, a difference in rate that nobody wants to hear of. The stream helps
    to tell where in there it lies, but cannot move it out: a change that was missed does not become
    the new normal, and a stream better than the reference does not lower the bar by more. Both
    guarantees hold on average over what the reference leaves open, for errors without memory.
    """
    if not 0 <= errors <= labels or labels == 0:
        raise ValueError(f"{errors} errors of {labels} labels is no baseline")
    a, b = errors + 0.5, labels - errors + 0.5
    low, high = special.betaincinv(a, b, special.ndtr([-SPAN, SPAN]))
    rates = np.linspace(max(low, 1e-12), min(high + tolerance, 1 - 1e-12), NODES)
    half = max(rates[1] - rates[0] - tolerance, 0.0) / 2  # a cell, unless the tolerance is wider
    # The distribution of the baseline plus a shift of 0 to `tolerance`, each as likely.
    above, below = np.minimum(rates + half, 1), np.maximum(rates - half - tolerance, 0)
    weights = special.betainc(a, b, above) - special.betainc(a, b, below)
    usual = min(a / (labels + 1) + tolerance, 1 - 1e-6)
    return RateDetector(rates, np.log(weights / weights.sum()), _worse(usual, odds))


def side_by_side(detectors: Sequence[RateDetector]) -> RateDetector:
    """Several, of equally many rates and bets, as one on states [len(detectors), 2 + K]."""
    return RateDetector(
        np.array([each.rates for each in detectors]),
        np.array([each.log_weights for each in detectors]),
        np.array([each.worse for each in detectors]),
    )


def _worse(rate: float, odds: Sequence[float]) -> Floats:
    """The rates whose odds are so many times those of `rate`."""
    if not 0 < rate < 1:
        raise ValueError(f"no rate is worse than {rate}: it must lie between 0 and 1")
    grown = np.asarray(odds, np.float64) * rate / (1 - rate)
    return np.asarray(grown / (1 + grown))


@dataclass(frozen=True)
class WindowDetector:
    """Gathers the p-values of one subject, window after window: shift too weak for one test.

    Each p-value becomes the e-values kappa p^(kappa - 1). They must hold whatever the earlier
    windows were, so windows may not share rows. All share the reference, whose own error looks like
    a lasting shift: it needs twenty times the rows of a window. (Simulated at A = 2,000, 12,960
    windows, 6.5 alarms allowed: 2.6 with fifty times the rows, 4.5 with twenty, 8.8 with ten, 12.5
    with five.) The state is [log(1 + S_1) ...], and A counts windows.
    """

    kappas: tuple[float, ...] = KAPPAS

    def start(self) -> Floats:
        """The state before the first window: shape [K]."""
        return np.zeros(len(self.kappas))

    def after(self, state: Floats, p_value: float | Floats) -> Floats:
        """The state after one more window, of `p_value` [...]: shape [..., K]."""
        kappa = np.array(self.kappas)
        log_p = np.log(np.clip(p_value, LEAST_P, 1))[..., None]
        return np.asarray(np.logaddexp(0, state + np.log(kappa) + (kappa - 1) * log_p))

    def evidence(self, state: Floats) -> Floats:
        """log(1 + mean S) over the kappas: shape [...]."""
        return pooled(state)


def pooled(evidence: Floats) -> Floats:
    """The evidence of several bets or subjects as one, over the last axis: log mean (1 + S).

    A mean of detectors is a detector with the same A, however they depend on each other.
    """
    return np.asarray(_log_sum(evidence) - np.log(evidence.shape[-1]))


def alarms(evidence: Floats, threshold: float) -> npt.NDArray[np.bool_]:
    """Where the mean S has reached the threshold A."""
    return np.asarray(evidence >= np.log1p(threshold))


def _log_sum(logs: Floats) -> Floats:
    """log sum exp over the last axis; SciPy's is ten times slower on few numbers."""
    largest = logs.max(-1)
    return np.asarray(largest + np.log(np.exp(logs - largest[..., None]).sum(-1)))


class Spending(NamedTuple):
    """What one group of checks may spend.

    `alpha` is the family-wise level of the tests within a window, and `windows` and `labels` are
    the thresholds A of evidence gathered over windows and over labels.
    """

    alpha: float
    windows: float
    labels: float


class Budget(NamedTuple):
    """Half for what pages (data quality, performance), half for the digest (drift)."""

    page: Spending
    digest: Spending


def budget(
    false_alarms: float, days: float, windows_a_day: float, labels_a_day: float = 0.0
) -> Budget:
    """What to test at, so that `false_alarms` are expected in `days` if nothing ever happens.

    Pages and digest have half each. Of either half, one half goes to the tests within a window
    and the rest to evidence over windows and labels (over windows alone without labels). All are
    expectations, so nothing need be independent. Half an expected page leaves at most one page in
    91 % of periods (Poisson), and tests of whole numbers spend less than they may.
    """
    if min(false_alarms, days, windows_a_day) <= 0:
        raise ValueError("a budget needs a positive number of false alarms, days and windows")
    half = false_alarms / 2
    windows, labels = days * windows_a_day, days * labels_a_day
    parts = 4 if labels else 2
    spending = Spending(
        alpha=min(half / 2 / windows, 1.0),
        windows=windows / (half / parts),
        labels=labels / (half / parts) if labels else np.inf,
    )
    drift = spending._replace(windows=windows / (half / 2), labels=np.inf)
    return Budget(spending, drift)
