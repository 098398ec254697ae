"""Rollouts under kills, and how soon a change of route is everywhere. Both have a long form."""

from __future__ import annotations

from pathlib import Path

from tests.faults import kill_rollouts, propagation

KILLS = 8


def test_kills_break_no_invariant(tmp_path: Path) -> None:
    """`python -m tests.faults.kill_rollouts` does this 200 times."""
    report = kill_rollouts.run(tmp_path, KILLS, seed=7, pause=1.2)
    assert report.broken == []
    assert set(report.kills) == {"redis", "monitor", "worker"}
    assert sum(report.kills.values()) == KILLS
    assert report.ends["started"] > 0
    assert report.without_redis > 0


def test_a_change_reaches_four_workers(tmp_path: Path) -> None:
    """`python -m tests.faults.propagation` prints the times; here they need only be sane."""
    seconds = propagation.run(tmp_path, changes=4, workers=4)
    assert len(seconds) == 4
    assert max(seconds) < 5
