"""Trains two versions on winter flights and exports them to ONNX.

Version 1 is a logistic regression, version 2 gradient-boosted trees; both say how likely a
flight is to arrive more than 15 minutes late.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import polars as pl
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits

from examples.flights import data
from examples.flights.data import CATEGORICAL, FEATURES, NUMERIC

STAMP = "trained.json"

#: Rows on which the exported file is held against scikit-learn, and how far it may be off.
CHECKED_ROWS = 5_000
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Trained:
    """One exported version."""

    version: int
    file: Path
    description: str
    rows: int
    seconds: float


def train(folder: Path, progress: Callable[[str], object]) -> list[Trained]:
    """Train and export both versions, and write reference.parquet and holdout.parquet.

    Does nothing where the folder holds what this very code made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stamp = folder / STAMP
    known = json.loads(stamp.read_text()) if stamp.is_file() else {}
    if known.get("code") == _code() and all((folder / name).is_file() for name in FILES):
        return [Trained(**{**each, "file": folder / each["file"]}) for each in known["versions"]]
    # An interrupted training leaves no stamp over half its files.
    stamp.unlink(missing_ok=True)
    frame = data.load()
    rows, holdout = data.split(frame)
    data.training(frame).select(*FEATURES, "event_ms", "late").write_parquet(
        folder / "reference.parquet"
    )
    holdout.select(*FEATURES, "late").write_parquet(folder / "holdout.parquet")
    versions = []
    for version, (description, model) in MODELS.items():
        progress(f"training v{version}, {description}")
        versions.append(_train_one(folder, version, description, model(), rows))
        off = disagreement(folder, version, holdout.head(CHECKED_ROWS))
        progress(f"v{version}: ONNX and scikit-learn differ by at most {off:.1e}")
        if not off < TOLERANCE:
            raise RuntimeError(f"v{version} exports wrongly: off by {off} from scikit-learn")
    records = [{**asdict(each), "file": each.file.name} for each in versions]
    stamp.write_text(json.dumps({"code": _code(), "versions": records}))
    return versions


def offline(folder: Path, version: int, frame: pl.DataFrame) -> npt.NDArray[np.float64]:
    """P(late) of each row, from the scikit-learn pipeline itself: shape [rows]."""
    model = joblib.load(folder / f"model-{version}.joblib")
    scores: npt.NDArray[np.float64] = model.predict_proba(_features(frame))[:, 1]
    return scores


def disagreement(folder: Path, version: int, frame: pl.DataFrame) -> float:
    """The largest difference in P(late) between the exported file and scikit-learn."""
    session = ort.InferenceSession(folder / f"model-{version}.onnx")
    rows = _features(frame)
    feeds = {name: rows[name].to_numpy().reshape(-1, 1) for name in NUMERIC}
    feeds |= {name: rows[name].to_numpy().astype(object).reshape(-1, 1) for name in CATEGORICAL}
    (said,) = session.run(["probabilities"], feeds)
    return float(np.abs(said[:, 1] - offline(folder, version, frame)).max())


def _train_one(
    folder: Path, version: int, description: str, model: Pipeline, rows: pl.DataFrame
) -> Trained:
    started = time.monotonic()
    # One thread: on shared cores OpenMP's threads spin waiting for each other, 15 s against 5.
    with threadpool_limits(1):
        model.fit(_features(rows), rows["late"].to_numpy().astype(np.int64))
    seconds = round(time.monotonic() - started, 1)
    types = [(name, StringTensorType([None, 1])) for name in CATEGORICAL]
    types += [(name, FloatTensorType([None, 1])) for name in NUMERIC]
    file = folder / f"model-{version}.onnx"
    exported = to_onnx(
        model, initial_types=types, options={id(model): {"zipmap": False}}, target_opset=17
    )

    # skl2onnx writes these in no fixed order; sorted, the same model has the same digest.
    exported.opset_import.sort(key=lambda opset: opset.domain)
    file.write_bytes(exported.SerializeToString())
    joblib.dump(model, folder / f"model-{version}.joblib")
    return Trained(version, file, description, len(rows), seconds)


def _features(frame: pl.DataFrame) -> Any:
    return frame.select(
        *(pl.col(name).fill_null("") for name in CATEGORICAL),
        *(pl.col(name).cast(pl.Float32).fill_null(float("nan")) for name in NUMERIC),
    )


def _logistic() -> Pipeline:
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    columns = ColumnTransformer(
        [
            ("words", OneHotEncoder(handle_unknown="ignore"), list(CATEGORICAL)),
            ("numbers", numbers, list(NUMERIC)),
        ]
    )
    return Pipeline([("columns", columns), ("model", LogisticRegression(max_iter=500))])


def _trees() -> Pipeline:
    columns = ColumnTransformer(
        [
            (
                "words",
                OneHotEncoder(handle_unknown="ignore", sparse_output=False, min_frequency=200),
                list(CATEGORICAL),
            ),
            ("numbers", "passthrough", list(NUMERIC)),
        ]
    )
    model = HistGradientBoostingClassifier(
        max_iter=100, learning_rate=0.06, max_leaf_nodes=31, min_samples_leaf=200, random_state=0
    )
    return Pipeline([("columns", columns), ("model", model)])


MODELS: dict[int, tuple[str, Callable[[], Pipeline]]] = {
    1: ("logistic regression", _logistic),
    2: ("gradient-boosted trees", _trees),
}

#: What a finished training leaves.
FILES = (
    "reference.parquet",
    "holdout.parquet",
    *(f"model-{version}.{kind}" for version in MODELS for kind in ("onnx", "joblib")),
)


def _code() -> str:
    """What the files depend on: this module and the data's."""
    sources = (Path(__file__), Path(data.__file__))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
