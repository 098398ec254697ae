"""Labels that come late are waited for."""

from __future__ import annotations

import numpy as np
from scipy import stats

from monitoring.stats.maturity import MATURE, mature, plateau


def test_the_newest_hours_of_a_delay_are_held_back() -> None:
    """Exponential delays of three hours: an hour is 80 % there after 4.8 hours."""
    age = np.arange(24)
    rows = np.full(24, 100_000)
    labels = np.round(rows * 0.9 * -np.expm1(-age / 3)).astype(np.int64)
    expected = plateau(labels, rows)
    assert abs(expected - 0.9) < 0.01
    assert mature(labels, rows, expected).tolist() == [False] * 5 + [True] * 19


def test_a_small_sample_is_not_taken_for_a_late_one() -> None:
    """Labels for one in twenty: chance alone leaves hours short, at most 2.5 % are held back."""
    chance = np.random.default_rng(1)
    rows = np.full(4_000, 200)
    labels = chance.binomial(rows, 0.05)
    held = int((~mature(labels, rows, 0.05 / MATURE)).sum())
    assert held <= stats.binom.ppf(0.999, len(rows), 0.04)
    assert held > 0


def test_the_bound_is_wilsons() -> None:
    high = stats.binomtest(30, 200).proportion_ci(method="wilson").high
    labels, rows = np.array([30]), np.array([200])
    assert mature(labels, rows, (high - 1e-9) / MATURE).all()
    assert not mature(labels, rows, (high + 1e-9) / MATURE).any()


def test_nothing_known_holds_nothing_back() -> None:
    labels, rows = np.array([0, 3]), np.array([0, 50])
    assert plateau(labels, rows) == 0.0
    assert mature(labels, rows, 0.0).all()
