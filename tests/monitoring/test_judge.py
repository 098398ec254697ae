"""Thresholds and sentences, as tables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from monitoring.judge import Measurements, judge, read_rules, verdict
from monitoring.measure import Drift, Latency, Performance
from monitoring.stats.performance import Estimate

RULES = read_rules()
STEADY = Drift("a", "numeric", 1_000, 0.01, 0.0, 0.5, 0.01, 0.0, 0.0, 0.0)
QUIET = Measurements(
    model="m",
    version=1,
    features=[STEADY],
    score=None,
    latency=Latency(1, 2, 3),
    requests=1_000,
    errors=0,
    performance=None,
    mean_score=0.2,
    reference={"auc": 0.7},
)


def performance(auc: float, seen: float, labels: int = 1_000) -> Performance:
    return Performance(
        labels=labels,
        accuracy=Estimate(0.8, 0.78, 0.82, labels),
        auc=Estimate(auc, auc - 0.02, auc + 0.02, labels),
        seen=Estimate(seen, seen - 0.02, seen + 0.02, labels),
    )


def test_nothing_is_said_of_what_is_steady() -> None:
    """No finding without a reason."""
    assert judge(QUIET, RULES) == []


@pytest.mark.parametrize(
    ("change", "kind", "severity"),
    [
        ({"features": [STEADY._replace(psi_low=0.3, p_value=1e-9)]}, "drift", "digest"),
        ({"features": [STEADY._replace(missing=0.2)]}, "missing", "ticket"),
        ({"features": [STEADY._replace(unseen=0.1)]}, "unseen", "ticket"),
        ({"latency": Latency(1, 20, 40)}, "latency", "page"),
        ({"errors": 50}, "errors", "page"),
        ({"performance": performance(0.6, 0.2)}, "performance", "page"),
        ({"performance": performance(0.7, 0.35)}, "calibration", "ticket"),
    ],
)
def test_each_rule_speaks_alone(change: dict[str, object], kind: str, severity: str) -> None:
    """What crosses one threshold is one finding, of the severity that it deserves."""
    found = judge(replace(QUIET, **change), RULES)  # type: ignore[arg-type]
    assert [(f.kind, f.severity) for f in found] == [(kind, severity)]


@pytest.mark.parametrize(
    "change",
    [
        {"features": [STEADY._replace(psi_low=0.3, p_value=0.2)]},
        {"features": [STEADY._replace(psi_low=0.05, p_value=1e-9)]},
        {"performance": performance(0.6, 0.2, labels=100)},
        {"performance": performance(0.64, 0.2)},
        {"performance": performance(0.7, 0.26)},
    ],
    ids=["uncertain", "too small", "too few labels", "within the tolerance", "within the interval"],
)
def test_what_is_uncertain_or_small_stays_quiet(change: dict[str, object]) -> None:
    """Certain and large enough, or nothing."""
    assert judge(replace(QUIET, **change), RULES) == []  # type: ignore[arg-type]


def test_what_goes_missing_together_is_one_finding() -> None:
    """One cause, one ticket, with the worst feature's figures."""
    names = ["a", "b", "c", "d"]
    gone = [STEADY._replace(feature=n, missing=0.1 * i + 0.1) for i, n in enumerate(names)]
    (finding,) = judge(replace(QUIET, features=gone), RULES)
    assert finding.sentence == "a, b, c and 1 more are missing more often than in the reference"
    assert finding.value == "d 40%, was 0%"


def test_the_verdict_never_says_more_than_is_known() -> None:
    """Unknown is said to be unknown."""
    known = {"profiled": True, "compared": True, "labelled": True, "requests": 10}
    assert "No request yet" in verdict([], **{**known, "requests": 0}).sentence
    assert "without a reference profile" in verdict([], **{**known, "profiled": False}).sentence
    assert "below 30" in verdict([], **{**known, "compared": False}).sentence
    assert "whether it hurts is unknown" in verdict([], **{**known, "labelled": False}).sentence
    assert verdict([], **known).sentence == (
        "Inputs are steady: ranking holds so far, probabilities hold."
    )
