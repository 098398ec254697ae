"""What may be said while the data still come in, and looked at after every request.

`log_e_*` are natural logarithms of e-values: under the null hypothesis their expectation is at
most one at every moment, so they ever reach 1 / alpha with probability at most alpha (Ville's
inequality). However often one looks, "log e >= log(1 / alpha)" is wrong at most alpha of the time.
`rate_sequence` and `paired_difference` cover the truth at all times at once in the same sense.
`rate_difference` and `quantile_ratio` hold for one look at a size fixed beforehand.

All of it is a function of counts, so evidence can be stored as a few integers and recomputed.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, exp, hypot, inf, log, log1p, sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from monitoring.stats.latency import quantile
from monitoring.stats.performance import Counts, wilson

FloatArray = npt.NDArray[np.float64]

#: Jeffreys' prior for the mixtures: within a constant of the best at every true rate.
HALF = 0.5
#: How often the champion's upper bound in `log_e_difference` may ever fail.
CHAMPION_ALPHA = 0.002
#: Second parameter of the prior of a rate above its limit. Simulated at limit 2 %, alpha .01: 5 %
#: is found after 350 requests (uniform: 500), exactly 2 % in 0.2 % of runs (uniform: 0.03 %).
LOW_RATES = 10
#: Prior weight, in requests, of the promised split. Simulated at alpha .001, 60:40 for 50:50 takes
#: 480 requests (20: 440; 10,000: 2,090), 52:48 takes 10,330 (20: 11,360; 10,000: 14,880).
SPLIT_CONCENTRATION = 100.0

_LAGUERRE, _WEIGHTS = np.polynomial.laguerre.laggauss(16)


class Interval(NamedTuple):
    """An estimate and its bounds, in the unit of the estimate."""

    value: float
    low: float
    high: float


def log_e_rate(failures: int, n: int, limit: float) -> float:
    """Log e-value against "the failure rate is at most `limit`", 0 < limit < 1.

    The likelihood ratio of rate p against the limit, (p / limit)^k ((1 - p) / (1 - limit))^(n - k),
    averaged over p = limit + (1 - limit) v with v from Beta(1, 10): rates that are a little too
    high come more often than hopeless ones. A request that fails with probability q <= limit
    multiplies each ratio by at most 1 on average, whatever came before, so the rate may even
    wander below the limit.

    It is 10 int_0^1 (1 + v odds)^k (1 - v)^(n - k + 9) dv, odds = (1 - limit) / limit: the higher
    the limit, the smaller the evidence.
    """
    a, b = failures + 1, n - failures + LOW_RATES
    tail = float(special.betaincc(a, b, limit))
    if tail < 1e-290:
        return _log_e_far_below(failures, n, limit)
    scale = log(LOW_RATES) - failures * log(limit) - b * log1p(-limit)
    return float(special.betaln(a, b)) + log(tail) + scale


def _log_e_far_below(failures: int, n: int, limit: float) -> float:
    """`log_e_rate` where the incomplete beta function underflows.

    There the integrand in v falls from 1 at once, almost as exp(-slope v): Gauss-Laguerre.
    """
    odds = (1 - limit) / limit
    others = n - failures + LOW_RATES - 1
    slope = others - failures * odds
    inside = slope > _LAGUERRE  # v < 1; what is left out weighs less than 1e-13
    t = _LAGUERRE[inside]
    log_ratio = failures * np.log1p(t / slope * odds) + others * np.log1p(-t / slope)
    return log(LOW_RATES * float(np.sum(_WEIGHTS[inside] * np.exp(log_ratio + t))) / slope)


def log_e_difference(bad: int, n: int, other_bad: int, other_n: int, margin: float) -> float:
    """Log e-value against "the candidate's error rate is at most the champion's plus `margin`".

    `bad` of `n` are the candidate's, `other_bad` of `other_n` the champion's requests in the same
    time; rates and margin are shares. The champion's rate is unknown, so its anytime upper bound
    takes its place. Evidence falls as the limit rises: while the bound holds, this is no more
    than the evidence against the true limit. Rejecting at 1 / alpha is therefore ever wrong with
    probability at most alpha + 0.002. 0 while an arm is empty or nothing lies above the limit.
    """
    champion = rate_sequence(other_bad, other_n, CHAMPION_ALPHA)
    if n == 0 or champion is None or champion.high + margin >= 1:
        return 0.0
    return log_e_rate(bad, n, champion.high + margin)


def log_e_paired(only_first: int, only_second: int) -> float:
    """Log e-value against "each of two is as often the only one right": McNemar at any time.

    The discordant pairs alone, beta-binomial with a = 1/2 against a fair coin:
    log B(a + n10, a + n01) - log B(a, a) + (n10 + n01) log 2 (Robbins 1970).
    """
    return _log_e_fair(only_first, only_second)


def _log_e_fair(heads: float, tails: float) -> float:
    mixture = special.betaln(HALF + heads, HALF + tails) - special.betaln(HALF, HALF)
    return float(mixture + (heads + tails) * log(2))


def labels_to_decide(
    only_first: int, only_second: int, alpha: float = 0.05, limit: int = 10_000_000
) -> int | None:
    """How many more discordant pairs, split as so far, until `log_e_paired` is log(1 / alpha).

    0 if it is already; None if not within `limit` pairs, or without a pair to learn from.
    """
    total = only_first + only_second
    if total == 0:
        return None

    def decided(more: int) -> bool:
        scale = 1 + more / total
        return _log_e_fair(only_first * scale, only_second * scale) >= -log(alpha)

    if decided(0):
        return 0
    # Along a fixed split the evidence may first fall (the prior is paid for) and then rises for
    # good, so it crosses once: double, then halve.
    more = 1
    while not decided(more):
        if more == limit:
            return None
        more = min(2 * more, limit)
    short = more // 2
    while more - short > 1:
        middle = (short + more) // 2
        short, more = (short, middle) if decided(middle) else (middle, more)
    return more


def rate_sequence(successes: int, n: int, alpha: float = 0.05) -> Interval | None:
    """A share and its confidence sequence, which covers the true share at every n at once.

    The shares mu with log B(a + k, a + n - k) - log B(a, a)
    <= k log mu + (n - k) log(1 - mu) + log(1 / alpha), a = 1/2 (Robbins 1970). None if n is 0.
    """
    if n == 0:
        return None
    mixture = special.betaln(HALF + successes, HALF + n - successes) - special.betaln(HALF, HALF)
    level = float(mixture) + log(alpha)
    low = _lowest_rate(successes, n, level)
    return Interval(successes / n, low, 1 - _lowest_rate(n - successes, n, level))


def _lowest_rate(successes: int, n: int, level: float) -> float:
    """The smallest rate whose log-likelihood is at least `level`."""
    if successes == 0:
        return 0.0

    def outside(rate: float) -> float:
        failures = n - successes
        return level - successes * log(rate) - float(special.xlog1py(failures, -rate))

    # The log-likelihood is below k log(rate), hence below level - 1 at this end.
    end = exp((level - 1) / successes)
    return float(optimize.brentq(outside, end, successes / n, xtol=1e-15))


def paired_difference(
    only_first_right: int, only_second_right: int, n: int, alpha: float = 0.05
) -> Interval | None:
    """Accuracy of the second minus that of the first on the same `n` rows, valid at any time.

    The three shares (only the first right, only the second, both or neither) have the joint
    confidence sequence {p: log B(a + counts) - log B(a) - sum counts log p <= log(1 / alpha)},
    the Dirichlet(1/2, 1/2, 1/2) mixture; the interval is the range of p01 - p10 over this convex
    set, found on the profile of the likelihood. In shares, -1 to 1. None if n is 0.
    """
    if n == 0:
        return None
    first, second = only_first_right, only_second_right
    same = n - first - second
    posterior = np.array([first, second, same]) + HALF
    level = _log_beta(posterior) - _log_beta(np.full(3, HALF)) + log(alpha)
    return Interval(
        (second - first) / n,
        -_largest_difference(second, first, same, level),
        _largest_difference(first, second, same, level),
    )


def _log_beta(weights: FloatArray) -> float:
    """Log of the multivariate beta function."""
    return float(np.sum(special.gammaln(weights)) - special.gammaln(np.sum(weights)))


def _largest_difference(first: int, second: int, same: int, level: float) -> float:
    """The largest p01 - p10 whose profile log-likelihood is at least `level`."""
    others = first + same
    # p10 and p0 are at most 1 - difference, so the profile is below level - 1 at this end.
    rest = exp((level - 1) / others) if others else 0.0
    if rest < 1e-12:  # too near 1 for 1 - difference to have digits
        return 1.0
    return float(
        optimize.brentq(
            lambda difference: level - _profile(first, second, same, difference),
            (second - first) / (others + second),
            1 - rest,
            xtol=1e-15,
        )
    )


def _profile(first: int, second: int, same: int, difference: float) -> float:
    """The largest trinomial log-likelihood where p01 - p10 is `difference`.

    p10 is the larger root of 2n p^2 - b p - n10 d (1 - d) (as in Tango 1998).
    """
    if difference < 0:  # so that p01 = p10 + difference has no cancellation
        return _profile(second, first, same, -difference)
    n, rest = first + second + same, 1 - difference
    b = first * (1 - 3 * difference) + second * rest - 2 * same * difference
    root = sqrt(b * b + 8 * n * first * difference * rest)
    if b > 0:
        p10 = (b + root) / (4 * n)
    else:  # the same root without cancellation
        p10 = 2 * first * difference * rest / (root - b) if first and difference else 0.0
    shares = (p10, p10 + difference, max(rest - 2 * p10, 0.0))
    return sum(
        count * log(share) if share else -inf
        for count, share in zip((first, second, same), shares, strict=True)
        if count
    )


def rate_difference(k1: int, n1: int, k2: int, n2: int, alpha: float = 0.05) -> Interval | None:
    """k2 / n2 - k1 / n1 of two independent arms; Newcombe's hybrid score interval.

    Method 10 of Newcombe (1998), from the two Wilson intervals, without continuity correction.
    For one look at fixed sizes. None if an arm is empty.
    """
    first, second = wilson(k1, n1, 1 - alpha), wilson(k2, n2, 1 - alpha)
    if first is None or second is None:
        return None
    value = second.value - first.value
    below = hypot(second.value - second.low, first.high - first.value)
    above = hypot(second.high - second.value, first.value - first.low)
    return Interval(value, value - below, value + above)


def log_e_split(counts: Sequence[int], shares: Sequence[float]) -> float:
    """Log e-value against "each request went to an arm by `shares`": sample ratio mismatch.

    `counts` are requests per arm, `shares` positive weights of the arms, of any sum. The
    Dirichlet-multinomial mixture around the promised split (Lindon & Malek 2022):
    log B(a + counts) - log B(a) - sum counts log share, a = 100 share.
    Infinite if an arm of share 0 has a request: that is proof.
    """
    used = [(count, share) for count, share in zip(counts, shares, strict=True) if share > 0]
    if sum(count for count, _ in used) < sum(counts):
        return inf
    seen = np.array([count for count, _ in used], np.float64)
    promised = np.array([share for _, share in used], np.float64)
    promised /= promised.sum()
    prior = SPLIT_CONCENTRATION * promised
    return _log_beta(prior + seen) - _log_beta(prior) - float(np.sum(seen * np.log(promised)))


def quantile_interval(
    counts: Counts, middles: FloatArray, share: float, alpha: float = 0.05
) -> Interval | None:
    """The `share`-quantile between two order statistics, distribution-free, 0 < share < 1.

    `middles` are the rising values that stand for the buckets of `counts`. The r-th smallest lies
    above the quantile if fewer than r observations are at or below it, and their number is
    binomial(n, share). Bounds are 0 and infinity where there is no order statistic so far out
    (p99 at alpha .05: fewer than 368 observations). For one look at a fixed size, and no finer
    than the buckets. None without observations.
    """
    value = quantile(counts, middles, share)
    if value is None:
        return None
    cumulative = np.cumsum(counts)
    n = int(cumulative[-1])
    low = ceil(special.bdtrik(alpha / 2, n, share))
    high = ceil(special.bdtrik(1 - alpha / 2, n, share)) + 1
    return Interval(
        value,
        float(middles[np.searchsorted(cumulative, low)]) if low > 0 else 0.0,
        float(middles[np.searchsorted(cumulative, high)]) if high <= n else inf,
    )
