"""Gates as tables: what passes, what fails, and what lacks evidence."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.operating import Outcome, Rollout, World
from models.policy import Accuracy, Agreement, Policy, named, read_policy
from models.policy import Evidence as EvidenceRules
from monitoring.gates import ArmCounts, Cost, Evidence, PairCounts, Status, evaluate

POLICY = Policy("test", evidence=EvidenceRules(requests=300, labels=100, seconds=5))
FAST = {80: 10_000}
SLOW = {110: 10_000}
SHADOW = Evidence(
    model="m",
    rollout="r",
    champion=1,
    candidate=2,
    revision=3,
    step=0,
    stage="shadow",
    weight=0,
    next_weight=100,
    at_ms=0,
    seconds=60.0,
    workers=2,
    applied=2,
    champion_arm=ArmCounts(10_000, 0, FAST),
    candidate_arm=ArmCounts(10_000, 0, FAST),
    champion_whole=ArmCounts(10_000, 0),
    candidate_whole=ArmCounts(10_000, 0),
    champion_cost=Cost(1.0, 100_000_000),
    candidate_cost=Cost(2.0, 150_000_000),
    pairs=PairCounts(
        eligible=10_000,
        requests=10_000,
        rows=10_000,
        agreeing=9_900,
        both=9_000,
        only_champion=50,
        only_candidate=50,
        neither=900,
        scores_champion=(5_000, 5_000),
        scores_candidate=(5_010, 4_990),
        latency_champion=FAST,
        latency_candidate=FAST,
    ),
)
CANARY = msgspec.structs.replace(
    SHADOW,
    step=2,
    stage="canary 5 %",
    weight=500,
    next_weight=2_500,
    champion_arm=ArmCounts(19_000, 19, FAST),
    candidate_arm=ArmCounts(1_000, 1, {80: 1_000}),
    champion_whole=ArmCounts(19_000, 19),
    candidate_whole=ArmCounts(2_000, 2),
)


def pairs(**more: Any) -> dict[str, Any]:
    return {"pairs": msgspec.structs.replace(SHADOW.pairs, **more)}


CASES: dict[str, tuple[Evidence, dict[str, Any], str, Status]] = {
    "nothing yet": (
        SHADOW,
        {"pairs": PairCounts(), "candidate_arm": ArmCounts()},
        "evidence",
        "insufficient",
    ),
    "a worker is behind": (SHADOW, {"applied": 1}, "integrity", "insufficient"),
    "no worker": (SHADOW, {"applied": 0, "workers": 0}, "integrity", "insufficient"),
    "half was dropped": (SHADOW, pairs(requests=5_000), "integrity", "insufficient"),
    "all were seen": (SHADOW, {}, "integrity", "pass"),
    "the split holds": (CANARY, {}, "integrity", "pass"),
    "the split is broken": (
        CANARY,
        {"candidate_arm": ArmCounts(5_000, 0, FAST)},
        "integrity",
        "fail",
    ),
    "too few requests": (
        SHADOW,
        {"candidate_arm": ArmCounts(299, 0, FAST)},
        "evidence",
        "insufficient",
    ),
    "too early": (SHADOW, {"seconds": 4.0}, "evidence", "insufficient"),
    "enough": (SHADOW, {}, "evidence", "pass"),
    "no errors": (SHADOW, {}, "errors", "pass"),
    "a shadow that fails": (SHADOW, {"candidate_whole": ArmCounts(200, 20)}, "errors", "fail"),
    "errors like the champion's": (CANARY, {}, "errors", "pass"),
    "5 % where the champion has .1 %": (
        CANARY,
        {"candidate_whole": ArmCounts(400, 20)},
        "errors",
        "fail",
    ),
    "few and one failed": (
        CANARY,
        {"candidate_whole": ArmCounts(100, 1)},
        "errors",
        "insufficient",
    ),
    "a slow canary": (
        CANARY,
        {"candidate_arm": ArmCounts(1_000, 1, {110: 1_000})},
        "latency",
        "fail",
    ),
    "as fast": (CANARY, {}, "latency", "pass"),
    "slower by less than the slack": (
        CANARY,
        {"candidate_arm": ArmCounts(1_000, 1, {84: 1_000})},
        "latency",
        "pass",
    ),
    "no latencies": (CANARY, {"candidate_arm": ArmCounts(1_000, 1)}, "latency", "insufficient"),
    "agreeing": (SHADOW, {}, "agreement", "pass"),
    "disagreeing": (SHADOW, pairs(agreeing=9_000), "agreement", "fail"),
    "agreeing, but few": (SHADOW, pairs(rows=50, agreeing=50), "agreement", "insufficient"),
    "the same scores": (SHADOW, {}, "outputs", "pass"),
    "other scores": (SHADOW, pairs(scores_candidate=(9_000, 1_000)), "outputs", "fail"),
    "no number": (SHADOW, pairs(non_finite=1), "outputs", "fail"),
    "few outputs": (SHADOW, pairs(rows=299, agreeing=299), "outputs", "insufficient"),
    "as large": (SHADOW, {}, "resources", "pass"),
    "nobody has loaded it": (SHADOW, {"candidate_cost": None}, "resources", "insufficient"),
    "three times as large": (
        SHADOW,
        {"candidate_cost": Cost(2.0, 1_000_000_000), "champion_cost": Cost(1.0, 300_000_000)},
        "resources",
        "fail",
    ),
    "larger by less than the allowance": (
        SHADOW,
        {"candidate_cost": Cost(2.0, 200_000_000), "champion_cost": Cost(1.0, 1_000_000)},
        "resources",
        "pass",
    ),
    "late to be ready": (SHADOW, {"candidate_cost": Cost(61.0, 1)}, "resources", "fail"),
    "as right": (SHADOW, {}, "accuracy", "pass"),
    "less right": (SHADOW, pairs(only_champion=400, only_candidate=100), "accuracy", "fail"),
    "few labels": (
        SHADOW,
        pairs(both=40, neither=0, only_champion=5, only_candidate=5),
        "accuracy",
        "insufficient",
    ),
    "no label, but the same": (
        SHADOW,
        pairs(agreeing=10_000, both=0, neither=0, only_champion=0, only_candidate=0),
        "accuracy",
        "pass",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_gate(case: str) -> None:
    evidence, more, gate, status = CASES[case]
    verdict = evaluate(msgspec.structs.replace(evidence, **more), POLICY)
    assert {g.name: g.status for g in verdict.gates}[gate] == status


@pytest.mark.parametrize("evidence", [SHADOW, CANARY])
def test_all_good_passes(evidence: Evidence) -> None:
    verdict = evaluate(evidence, POLICY)
    assert [g.name for g in verdict.gates if g.status != "pass"] == []
    assert verdict.status == "pass"
    assert verdict.sentence.startswith("v2 may go on")


def test_any_failure_stops_and_any_lack_holds() -> None:
    """There is no vote; a failure counts more than a lack."""
    lacking = msgspec.structs.replace(SHADOW, seconds=1.0)
    assert evaluate(lacking, POLICY).status == "insufficient"
    failing = msgspec.structs.replace(lacking, candidate_whole=ArmCounts(200, 20))
    verdict = evaluate(failing, POLICY)
    assert (verdict.status, verdict.sentence[:5]) == ("fail", "Stop:")


def test_a_gate_that_only_tells_stops_nothing() -> None:
    """But a passing verdict says it first."""
    policy = msgspec.structs.replace(POLICY, agreement=Agreement(blocks=False))
    verdict = evaluate(msgspec.structs.replace(SHADOW, **pairs(agreeing=9_000)), policy)
    assert verdict.status == "pass"
    assert "Look first: the same on 90.00%" in verdict.sentence


def test_a_person_promotes_where_the_policy_wants_one() -> None:
    """Only at the last step."""
    policy = msgspec.structs.replace(POLICY, approval=True)
    assert evaluate(CANARY, policy).status == "pass"
    last = evaluate(msgspec.structs.replace(CANARY, next_weight=10_000), policy)
    assert last.status == "insufficient"
    assert "slipstream promote m 2" in last.sentence


def test_a_shadows_latency_only_tells() -> None:
    slow = msgspec.structs.replace(SHADOW, **pairs(latency_candidate=SLOW))
    gate = next(g for g in evaluate(slow, POLICY).gates if g.name == "latency")
    assert (gate.status, gate.blocks) == ("fail", False)


def test_what_is_missing_is_counted() -> None:
    verdict = evaluate(msgspec.structs.replace(SHADOW, candidate_arm=ArmCounts(100, 0)), POLICY)
    assert (verdict.status, "200 more requests" in verdict.sentence) == ("insufficient", True)
    few = msgspec.structs.replace(SHADOW, **pairs(both=30, neither=0))
    gate = next(g for g in evaluate(few, POLICY).gates if g.name == "accuracy")
    assert gate.status == "insufficient"
    assert gate.of == "labels"


COUNT = st.integers(0, 10_000)
ARM = st.builds(
    lambda ok, bad, at: ArmCounts(ok + bad, bad, {at: ok + bad} if ok + bad else {}),
    COUNT,
    COUNT,
    st.integers(0, 200),
)


@given(ARM, ARM, ARM, ARM, st.tuples(COUNT, COUNT, COUNT, COUNT), COUNT, st.sampled_from([0, 2]))
def test_every_verdict_survives_its_storage(
    a: ArmCounts,
    b: ArmCounts,
    c: ArmCounts,
    d: ArmCounts,
    right: tuple[int, ...],
    rows: int,
    step: int,
) -> None:
    """Whatever the counts: it is computed, its numbers are JSON, and computed again it is equal."""
    names = ("both", "only_champion", "only_candidate", "neither")
    evidence = msgspec.structs.replace(
        CANARY if step else SHADOW,
        champion_arm=a,
        candidate_arm=b,
        champion_whole=c,
        candidate_whole=d,
        pairs=PairCounts(rows, rows, 0, rows, rows // 2, **dict(zip(names, right, strict=True))),
    )
    verdict = evaluate(evidence, POLICY)
    again = msgspec.json.decode(msgspec.json.encode(evidence), type=Evidence)
    assert again.digest == evidence.digest
    stored = msgspec.json.decode(msgspec.json.encode(verdict), type=type(verdict))
    assert evaluate(again, POLICY) == stored


def test_the_policies_that_come_along() -> None:
    """An equivalent version must agree; an improvement may differ, but not be right less often."""
    assert named() == ["equivalent", "improvement"]
    same, better = read_policy("equivalent"), read_policy("improvement")
    assert (same.agreement.blocks, same.outputs.blocks) == (True, True)
    assert (better.agreement.blocks, better.outputs.blocks) == (False, False)
    assert same.accuracy == better.accuracy == Accuracy()


def simulated(world: World, runs: int, step: int = 0) -> list[Outcome]:
    policy = read_policy("improvement")
    return [Rollout(world, policy, seed, step).run() for seed in range(runs)]


def test_a_healthy_candidate_is_promoted_and_bad_ones_are_not() -> None:
    """Whole rollouts, peeked at all the time. The full table: docs/operating-characteristics.md."""
    good = simulated(World(only_champion=0.04, only_candidate=0.06), 10)
    assert Counter(outcome.end for outcome in good) == {"promoted": 10}
    sick = simulated(World(candidate_errors=0.05, shadow_errors=0.05), 10)
    assert Counter((o.end, o.gate) for o in sick) == {("rolled back", "errors"): 10}
    hidden = simulated(World(candidate_errors=0.05), 10, step=1)
    assert Counter((o.end, o.gate) for o in hidden) == {("rolled back", "errors"): 10}


def test_no_more_is_asked_than_the_champions_own_noise_allows() -> None:
    """A champion that gives another answer to 5 % of repeated questions is no yardstick of 97 %."""
    noisy = pairs(agreeing=9_500, floor_rows=10_000, floor_agreeing=9_500)
    gate = next(
        g
        for g in evaluate(msgspec.structs.replace(SHADOW, **noisy), POLICY).gates
        if g.name == "agreement"
    )
    assert (gate.status, gate.limit) == ("pass", pytest.approx(0.94))
    assert "with itself on 95.00%" in gate.sentence
    steady = pairs(agreeing=9_500, floor_rows=10_000, floor_agreeing=10_000)
    verdict = evaluate(msgspec.structs.replace(SHADOW, **steady), POLICY)
    assert {g.name: g.status for g in verdict.gates}["agreement"] == "fail"
