"""Thresholds and sentences, as tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from monitoring.examine import Examined
from monitoring.fairness import Unequal
from monitoring.judge import Measurements, judge
from monitoring.measure import Latency, Performance
from monitoring.outlook import Outlook
from monitoring.rules import read_rules
from monitoring.stats.causes import Gap
from monitoring.stats.kernel import Discrepancy
from monitoring.stats.performance import Estimate
from monitoring.stats.sequential import Interval
from monitoring.verdict import verdict
from monitoring.watch import Fault, Seen, Watched

RULES = read_rules()
STEADY = Examined("a", "numeric", 1_000, 0.01, 0.0, 0.5, 0.01, 0.0, 0.0, 0.0)
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
    mature_score=0.2,
    reference={"auc": 0.7},
)


def watched(*faults: Fault, wrong: int = 0, **more: Any) -> Watched:
    """One closed window of 1,000 labelled rows."""
    seen = Seen(9, 1_000, 1.0, 1.0, faults, labels=1_000, wrong=wrong, graded=True, **more)
    return Watched(next=10, to_grade=10, seen=(seen,))


def fault(test: str = "missing", feature: str = "a", now: float = 0.2, **more: Any) -> Fault:
    return Fault(feature, test, now, 0.0, 1e-9, **{"sudden": True, **more})


def counted(*rows: int) -> Watched:
    """Windows of so many rows."""
    return Watched(10, 10, seen=tuple(Seen(at, n, 1.0, 1.0) for at, n in enumerate(rows)))


def gap_of(value: float) -> Gap:
    return Gap("F", "M", "selection", 900, Interval(value, value - 0.05, value + 0.05))


FORETOLD = Outlook("accuracy", 0.7, 0.68, 0.72, 0.8, 1_000, 0, "scores alone", 0.0, False)


def performance(auc: float, seen: float, labels: int = 1_000) -> Performance:
    return Performance(
        labels=labels,
        accuracy=Estimate(0.8, 0.78, 0.82, labels),
        auc=Estimate(auc, auc - 0.02, auc + 0.02, labels),
        seen=Estimate(seen, seen - 0.02, seen + 0.02, labels),
    )


def off(value: float) -> Performance:
    """A regression's errors."""
    return Performance(1_000, None, mae=Estimate(value, value - 0.2, value + 0.2, 1_000))


def test_nothing_is_said_of_what_is_steady() -> None:
    """No finding without a reason."""
    assert judge(QUIET, RULES) == []


@pytest.mark.parametrize(
    ("change", "kind", "severity"),
    [
        ({"features": [STEADY._replace(psi_low=0.3, p_value=1e-9)]}, "drift", "digest"),
        ({"whole": Discrepancy(500, 9.0, 1e-9, 0.05)}, "drift", "digest"),
        ({"watched": watched(fault())}, "missing", "page"),
        ({"watched": watched(fault(now=0.03))}, "missing", "ticket"),
        ({"watched": watched(fault(sudden=False))}, "missing", "ticket"),
        ({"watched": Watched(10, 10, open_faults=(fault(),))}, "missing", "page"),
        ({"watched": watched(fault("unseen", now=0.1))}, "unseen", "page"),
        ({"watched": watched(fault("spike", value="0 to 1"))}, "spike", "page"),
        ({"watched": watched(fault("outside", sudden=False))}, "outside", "ticket"),
        ({"watched": watched(wrong=300, harmful=True), "baseline": (20, 100)}, "harm", "page"),
        ({"watched": watched(wrong=250), "lasting": True, "baseline": (20, 100)}, "harm", "page"),
        ({"watched": Watched(10, 10, distrust="too low")}, "concept", "ticket"),
        ({"outlook": FORETOLD}, "outlook", "ticket"),
        ({"better": 1}, "release", "page"),
        ({"moves": True}, "drift", "digest"),
        ({"watched": counted(*[1_000] * 8, 300)}, "volume", "ticket"),
        ({"unequal": [Unequal("sex", gap_of(-0.2))]}, "fairness", "ticket"),
        ({"latency": Latency(1, 20, 40)}, "latency", "page"),
        ({"errors": 50}, "errors", "page"),
        ({"mature": performance(0.6, 0.2)}, "performance", "page"),
        ({"mature": performance(0.7, 0.35)}, "calibration", "ticket"),
        ({"mature": off(9.0), "reference": {"mae": 7.0}}, "performance", "page"),
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
        {"mature": performance(0.6, 0.2, labels=100)},
        {"mature": performance(0.64, 0.2)},
        {"mature": performance(0.7, 0.26)},
        {"mature": off(9.0), "reference": {"mae": 8.5}},
        {"watched": watched(fault(now=0.009))},
        {"unequal": [Unequal("sex", gap_of(-0.12))]},
        {"watched": counted(*[1_000] * 8, 700)},
        {"watched": counted(*[1_000, 300] * 5, 250)},
        {"whole": Discrepancy(500, 9.0, 1e-9, 0.005)},
        {"whole": Discrepancy(500, 9.0, 0.2, 0.05)},
        {"watched": watched(wrong=300), "baseline": (20, 100)},
        {"outlook": FORETOLD._replace(high=0.78)},
        {"outlook": FORETOLD, "watched": Watched(10, 10), "lasting": True},
    ],
    ids=[
        "uncertain",
        "too small",
        "too few labels",
        "within the tolerance",
        "within the interval",
        "hardly further off",
        "a fault of a few",
        "a gap within the tolerance",
        "somewhat fewer rows",
        "windows that vary as much",
        "together, but small",
        "together, but uncertain",
        "wrong, but not surely harmful",
        "foretold within the tolerance",
        "foretold where labels speak",
    ],
)
def test_what_is_uncertain_or_small_stays_quiet(change: dict[str, object]) -> None:
    """Certain and large enough, or nothing."""
    assert judge(replace(QUIET, **change), RULES) == []  # type: ignore[arg-type]


def test_what_goes_missing_together_is_one_finding() -> None:
    """One cause, one page, with the worst feature's figures."""
    gone = [fault(feature=name, now=0.1 * i + 0.1) for i, name in enumerate("abcd")]
    (finding,) = judge(replace(QUIET, watched=watched(*gone)), RULES)
    assert finding.sentence == "a, b, c and 1 more are missing more often than in the reference"
    assert finding.value == "d 40%, was 0%"


def told(**change: Any) -> Any:
    """The verdict on what is steady and labelled, but for a change."""
    measured = replace(QUIET, performance=performance(0.7, 0.2), baseline=(200, 1_000))
    measured = replace(measured, **change)
    return verdict(measured, judge(measured, RULES))


def test_the_verdict_never_says_more_than_is_known() -> None:
    """Unknown is said to be unknown."""
    assert "No request yet" in told(requests=0).sentence
    assert "without a reference profile" in told(profiled=False, features=[]).sentence
    assert "too few rows or no features" in told(features=[]).sentence
    assert "off by 9" in told(performance=off(9.0)).sentence
    labelled = Performance(1_000, Estimate(0.8, 0.78, 0.82, 1_000))
    assert "right on 80.0%, more than that is not known" in told(performance=labelled).sentence
    assert "whether it hurts is unknown" in told(performance=None).sentence
    assert told().sentence == "Inputs are steady: ranking holds so far, probabilities hold."


MOVED: dict[str, Any] = {"features": [STEADY._replace(psi_low=0.3, p_value=1e-9)]}
WORSE: dict[str, Any] = {"watched": watched(wrong=300, harmful=True)}
DISTRUSTED = msgspec.structs.replace(WORSE["watched"], distrust="too high")


@pytest.mark.parametrize(
    ("change", "kind", "level", "action"),
    [
        ({}, "steady", "ok", "Nothing to do"),
        (MOVED, "benign shift", "digest", "Nothing to do now"),
        ({**MOVED, **WORSE}, "harmful shift", "page", "Retrain on recent data"),
        ({"outlook": FORETOLD}, "harmful shift", "ticket", "Retrain on recent data"),
        (WORSE, "concept drift", "page", "with recent labels"),
        ({**MOVED, "watched": DISTRUSTED}, "concept drift", "page", "with recent labels"),
        ({"watched": watched(fault())}, "data fault", "page", "Fix it upstream"),
        ({**MOVED, "watched": watched(fault(), wrong=300, harmful=True)}, "data fault", "page", ""),
        ({**WORSE, "better": 1}, "bad release", "page", "slipstream rollback m"),
        ({"latency": Latency(1, 20, 40)}, "system", "page", "Page the platform"),
    ],
)
def test_the_verdict_says_what_it_is_and_what_to_do(
    change: dict[str, Any], kind: str, level: str, action: str
) -> None:
    found = told(**change)
    assert (found.kind, found.level) == (kind, level)
    assert action in found.action


def test_harm_is_told_with_its_interval() -> None:
    found = told(**WORSE)
    assert "wrong on 30.0% (27.2% to 32.9%), was 20.0%" in found.sentence
