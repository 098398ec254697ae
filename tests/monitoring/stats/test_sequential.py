"""Sequential evidence against quadrature, brute force, published numbers and simulated peeking."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from math import inf, isfinite, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, optimize, special, stats

from monitoring.stats import sequential

HUGE = 10**7
LIMITS = (1e-6, 0.02, 0.5, 0.98, 1 - 1e-6)


def log_integral_e_rate(failures: int, n: int, limit: float) -> float:
    """The mixture by quadrature, scaled by its peak and cut where the peak is."""

    def log_ratio(p: float) -> float:
        return float(
            special.xlogy(failures, p / limit)
            + special.xlogy(n - failures, (1 - p) / (1 - limit))
            + log(10 / (1 - limit))
            + special.xlogy(9, (1 - p) / (1 - limit))
        )

    share = failures / (n + 9)
    width = ((share * (1 - share) + 1 / n) / n) ** 0.5
    peak = min(max(share, limit), 1)
    cuts = sorted({limit, 1.0, *np.clip(peak + width * np.arange(-12, 13, 2), limit, 1)})
    top = log_ratio(peak)
    pieces = (
        integrate.quad(lambda p: np.exp(log_ratio(p) - top), low, high)[0]
        for low, high in pairwise(cuts)
    )
    return top + log(sum(pieces))


@pytest.mark.parametrize(
    ("failures", "n", "limit"),
    [
        *[(k, 200, limit) for k in (0, 1, 7, 100, 199, 200) for limit in (0.02, 0.5, 0.97)],
        (1_000, 50_000, 0.02),
        (1_100, 50_000, 0.02),
    ],
)
def test_the_rate_mixture_is_its_integral(failures: int, n: int, limit: float) -> None:
    """The closed form with incomplete beta functions, against quadrature."""
    found = sequential.log_e_rate(failures, n, limit)
    assert found == pytest.approx(log_integral_e_rate(failures, n, limit), abs=1e-6)


@pytest.mark.parametrize(("failures", "n", "limit"), [(0, 2_000, 0.5), (90, 3_000, 0.4)])
def test_the_rate_mixture_far_below_the_limit(failures: int, n: int, limit: float) -> None:
    """Where the incomplete beta function is 0 in floats, the mixture is still its integral."""
    assert special.betaincc(failures + 1, n - failures + 10, limit) == 0
    far = sequential.log_e_rate(failures, n, limit)

    def integrand(v: float) -> float:
        odds = (1 - limit) / limit
        return float(10 * (1 + v * odds) ** failures * (1 - v) ** (n - failures + 9))

    truth = integrate.quad(integrand, 0, 0.05)[0] + integrate.quad(integrand, 0.05, 1)[0]
    assert far == pytest.approx(log(truth), abs=1e-6)


@pytest.mark.parametrize(("n", "limit"), [(1, 0.02), (50, 0.1), (HUGE, 0.3)])
def test_the_rate_mixture_without_and_with_nothing_but_failures(n: int, limit: float) -> None:
    """10 / (n + 10); and limit^-n times the upper tail of Beta(n + 1, 10), scaled."""
    assert sequential.log_e_rate(0, n, limit) == pytest.approx(log(10 / (n + 10)), abs=1e-6)
    tail = stats.beta(n + 1, 10).logsf(limit) + special.betaln(n + 1, 10)
    all_failed = log(10) + tail - n * log(limit) - 10 * np.log1p(-limit)
    assert sequential.log_e_rate(n, n, limit) == pytest.approx(all_failed, rel=1e-9)


@given(st.integers(0, 300), st.integers(0, 300), st.floats(0.001, 0.98), st.floats(0.001, 0.01))
def test_a_higher_limit_leaves_less_evidence(k: int, good: int, limit: float, more: float) -> None:
    """What makes the champion's upper bound a sound stand-in for its rate."""
    assert (
        sequential.log_e_rate(k, k + good, limit + more)
        <= sequential.log_e_rate(k, k + good, limit) + 1e-9
    )


@pytest.mark.parametrize("pair", [(0, 0), (3, 0), (10, 14), (300, 420)])
def test_the_paired_mixture_is_its_integral(pair: tuple[int, int]) -> None:
    """Beta(1/2, 1/2) over the share of the first, against a fair coin, by quadrature."""
    heads, tails = pair

    def likelihood_ratio(angle: float) -> float:  # p = sin^2 has density dangle 2 / pi
        log_p, log_q = 2 * np.log(np.sin(angle)), 2 * np.log(np.cos(angle))
        return float(np.exp(heads * (log_p + log(2)) + tails * (log_q + log(2))) * 2 / np.pi)

    truth = integrate.quad(likelihood_ratio, 0, np.pi / 2, limit=200)[0]
    assert sequential.log_e_paired(heads, tails) == pytest.approx(log(truth), abs=1e-6)


@given(st.integers(0, HUGE), st.integers(0, HUGE))
def test_the_paired_evidence_knows_no_order(first: int, second: int) -> None:
    """Neither arm is favoured."""
    assert sequential.log_e_paired(first, second) == sequential.log_e_paired(second, first)


@pytest.mark.parametrize(("k", "n", "alpha"), [(3, 40, 0.05), (20, 40, 0.01), (1, HUGE, 0.05)])
def test_the_rate_sequence_ends_where_the_mixture_says(k: int, n: int, alpha: float) -> None:
    """At both ends the beta-binomial over the binomial likelihood is 1 / alpha."""
    found = sequential.rate_sequence(k, n, alpha)
    assert found is not None
    for end in found.low, found.high:
        mixture = stats.betabinom.logpmf(k, n, 0.5, 0.5)
        ratio = mixture - stats.binom.logpmf(k, n, end)
        assert ratio == pytest.approx(-log(alpha), abs=1e-4)


@pytest.mark.parametrize("counts", [(9, 20, 31), (0, 12, 28), (25, 3, 0), (0, 0, 30), (0, 40, 0)])
def test_the_paired_interval_is_the_range_over_the_simplex(counts: tuple[int, int, int]) -> None:
    """The profile against every point of a fine grid inside the confidence set."""
    n, steps = sum(counts), 1_000
    p10, p01 = (axis / steps for axis in np.mgrid[0 : steps + 1, 0 : steps + 1])
    p0 = 1 - p10 - p01
    mixture = stats.dirichlet_multinomial.logpmf(counts, [0.5] * 3, n)
    coefficient = stats.multinomial.logpmf(counts, n, np.array(counts) / n)
    coefficient -= sum(special.xlogy(count, count / n) for count in counts)
    cells = np.stack([p10, p01, np.maximum(p0, 0)])
    likelihood = special.xlogy(np.reshape(counts, (3, 1, 1)), cells).sum(0)
    inside = (p0 > -1e-9) & (mixture - coefficient - likelihood <= log(20))
    found = sequential.paired_difference(counts[0], counts[1], n)
    assert found is not None
    assert found.low == pytest.approx((p01 - p10)[inside].min(), abs=0.004)
    assert found.high == pytest.approx((p01 - p10)[inside].max(), abs=0.004)
    assert found.low - 1e-9 <= (p01 - p10)[inside].min()
    assert found.high + 1e-9 >= (p01 - p10)[inside].max()


def test_the_profile_of_many_rows_is_scipys() -> None:
    """The closed root against bounded minimisation, for small and large counts."""
    random = np.random.default_rng(0)
    for counts in (*random.integers(1, 50, (30, 3)), np.array([30, 5_000, 9_000_000])):
        first, second, same = map(int, counts)
        for d in random.uniform(-0.9, 0.9, 5):

            def loss(p: float, counts: np.ndarray = counts, d: float = d) -> float:
                return -float(special.xlogy(counts, [p, p + d, max(1 - 2 * p - d, 0)]).sum())

            bounds = (max(0, -d), (1 - d) / 2)
            truth = optimize.minimize_scalar(loss, bounds=bounds, options={"xatol": 1e-12})
            found = sequential._profile(first, second, same, float(d))
            assert found == pytest.approx(-truth.fun, rel=1e-9)


@given(
    st.integers(0, 200), st.integers(0, 200), st.integers(0, 800), st.sampled_from([2, 10, 10_000])
)
def test_the_paired_interval_mirrors_holds_its_value_and_narrows(
    first: int, second: int, same: int, times: int
) -> None:
    """Swapped arms swap signs; the same shares in more rows are known better."""
    n = first + second + same
    found = sequential.paired_difference(first, second, n)
    swapped = sequential.paired_difference(second, first, n)
    more = sequential.paired_difference(first * times, second * times, n * times)
    if n == 0:
        assert found is swapped is more is None
        return
    assert found is not None
    assert swapped is not None
    assert more is not None
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert swapped == pytest.approx((-found.value, -found.high, -found.low), abs=1e-12)
    assert more.high - more.low < found.high - found.low


@given(st.integers(0, 300), st.integers(0, 300), st.sampled_from([2, 10, 10_000]))
def test_the_rate_sequence_mirrors_holds_its_value_and_narrows(
    k: int, other: int, times: int
) -> None:
    """Failures mirror successes; the same share of more is known better."""
    n = k + other
    found = sequential.rate_sequence(k, n)
    mirrored = sequential.rate_sequence(other, n)
    more = sequential.rate_sequence(k * times, n * times)
    if n == 0:
        assert found is mirrored is more is None
        return
    assert found is not None
    assert mirrored is not None
    assert more is not None
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert mirrored == pytest.approx((1 - found.value, 1 - found.high, 1 - found.low), abs=1e-12)
    assert more.high - more.low < found.high - found.low


def test_newcombes_published_example() -> None:
    """56/70 against 48/80 (Newcombe 1998, table II a): .2, .0524 to .3339; and its mirror image."""
    found = sequential.rate_difference(48, 80, 56, 70)
    assert found == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    mirrored = sequential.rate_difference(56, 70, 48, 80)
    assert mirrored == pytest.approx((-0.2, -0.3339, -0.0524), abs=5e-5)


def test_newcombes_interval_at_its_ends() -> None:
    """0/10 against 10/10 stays within 1; his example (h): 10/10 and 0/10, .6075 to 1."""
    assert sequential.rate_difference(0, 10, 10, 10) == pytest.approx((1, 0.6075, 1), abs=5e-5)


def test_the_split_with_two_even_arms_is_a_beta_mixture() -> None:
    """Beta-binomial over the fair binomial, both scipy's."""
    for counts in ((0, 0), (40, 60), (5_000, 5_300)):
        n = sum(counts)
        truth = stats.betabinom.logpmf(counts[0], n, 50, 50) - stats.binom.logpmf(counts[0], n, 0.5)
        assert sequential.log_e_split(counts, (1, 1)) == pytest.approx(truth, abs=1e-6)


def test_the_split_with_three_arms_is_a_dirichlet_multinomial() -> None:
    """And arms of share 0 do not count until one has a request."""
    counts, shares = (600, 290, 110), np.array([0.6, 0.3, 0.1])
    truth = stats.dirichlet_multinomial.logpmf(counts, 100 * shares, 1_000)
    truth -= stats.multinomial.logpmf(counts, 1_000, shares)
    found = sequential.log_e_split
    assert found(counts, shares.tolist()) == pytest.approx(truth)
    assert found((*counts, 0), (60, 30, 10, 0)) == pytest.approx(truth)
    assert found((*counts, 1), (60, 30, 10, 0)) == inf


def test_the_interval_of_a_quantile_covers_and_needs_observations() -> None:
    """The true quantile is inside in 95 % of samples; a p99 needs hundreds."""
    random = np.random.default_rng(0)
    edges = 2 ** (np.arange(161) / 8)
    middles = np.sqrt(edges[1:] * edges[:-1])
    truth = stats.lognorm(0.5, scale=np.exp(5)).ppf(0.9)
    covered = 0
    for _ in range(300):
        counts = np.histogram(random.lognormal(5, 0.5, 600), edges)[0].astype(np.int64)
        found = sequential.quantile_interval(counts, middles, 0.9)
        assert found is not None
        assert found.low <= found.value <= found.high
        covered += found.low / 1.05 <= truth <= found.high * 1.05  # no finer than its buckets
    assert covered >= 280
    one = np.zeros(160, np.int64)
    assert sequential.quantile_interval(one, middles, 0.99) is None
    one[80] = 367
    few, enough = (sequential.quantile_interval(one + (one > 0) * i, middles, 0.99) for i in (0, 1))
    assert few is not None
    assert enough is not None
    assert few.high == inf
    assert enough.high == enough.value


@pytest.mark.parametrize(("n", "share"), [(30, 0.5), (600, 0.9), (100_000, 0.99)])
def test_order_statistics_are_the_binomials(n: int, share: float) -> None:
    """With one observation a bucket, the bounds are ranks, tight and covering by scipy's cdf."""
    found = sequential.quantile_interval(
        np.ones(n, np.int64), np.arange(1, n + 1, dtype=float), share, 0.05
    )
    assert found is not None
    below = stats.binom(n, share)
    assert below.cdf(found.low - 1) <= 0.025 < below.cdf(found.low)
    assert below.sf(found.high - 1) <= 0.025 < below.sf(found.high - 2)


def test_labels_to_decide_is_the_first_that_decides() -> None:
    """One pair at a time until the evidence is there; none is coming where the split is even."""
    first, second = 40, 60
    more = sequential.labels_to_decide(first, second)
    assert more is not None
    later = round(first + 0.4 * more), round(second + 0.6 * more)
    assert sequential.log_e_paired(*later) == pytest.approx(log(20), abs=0.2)
    assert sequential.labels_to_decide(*later) in range(10)  # rounded counts
    assert sequential.labels_to_decide(0, 3) == 4
    assert sequential.log_e_paired(0, 6) < log(20) <= sequential.log_e_paired(0, 7)
    assert sequential.labels_to_decide(10, 90) == 0
    assert sequential.labels_to_decide(50, 50) is None
    assert sequential.labels_to_decide(0, 0) is None
    assert sequential.labels_to_decide(first, second, limit=more) == more
    assert sequential.labels_to_decide(first, second, limit=more - 1) is None


def test_extreme_counts_stay_finite() -> None:
    """0, 1, n - 1 and n of one and of ten million."""
    for n in (1, 2, HUGE):
        for k in {0, 1, n - 1, n}:
            numbers = [sequential.log_e_rate(k, n, limit) for limit in LIMITS]
            numbers += [sequential.log_e_paired(k, n - k), sequential.log_e_paired(k, n)]
            numbers += [sequential.log_e_difference(k, n, other, n, 0.01) for other in (0, n)]
            numbers += [sequential.log_e_split((k, n - k), (0.99, 0.01))]
            for alpha in (0.05, 1e-9):
                numbers += sequential.rate_sequence(k, n, alpha) or [inf]
                numbers += sequential.paired_difference(k, n - k, n, alpha) or [inf]
                numbers += sequential.paired_difference(k, 0, n, alpha) or [inf]
                numbers += sequential.rate_difference(k, n, n - k, n, alpha) or [inf]
            assert all(map(isfinite, numbers))


def test_nothing_comes_of_nothing() -> None:
    """Without observations there is neither an estimate nor evidence."""
    assert sequential.log_e_rate(0, 0, 0.02) == pytest.approx(0)
    assert sequential.log_e_paired(0, 0) == 0
    assert sequential.log_e_split((0, 0), (0.9, 0.1)) == pytest.approx(0)
    assert sequential.log_e_difference(0, 0, 5, 10, 0.01) == 0
    assert sequential.log_e_difference(5, 10, 0, 0, 0.01) == 0
    assert sequential.log_e_difference(10, 10, 10, 10, 0.01) == 0
    assert sequential.rate_difference(0, 0, 5, 10) is None
    assert sequential.rate_difference(5, 10, 0, 0) is None


# Simulated peeking. A rule "reject once the evidence reaches log(1 / alpha)" is a boundary on the
# counts, found once with the function under test; the runs are then compared with it as arrays.


@cache
def paired_boundary(total: int, alpha: float) -> int:
    """The smallest count of the more frequent kind among `total` discordant pairs that decides."""
    for larger in range((total + 1) // 2, total + 1):
        if sequential.log_e_paired(larger, total - larger) >= -log(alpha):
            return larger
    return total + 1


def first_winners(p10: float, p01: float, runs: int) -> np.ndarray:
    """Pairs to a winner in each run of 20,000 with a look every 50; infinite if none."""
    random = np.random.default_rng(0)
    seen = random.multinomial(50, (p10, p01, 1 - p10 - p01), (runs, 400)).cumsum(axis=1)[..., :2]
    total = seen.sum(axis=2)
    boundary = np.array([0, *(paired_boundary(m, 0.05) for m in range(1, int(total.max()) + 1))])
    boundary[0] = 1
    won = seen.max(axis=2) >= boundary[total]
    return np.where(won.any(axis=1), (won.argmax(axis=1) + 1) * 50, inf)


def test_equal_models_seldom_have_a_winner() -> None:
    """10 % disagreement, 400 looks: about 2 % of runs, where repeated McNemar tests give 38 %."""
    winners = np.isfinite(first_winners(0.05, 0.05, 4_000)).mean()
    assert winners == pytest.approx(0.021, abs=0.008)


def test_two_points_better_wins_in_a_few_thousand_pairs() -> None:
    """4 % against 6 %: half of the runs end by about 2,550 pairs."""
    assert np.median(first_winners(0.04, 0.06, 2_000)) == pytest.approx(2_550, abs=200)


def first_alarms(rate: float, limit: float, alpha: float, runs: int) -> np.ndarray:
    """Requests to the alarm in each run of 2,000 with a look every 50; infinite if none."""
    random = np.random.default_rng(0)
    seen = random.binomial(50, rate, (runs, 40)).cumsum(axis=1)
    looks = np.arange(1, 41) * 50
    boundary = [
        next(k for k in range(n) if sequential.log_e_rate(k, int(n), limit) >= -log(alpha))
        for n in looks
    ]
    alarm = seen >= np.array(boundary)
    return np.where(alarm.any(axis=1), looks[alarm.argmax(axis=1)], inf)


def test_a_healthy_candidate_stays_and_a_sick_one_goes() -> None:
    """Limit 2 %, alpha .01: 1 % is left alone, 5 % always found, half by 350 requests."""
    assert np.isfinite(first_alarms(0.01, 0.02, 0.01, 10_000)).mean() < 0.005
    sick = first_alarms(0.05, 0.02, 0.01, 2_000)
    assert np.isfinite(sick).mean() > 0.995
    assert np.median(sick) == pytest.approx(350, abs=50)
    assert np.median(first_alarms(0.5, 0.02, 0.01, 2_000)) == 50


@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_exactly_at_the_limit_the_alarm_keeps_its_level(alpha: float) -> None:
    """The worst case of the null, at 40 looks."""
    assert np.isfinite(first_alarms(0.02, 0.02, alpha, 20_000)).mean() <= alpha


def test_the_mixture_is_a_supermartingale_below_the_limit() -> None:
    """E[e | k failures of n] <= e, by the two possible next requests, for rates up to the limit."""
    for limit in (0.02, 0.3):
        for k, n in ((0, 0), (0, 10), (3, 10), (40, 500), (500, 500)):
            now, good, bad = (
                sequential.log_e_rate(*counts, limit)
                for counts in ((k, n), (k, n + 1), (k + 1, n + 1))
            )
            for rate in (0, limit / 2, limit):
                expected = rate * np.exp(bad - now) + (1 - rate) * np.exp(good - now)
                assert expected <= 1 + 1e-9
                assert rate < limit or expected == pytest.approx(1)


def evidence(rates: tuple[float, float], margin: float, runs: int) -> np.ndarray:
    """Evidence of each run after each 100 requests an arm of 2,000: champion, candidate."""
    random = np.random.default_rng(0)
    seen = random.binomial(100, np.array(rates)[:, None, None], (2, runs, 20)).cumsum(axis=2)
    look = cache(sequential.log_e_difference)
    return np.array(
        [
            [look(int(b), i * 100 + 100, int(a), i * 100 + 100, margin) for i, (a, b) in looks]
            for looks in (list(enumerate(zip(*run))) for run in zip(*seen))
        ]
    )


def test_an_equal_candidate_stays_and_a_worse_one_goes() -> None:
    """Two arms at 3 % with margin 0; 12 % against 1 % with a margin of one point."""
    assert (evidence((0.03, 0.03), 0.0, 200).max(axis=1) >= log(100)).mean() <= 0.012
    assert (evidence((0.01, 0.12), 0.01, 50)[:, -1] >= log(100)).all()


def test_the_rate_sequence_covers_at_all_looks_at_once() -> None:
    """At 40 looks of 50, at most 5 % of runs ever miss the truth."""
    random = np.random.default_rng(0)
    interval = cache(sequential.rate_sequence)
    missed = 0
    for run in random.binomial(50, 0.1, (400, 40)).cumsum(axis=1).tolist():
        found = [interval(k, 50 * look) for look, k in enumerate(run, 1)]
        missed += any(x is None or not x.low <= 0.1 <= x.high for x in found)
    assert missed <= 0.05 * 400


def test_the_paired_interval_covers_at_all_looks_at_once() -> None:
    """7 % against 4 %, 20 looks of 100: at most 5 % of runs ever miss the three points."""
    random = np.random.default_rng(0)
    missed = 0
    for run in random.multinomial(100, (0.04, 0.07, 0.89), (300, 20)).cumsum(axis=1).tolist():
        found = [sequential.paired_difference(a, b, a + b + c) for a, b, c in run]
        missed += any(x is None or not x.low <= 0.03 <= x.high for x in found)
    assert missed <= 0.05 * 300


def test_the_promised_split_is_seldom_called_broken() -> None:
    """99:1 kept, 40 looks of 100, alpha .01; 98:2 instead is found within 4,000 requests."""
    random = np.random.default_rng(0)
    alarms = {}
    for true in (0.01, 0.02):
        found = cache(sequential.log_e_split)
        runs = random.binomial(100, true, (1_000, 40)).cumsum(axis=1).tolist()
        alarms[true] = np.mean(
            [
                any(
                    found((100 * look - k, k), (0.99, 0.01)) >= log(100)
                    for look, k in enumerate(run, 1)
                )
                for run in runs
            ]
        )
    assert alarms[0.01] <= 0.01
    assert alarms[0.02] > 0.95
