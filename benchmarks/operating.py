"""Operating characteristics of the gates: how often and how soon they decide, and how rightly.

Whole rollouts are simulated, request by request in looks of 50, with the gates that the monitor
runs: nothing here knows a formula. Seeds are fixed. `python -m benchmarks.operating [runs]`.
"""

from __future__ import annotations

import statistics
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import log
from pathlib import Path

import msgspec
import numpy as np
from rich.progress import track
from rich.table import Table

from models.latency import bucket
from models.policy import Policy, read_policy
from models.rollout import STEPS, WHOLE
from monitoring.gates import ArmCounts, Cost, Evidence, PairCounts, evaluate
from monitoring.stats import sequential
from slipstream.places import screen

#: Candidate's requests between two looks.
LOOK = 50
#: Looks after which a rollout that still waits is given up.
LOOKS = 2_000
RESULT = Path(__file__).parent.parent / "docs/operating-characteristics.md"


@dataclass(frozen=True)
class World:
    """How champion and candidate really are. Rates are shares of requests; latency in ms.

    `only_champion` and `only_candidate`: shares of labelled rows on which one alone is right.
    `labelled`: share of the compared rows whose label is known by the next look.
    """

    champion_errors: float = 0.01
    candidate_errors: float = 0.01
    shadow_errors: float = 0.001
    only_champion: float = 0.05
    only_candidate: float = 0.05
    labelled: float = 1.0
    champion_ms: float = 2.0
    candidate_ms: float = 2.0


@dataclass(frozen=True)
class Outcome:
    """How a rollout ended: promoted, rolled back (by which gate), or given up; the candidate's
    requests until then, and the step at which it ended."""

    end: str
    gate: str
    requests: int
    step: int


class Rollout:
    """One simulated rollout."""

    def __init__(self, world: World, policy: Policy, seed: int, step: int = 0) -> None:
        self._world = world
        self._policy = policy
        self._random = np.random.default_rng(seed)
        self._step = step
        self._pairs = np.zeros(4, np.int64)  # only champion, only candidate, both, neither
        self._labels = np.zeros(4, np.int64)
        self._shadow = np.zeros(2, np.int64)  # requests, errors
        self._whole = np.zeros((2, 2), np.int64)
        self._begin()

    def _begin(self) -> None:
        self._arms = np.zeros((2, 2), np.int64)
        self._latency = [Counter[int](), Counter[int]()]

    def run(self) -> Outcome:
        """Look, act, until it has ended."""
        requests = 0
        for look in range(1, LOOKS + 1):
            requests += LOOK
            self._traffic()
            verdict = evaluate(self._evidence(look), self._policy)
            if verdict.status == "fail":
                gate = next(g.name for g in verdict.gates if g.blocks and g.status == "fail")
                return Outcome("rolled back", gate, requests, self._step)
            if verdict.status == "pass":
                if self._step == len(STEPS):
                    return Outcome("promoted", "", requests, self._step)
                self._step += 1
                self._begin()
        return Outcome("waiting", "", requests, self._step)

    def _traffic(self) -> None:
        """LOOK requests to the candidate, and what the champion gets in the same time."""
        world, random = self._world, self._random
        weight = STEPS[self._step - 1] / 10_000 if self._step else 0.5
        counts = (round(LOOK * (1 - weight) / weight), LOOK)
        for arm, (count, rate, ms) in enumerate(
            (
                (counts[0], world.champion_errors, world.champion_ms),
                (counts[1], world.candidate_errors, world.candidate_ms),
            )
        ):
            came = (count, random.binomial(count, rate if self._step else 0.0))
            self._arms[arm] += came
            self._whole[arm] += came
            drawn = ms * 1_000 * random.lognormal(0, 0.3, min(count, 500))
            self._latency[arm].update(bucket(drawn).tolist())
        shadowed = counts[0] if self._step else LOOK
        errors = random.binomial(shadowed, world.shadow_errors)
        self._shadow += (shadowed, errors)
        shares = (world.only_champion, world.only_candidate)
        rest = (1 - sum(shares)) / 2
        rows = random.multinomial(shadowed - errors, (*shares, rest, rest))
        self._pairs += rows
        self._labels += random.binomial(rows, world.labelled)

    def _evidence(self, look: int) -> Evidence:
        champion, candidate = (
            ArmCounts(int(arm[0]), int(arm[1]), dict(latency))
            for arm, latency in zip(self._arms, self._latency, strict=True)
        )
        whole = [ArmCounts(*map(int, arm)) for arm in self._whole]
        requests, errors = (int(count) for count in self._shadow)
        if not self._step:
            candidate = msgspec.structs.replace(candidate, errors=errors)
            whole[1] = ArmCounts(requests, errors)
        rows = int(self._pairs.sum())
        only_champion, only_candidate, both, neither = (int(n) for n in self._labels)
        pairs = PairCounts(
            eligible=requests,
            requests=requests,
            errors=errors,
            rows=rows,
            agreeing=rows - int(self._pairs[:2].sum()),
            both=both,
            only_champion=only_champion,
            only_candidate=only_candidate,
            neither=neither,
            latency_champion=champion.latency,
            latency_candidate=candidate.latency,
        )
        weights = (0, *STEPS, WHOLE)
        return Evidence(
            champion_cost=Cost(1.0, 8_000_000),
            candidate_cost=Cost(1.0, 8_000_000),
            model="m",
            rollout="r",
            champion=1,
            candidate=2,
            revision=self._step,
            step=self._step,
            stage="",
            weight=weights[self._step],
            next_weight=weights[self._step + 1],
            at_ms=0,
            seconds=look,
            workers=1,
            applied=1,
            champion_arm=champion,
            candidate_arm=candidate,
            champion_whole=whole[0],
            candidate_whole=whole[1],
            pairs=pairs,
        )


def rollout(world: World, policy: Policy, step: int, seed: int) -> Outcome:
    return Rollout(world, policy, seed, step).run()


@dataclass(frozen=True)
class Case:
    """A question, how the world is, and what counts as an answer."""

    name: str
    world: World
    policy: str = "improvement"
    step: int = 0


CASES = (
    Case("healthy: as good as the champion (1 % errors, 10 % disagreement)", World()),
    Case("healthy, two points better", World(only_champion=0.04, only_candidate=0.06)),
    Case(
        "healthy, equivalent (0.2 % disagreement)",
        World(only_champion=0.001, only_candidate=0.001, labelled=0),
        "equivalent",
    ),
    Case("5 % errors, from the start", World(candidate_errors=0.05, shadow_errors=0.05)),
    Case("5 % errors, that only the canary shows", World(candidate_errors=0.05), step=1),
    Case("2 % errors more, that only the canary shows", World(candidate_errors=0.03), step=1),
    Case("50 % errors", World(candidate_errors=0.5, shadow_errors=0.5)),
    Case("three points worse", World(only_champion=0.08, only_candidate=0.05)),
    Case("ten times slower, as a canary", World(candidate_ms=20), step=1),
)


def paired(only_first: float, only_second: float, runs: int, pairs: int) -> list[float]:
    """Labelled pairs, looked at every 50, until one is called better; infinite where none is."""
    random = np.random.default_rng(0)
    found = []
    for _ in track(range(runs), "pairs", console=screen, transient=True):
        rest = 1 - only_first - only_second
        drawn = random.multinomial(50, (only_first, only_second, rest), pairs // 50).cumsum(axis=0)
        decided = next(
            (
                50.0 * (look + 1)
                for look, (first, second, _) in enumerate(drawn.tolist())
                if sequential.log_e_paired(first, second) >= log(20)
            ),
            float("inf"),
        )
        found.append(decided)
    return found


def measure(case: Case, runs: int, pool: ProcessPoolExecutor) -> list[Outcome]:
    one: Callable[[int], Outcome] = partial(
        rollout, case.world, read_policy(case.policy), case.step
    )
    found = pool.map(one, range(runs), chunksize=5)
    return list(track(found, case.name, total=runs, console=screen, transient=True))


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    head = ("candidate", "promoted", "rolled back", "still waiting", "median requests", "by gate")
    table, lines = Table(*head), [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    with ProcessPoolExecutor(2) as pool:
        for case in CASES:
            row = (case.name, *cells(measure(case, runs, pool)))
            table.add_row(*row)
            lines.append(f"| {' | '.join(row)} |")
    screen.print(table)
    equal = paired(0.05, 0.05, 2_000, 20_000)
    better = paired(0.04, 0.06, 2_000, 20_000)
    false = sum(found < float("inf") for found in equal) / len(equal)
    told = (
        f"Equal models, 20,000 labelled pairs with 10 % disagreement, looked at every 50: a false "
        f"winner in {false:.1%} of 2,000 runs. A shadow that is two points better is found after a "
        f"median of {statistics.median(better):,.0f} labelled pairs."
    )
    screen.print(told)
    text = [
        "# Operating characteristics of the gates",
        "",
        f"Made by `make bench-gates`: {runs:,} simulated rollouts a row, judged by the monitor's "
        f"own gates with the policies as they come (`equivalent` where said, else `improvement`), "
        f"looked at after every {LOOK} requests of the candidate. The champion fails 1 % of its "
        f"requests as soon as the canary starts. Requests are the candidate's own, over all steps.",
        "",
        *lines,
        "",
        told,
        "",
    ]
    RESULT.write_text("\n".join(text))


def cells(outcomes: list[Outcome]) -> tuple[str, ...]:
    """Shares, the median of the requests to the usual end, and the gates that stopped it."""
    ends = Counter(outcome.end for outcome in outcomes)
    total = len(outcomes)
    usual = ends.most_common(1)[0][0]
    median = statistics.median(o.requests for o in outcomes if o.end == usual)
    gates = Counter(o.gate for o in outcomes if o.gate)
    return (
        *(f"{ends[end] / total:.1%}" for end in ("promoted", "rolled back", "waiting")),
        f"{median:,.0f}",
        ", ".join(f"{gate} {count / total:.1%}" for gate, count in gates.most_common()) or "–",
    )


if __name__ == "__main__":
    main()
