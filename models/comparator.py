"""Do two versions say the same about a row? One comparator per output, chosen from what it is.

The manifest can choose otherwise: `[compare.probabilities]` with `kind = "close"`, `rtol = 0.01`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from models.signature import FLOATS, Array, Tensors, TensorSpec

#: What is known of a row: the two disagree, agree, or cannot be compared.
DISAGREE, AGREE, INCOMPARABLE = 0, 1, 2
Agreement = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


class Comparator(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How rows of an output are compared, over everything but the first axis.

    exact: equal; NaN equals NaN. close: |a - b| <= atol + rtol |a|, everywhere. argmax: the same
    largest entry. topk: the same k largest, in any order. cosine: the angle's cosine is at least
    `least`. ignore: not compared.
    """

    kind: Literal["exact", "close", "argmax", "topk", "cosine", "ignore"]
    rtol: float = 1e-3
    atol: float = 1e-6
    k: int = 5
    least: float = 0.999


def chosen(spec: TensorSpec, scores: bool) -> Comparator:
    """The comparator of an output: `scores` are compared by which class they prefer."""
    if spec.datatype not in FLOATS:
        return Comparator("exact")
    columns = (spec.shape or (-1,))[-1]
    return Comparator("argmax") if scores and columns > 1 else Comparator("close")


def agreement(
    comparators: Mapping[str, Comparator], first: Tensors, second: Tensors, rows: int
) -> Agreement:
    """Per row, whether all outputs that both gave agree. INCOMPARABLE where none could be."""
    found = np.full(rows, INCOMPARABLE, np.uint8)
    for name, comparator in comparators.items():
        if comparator.kind == "ignore" or name not in first or name not in second:
            continue
        same = compared(comparator, first[name], second[name], rows)
        if same is None:
            return np.full(rows, INCOMPARABLE, np.uint8)
        found = np.where(found == INCOMPARABLE, same, found & same).astype(np.uint8)
    return found


def compared(
    comparator: Comparator, first: Array, second: Array, rows: int
) -> npt.NDArray[np.bool_] | None:
    """Per row; None where the shapes do not match or have no row for each row."""
    if first.shape != second.shape or first.shape[:1] != (rows,):
        return None
    if rows == 0:
        return np.zeros(0, np.bool_)
    a, b = first.reshape(rows, -1), second.reshape(rows, -1)
    if comparator.kind == "exact" or a.dtype == object:
        return np.asarray(_exact(a, b).all(axis=1))
    return _compared(comparator, a.astype(np.float64), b.astype(np.float64))


def _compared(comparator: Comparator, a: Floats, b: Floats) -> npt.NDArray[np.bool_]:
    match comparator.kind:
        case "argmax":
            return np.asarray(a.argmax(axis=1) == b.argmax(axis=1))
        case "topk":
            k = min(comparator.k, a.shape[1])
            tops = (np.sort(np.argsort(x, axis=1)[:, -k:], axis=1) for x in (a, b))
            return np.asarray(np.equal(*tops).all(axis=1))
        case "cosine":
            norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
            cosine = (a * b).sum(axis=1) / np.where(norms == 0, 1, norms)
            same = (a == b).all(axis=1)
            return np.asarray(same | (cosine >= comparator.least))
    close = np.isclose(b, a, comparator.rtol, comparator.atol, equal_nan=True)
    return np.asarray(close.all(axis=1))


def _exact(a: Array, b: Array) -> npt.NDArray[np.bool_]:
    equal = np.asarray(a == b)
    if a.dtype.kind == "f":
        equal |= np.isnan(a) & np.isnan(b)
    return equal
