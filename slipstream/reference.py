"""The data that a version was made from: a file's rows, and the tensors they are to a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars

from models.errors import RepositoryError
from models.manifest import Feature
from models.sessions import LoadedVersion
from models.signature import NUMPY, Array, Tensors


@dataclass(frozen=True)
class Reference:
    """The data that a version was made from. `holdout` measures it; the reference else.

    `time` names the column of the rows' times, from which is learned how much days differ.
    """

    file: Path
    target: str | None = None
    holdout: Path | None = None
    time: str | None = None

    def table(self) -> polars.DataFrame:
        """Its rows. Raises RepositoryError where it has none, or not the columns that are named."""
        table = read_table(self.file)
        missing = sorted(self.aside - set(table.columns))
        if missing:
            raise RepositoryError(
                f"{self.file} has no column '{missing[0]}'; it has: {', '.join(table.columns)}"
            )
        if not len(table):
            raise RepositoryError(f"{self.file} has no rows")
        return table

    @property
    def aside(self) -> set[str]:
        """Columns that are no features."""
        return {name for name in (self.target, self.time) if name}


def read_table(file: Path) -> polars.DataFrame:
    """Parquet, CSV, or NumPy's .npz, whose arrays may have more than one number a row."""
    if file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as arrays:
            return polars.DataFrame({name: arrays[name] for name in arrays.files})
    if file.suffix == ".parquet":
        return polars.read_parquet(file)
    if file.suffix == ".csv":
        return polars.read_csv(file, infer_schema_length=10_000)
    raise RepositoryError(f"{file} is neither .parquet, .csv nor .npz")


def is_tensor(column: polars.Series) -> bool:
    """Whether a row has more than one value: an embedding, an image."""
    return isinstance(column.dtype, polars.Array | polars.List)


def tensors_of(
    loaded: LoadedVersion, features: tuple[Feature, ...], table: polars.DataFrame
) -> Tensors:
    """Rows of a table as the tensors that the gateway would see."""
    tensors: Tensors = {}
    for spec in loaded.signature.inputs:
        if spec.name in table.columns and is_tensor(table[spec.name]):
            tensors[spec.name] = _stacked(table[spec.name]).astype(NUMPY[spec.datatype])
            continue
        names = [feature.name for feature in features if feature.input == spec.name]
        columns = [_column(table[name], spec.datatype) for name in names]
        tensors[spec.name] = np.stack(columns, axis=1)
        if spec.shape is not None and len(spec.shape) == 1:
            tensors[spec.name] = tensors[spec.name][:, 0]
    return tensors


def _stacked(column: polars.Series) -> Array:
    """Rows of equally many values as one array. Raises RepositoryError where they differ."""
    if isinstance(column.dtype, polars.Array):
        return column.to_numpy()
    try:
        return np.stack([row.to_numpy() for row in column])
    except (ValueError, AttributeError) as error:
        raise RepositoryError(
            f"column '{column.name}' has rows of different lengths, which no tensor can hold"
        ) from error


def _column(column: polars.Series, datatype: str) -> Array:
    if datatype == "BYTES":
        return column.cast(polars.String).fill_null("").to_numpy().astype(object)
    if NUMPY[datatype].kind == "f":
        return column.cast(polars.Float64).to_numpy().astype(NUMPY[datatype])
    if column.null_count():
        raise RepositoryError(
            f"column '{column.name}' has missing values, which a {datatype} input cannot hold"
        )
    return column.to_numpy().astype(NUMPY[datatype])
