"""Carries rollouts on evidence: collects it, judges it, keeps the verdict, moves the route.

What counts at a step is what came since it began: the windows' sums now, less those that were
noted when every worker had applied the step's route.
"""

from __future__ import annotations

import logging
import time
from typing import Any, cast

import msgspec
import numpy as np
import redis

from models import rollout as changes
from models import routes
from models.contract import keys
from models.errors import IllegalTransition, RouteConflict
from models.policy import Policy
from models.rollout import WHOLE, Rollout, Route
from models.version import Role
from monitoring import gates
from monitoring.gates import ArmCounts, Cost, Evidence, PairCounts, Verdict
from monitoring.history import History
from monitoring.stats.maturity import mature, plateau
from monitoring.stream import HOURS_KEPT, pack_vector, unpack_vector
from monitoring.window import ANSWERING, PAIR, Vector, Window

log = logging.getLogger("slipstream.rollouts")

#: Verdicts kept per model.
VERDICTS = 2_000
#: Seconds after which an unchanged verdict is kept again, so that its numbers can be followed.
KEEP_EVERY = 60
#: Seconds for which the sums at a step's beginning are kept.
BASELINE = 90 * 86_400
#: Who the monitor is in the audit.
WHO = "monitor"


class Baseline(msgspec.Struct, frozen=True):
    """Sums by "version:role" when a step began."""

    at_ms: int
    sums: dict[str, bytes]


class Kept(msgspec.Struct, frozen=True):
    """A verdict as it is stored: all that is needed to compute it again."""

    at_ms: int
    evidence: Evidence
    policy: Policy
    verdict: Verdict
    digest: str


class Rollouts:
    """The rollouts of every model, one step at a time. Safe beside other monitors: whoever is
    late loses the compare-and-set."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._kept: dict[str, tuple[object, float]] = {}

    def step(self, history: History, route: Route, workers: list[dict[str, Any]]) -> None:
        """Judge the model's rollout, if there is one, and act where it runs by itself."""
        if route.rollout is None:
            self._client.delete(keys.verdict(route.model))
            return
        evidence = self.evidence(history, route, route.rollout, workers)
        verdict = gates.evaluate(evidence, route.rollout.policy)
        now = int(time.time() * 1000)
        kept = Kept(now, evidence, route.rollout.policy, verdict, evidence.digest)
        self._client.set(keys.verdict(route.model), msgspec.json.encode(kept), ex=KEEP_EVERY)
        acts = route.rollout.automatic and (
            verdict.status == "fail" or (verdict.status == "pass" and not route.rollout.paused)
        )
        name = self._keep(route.model, kept, at_once=acts)
        if acts:
            self._act(route, verdict, name)

    def _act(self, route: Route, verdict: Verdict, evidence: str) -> None:
        action = "rollback" if verdict.status == "fail" else "advance"
        transition = changes.rollback if action == "rollback" else changes.advance
        assert route.rollout is not None
        if action == "advance" and route.rollout.step == len(route.rollout.steps):
            action = "promote"
        try:
            routes.write(
                self._client,
                route,
                transition(route),
                action=action,
                who=WHO,
                why=verdict.sentence,
                evidence=evidence,
            )
            log.warning("%s: %s: %s", route.model, action, verdict.sentence)
        except (RouteConflict, IllegalTransition) as error:
            log.info("%s: %s", route.model, error)  # somebody was faster; the next look sees it

    # --- evidence ----------------------------------------------------------------------------

    def evidence(
        self, history: History, route: Route, rollout: Rollout, workers: list[dict[str, Any]]
    ) -> Evidence:
        """What is known of the rollout at its present step."""
        applied = sum(w["routes"].get(route.model, 0) >= route.revision for w in workers)
        everywhere = bool(workers) and applied == len(workers)
        now = int(time.time() * 1000)
        weights = (*rollout.steps, WHOLE)
        empty = Evidence(
            model=route.model,
            rollout=rollout.id,
            champion=route.champion,
            candidate=rollout.version,
            revision=route.revision,
            step=rollout.step,
            stage=rollout.stage,
            weight=route.weight,
            next_weight=weights[rollout.step],
            at_ms=now,
            seconds=0.0,
            workers=len(workers),
            applied=applied,
            champion_cost=_cost(workers, route.model, route.champion),
            candidate_cost=_cost(workers, route.model, rollout.version),
        )
        history.learn(rollout.version)
        history.learn(route.champion)
        sums = {name: history.total(*name) for name in _counted(route, rollout)}
        began = self._baseline(route.model, rollout, rollout.step, sums if everywhere else None)
        if began is None:
            return empty
        start = self._baseline(route.model, rollout, 0, sums) or began
        role = "shadow" if rollout.step == 0 else "canary"

        def since(baseline: Baseline, version: int, role: str) -> Window:
            return _since(sums[version, role], baseline, version, role)

        whole = _arm(since(start, route.champion, "champion"))
        shadow = _arm(since(start, rollout.version, "shadow"))
        pairs = since(start, rollout.version, PAIR)
        floor = since(start, route.champion, Role.FLOOR)
        held_back = immature(history, route.champion, rollout.version)
        return msgspec.structs.replace(
            empty,
            seconds=(now - began.at_ms) / 1000,
            champion_arm=_arm(since(began, route.champion, "champion")),
            candidate_arm=_arm(since(began, rollout.version, role)),
            champion_whole=whole,
            candidate_whole=_arm(since(start, rollout.version, role)),
            pairs=msgspec.structs.replace(
                pair_counts(pairs, shadow, whole, rollout.shadow_percent, held_back),
                floor_rows=int(floor["rows"][0]),
                floor_agreeing=int(floor["rows"][1]),
            ),
        )

    def _baseline(
        self, model: str, rollout: Rollout, step: int, sums: dict[tuple[int, str], Window] | None
    ) -> Baseline | None:
        """The sums when a step began; noted now where `sums` are given and none were."""
        name = f"{rollout.id}:{step}"
        if sums is not None:
            packed = {f"{v}:{role}": pack_vector(w.vector) for (v, role), w in sums.items()}
            data = msgspec.msgpack.encode(Baseline(int(time.time() * 1000), packed))
            self._client.hsetnx(keys.baseline(model), name, cast(Any, data))
            self._client.expire(keys.baseline(model), BASELINE)
        found = cast("bytes | None", self._client.hget(keys.baseline(model), name))
        return None if found is None else msgspec.msgpack.decode(found, type=Baseline)

    # --- verdicts ----------------------------------------------------------------------------

    def _keep(self, model: str, kept: Kept, at_once: bool) -> str:
        """Store a verdict that says something new; its name in the stream, or nothing."""
        said = (
            kept.evidence.rollout,
            kept.evidence.step,
            kept.verdict.status,
            [(gate.name, gate.status) for gate in kept.verdict.gates],
        )
        before, when = self._kept.get(model, (None, 0.0))
        if not at_once and said == before and time.monotonic() - when < KEEP_EVERY:
            return ""
        self._kept[model] = said, time.monotonic()
        data = {"verdict": msgspec.json.encode(kept)}
        name = self._client.xadd(
            keys.verdicts(model), cast(Any, data), maxlen=VERDICTS, approximate=True
        )
        return cast(bytes, name).decode()


def verdicts(client: redis.Redis, model: str, count: int = 50) -> list[tuple[str, Kept]]:
    """The last verdicts, newest first, with their names."""
    found = cast(list[Any], client.xrevrange(keys.verdicts(model), count=count))
    return [
        (name.decode(), msgspec.json.decode(fields[b"verdict"], type=Kept))
        for name, fields in found
    ]


def verify(kept: Kept) -> str:
    """Compute a stored verdict again. The sentence says what is wrong; empty where nothing is."""
    if kept.evidence.digest != kept.digest:
        return "the evidence is not what the digest says: it was changed after the verdict"
    again = gates.evaluate(kept.evidence, kept.policy)
    if again == kept.verdict:
        return ""
    for gate, was in zip(again.gates, kept.verdict.gates, strict=False):
        if gate != was:
            return f"the gate {gate.name} says {gate.status} now, it said {was.status}"
    return f"the verdict is {again.status} now, it was {kept.verdict.status}"


def _cost(workers: list[dict[str, Any]], model: str, version: int) -> Cost | None:
    """The highest that any worker tells; None where none has the version."""
    costs = [
        found
        for worker in workers
        if (found := worker.get("costs", {}).get(model, {}).get(str(version)))
    ]
    if not costs:
        return None
    return Cost(max(seconds for seconds, _ in costs), max(memory for _, memory in costs))


def _counted(route: Route, rollout: Rollout) -> list[tuple[int, str]]:
    candidate = rollout.version
    return [
        (route.champion, "champion"),
        (candidate, "canary"),
        (candidate, "shadow"),
        (candidate, PAIR),
        (route.champion, Role.FLOOR),
    ]


def _since(window: Window, baseline: Baseline, version: int, role: str) -> Window:
    """What came since the baseline; windows that expired meanwhile count as nothing."""
    before = baseline.sums.get(f"{version}:{role}")
    if before is None:
        return window
    vector = window.layout.fitted(unpack_vector(before))
    return Window(window.layout, (window.vector - vector).clip(0))


def _arm(window: Window) -> ArmCounts:
    ok, _, error = (int(count) for count in window["requests"])
    return ArmCounts(ok + error, error, _sparse(window, "latency"))


def immature(history: History, champion: int, candidate: int) -> Vector:
    """Labelled pairs, as in the section `right`, of hours that have not got most labels yet.

    How many to expect, the champion's days of the last weeks tell.
    """
    last = history.newest("day")
    days = [history.window(champion, ANSWERING, "day", d, d) for d in range(last - 28, last + 1)]
    expected = plateau(
        np.array([day["confusion"].sum() for day in days]),
        np.array([day["rows"].sum() for day in days]),
    )
    newest = history.newest("hour")
    hours = [
        history.window(candidate, (PAIR,), "hour", h, h)
        for h in range(newest - HOURS_KEPT, newest + 1)
    ]
    right = np.array([hour["right"] for hour in hours])
    rows = np.array([hour["rows"][0] for hour in hours])
    held = right[~mature(right.sum(axis=1), rows, expected)].sum(axis=0)
    return np.asarray(held, np.int64)


def pair_counts(
    window: Window,
    shadow: ArmCounts,
    champion: ArmCounts,
    percent: float,
    held_back: Vector | None = None,
) -> PairCounts:
    """A window of pairs as evidence; the shadow was meant to see `percent` of the champion's.

    `held_back`: labelled pairs, as in the section `right`, that do not count yet.
    """
    rows, agreeing = (int(count) for count in window["rows"])
    waiting = window["right"] * 0 if held_back is None else np.minimum(held_back, window["right"])
    right = window["right"] - waiting
    both, only_champion, only_candidate, neither = (int(count) for count in right)
    return PairCounts(
        eligible=round((champion.requests - champion.errors) * percent / 100),
        requests=shadow.requests,
        errors=shadow.errors,
        rows=rows,
        agreeing=agreeing,
        both=both,
        only_champion=only_champion,
        only_candidate=only_candidate,
        neither=neither,
        held_back=int(waiting.sum()),
        non_finite=int(window["non_finite"].sum()),
        scores_champion=tuple(window["score_primary"].tolist()),
        scores_candidate=tuple(window["score_shadow"].tolist()),
        latency_champion=_sparse(window, "latency_primary"),
        latency_candidate=_sparse(window, "latency_shadow"),
    )


def _sparse(window: Window, section: str) -> dict[int, int]:
    counts = window[section]
    return {int(bucket): int(counts[bucket]) for bucket in counts.nonzero()[0]}
