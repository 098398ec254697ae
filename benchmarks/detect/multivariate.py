"""Has the whole picture changed? Random-feature MMD against permutation MMD, on digits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from rich.progress import track
from scipy import special
from sklearn.datasets import load_digits

from benchmarks.detect.section import Promise, Section
from monitoring.stats import kernel
from slipstream.places import screen

Generator = np.random.Generator
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

WINDOWS = (50, 100, 200, 400)
REFERENCE = 600
REPETITIONS = 500
#: Further windows in which nothing has changed, for the closed form alone: it is cheap.
NULL_REPETITIONS = 600
PERMUTATIONS = 99
ALPHA = 0.05
LEVELS = 17  # grey values of a pixel
RIVALS = ("random features", "permutations", "each pixel")

Shift = Callable[[Floats, Generator], Floats]


def nothing(images: Floats, chance: Generator) -> Floats:
    return images


def decorrelated(images: Floats, chance: Generator) -> Floats:
    """The middle of every image comes from another one: no single pixel notices."""
    mixed = images.copy()
    mixed[:, 2:6, 2:6] = images[chance.permutation(len(images)), 2:6, 2:6]
    return mixed


def noisy(images: Floats, chance: Generator) -> Floats:
    hit = chance.random(len(images)) < 0.2
    noise = chance.normal(0, 2, images.shape) * hit[:, None, None]
    return np.asarray(np.clip(np.round(images + noise), 0, LEVELS - 1))


def moved(images: Floats, chance: Generator) -> Floats:
    """One image in ten is a pixel further right."""
    hit = chance.random(len(images)) < 0.1
    return np.where(hit[:, None, None], np.roll(images, 1, axis=2), images)


def stuck(images: Floats, chance: Generator) -> Floats:
    """Six images in a hundred are one and the same."""
    hit = chance.random(len(images)) < 0.06
    return np.where(hit[:, None, None], images[0], images)


def darker(images: Floats, chance: Generator) -> Floats:
    return np.asarray(np.round(images * 0.96))


def inverted(images: Floats, chance: Generator) -> Floats:
    """One image in twenty is black on white."""
    hit = chance.random(len(images)) < 0.05
    return np.where(hit[:, None, None], LEVELS - 1 - images, images)


#: What is done to the images; and how many of a window's rows are threes where it is not by lot.
SHIFTS: dict[str, tuple[Shift, float | None]] = {
    "nothing": (nothing, None),
    "middle of another image": (decorrelated, None),
    "noise on 20 %": (noisy, None),
    "10 % moved a pixel": (moved, None),
    "6 % stuck on one image": (stuck, None),
    "4 % darker": (darker, None),
    "5 % inverted": (inverted, None),
    "no threes": (nothing, 0.0),
    "threes doubled": (nothing, 0.2),
}


@dataclass
class Prepared:
    """What each rival may compute of a reference before a window comes."""

    reference: kernel.Reference
    points: Floats
    within: Floats
    counts: Ints

    @classmethod
    def of(cls, images: Floats, seed: int) -> Prepared:
        reference = kernel.prepare(images, seed)
        points = standardised(reference, images)
        within = gaussian(points, points, reference.bandwidth)
        return cls(reference, points, within, pixel_counts(images))


@dataclass
class Tally:
    """Alarms of each rival and the seconds they took, in one cell."""

    windows: int = 0
    alarms: Ints = field(default_factory=lambda: np.zeros(len(RIVALS), np.int64))
    seconds: list[tuple[float, ...]] = field(default_factory=list)

    def add(self, p_values: tuple[float, ...], seconds: tuple[float, ...]) -> None:
        self.windows += 1
        self.alarms += np.array(p_values) <= ALPHA
        self.seconds.append(seconds)

    @property
    def rates(self) -> Floats:
        return np.asarray(self.alarms / self.windows)


def standardised(reference: kernel.Reference, images: Floats) -> Floats:
    rows = images.reshape(len(images), -1)
    points = np.clip((rows - reference.centre) / reference.scale, -kernel.FARTHEST, kernel.FARTHEST)
    return np.asarray(points)


def gaussian(first: Floats, second: Floats, bandwidth: float) -> Floats:
    lengths = np.sum(first**2, axis=1)[:, None] + np.sum(second**2, axis=1)
    return np.asarray(np.exp((first @ second.T - lengths / 2) / bandwidth**2))


def pixel_counts(images: Floats) -> Ints:
    """Grey values counted, [pixels, LEVELS]."""
    pixels = images.reshape(len(images), -1).astype(np.int64)
    at = pixels + LEVELS * np.arange(pixels.shape[1])
    return np.bincount(at.ravel(), minlength=LEVELS * pixels.shape[1]).reshape(-1, LEVELS)


def by_features(prepared: Prepared, images: Floats, chance: Generator) -> float:
    found = kernel.compare(prepared.reference, kernel.state(prepared.reference, images))
    assert found is not None
    return found.p_value


def by_permutations(prepared: Prepared, images: Floats, chance: Generator) -> float:
    """The exact kernel, in the same standardised space with the same bandwidth.

    What the reference alone decides is there beforehand; all permutations are one product.
    """
    bandwidth = prepared.reference.bandwidth
    points = standardised(prepared.reference, images)
    across = gaussian(prepared.points, points, bandwidth)
    whole = np.block([[prepared.within, across], [across.T, gaussian(points, points, bandwidth)]])
    n, m = across.shape
    order = chance.permuted(np.tile(np.arange(n + m), (PERMUTATIONS, 1)), axis=1)
    signs = np.full((PERMUTATIONS + 1, n + m), 1 / n)
    signs[0, n:] = -1 / m
    np.put_along_axis(signs[1:], order[:, :m], -1 / m, axis=1)
    distances = np.sum((signs @ whole) * signs, axis=1)
    return float(np.mean(distances >= distances[0] - 1e-15))


def by_pixel(prepared: Prepared, images: Floats, chance: Generator) -> float:
    """Kolmogorov-Smirnov on each pixel, with Bonferroni's correction."""
    counts = pixel_counts(images)
    n, m = prepared.counts[0].sum(), counts[0].sum()
    gaps = np.abs(np.cumsum(prepared.counts, axis=1) / n - np.cumsum(counts, axis=1) / m)
    p_values = special.kolmogorov(np.sqrt(n * m / (n + m)) * gaps.max(axis=1))
    return min(1.0, float(p_values.min()) * len(counts))


TESTS = (by_features, by_permutations, by_pixel)


def window(rest: Ints, truth: Ints, size: int, threes: float | None, chance: Generator) -> Ints:
    """Rows of a window, from those that are not in the reference."""
    if threes is None:
        return rest[:size]
    wanted = round(threes * size)
    three, other = rest[truth[rest] == 3], rest[truth[rest] != 3]
    return chance.permutation(np.concatenate([three[:wanted], other[: size - wanted]]))


def _timed(
    test: Callable[[Prepared, Floats, Generator], float],
    prepared: Prepared,
    images: Floats,
    chance: Generator,
) -> tuple[float, float]:
    began = time.perf_counter()
    return test(prepared, images, chance), time.perf_counter() - began


def measure() -> dict[tuple[str, int], Tally]:
    """Every rival on every window; the reference is drawn anew in each repetition."""
    pixels, truth = load_digits(return_X_y=True)
    images = pixels.reshape(-1, 8, 8)
    cells = {(name, size): Tally() for name in SHIFTS for size in WINDOWS}
    for repetition in track(range(REPETITIONS), "multivariate", console=screen):
        chance = np.random.default_rng([4, repetition])
        order = chance.permutation(len(images))
        prepared = Prepared.of(images[order[:REFERENCE]], repetition)
        for (name, size), tally in cells.items():
            shift, threes = SHIFTS[name]
            rows = window(order[REFERENCE:], truth, size, threes, chance)
            shifted = shift(images[rows], chance)
            found = [_timed(test, prepared, shifted, chance) for test in TESTS]
            tally.add(tuple(p for p, _ in found), tuple(seconds for _, seconds in found))
    return cells


def null_rates() -> dict[int, float]:
    """False alarms of the closed form, on more windows than permutations could be made for."""
    images = load_digits().images
    alarms = dict.fromkeys(WINDOWS, 0)
    for repetition in track(range(NULL_REPETITIONS), "nothing changed", console=screen):
        order = np.random.default_rng([5, repetition]).permutation(len(images))
        reference = kernel.prepare(images[order[:REFERENCE]], repetition)
        for size in WINDOWS:
            rows = images[order[REFERENCE : REFERENCE + size]]
            found = kernel.compare(reference, kernel.state(reference, rows))
            assert found is not None
            alarms[size] += found.p_value <= ALPHA
    return {size: count / NULL_REPETITIONS for size, count in alarms.items()}


def run() -> Section:
    cells, null = measure(), null_rates()
    rows = [
        (name, str(size), *(f"{rate:.1%}" for rate in tally.rates), *_milliseconds(tally))
        for (name, size), tally in cells.items()
    ]
    return Section(
        title="Drift of whole rows: digits",
        about=(
            f"Share of windows with an alarm at {ALPHA:.0%}, of {REPETITIONS} a cell; each "
            f"repetition draws {REFERENCE} images as reference, new frequencies, and windows from "
            f"the other {1797 - REFERENCE}, and every rival sees the same. `permutations` is the "
            f"exact Gaussian kernel with {PERMUTATIONS} permutations, the reference's own kernel "
            "matrix given; `each pixel` is Kolmogorov-Smirnov with Bonferroni's correction. Both "
            "kernels use the same standardised pixels and the same bandwidth. The rows `nothing` "
            "are false alarms; those of random features on "
            f"{NULL_REPETITIONS:,} windows a size: "
            + ", ".join(f"{size}: {rate:.1%}" for size, rate in null.items())
            + ". Times are medians on one thread, a window's features and its test together."
        ),
        columns=("shift", "window", *RIVALS, "ms, features", "ms, permutations"),
        rows=tuple(rows),
        promises=_promises(cells, null),
    )


def _milliseconds(tally: Tally) -> tuple[str, str]:
    features, permutations, _ = np.median(tally.seconds, axis=0) * 1_000
    return f"{features:.2f}", f"{permutations:.1f}"


def _promises(
    cells: dict[tuple[str, int], Tally], null: dict[int, float]
) -> tuple[Promise, Promise, Promise]:
    behind = {
        cell: float(tally.rates[1] - tally.rates[0])
        for cell, tally in cells.items()
        if cell[0] != "nothing"
    }
    (name, size), most = max(behind.items(), key=lambda item: item[1])
    ratio = min(
        float(np.divide(*np.median(tally.seconds, axis=0)[[1, 0]])) for tally in cells.values()
    )
    highest = max(null.values())
    return (
        Promise(
            "power within 5 points of permutation MMD in every cell",
            f"at most {100 * most:.1f} points behind ({name}, window {size}), "
            f"{-100 * float(np.mean(list(behind.values()))):+.1f} points of difference on average",
            most <= 0.05,
        ),
        Promise("at most 1/10 of its time", f"1/{ratio:.0f} where it is closest", ratio >= 10),
        Promise(
            f"false alarms at nominal {ALPHA:.0%} at most {1.5 * ALPHA:.1%}",
            f"at most {highest:.1%}",
            highest <= 1.5 * ALPHA,
        ),
    )
