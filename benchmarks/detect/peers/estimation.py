"""What NannyML estimates without labels on its own data, and in what time: estimation.json.

Run by a Python that has NannyML, its data being unzipped as for the benchmark:

    pip install nannyml==0.13.1 'pandas<3' statsmodels
    OMP_NUM_THREADS=1 python benchmarks/detect/peers/estimation.py .bench-data/nannyml

Chunks are whole windows in the order of time. Errors are of the estimate against what the labels
say of the same chunk. `seconds` is the time of fitting on the reference and estimating all the
metrics that Slipstream estimates, `seconds_one_metric` that of the first alone, best of three.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
import warnings
from pathlib import Path

os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"  # it would report to its makers on every call

import nannyml
import numpy as np
import pandas as pd
from sklearn.metrics import f1_score, roc_auc_score

SIZES = (1000, 5000)
#: Name: the files of reference, analysis and its truth; then score, class and truth columns.
BINARY = {
    "car loan": (
        "synthetic_car_loan_reference.csv",
        "synthetic_car_loan_analysis.csv",
        "synthetic_car_loan_analysis_target.csv",
        ("y_pred_proba", "y_pred", "repaid"),
    ),
    "census": (
        "employment_MA_reference.pq",
        "employment_MA_analysis.pq",
        "employment_MA_analysis_target.pq",
        ("predicted_probability", "prediction", "employed"),
    ),
    "California housing": (
        "california_housing_reference.csv",
        "california_housing_analysis.csv",
        "california_housing_analysis_gt.csv",
        ("y_pred_proba", "y_pred", "clf_target"),
    ),
    "work from home": (
        "synthetic_sample_reference.csv",
        "synthetic_sample_analysis.csv",
        "synthetic_sample_analysis_gt.csv",
        ("y_pred_proba", "y_pred", "work_home_actual"),
    ),
}
CARDS = ("prepaid_card", "highstreet_card", "upmarket_card")
MULTICLASS = ("mc_reference.csv", "mc_analysis.csv", "mc_analysis_gt.csv")
REGRESSION = (
    "regression_synthetic_reference.csv",
    "regression_synthetic_analysis.csv",
    "regression_synthetic_analysis_targets.csv",
)


def read(folder: Path, name: str) -> pd.DataFrame:
    file = folder / "datasets" / "data" / name
    return pd.read_parquet(file) if file.suffix == ".pq" else pd.read_csv(file)


def tables(folder: Path, files: tuple[str, ...]) -> tuple[pd.DataFrame, pd.DataFrame]:
    reference, after, truth = (read(folder, name) for name in files[:3])
    return reference, after.merge(truth, on="id", how="left")


def chunks(frame: pd.DataFrame, size: int) -> list[pd.DataFrame]:
    return [frame.iloc[at : at + size] for at in range(0, len(frame) - size + 1, size)]


def estimated(estimator, reference, after, metrics):  # noqa: ANN001, ANN201
    """Estimates per metric and chunk, and the seconds that they took."""
    began = time.perf_counter()
    estimator.fit(reference)
    result = estimator.estimate(after).filter(period="analysis").to_df()
    seconds = time.perf_counter() - began
    return {name: result[name, "value"].to_numpy(float) for name in metrics}, seconds


def timed(make, reference, after, metrics):  # noqa: ANN001, ANN201
    return min(estimated(make(metrics), reference, after, metrics)[1] for _ in range(3))


def chunker(size: int) -> nannyml.chunk.SizeBasedChunker:
    return nannyml.chunk.SizeBasedChunker(size, incomplete="drop")


def figures(make, reference, after, metrics, truths):  # noqa: ANN001, ANN201
    estimates, _ = estimated(make(metrics), reference, after, metrics)
    return {
        "windows": len(next(iter(truths.values()))),
        "seconds": round(timed(make, reference, after, metrics), 3),
        "seconds_one_metric": round(timed(make, reference, after, metrics[:1]), 3),
        "mean_absolute_error": {
            name: round(float(np.mean(np.abs(estimates[name] - np.array(truth)))), 6)
            for name, truth in truths.items()
        },
    }


def binary(folder: Path, name: str, size: int):  # noqa: ANN201
    *files, (score, said, truth) = BINARY[name]
    reference, after = tables(folder, tuple(files))

    def make(metrics):  # noqa: ANN001, ANN202
        return nannyml.CBPE(
            y_pred_proba=score,
            y_pred=said,
            y_true=truth,
            metrics=metrics,
            problem_type="classification_binary",
            chunker=chunker(size),
        )

    metrics = ["accuracy", "precision", "recall", "f1", "roc_auc"]
    parts = chunks(after, size)
    truths = {
        "accuracy": [float((p[said] == p[truth]).mean()) for p in parts],
        "f1": [float(f1_score(p[truth], p[said])) for p in parts],
        "roc_auc": [float(roc_auc_score(p[truth], p[score])) for p in parts],
    }
    return figures(make, reference, after, metrics, truths)


def multiclass(folder: Path, size: int):  # noqa: ANN201
    reference, after = tables(folder, MULTICLASS)

    def make(metrics):  # noqa: ANN001, ANN202
        return nannyml.CBPE(
            y_pred_proba={card: f"y_pred_proba_{card}" for card in CARDS},
            y_pred="y_pred",
            y_true="y_true",
            metrics=metrics,
            problem_type="classification_multiclass",
            chunker=chunker(size),
        )

    metrics = ["accuracy", "precision"]
    truths = {
        "accuracy": [float((p["y_pred"] == p["y_true"]).mean()) for p in chunks(after, size)],
    }
    return figures(make, reference, after, metrics, truths)


def regression(folder: Path, size: int):  # noqa: ANN201
    reference, after = tables(folder, REGRESSION)
    given = ["id", "timestamp", "y_pred", "y_true"]

    def make(metrics):  # noqa: ANN001, ANN202
        return nannyml.DLE(
            feature_column_names=[n for n in reference.columns if n not in given],
            y_pred="y_pred",
            y_true="y_true",
            metrics=metrics,
            chunker=chunker(size),
        )

    wrong = [(p["y_pred"] - p["y_true"]).to_numpy() for p in chunks(after, size)]
    truths = {
        "mae": [float(np.mean(np.abs(e))) for e in wrong],
        "rmse": [float(np.sqrt(np.mean(e * e))) for e in wrong],
    }
    return figures(make, reference, after, ["mae", "rmse"], truths)


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    found: dict[str, dict[str, object]] = {}
    for size in SIZES:
        for name in BINARY:
            found.setdefault(name, {})[str(size)] = binary(folder, name, size)
        found.setdefault("cards, 3 classes", {})[str(size)] = multiclass(folder, size)
        found.setdefault("car price, regression", {})[str(size)] = regression(folder, size)
    kept = {
        "versions": {
            "nannyml": nannyml.__version__,
            "pandas": pd.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "command": "OMP_NUM_THREADS=1 python benchmarks/detect/peers/estimation.py FOLDER",
        "machine": f"{platform.system()} {platform.machine()}, one thread",
        "figures": found,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
