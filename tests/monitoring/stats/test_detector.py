"""Detectors over time, against sums over every possible stream, loops of one line, and simulation.

The guarantees are of expectations, so most of them can be had exactly: all 2^n streams of a few
labels, each with its probability.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from monitoring.stats import detector
from monitoring.stats.detector import KAPPAS, RateDetector, WindowDetector

Floats = detector.Floats
EVERY = np.array(list(product([0.0, 1.0], repeat=8)))

counts = st.tuples(st.integers(0, 50), st.integers(0, 50)).map(lambda both: (both[0], sum(both)))


def mean_s(watch: RateDetector, state: Floats) -> float:
    return float(np.expm1(watch.evidence(state)))


def test_the_sum_is_the_recursion_of_shiryaev_and_roberts() -> None:
    """S <- (1 + S) (1 + lam (x - limit)), one float per bet, in a loop."""
    losses = np.random.default_rng(1).random(300) ** 3
    watch = detector.at_most(0.2)
    lam = (watch.worse - 0.2) / (0.2 * 0.8)
    s = np.zeros(len(lam))
    states = watch.through(watch.start(), losses)
    for loss, state in zip(losses, states, strict=True):
        s = (1 + s) * (1 + lam * (loss - 0.2))
        assert np.expm1(state[2:]) == pytest.approx(s, rel=1e-9)


@pytest.mark.parametrize("limit", [0.02, 0.3, 0.9])
def test_at_its_limit_s_grows_by_one_a_label(limit: float) -> None:
    """Over all 256 streams of eight labels: E S_8 = 8, whether one by one or as one batch."""
    watch = detector.at_most(limit)
    chance = np.prod(np.where(EVERY == 1, limit, 1 - limit), axis=1)
    one_by_one = [mean_s(watch, watch.through(watch.start(), each)[-1]) for each in EVERY]
    at_once = np.expm1(watch.evidence(watch.after(watch.start(), EVERY.sum(1), 8)))
    assert chance @ one_by_one == pytest.approx(8)
    assert chance @ at_once == pytest.approx(8)


def test_below_its_limit_s_grows_by_less_even_where_the_rate_depends_on_the_past() -> None:
    """An error is followed by the limit itself, anything else by a tenth of it."""
    watch = detector.at_most(0.3)
    rates = np.column_stack([np.full(256, 0.3), np.where(EVERY[:, :-1] == 1, 0.3, 0.03)])
    chance = np.prod(np.where(EVERY == 1, rates, 1 - rates), axis=1)
    assert chance.sum() == pytest.approx(1)
    expected = chance @ [mean_s(watch, watch.through(watch.start(), each)[-1]) for each in EVERY]
    assert 0 < expected < 8


@pytest.mark.parametrize("tolerance", [0.0, 0.05])
def test_a_learned_baseline_is_fair_on_average_over_what_it_may_be(tolerance: float) -> None:
    """Each baseline by its weight, each stream by its probability: E S_8 = 8."""
    watch = detector.learned(7, 40, tolerance)
    errors = EVERY.sum(1)[:, None]
    chance = watch.rates**errors * (1 - watch.rates) ** (8 - errors) @ np.exp(watch.log_weights)
    one_by_one = [mean_s(watch, watch.through(watch.start(), each)[-1]) for each in EVERY]
    halves = watch.after(watch.start(), EVERY[:, :5].sum(1), 5)
    halves = watch.after(halves, EVERY[:, 5:].sum(1), 3)
    assert chance.sum() == pytest.approx(1)
    assert chance @ one_by_one == pytest.approx(8)
    assert chance @ np.expm1(watch.evidence(halves)) == pytest.approx(8)


@pytest.mark.parametrize(("errors", "labels"), [(0, 30), (30, 30), (5, 50), (300, 3_000)])
def test_the_learned_baseline_is_the_posterior_of_the_reference(errors: int, labels: int) -> None:
    """Jeffreys' beta distribution, cut at three standard errors: its mean and its spread."""
    truth = stats.beta(errors + 0.5, labels - errors + 0.5)
    watch = detector.learned(errors, labels)
    weights = np.exp(watch.log_weights)
    mean = float(weights @ watch.rates)
    assert mean == pytest.approx(truth.mean(), abs=0.15 * truth.std())
    assert np.sqrt(weights @ (watch.rates - mean) ** 2) == pytest.approx(truth.std(), rel=0.15)
    assert truth.cdf(watch.rates[[0, -1]]) == pytest.approx(stats.norm.cdf([-3, 3]), abs=1e-6)


def test_a_tolerance_is_a_shift_of_any_size_up_to_it() -> None:
    """The mean moves by half of it, the variance grows by that of a uniform distribution."""
    plain, tolerant = detector.learned(3_000, 30_000), detector.learned(3_000, 30_000, 0.02)
    weights = np.exp(tolerant.log_weights)
    mean = float(weights @ tolerant.rates)
    spread = weights @ (tolerant.rates - mean) ** 2
    assert mean == pytest.approx(0.1 + 0.01, abs=5e-4)
    assert spread == pytest.approx(0.1 * 0.9 / 30_000 + 0.02**2 / 12, rel=0.1)
    assert tolerant.worse.min() > plain.worse.min()


@given(counts, counts)
def test_batches_of_one_start_are_one_batch(
    first: tuple[int, int], second: tuple[int, int]
) -> None:
    """All but the added starts: the e-value of two batches is the product of theirs."""
    watch = detector.learned(10, 100)
    high = watch.start() + np.array([0, 0, 300, 300, 300])  # so much that starts do not count
    apart = watch.after(watch.after(high, *first), *second)
    together = watch.after(high, first[0] + second[0], first[1] + second[1])
    assert apart == pytest.approx(together, rel=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0.02, 0.7))
def test_sums_claim_no_more_than_the_losses_themselves(losses: list[float], limit: float) -> None:
    """Chord and squares both stay below the product of 1 + lam (x - limit)."""
    x = np.array(losses)
    watch = detector.at_most(limit, (1.3, 3.0, 20.0))
    lam = (watch.worse - limit) / (limit * (1 - limit))
    truth = np.log1p(len(x) * np.prod(1 + lam * (x[:, None] - limit), axis=0))
    chord = watch.after(watch.start(), x.sum(), len(x))[2:]
    with_squares = watch.after(watch.start(), x.sum(), len(x), (x**2).sum())[2:]
    assert (chord <= with_squares + 1e-9).all()
    assert (with_squares <= truth + 1e-9).all()


def test_squares_find_a_rise_of_smooth_losses_that_sums_do_not() -> None:
    """Losses of .15 +- .02 against a limit of .1: a batch of 60 is enough with their squares."""
    losses = np.random.default_rng(2).normal(0.15, 0.02, 60)
    watch = detector.at_most(0.1, (2.0, 20.0))
    total, squares = losses.sum(), (losses**2).sum()
    chord = watch.evidence(watch.after(watch.start(), total, 60))
    sharp = watch.evidence(watch.after(watch.start(), total, 60, squares))
    assert chord < np.log(1e3) < np.log(1e6) < sharp


@given(st.lists(counts, min_size=1, max_size=6), st.integers(0, 5))
def test_one_more_error_is_never_less_evidence(batches: list[tuple[int, int]], at: int) -> None:
    """Of a known limit. (A learned baseline may take an early error for its own.)"""
    watch, at = detector.at_most(0.1), min(at, len(batches) - 1)
    before = after = watch.start()
    for i, (errors, n) in enumerate(batches):
        before = watch.after(before, errors, n + 1)
        after = watch.after(after, errors + (i == at), n + 1)
    assert watch.evidence(after) >= watch.evidence(before)


def test_an_empty_batch_changes_nothing_and_a_batch_of_one_is_a_label() -> None:
    watch = detector.learned(10, 100)
    some = watch.after(watch.start(), 4, 20)
    assert watch.after(some, 0, 0) == pytest.approx(some)
    assert watch.after(some, 1, 1) == pytest.approx(watch.through(some, np.ones(1))[-1])


def test_detectors_side_by_side_are_those_alone() -> None:
    """A state for each subject, a batch for each subject, and one batch for all."""
    watch = detector.learned(10, 100)
    states = np.tile(watch.start(), (2, 3, 1))
    errors = np.arange(6).reshape(2, 3)
    several = watch.after(watch.after(states, errors, 9), 2, 5)
    for i in np.ndindex(2, 3):
        alone = watch.after(watch.after(watch.start(), errors[i], 9), 2, 5)
        assert several[i] == pytest.approx(alone)
    assert watch.evidence(several).shape == (2, 3)


def test_each_may_have_its_own_baseline() -> None:
    watches = [detector.learned(k, 100) for k in (3, 10, 40)]
    limits = [detector.at_most(limit) for limit in (0.03, 0.1, 0.4)]
    for several in watches, limits:
        both = detector.side_by_side(several)
        states = both.after(both.start(), np.array([5, 6, 7]), 12, np.array([4.0, 5.0, 6.0]))
        for i, watch in enumerate(several):
            alone = watch.after(watch.start(), 5 + i, 12, 4.0 + i)
            assert states[i] == pytest.approx(alone)


def test_years_of_harm_do_not_overflow() -> None:
    watch = detector.at_most(0.01)
    state = watch.after(watch.after(watch.start(), 500_000_000, 1_000_000_000), 9, 10)
    assert np.isfinite(state).all()
    assert detector.alarms(watch.evidence(state), 1e300)


def test_a_stream_at_the_baseline_alarms_no_more_often_than_promised() -> None:
    """400 runs of 2,000 labels, A = 20,000: at most one run in ten.

    40 expected at most; more than 60 of 400 happen with probability .001.
    """
    chance = np.random.default_rng(3)
    wrong = 0
    for reference in chance.binomial(500, 0.1, 400):
        watch = detector.learned(int(reference), 500)
        states = watch.through(watch.start(), (chance.random(2_000) < 0.1).astype(np.float64))
        wrong += bool(detector.alarms(watch.evidence(states), 20_000).any())
    assert wrong <= 60


def test_a_missed_change_does_not_become_the_baseline() -> None:
    """Far above what the reference allows, evidence keeps growing however long it lasts."""
    watch = detector.learned(100, 1_000)
    state = watch.start()
    seen = []
    for _ in range(50):
        state = watch.after(state, 160, 1_000)
        seen.append(float(watch.evidence(state)))
    assert seen[-1] - seen[-2] == pytest.approx(seen[-2] - seen[-3], rel=0.05)
    assert seen[-1] - seen[-2] > 1


def test_a_better_stream_does_not_lower_the_bar() -> None:
    """After a million labels at .05, the reference's own .10 is no alarm."""
    watch = detector.learned(1_000, 10_000)
    state = watch.after(watch.start(), 50_000, 1_000_000)
    for _ in range(20):
        state = watch.after(state, 100, 1_000)
    assert not detector.alarms(watch.evidence(state), 1e4)


@pytest.mark.parametrize("bad", [(5, 4), (-1, 4), (0, 0)])
def test_a_baseline_needs_labels(bad: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="is no baseline"):
        detector.learned(*bad)


@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_nothing_is_worse_than_everything(limit: float) -> None:
    with pytest.raises(ValueError, match="no rate is worse"):
        detector.at_most(limit)


# --- windows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kappa", KAPPAS)
def test_the_calibrator_is_an_e_value(kappa: float) -> None:
    """Its integral over uniform p-values is one; S after one window is the e-value."""
    watch = WindowDetector((kappa,))

    def e(p: float) -> float:
        return float(np.expm1(watch.after(watch.start(), p)[0]))

    # p = q^(1 / kappa) takes the singularity away.
    integral, _ = integrate.quad(lambda q: e(q ** (1 / kappa)) * q ** (1 / kappa - 1) / kappa, 0, 1)
    assert integral == pytest.approx(1, rel=1e-6)


def test_windows_follow_the_recursion() -> None:
    p_values = np.random.default_rng(4).random((30, 2))
    watch = WindowDetector()
    state, s = np.zeros((2, 4)), np.zeros((2, 4))
    for p in p_values:
        state = watch.after(state, p)
        for subject in 0, 1:
            for bet, kappa in enumerate(KAPPAS):
                s[subject, bet] = (1 + s[subject, bet]) * kappa * p[subject] ** (kappa - 1)
    assert np.expm1(state) == pytest.approx(s)
    assert np.expm1(watch.evidence(state)) == pytest.approx(s.mean(1))
    assert np.expm1(detector.pooled(watch.evidence(state))) == pytest.approx(s.mean())


@given(st.floats(0, 1), st.floats(0, 1))
def test_smaller_p_values_are_more_evidence(p: float, q: float) -> None:
    watch = WindowDetector()
    some = watch.after(watch.start(), 0.3)
    low, high = (watch.evidence(watch.after(some, each)) for each in sorted((p, q)))
    assert low >= high
    assert np.isfinite(low)


def test_weak_lasting_drift_is_found_sooner_than_by_single_tests() -> None:
    """p-values of a one-sided test half a standard error off: 400 runs, A = 1,000 windows.

    A single test at 1 / 1,000 waits 1 / Phi(-2.59), which is 208 windows on average, 144 in the
    median; both false alarm once in 1,000 windows or less.
    """
    watch = WindowDetector()
    p_values = stats.norm.sf(np.random.default_rng(5).normal(0.5, 1, (400, 400)))
    state = np.tile(watch.start(), (400, 1))
    first = np.full(400, np.inf)
    for window, p in enumerate(p_values.T, 1):
        state = watch.after(state, p)
        first[np.isinf(first) & detector.alarms(watch.evidence(state), 1_000)] = window
    assert np.median(first) < 60


# --- budget ---------------------------------------------------------------------------------------


@given(st.floats(0.01, 100), st.floats(1, 1000), st.floats(1, 10_000), st.floats(1, 1e6))
def test_a_budget_is_spent_and_not_exceeded(
    alarms: float, days: float, windows: float, labels: float
) -> None:
    """Windows x alpha + windows / A + labels / A, of pages and digest, are the false alarms."""
    page, digest = detector.budget(alarms, days, windows, labels)
    spent = sum(
        days * windows * (each.alpha + 1 / each.windows) + days * labels / each.labels
        for each in (page, digest)
    )
    assert spent == pytest.approx(alarms) or (page.alpha == 1 and spent < alarms)


def test_one_page_in_ninety_days_of_ten_minute_windows() -> None:
    page, digest = detector.budget(1, 90, 144)
    assert page == digest == (0.25 / 12_960, 4 * 12_960, np.inf)
    with pytest.raises(ValueError, match="positive"):
        detector.budget(1, 90, 0)
