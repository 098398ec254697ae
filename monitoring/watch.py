"""What has been seen of a version, window after window: evidence that no single one holds. Pure.

Each closed window is looked at once, so that the false alarms which a budget allows can be counted;
the one that is still open is peeked at whenever its rows have doubled, at a share of the level.
Windows whose labels are there are graded once. `Watched` is all that is remembered.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from monitoring.examine import BROKEN, Examined, features, score_drift
from monitoring.outlook import cells, labels_are_picked
from monitoring.rules import Rules
from monitoring.stats import detector
from monitoring.stats.detector import Budget, RateDetector, WindowDetector
from monitoring.stats.drift import holm
from monitoring.stats.estimate import RUN_LENGTH, ConceptDetector
from monitoring.stats.quality import Kind, more
from monitoring.stats.sequential import rate_difference
from monitoring.window import Layout, Window

Floats = npt.NDArray[np.float64]

#: Windows whose results are remembered.
REMEMBERED = 120
#: Rows at which an open window is first peeked at, and at how many doublings in all.
FIRST_PEEK, PEEKS = 64, 16
#: Tests that say enough about a part of a window: a fault needs no whole day to show.
AT_ONCE = ("missing", "unseen", "outside")
#: Natural logarithms of evidence beyond an alarm that are kept.
SPARE = 3.0
#: Share of values beyond the reference by more than its whole range that no shift explains.
FAR_SHARE = 0.01


class Fault(msgspec.Struct, frozen=True):
    """A feature that broke: which test says so, the shares now and in the reference; of a spike
    the value and its bin."""

    feature: str
    test: str
    now: float
    before: float
    p_value: float
    sudden: bool
    value: str = ""
    bin: int = -1


class Seen(msgspec.Struct, frozen=True):
    """One closed window: adjusted p-values (smallest of all tests), faults, and, once graded,
    labelled rows, how many of them were wrong, and whether that is harm."""

    start: int
    rows: int
    broken: float
    moved: float
    faults: tuple[Fault, ...] = ()
    labels: int = 0
    wrong: int = 0
    harmful: bool = False
    graded: bool = False


class Watched(msgspec.Struct, frozen=True):
    """State of all detectors of one version.

    `next` is the first window that was not looked at, `to_grade` the first that was not graded.
    `distrust` remembers which way the estimate from scores was wrong, once labels have shown it.
    """

    next: int
    to_grade: int
    moved: tuple[float, ...] = ()
    harm: tuple[float, ...] = ()
    concept: tuple[tuple[float, ...], ...] = ()
    distrust: str = ""
    peeked: int = 0
    open_faults: tuple[Fault, ...] = ()
    seen: tuple[Seen, ...] = ()

    @property
    def last(self) -> Seen | None:
        return self.seen[-1] if self.seen else None


def levels(rules: Rules, windows_a_day: float, labels_a_day: float) -> Budget:
    """What to test at, from the budget of false alarms."""
    return detector.budget(
        rules.budget.false_alarms, rules.budget.days, windows_a_day, labels_a_day
    )


# --- windows --------------------------------------------------------------------------------------


def look(state: Watched, start: int, window: Window, recent: Window, level: Budget) -> Watched:
    """A window has closed. `recent` is the sum of those before it."""
    rows = int(window["rows"].sum())
    found = features(window)
    if not found and score_drift(window) is None:
        seen = Seen(start, rows, 1.0, 1.0)
        return msgspec.structs.replace(
            state,
            next=start + 1,
            peeked=0,
            open_faults=(),
            seen=(*state.seen, seen)[-REMEMBERED:],
        )
    faults = _faults(found, recent, level.page.alpha)
    moved = min([1.0, *holm([one.p_value for one in found])])
    broken = min([1.0, *(p for _, _, p in _adjusted(found))])
    seen = Seen(start, rows, broken, moved, faults)
    return msgspec.structs.replace(
        state,
        next=start + 1,
        peeked=0,
        open_faults=(),
        moved=_after(state.moved, moved, level.digest.windows),
        seen=(*state.seen, seen)[-REMEMBERED:],
    )


def skipped(state: Watched, first: int) -> Watched:
    """Without the windows before `first`: they are too long past to be remembered anyway."""
    return msgspec.structs.replace(
        state, next=max(state.next, first), to_grade=max(state.to_grade, first)
    )


def peek(state: Watched, window: Window, recent: Window, level: Budget) -> Watched:
    """The open window, once its rows have doubled since the last peek: what breaks is seen at
    once, not when the window closes."""
    rows = int(window["rows"].sum())
    due = FIRST_PEEK if not state.peeked else 2 * state.peeked
    if rows < due:
        return state
    found = [
        one._replace(p_values={t: p for t, p in one.p_values.items() if t in AT_ONCE})
        for one in features(window)
    ]
    faults = _faults(found, recent, level.page.alpha / PEEKS)
    return msgspec.structs.replace(state, peeked=rows, open_faults=faults)


def persists(evidence: Sequence[float], threshold: float) -> bool:
    """Whether the p-values of many windows together say what none of them does."""
    if not evidence:
        return False
    found = WindowDetector().evidence(np.array(evidence))
    return bool(detector.alarms(found, threshold))


def _after(evidence: Sequence[float], p_value: float, threshold: float) -> tuple[float, ...]:
    watch = WindowDetector()
    state = np.array(evidence) if evidence else watch.start()
    return _kept(watch.after(state, p_value), threshold)


def _kept(evidence: Floats, threshold: float) -> tuple[float, ...]:
    """Evidence, no more than an alarm needs and some: a sum that is cut stays valid, and what was
    overwhelming does not outlast its cause."""
    most = np.log1p(threshold) + np.log(evidence.shape[-1]) + SPARE
    kept: list[float] = np.minimum(evidence, most).tolist()
    return tuple(kept)


def _adjusted(found: Sequence[Examined]) -> list[tuple[Examined, str, float]]:
    """Holm's p-values of all tests of whether something broke."""
    tests = [(one, t, p) for one in found for t, p in one.p_values.items() if t in BROKEN]
    adjusted = holm([p for _, _, p in tests])
    return [(one, t, p) for (one, t, _), p in zip(tests, adjusted, strict=True)]


def _faults(found: Sequence[Examined], recent: Window, alpha: float) -> tuple[Fault, ...]:
    before = {one.feature: one for one in features(recent)}
    faults = []
    for one, test, p_value in _adjusted(found):
        now, was = _shares(one, test)
        if p_value < alpha and now > was:
            sudden = _is_fault(one, test) and _sudden(one, before.get(one.feature), test, alpha)
            value, bin_ = (one.spike, one.spike_bin) if test == "spike" else ("", -1)
            faults.append(Fault(one.feature, test, now, was, p_value, sudden, value, bin_))
    return tuple(sorted(faults, key=lambda fault: fault.before - fault.now))


def _shares(one: Examined, test: str) -> tuple[float, float]:
    """Of the kind that a test is about: the share now, and in the reference."""
    return {
        "missing": (one.missing, one.reference_missing),
        "outside": (one.outside, 0.0),
        "unseen": (one.unseen, one.reference_unseen),
        "spike": (one.spike_share, one.spike_before),
    }[test]


def _is_fault(one: Examined, test: str) -> bool:
    """What a shift of the whole does not do: such a value is wrong, not merely new."""
    if test == "outside":
        return one.far >= FAR_SHARE
    return one.isolated if test == "spike" else True


def _sudden(one: Examined, before: Examined | None, test: str, alpha: float) -> bool:
    """Whether the windows before were better, too, or there were none."""
    if before is None:
        return True
    if test == "spike" and before.spike != one.spike:
        return True
    (now, _), (was, _) = _shares(one, test), _shares(before, test)
    kind = Kind(round(now * one.rows), one.rows, round(was * before.rows), before.rows)
    return more(kind) < alpha


# --- labels ---------------------------------------------------------------------------------------


def grade(state: Watched, start: int, window: Window, rules: Rules, level: Budget) -> Watched:
    """The labels of a window are there, as far as they will come."""
    wrong, labels = wrong_of(window)
    known = baseline(window.layout)
    harmful, harm = False, state.harm
    if known is not None and labels:
        harmful = _harmful(known, (wrong, labels), rules, level)
        watch = harm_detector(known, rules)
        before = np.array(state.harm) if state.harm else watch.start()
        after = watch.after(before, wrong, labels)
        harm = (*after[:2].tolist(), *_kept(after[2:], level.page.labels))
    concept, distrust = _concept(state, window, rules)
    seen = tuple(
        msgspec.structs.replace(one, labels=labels, wrong=wrong, harmful=harmful, graded=True)
        if one.start == start
        else one
        for one in state.seen
    )
    return msgspec.structs.replace(
        state,
        to_grade=start + 1,
        harm=harm,
        concept=concept,
        distrust=distrust or state.distrust,
        seen=seen,
    )


def harm_detector(known: tuple[int, int], rules: Rules) -> RateDetector:
    return detector.learned(*known, tolerance=rules.performance.harm)


def harms(state: Watched, layout: Layout, rules: Rules, level: Budget) -> bool:
    """Whether errors have risen for good, beyond what is tolerated."""
    known = baseline(layout)
    if known is None or not state.harm:
        return False
    watch = harm_detector(known, rules)
    return bool(detector.alarms(watch.evidence(np.array(state.harm)), level.page.labels))


def _harmful(known: tuple[int, int], found: tuple[int, int], rules: Rules, level: Budget) -> bool:
    """Whether this window alone was wrong more often: within the budget of false pages more at
    all, and probably by more than is tolerated."""
    more = rate_difference(*known, *found, 2 * level.page.alpha)
    much = rate_difference(*known, *found, 2 * (1 - rules.performance.confidence))
    if more is None or much is None:
        return False
    return more.low > 0 and much.low > rules.performance.harm


def _concept(
    state: Watched, window: Window, rules: Rules
) -> tuple[tuple[tuple[float, ...], ...], str]:
    found = cells(window)
    if found is None or labels_are_picked(window):
        return state.concept, ""  # labels that are no fair sample look like a drift
    watch = ConceptDetector(rules.performance.tolerance)
    before = np.array(state.concept) if state.concept else watch.start()
    after = watch.after(before, found.chance, found.wrong, found.right)
    kept = tuple(_kept(side, 2 * RUN_LENGTH) for side in after)
    return kept, watch.distrusts(np.array(kept)) or ""


def wrong_of(window: Window) -> tuple[int, int]:
    """Wrong and all labelled rows; none of a regression, which is not right or wrong."""
    classes = len(window.layout.manifest.classes)
    if not classes:
        return 0, 0
    table = window["confusion"].reshape(classes, classes + 1)
    labels = int(table.sum())
    return labels - int(np.trace(table[:, :classes])), labels


def baseline(layout: Layout) -> tuple[int, int] | None:
    """Wrong and all rows of the hold-out."""
    profile = layout.profile
    if profile is None or not sum(profile.graded):
        return None
    if layout.manifest.task == "binary":
        cells = np.array(profile.graded).reshape(-1, 2, 2).sum(axis=0)
        return int(cells[0, 1] + cells[1, 0]), int(cells.sum())
    cells = np.array(profile.graded).reshape(-1, 2).sum(axis=0)
    return int(cells[0]), int(cells.sum())
