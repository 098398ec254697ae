"""The reference profile of a version: what its data looked like when it was made.

Built once, kept beside the model as `profile.json`, never holding a raw row: bin edges and
counts for numeric features, level counts for categorical ones, the distribution of its scores,
and how good it was. Everything later is counted into these bins, so windows add up exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from models.errors import RepositoryError
from models.manifest import Feature, Manifest, Said
from models.signature import Array

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: Reference-quantile bins of a numeric feature. Coarser ones are merges of these.
BINS = 64
#: Share of the reference in the outermost bin at either end.
TAIL = 0.001
#: Infinite values count as this: JSON, in which a profile is kept, has no infinity.
LARGEST = 1e308
#: Most levels kept of a categorical feature; the rest is counted as other.
LEVELS = 200
#: Bins of the scores, half of them at quantiles and half of equal width.
SCORE_BINS = 64


class NumericBins(msgspec.Struct, frozen=True):
    """Counts between quantile edges: bin i holds edges[i-1] < x <= edges[i].

    `counts` has one entry more than `edges`; `missing` counts NaN. The two outermost bins at either
    end lie outside of everything that the reference has seen, so they are empty there: beyond it
    by more than its whole range, and by less. The bins next to them are its outermost thousandths.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    missing: int
    low: float
    high: float

    def index(self, values: Floats) -> Ints:
        """Bin of each value; the last index + 1 is for missing."""
        finite = np.clip(values, -LARGEST, LARGEST)
        edges = np.asarray(self.edges)
        bins = np.empty(len(values), np.int64)
        for start in range(0, len(values), 8_192):
            part = slice(start, start + 8_192)
            bins[part] = _edges_below(edges, finite[part])
        bins[np.isnan(values)] = len(self.counts)
        return bins


def _edges_below(edges: Floats, values: Floats) -> npt.NDArray[np.generic]:
    """How many edges lie below each value. All are compared, which a processor does eight at a
    time: 9 ns a value, where a binary search guesses wrong at every other turn and takes 35."""
    if len(edges) >= 255:
        return np.searchsorted(edges, values, side="left")
    below = (edges[:, None] < values).view(np.uint8)
    counts: npt.NDArray[np.uint8] = np.add.reduce(below, axis=0, dtype=np.uint8)
    return counts


class Levels(msgspec.Struct, frozen=True):
    """Counts of the levels of a categorical feature, most frequent first.

    `other` counts levels beyond the kept ones, `singletons` those of all levels seen once.
    """

    levels: tuple[str, ...]
    counts: tuple[int, ...]
    other: int
    missing: int
    singletons: int

    def index(self, values: npt.NDArray[np.object_]) -> Ints:
        """Index of each value; K is for unseen or other, K + 1 for missing (empty or None)."""
        other = len(self.levels)
        known = dict(zip(self.levels, range(other), strict=True))
        known.update(dict.fromkeys(MISSING, other + 1))
        texts = (v if type(v) is str else str(v) for v in values.tolist())
        return np.array([known.get(text, other) for text in texts], np.int64)


#: How a missing value of a categorical feature is spelled on the wire.
MISSING = frozenset({"", "nan", "None"})


class Usual(msgspec.Struct, frozen=True):
    """What is usual between blocks of the reference (monitoring.stats.blocks): rising `ratios` of
    a statistic to what chance alone would make it, and what they come to."""

    ratios: tuple[float, ...]
    memory: float
    dispersion: float
    df: float


class Blocks(msgspec.Struct, frozen=True):
    """How a feature varies from one block of time to the next.

    `rows` are those of a usual block, by which bins were pooled for `chi_squared`;
    `anderson_darling` is None where bins have no order. `missing` is the largest share of missing
    values that any block has, `peaks` the largest share of each bin.
    """

    rows: int
    chi_squared: Usual
    anderson_darling: Usual | None
    missing: float
    peaks: tuple[float, ...]


class FeatureProfile(msgspec.Struct, frozen=True):
    """The reference of one feature; exactly one of `numeric` and `categorical` is set.

    `importance`: by how much scores change, on average, where the feature alone is shuffled.
    """

    name: str
    numeric: NumericBins | None = None
    categorical: Levels | None = None
    blocks: Blocks | None = None
    importance: float | None = None

    @property
    def bins(self) -> NumericBins | Levels:
        bins = self.numeric if self.numeric is not None else self.categorical
        assert bins is not None, f"the profile of {self.name} is empty"
        return bins

    def index(self, values: Array) -> Ints:
        """Bin of each value of a column, as `feature_values` gives it."""
        if self.numeric is not None:
            return self.numeric.index(values.astype(np.float64, copy=False))
        assert self.categorical is not None
        return self.categorical.index(values.astype(object, copy=False))

    @property
    def counts(self) -> Ints:
        """Reference counts of the values that are there: bins, or levels and other."""
        if self.numeric is not None:
            return np.array(self.numeric.counts, np.int64)
        assert self.categorical is not None
        return np.array((*self.categorical.counts, self.categorical.other), np.int64)


class Scale(msgspec.Struct, frozen=True):
    """In what a regression's truth and errors are counted (monitoring.stats.regression): mean and
    deviation of the truth, and root mean square of the error, in the truth's unit."""

    centre: float
    spread: float
    error: float


class Whole(msgspec.Struct, frozen=True):
    """The rows as a whole, for what no single feature shows (monitoring.stats.kernel).

    `input` names the tensor whose rows are meant; without a name it is all numeric features,
    side by side. The other fields are those of kernel.Reference. `dispersion`: by how much blocks
    of time differ beyond chance.
    """

    input: str
    seed: int
    columns: int
    rows: int
    bandwidth: float
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    mean: tuple[float, ...]
    eigenvalues: tuple[float, ...]
    dispersion: float = 1.0


class Profile(msgspec.Struct, frozen=True):
    """The reference of a version. `rows` built the features, `holdout_rows` the metrics.

    `score` bins the scores; `classes` counts the predicted classes, in the manifest's order, and
    then unknown ones. `metrics` holds AUC, accuracy and so on, on the hold-out.

    `graded` counts the hold-out as windows do (monitoring.window): by score bin, of a binary task
    class said x truth, of many classes wrong and right. `errors` are a regression's, in
    `target.error`: by score bin rows, sums of |e|, e, e^2 and e^4. `grain` is day or hour
    where the reference was cut into `blocks` of time.
    """

    rows: int
    features: tuple[FeatureProfile, ...] = ()
    score: FeatureProfile | None = None
    classes: tuple[int, ...] = ()
    holdout_rows: int = 0
    metrics: dict[str, float] = msgspec.field(default_factory=dict)
    target: Scale | None = None
    graded: tuple[int, ...] = ()
    errors: tuple[tuple[float, ...], ...] = ()
    grain: str = ""
    blocks: int = 0
    whole: Whole | None = None


def bin_shares(counts: Ints | Floats) -> Floats:
    """THE EMPTY-BIN RULE: half a count is added to every bin before shares are compared.

    PSI and its kin divide by shares, so an empty bin needs a value; a fixed epsilon lets that
    constant decide the result (1e-4 against the smallest float: PSI 2.1 against 135 on the same
    data). Half a count shrinks with the evidence and gives .98 where the truth is 1.
    """
    total = counts.sum()
    return np.asarray((counts + 0.5) / (total + 0.5 * len(counts)), np.float64)


def coarser(counts: Ints, bins: int) -> Ints:
    """Which of at most `bins` groups each fine bin belongs to, of about equal reference mass.

    Chosen from the reference alone: groups that depend on the window inflate false alarms. A bin
    that is empty there joins the one before it, the first ones that after them: on its own it
    would make much of a single value.
    """
    total = counts.sum()
    if total == 0:
        return np.zeros(len(counts), np.int64)
    middle = (np.cumsum(counts) - counts / 2) / total
    groups = np.minimum((middle * bins).astype(np.int64), bins - 1)
    there = np.flatnonzero(counts)
    before = np.searchsorted(there, np.arange(len(counts)), side="right") - 1
    groups = groups[there[np.maximum(before, 0)]]
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def numeric_bins(values: Floats) -> NumericBins:
    """Bins at the quantiles of `values` (NaN: missing), which are data points themselves, and at
    both ends of them."""
    there = values[~np.isnan(values)]
    if len(there) == 0:
        return NumericBins((), (0,), len(values), 0.0, 0.0)
    finite = np.clip(there, -LARGEST, LARGEST)
    grid = [TAIL, *(np.arange(1, BINS) / BINS), 1 - TAIL]
    inner = np.quantile(finite, grid, method="inverted_cdf")
    return _between(inner, finite, len(values) - len(there))


def score_bins(scores: Floats) -> NumericBins:
    """Bins of scores, half at their quantiles and half of equal width.

    Quantiles alone put into one bin what was rare in the reference and is what a shift brings;
    equal widths alone waste bins where all scores are small.
    """
    there = scores[~np.isnan(scores)]
    if len(there) == 0:
        return numeric_bins(scores)
    finite = np.clip(there, -LARGEST, LARGEST)
    parts = np.arange(1, SCORE_BINS // 2) / (SCORE_BINS // 2)
    low, high = float(finite.min()), float(finite.max())
    # Scores come rounded (0.29), and an edge a digit off would put half of a value aside.
    even = np.round(low + (high - low) * parts, 12)
    inner = np.quantile(finite, parts, method="inverted_cdf")
    return _between(np.concatenate([inner, even]), finite, len(scores) - len(there))


def _between(inner: Floats, finite: Floats, missing: int) -> NumericBins:
    low, high = float(finite.min()), float(finite.max())
    below = np.nextafter(low, -np.inf)
    inside = np.clip([below, *inner, high], below, high)
    reach = high - low or max(abs(low), 1.0)
    edges = np.unique(np.clip([low - reach, *inside, high + reach], -LARGEST, LARGEST))
    counts = np.bincount(np.searchsorted(edges, finite, side="left"), minlength=len(edges) + 1)
    return NumericBins(
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
        missing=missing,
        low=low,
        high=high,
    )


def level_counts(values: npt.NDArray[np.object_]) -> Levels:
    """Counts of the most frequent levels; ties in the order of their names."""
    levels, counts = np.unique(_texts(values), return_counts=True)
    there = ~np.isin(levels, list(MISSING))
    order = np.argsort(-counts[there], kind="stable")
    levels_there, counts_there = levels[there][order], counts[there][order]
    return Levels(
        levels=tuple(levels_there[:LEVELS].tolist()),
        counts=tuple(counts_there[:LEVELS].tolist()),
        other=int(counts_there[LEVELS:].sum()),
        missing=int(counts[~there].sum()),
        singletons=int((counts_there == 1).sum()),
    )


def _texts(values: npt.NDArray[np.object_]) -> npt.NDArray[np.str_]:
    return values.astype(str)


def feature_values(feature: Feature, inputs: Mapping[str, Array], rows: int) -> Array | None:
    """The column of one feature: float64 or object, or None where it was not recorded."""
    tensor = inputs.get(feature.input)
    if tensor is None or len(tensor) != rows:
        return None
    table = tensor.reshape(rows, -1) if rows else tensor.reshape(0, feature.column + 1)
    if feature.column >= table.shape[1]:
        return None
    column = table[:, feature.column]
    return column.astype(np.float64) if feature.kind == "numeric" else column.astype(object)


def whole_rows(
    name: str, manifest: Manifest, inputs: Mapping[str, Array], rows: int
) -> Array | None:
    """The rows that a `Whole` is about, [rows, ...]; None where they were not recorded."""
    if name:
        tensor = inputs.get(name)
        return tensor if tensor is not None and len(tensor) == rows else None
    numeric = [feature for feature in manifest.features if feature.kind == "numeric"]
    columns = [feature_values(feature, inputs, rows) for feature in numeric]
    if not columns or any(column is None for column in columns):
        return None
    return np.stack([column for column in columns if column is not None], axis=1)


def profile_features(
    manifest: Manifest, inputs: Mapping[str, Array], rows: int
) -> tuple[FeatureProfile, ...]:
    """Profile every feature of the manifest from tensors as the gateway sees them."""
    profiles = []
    for feature in manifest.features:
        values = feature_values(feature, inputs, rows)
        if values is None:
            raise RepositoryError(
                f"feature '{feature.name}' reads column {feature.column} of input "
                f"'{feature.input}', which the reference data does not have"
            )
        if feature.kind == "numeric":
            profiles.append(
                FeatureProfile(feature.name, numeric=numeric_bins(values.astype(np.float64)))
            )
        else:
            profiles.append(
                FeatureProfile(feature.name, categorical=level_counts(values.astype(object)))
            )
    return tuple(profiles)


def class_counts(said: Said, classes: int) -> tuple[int, ...]:
    """Counts of the predicted classes, then of unknown ones (index -1)."""
    index = np.where(said.classes < 0, classes, said.classes)
    return tuple(np.bincount(index, minlength=classes + 1).tolist())


def read_profile(path: Path) -> Profile:
    """Read `profile.json`. Raises RepositoryError, naming file and field."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Profile)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise RepositoryError(f"{path}: {error}") from error


def write_profile(path: Path, profile: Profile) -> None:
    path.write_bytes(msgspec.json.encode(profile))
