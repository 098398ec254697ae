"""How soon River's detectors see the error rate rise, and how often they cry wolf: online.json.

Run by a Python that has River (a few minutes):

    pip install river==0.26.1
    python benchmarks/detect/peers/online.py

The streams are drawn here, for these detectors and for ours. Every detector, with its defaults,
first reads the reference, then the stream; alarms within the reference do not count. River's
detectors start anew by themselves after an alarm.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SEED = 4
RUNS = 1_000
REFERENCE, LABELS = 3_000, 20_000
#: After how many labels of the stream the rate rises, and from what to what.
CHANGES = (5_000, 2_000)
BEFORE = 0.10
AFTER = (0.12, 0.15, 0.20)


def stream(run: int, change: int = LABELS, after: float = BEFORE) -> npt.NDArray[np.bool_]:
    """The errors of one run: the reference, then the stream. Rates differ, chance does not."""
    chance = np.random.default_rng([SEED, run]).random(REFERENCE + LABELS)
    rates = np.full(REFERENCE + LABELS, BEFORE)
    rates[REFERENCE + change :] = after
    return np.asarray(chance < rates)


def main() -> None:
    import river
    from river import drift

    detectors = {
        "ADWIN": drift.ADWIN,
        "DDM": drift.binary.DDM,
        "HDDM_A": drift.binary.HDDMA,
        "Page-Hinkley": drift.PageHinkley,
    }
    figures = {name: _figures(make) for name, make in detectors.items()}
    found = {
        "versions": {"river": river.__version__, "python": platform.python_version()},
        "command": "python benchmarks/detect/peers/online.py",
        "runs": RUNS,
        "figures": figures,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n")


def _figures(make: Any) -> dict[str, Any]:
    alone = sum(_first_alarm(make(), stream(run), 0) is not None for run in range(RUNS))
    delays = {
        f"{change} {after}": _summary([_delay(make(), run, change, after) for run in range(RUNS)])
        for change in CHANGES
        for after in AFTER
    }
    return {"false_alarm_runs": alone, "delays": delays}


def _delay(detector: Any, run: int, change: int, after: float) -> float:
    found = _first_alarm(detector, stream(run, change, after), change)
    return np.inf if found is None else found - change


def _first_alarm(detector: Any, errors: npt.NDArray[np.bool_], start: int) -> int | None:
    """After how many labels of the stream the first alarm came beyond `start`; None if never."""
    for at, error in enumerate(errors.tolist(), 1 - REFERENCE):
        detector.update(error)
        if at > start and detector.drift_detected:
            return at
    return None


def _summary(delays: list[float]) -> dict[str, float | int | None]:
    """Never is later than everything, so a median of None says that most runs missed it."""
    median = float(np.median(delays))
    return {
        "median": median if np.isfinite(median) else None,
        "missed_runs": int(np.isinf(delays).sum()),
    }


if __name__ == "__main__":
    main()
