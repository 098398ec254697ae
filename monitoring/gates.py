"""Evidence and policy -> gates -> verdict. Pure, so that every verdict can be computed again.

A gate passes, fails, or has not enough evidence; what could not be computed never passes. Any
blocking gate that fails stops a rollout, any that lacks evidence holds it: there is no vote.
"""

from __future__ import annotations

import hashlib
from math import ceil, isfinite, log
from typing import Literal

import msgspec
import numpy as np

from models.latency import BUCKETS, middle
from models.policy import Policy
from models.profile import bin_shares
from models.rollout import WHOLE
from monitoring.stats import drift, sequential
from monitoring.stats.sequential import Interval

Status = Literal["pass", "fail", "insufficient"]

MIDDLES = np.array([middle(i) for i in range(BUCKETS)])
#: A split is called broken where it is certain (evidence of 1 in 1,000) and this far off.
SPLIT_OFF, SPLIT_ALPHA = 0.5, 0.001
#: Share of the errors' margin, of all requests, that a step may at worst use up.
HARM = 0.5
#: How much less than the champion with itself a candidate may agree with it.
FLOOR_MARGIN = 0.01
#: The least rows whose outputs are compared.
LEAST_ROWS = 300


class ArmCounts(msgspec.Struct, frozen=True):
    """What one version answered since the rollout's step began. `latency`: bucket -> requests."""

    requests: int = 0
    errors: int = 0
    latency: dict[int, int] = {}


class PairCounts(msgspec.Struct, frozen=True):
    """Champion and candidate on the same requests, since the rollout began.

    `eligible` requests were to be shadowed, `requests` were, `errors` of them failed. `rows` were
    compared, `agreeing` of them said the same; of `floor_rows` that the champion was asked twice,
    `floor_agreeing` got the same answer from it. Of the labelled ones `both` were right, and so on;
    `held_back` more labels are of hours that still wait for most of theirs.
    `scores_*` are histograms over [0, 1]; `latency_*` are of the models alone.
    """

    eligible: int = 0
    requests: int = 0
    errors: int = 0
    rows: int = 0
    agreeing: int = 0
    both: int = 0
    only_champion: int = 0
    only_candidate: int = 0
    neither: int = 0
    held_back: int = 0
    floor_rows: int = 0
    floor_agreeing: int = 0
    non_finite: int = 0
    scores_champion: tuple[int, ...] = ()
    scores_candidate: tuple[int, ...] = ()
    latency_champion: dict[int, int] = {}
    latency_candidate: dict[int, int] = {}

    @property
    def labels(self) -> int:
        return self.both + self.only_champion + self.only_candidate + self.neither


class Cost(msgspec.Struct, frozen=True):
    """What a version costs the worker that pays most: seconds until ready, bytes of memory."""

    load_seconds: float
    memory: int


class Evidence(msgspec.Struct, frozen=True):
    """All that a verdict is made from.

    `weight` is the canary's, in 1/10,000, `next_weight` that of the step to come (the whole for a
    promotion); `step` counts from 0, the shadow. `seconds` since the step began; `applied` of
    `workers` have its route. `*_arm` count since the step began, `*_whole` since the rollout did.
    """

    model: str
    rollout: str
    champion: int
    candidate: int
    revision: int
    step: int
    stage: str
    weight: int
    next_weight: int
    at_ms: int
    seconds: float
    workers: int
    applied: int
    champion_arm: ArmCounts = ArmCounts()
    candidate_arm: ArmCounts = ArmCounts()
    champion_whole: ArmCounts = ArmCounts()
    candidate_whole: ArmCounts = ArmCounts()
    pairs: PairCounts = PairCounts()
    champion_cost: Cost | None = None
    candidate_cost: Cost | None = None

    @property
    def last(self) -> bool:
        return self.next_weight >= WHOLE

    @property
    def shadowing(self) -> bool:
        return self.step == 0

    @property
    def digest(self) -> str:
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:16]


class Gate(msgspec.Struct, frozen=True):
    """One question, its answer and the number behind it.

    `value` lies between `low` and `high` (None: unbounded); `limit` is what it is held against.
    `needs` counts the requests or labels (`of`) that are missing, where that is known.
    """

    name: str
    status: Status
    sentence: str
    blocks: bool = True
    value: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    needs: int = 0
    of: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """May the candidate go on? `sentence` says it to a person."""

    status: Status
    sentence: str
    gates: tuple[Gate, ...]


def evaluate(evidence: Evidence, policy: Policy) -> Verdict:
    """Every gate, and what follows from those that block."""
    gates = (
        integrity(evidence, policy),
        floor(evidence, policy),
        errors(evidence, policy),
        latency(evidence, policy),
        agreement(evidence, policy),
        outputs(evidence, policy),
        accuracy(evidence, policy),
        resources(evidence, policy),
        *([approval(evidence)] if policy.approval else []),
    )
    blocking = [gate for gate in gates if gate.blocks]
    failed = [gate for gate in blocking if gate.status == "fail"]
    waiting = [gate for gate in blocking if gate.status == "insufficient"]
    if failed:
        return Verdict("fail", f"Stop: {failed[0].sentence}", gates)
    if waiting:
        more = next((f" ({g.needs:,} more {g.of})" for g in waiting if g.needs), "")
        return Verdict("insufficient", f"Not yet: {waiting[0].sentence}{more}", gates)
    then = "be promoted" if evidence.last else "go on to the next step"
    told = next((g.sentence for g in gates if g.status == "fail"), "")
    look = f" Look first: {told}" if told else ""
    return Verdict("pass", f"v{evidence.candidate} may {then}.{look}", gates)


# --- the gates ------------------------------------------------------------------------------------


def integrity(evidence: Evidence, policy: Policy) -> Gate:
    """Did the candidate get the requests that the route says?"""
    if evidence.applied < evidence.workers or not evidence.workers:
        sentence = f"{evidence.applied} of {evidence.workers} workers apply the route"
        return Gate("integrity", "insufficient", sentence)
    if evidence.shadowing:
        return _coverage(evidence.pairs, policy.evidence.coverage)
    arms = (evidence.champion_arm.requests, evidence.candidate_arm.requests)
    total = sum(arms)
    promised = evidence.weight / 10_000
    observed = arms[1] / total if total else 0.0
    sentence = f"{observed:.1%} of {total:,} requests went to the canary, {promised:.1%} were meant"
    certain = sequential.log_e_split(arms, (1 - promised, promised)) >= log(1 / SPLIT_ALPHA)
    off = abs(observed - promised) > SPLIT_OFF * min(promised, 1 - promised)
    if promised < 1 and certain and off:
        return Gate("integrity", "fail", f"the split is broken: {sentence}", value=observed)
    return Gate("integrity", "pass", sentence, value=observed, limit=promised)


def _coverage(pairs: PairCounts, least: float) -> Gate:
    """Drops come with load, so agreement over too few of the requests says little."""
    if not pairs.eligible:
        return Gate("integrity", "insufficient", "no request has come yet", of="requests")
    share = min(pairs.requests / pairs.eligible, 1.0)
    sentence = f"the shadow saw {share:.0%} of the {pairs.eligible:,} requests meant for it"
    status: Status = "pass" if share >= least else "insufficient"
    return Gate("integrity", status, sentence, value=share, limit=least)


def floor(evidence: Evidence, policy: Policy) -> Gate:
    """Enough requests and time at this step for the other gates to mean something."""
    seen, least = evidence.candidate_arm.requests, policy.evidence.requests
    sentence = f"{seen:,} requests at this step, {least:,} are wanted"
    if seen < least:
        return Gate(
            "evidence", "insufficient", sentence, limit=least, needs=least - seen, of="requests"
        )
    if evidence.seconds < policy.evidence.seconds:
        sentence = f"{evidence.seconds:.0f} of {policy.evidence.seconds:.0f} s at this step"
        return Gate("evidence", "insufficient", sentence)
    return Gate("evidence", "pass", sentence, value=seen, limit=least)


def errors(evidence: Evidence, policy: Policy) -> Gate:
    """Does the candidate fail more often? Valid however often it is looked at.

    It fails where that is certain. It passes where a step cannot do much harm: the rate of errors
    that cannot be excluded, times the share of requests that the candidate would get, adds at most
    HARM of the margin. So little evidence lets it answer few requests, and much of it more.
    """
    rules, arm, other = policy.errors, evidence.candidate_whole, evidence.champion_whole
    rate = sequential.rate_sequence(arm.errors, arm.requests)
    if rate is None:
        return Gate("errors", "insufficient", "no request yet", rules.blocks, of="requests")
    if evidence.shadowing:  # it only sees what the champion has answered
        known = 0.0
        found = sequential.log_e_rate(arm.errors, arm.requests, rules.margin)
    else:
        known = other.errors / other.requests if other.requests else 0.0
        counts = (arm.errors, arm.requests, other.errors, other.requests)
        found = sequential.log_e_difference(*counts, rules.margin)
    sentence = (
        f"{arm.errors:,} of {arm.requests:,} requests failed ({rate.value:.2%}), "
        f"the champion's {known:.2%}"
    )
    limit = known + max(rules.margin, rules.margin * HARM * WHOLE / evidence.next_weight)
    if found >= log(1 / rules.alpha):
        return _gate("errors", "fail", sentence, rules.blocks, rate, known + rules.margin)
    if rate.high <= limit:
        return _gate("errors", "pass", sentence, rules.blocks, rate, limit)
    gate = _gate("errors", "insufficient", sentence, rules.blocks, rate, limit)
    needs = _more(arm.requests, rate.high - rate.value, limit - rate.value)
    return msgspec.structs.replace(gate, needs=needs, of="requests")


def latency(evidence: Evidence, policy: Policy) -> Gate:
    """Is the candidate slower? A shadow's own time only tells: it runs at low priority."""
    rules = policy.latency
    if evidence.shadowing:
        histograms = (evidence.pairs.latency_champion, evidence.pairs.latency_candidate)
    else:
        histograms = (evidence.champion_arm.latency, evidence.candidate_arm.latency)
    blocks = rules.blocks and not evidence.shadowing
    champion, candidate = (_vector(histogram) for histogram in histograms)
    worst: Gate | None = None
    for share in rules.quantiles:
        alpha = rules.alpha / len(rules.quantiles) / 2
        one = sequential.quantile_interval(champion, MIDDLES, share, alpha)
        two = sequential.quantile_interval(candidate, MIDDLES, share, alpha)
        if one is None or two is None:
            sentence = "no latencies of both yet"
            return Gate("latency", "insufficient", sentence, blocks, of="requests")
        gate = _quantile_gate(evidence, policy, share, one, two, blocks)
        if worst is None or _ORDER[gate.status] < _ORDER[worst.status]:
            worst = gate
    assert worst is not None
    return worst


_ORDER: dict[Status, int] = {"fail": 0, "insufficient": 1, "pass": 2}


def _quantile_gate(
    evidence: Evidence, policy: Policy, share: float, one: Interval, two: Interval, blocks: bool
) -> Gate:
    rules = policy.latency
    slack = rules.slack_ms * 1_000

    def allowed(microseconds: float) -> float:
        return max(microseconds * rules.ratio, microseconds + slack)

    what = "of the model alone" if evidence.shadowing else "of the request"
    sentence = (
        f"p{share * 100:g} {what} {two.value / 1_000:.3g} ms, champion {one.value / 1_000:.3g} ms"
    )
    if two.low > allowed(one.high):
        status: Status = "fail"
    else:
        status = "pass" if two.high <= allowed(one.low) else "insufficient"
    milliseconds = Interval(two.value / 1_000, two.low / 1_000, two.high / 1_000)
    return _gate("latency", status, sentence, blocks, milliseconds, allowed(one.value) / 1_000)


def agreement(evidence: Evidence, policy: Policy) -> Gate:
    """Do both say the same on the same rows? No more is asked than the champion's noise allows."""
    rules, pairs = policy.agreement, evidence.pairs
    found = sequential.rate_sequence(pairs.agreeing, pairs.rows, rules.alpha)
    if found is None:
        return Gate("agreement", "insufficient", "no row was compared yet", rules.blocks)
    least = rules.least
    share = f"the same on {found.value:.2%} of {pairs.rows:,} rows"
    floor = sequential.rate_sequence(pairs.floor_agreeing, pairs.floor_rows, rules.alpha)
    if floor is not None and floor.high - FLOOR_MARGIN < least:
        least = floor.value - FLOOR_MARGIN
        share += f" (the champion agrees with itself on {floor.value:.2%})"
    sentence = f"{share}, at least {least:.0%} are meant"
    if found.high < least:
        return _gate("agreement", "fail", sentence, rules.blocks, found, least)
    status: Status = "pass" if found.low >= least else "insufficient"
    missing = _more(pairs.rows, found.value - found.low, found.value - least)
    needs = missing if status == "insufficient" else 0
    gate = _gate("agreement", status, sentence, rules.blocks, found, least)
    return msgspec.structs.replace(gate, needs=needs, of="requests")


def outputs(evidence: Evidence, policy: Policy) -> Gate:
    """Is what the candidate says distributed otherwise? Values that are no numbers always stop."""
    rules, pairs = policy.outputs, evidence.pairs
    if pairs.non_finite:
        sentence = f"{pairs.non_finite:,} of {pairs.rows:,} rows got a score that is no number"
        return Gate("outputs", "fail", sentence, True, value=pairs.non_finite, limit=0)
    if pairs.rows < LEAST_ROWS:
        missing = LEAST_ROWS - pairs.rows
        sentence = "too few rows to compare what both say"
        return Gate("outputs", "insufficient", sentence, rules.blocks, needs=missing, of="requests")
    before, after = np.array(pairs.scores_champion), np.array(pairs.scores_candidate)
    if not before.sum() or not after.sum():
        return Gate("outputs", "pass", "no scores between 0 and 1 to compare", rules.blocks)
    there = (before + after) > 0
    shares = bin_shares(before[there]), bin_shares(after[there])
    psi = drift.psi(*shares)
    low = drift.psi_lower_bound(drift.homogeneity(before[there], after[there]))
    sentence = f"PSI of the scores against the champion's {psi:.3g}, at most {rules.psi:g} is meant"
    status: Status = "fail" if low > rules.psi else "pass"
    return Gate("outputs", status, sentence, rules.blocks, value=psi, low=low, limit=rules.psi)


def accuracy(evidence: Evidence, policy: Policy) -> Gate:
    """Is the candidate right as often, on the same labelled rows?

    Where the two hardly ever differ no label is needed: their accuracies cannot lie further apart
    than the share of rows on which they disagree.
    """
    rules, pairs = policy.accuracy, evidence.pairs
    same = sequential.rate_sequence(pairs.agreeing, pairs.rows, rules.alpha)
    if same is not None and 1 - same.low <= rules.margin:
        sentence = f"they disagree on at most {1 - same.low:.2%} of rows, so no more can be lost"
        bound = 1 - same.low
        return Gate("accuracy", "pass", sentence, rules.blocks, 0.0, -bound, bound, -rules.margin)
    least = policy.evidence.labels
    if pairs.labels < least:
        sentence = f"{pairs.labels:,} of {least:,} labelled rows{_waiting(pairs)}"
        missing = least - pairs.labels
        return Gate("accuracy", "insufficient", sentence, rules.blocks, needs=missing, of="labels")
    counts = (pairs.only_champion, pairs.only_candidate, pairs.labels)
    found = sequential.paired_difference(*counts, rules.alpha)
    assert found is not None
    return _accuracy_gate(pairs, policy, found)


def _waiting(pairs: PairCounts) -> str:
    """The first labels of an hour are no fair sample of all that will come."""
    if not pairs.held_back:
        return ""
    return f", {pairs.held_back:,} more wait until the others of their hours are there"


def _accuracy_gate(pairs: PairCounts, policy: Policy, found: Interval) -> Gate:
    rules = policy.accuracy
    candidate = (pairs.both + pairs.only_candidate) / pairs.labels
    champion = (pairs.both + pairs.only_champion) / pairs.labels
    sentence = (
        f"right on {candidate:.1%}, the champion on {champion:.1%} of the same {pairs.labels:,} "
        f"rows: {found.value * 100:+.1f} points ({found.low * 100:+.1f} to {found.high * 100:+.1f})"
    )
    if found.high < -rules.margin:
        return _gate("accuracy", "fail", sentence, rules.blocks, found, -rules.margin)
    if found.low >= -rules.margin:
        return _gate("accuracy", "pass", sentence, rules.blocks, found, -rules.margin)
    gate = _gate("accuracy", "insufficient", sentence, rules.blocks, found, -rules.margin)
    needs = _more(pairs.labels, found.value - found.low, found.value + rules.margin)
    return msgspec.structs.replace(gate, needs=needs, of="labels")


def resources(evidence: Evidence, policy: Policy) -> Gate:
    """Does every worker have room for the candidate, and is it ready soon after a restart?"""
    rules, champion, candidate = policy.resources, evidence.champion_cost, evidence.candidate_cost
    if champion is None or candidate is None:
        sentence = "no worker has told yet what both versions cost"
        return Gate("resources", "insufficient", sentence, rules.blocks)
    if candidate.load_seconds > rules.load_seconds:
        sentence = (
            f"ready after {candidate.load_seconds:.3g} s, {rules.load_seconds:g} s are allowed"
        )
        seconds = candidate.load_seconds
        return Gate("resources", "fail", sentence, rules.blocks, seconds, limit=rules.load_seconds)
    one, two = champion.memory / 1e6, candidate.memory / 1e6
    allowed = max(one * rules.memory, one + rules.memory_mb)
    status: Status = "fail" if two > allowed else "pass"
    sentence = f"{two:.0f} MB of memory, the champion {one:.0f} MB, {allowed:.0f} MB are allowed"
    return Gate("resources", status, sentence, rules.blocks, two, limit=allowed)


def approval(evidence: Evidence) -> Gate:
    """A person promotes; everything before that goes by evidence."""
    if not evidence.last:
        return Gate("approval", "pass", "asked for at the last step")
    command = f"slipstream promote {evidence.model} {evidence.candidate} --reason …"
    return Gate("approval", "insufficient", f"a person promotes: {command}")


def _gate(
    name: str, status: Status, sentence: str, blocks: bool, found: Interval, limit: float
) -> Gate:
    low, high = (bound if isfinite(bound) else None for bound in (found.low, found.high))
    return Gate(name, status, sentence, blocks, found.value, low, high, limit)


def _more(n: int, width: float, distance: float) -> int:
    """How many more until a bound `width` away has come within `distance`; 0 where unknown."""
    if distance <= 0:
        return 0
    return max(ceil(n * (width / distance) ** 2) - n, 1)


def _vector(histogram: dict[int, int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    vector = np.zeros(BUCKETS, np.int64)
    for bucket, count in histogram.items():
        vector[bucket] = count
    return vector
