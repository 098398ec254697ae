"""Cuts reference data into blocks of time, to learn how much they differ among themselves."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import polars

from models.errors import RepositoryError
from models.profile import Blocks, FeatureProfile, Usual, Whole
from models.signature import Array
from monitoring.examine import reference_of
from monitoring.stats import blocks, kernel
from monitoring.stats.blocks import LEAST_BLOCKS, LEVEL, TimeCalibration
from monitoring.window import kernel_of

Ints = npt.NDArray[np.int64]

#: Milliseconds of the blocks that are tried, the first that gives enough of them.
GRAINS = {"day": 86_400_000, "hour": 3_600_000}
#: Rows of a block that are looked at as a whole.
BLOCK = 500
#: Rows below which a block says nothing.
LEAST_ROWS = 30


class Cut(NamedTuple):
    """Which block each row belongs to, from 0 in the order of time; -1 for none."""

    grain: str
    block: Ints

    @property
    def size(self) -> int:
        return int(self.block.max()) + 1


def cut(column: polars.Series) -> Cut | None:
    """Blocks of a day, or else of an hour; None where the data last too short for either.

    `column` holds timestamps, dates, ISO 8601 texts, or seconds or milliseconds since 1970.
    """
    times = milliseconds(column)
    for grain, length in GRAINS.items():
        _, block, rows = np.unique(times // length, return_inverse=True, return_counts=True)
        enough = rows >= LEAST_ROWS
        if enough.sum() >= LEAST_BLOCKS:
            number = np.where(enough, np.cumsum(enough) - 1, -1)
            return Cut(grain, number[block].astype(np.int64))
    return None


def milliseconds(column: polars.Series) -> Ints:
    """Times as milliseconds since 1970. Raises RepositoryError where they are none."""
    if column.null_count():
        raise RepositoryError(f"column '{column.name}' has rows without a time")
    try:
        if column.dtype == polars.String:
            column = column.str.to_datetime(time_unit="ms")
        if column.dtype.is_temporal():
            return column.cast(polars.Datetime("ms")).cast(polars.Int64).to_numpy()
        numbers = column.cast(polars.Float64).to_numpy()
    except polars.exceptions.PolarsError as error:
        raise RepositoryError(f"column '{column.name}' holds no times: {error}") from error
    if not np.isfinite(numbers).all():
        raise RepositoryError(f"column '{column.name}' has rows without a time")
    scale = 1 if np.abs(numbers).max(initial=0) > 1e11 else 1_000  # seconds reach 1e11 in 5138
    return (numbers * scale).astype(np.int64)


def with_blocks(profile: FeatureProfile, index: Ints, block: Ints) -> FeatureProfile:
    """The profile of a feature with what is usual between blocks; `index` has the bin of each
    row, the last one of missing values."""
    width = len(profile.counts) + 1
    size = int(block.max()) + 1
    used = block >= 0
    counts = np.bincount(block[used] * width + index[used], minlength=size * width)
    counts = counts.reshape(size, width)
    rows = counts.sum(axis=1)
    values = np.maximum(counts[:, :-1].sum(axis=1, keepdims=True), 1)
    ordered = profile.numeric is not None
    usual = int(np.median(rows))
    groups = reference_of(profile).groups(usual)
    pooled = np.zeros((size, int(groups.max()) + 1), np.int64)
    np.add.at(pooled.T, groups, counts[:, :-1].T)
    found = Blocks(
        rows=usual,
        chi_squared=_usual(blocks.chi_squared(pooled)),
        anderson_darling=_usual(blocks.anderson_darling(counts[:, :-1])) if ordered else None,
        missing=float((counts[:, -1] / np.maximum(rows, 1)).max()),
        peaks=tuple(round(peak, 6) for peak in (counts[:, :-1] / values).max(axis=0).tolist()),
    )
    return msgspec.structs.replace(profile, blocks=found)


def whole_over_time(whole: Whole, rows: Array, block: Ints) -> Whole:
    """With how much blocks differ beyond chance, as far as the 95 % quantile tells."""
    reference = kernel_of(whole)
    ratios = []
    for number in range(int(block.max()) + 1):
        found = kernel.compare(reference, kernel.state(reference, rows[block == number][:BLOCK]))
        assert found is not None
        ratios.append(found.statistic)
    usual = float(np.quantile(ratios, LEVEL, method="inverted_cdf"))
    chance = kernel.critical_value(reference, 1 - LEVEL)
    return msgspec.structs.replace(whole, dispersion=max(1.0, usual / chance))


def _usual(found: TimeCalibration) -> Usual:
    ratios = tuple(round(ratio, 4) for ratio in found.ratios.tolist())
    return Usual(ratios, found.memory, found.dispersion, found.df)
