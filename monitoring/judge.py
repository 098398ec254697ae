"""Measurements and rules -> findings. The only place that knows what is too much. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from monitoring.causes import Loss
from monitoring.examine import BROKEN, Examined
from monitoring.fairness import Unequal
from monitoring.measure import Latency, Performance
from monitoring.outlook import Outlook
from monitoring.rules import DriftRules, Rules
from monitoring.stats.drift import holm
from monitoring.stats.kernel import Discrepancy
from monitoring.stats.performance import wilson
from monitoring.stats.quality import volume_p_value
from monitoring.watch import Fault, Watched


class Finding(msgspec.Struct, frozen=True):
    """Something that a person should know. `severity` is page, ticket or digest; `examples` are
    ids of predictions that show it."""

    model: str
    version: int
    kind: str
    subject: str
    severity: str
    sentence: str
    value: str
    examples: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        return f"{self.version}:{self.kind}:{self.subject}"


@dataclass(frozen=True, slots=True)
class Measurements:
    """What is known of one version at one moment.

    `watched` is what its windows have shown one after the other, `lasting` whether its errors have
    risen for good. `baseline`: wrong and all rows of the hold-out. `better` names a version that
    is right more often on the same rows, where one is known. `moves`: many windows together say
    that inputs have moved, whether or not one of them does. `mature` is the performance, and
    `mature_score` the mean score, of windows whose labels have come: the first are no fair sample.
    """

    model: str
    version: int
    features: Sequence[Examined]
    score: Examined | None
    latency: Latency
    requests: int
    errors: int
    performance: Performance | None
    mean_score: float | None
    reference: dict[str, float]
    profiled: bool = True
    watched: Watched | None = None
    lasting: bool = False
    baseline: tuple[int, int] | None = None
    outlook: Outlook | None = None
    split: Loss | None = None
    whole: Discrepancy | None = None
    unequal: Sequence[Unequal] = ()
    mature: Performance | None = None
    mature_score: float | None = None
    importances: dict[str, float] = field(default_factory=dict)
    moves: bool = False
    better: int | None = None


def drifted(features: Sequence[Examined], rules: DriftRules) -> list[Examined]:
    """Features that differ both certainly and by enough, the most different first."""
    adjusted = holm([feature.p_value for feature in features])
    found = [
        feature
        for feature, p_value in zip(features, adjusted, strict=True)
        if p_value < rules.alpha and feature.psi_low > rules.moderate
    ]
    return sorted(found, key=lambda feature: -feature.psi_low)


#: Windows that say what is usual: how much their rows vary, and how often answers are wrong.
USUAL_WINDOWS = 7


def judge(measured: Measurements, rules: Rules) -> list[Finding]:
    """Everything about one version that a person should know."""
    return [
        Finding(measured.model, measured.version, *finding)
        for judged in _JUDGED
        for finding in judged(measured, rules)
    ]


_Found = Iterator[tuple[str, str, str, str, str]]


def _drift(measured: Measurements, rules: Rules) -> _Found:
    found = drifted(measured.features, rules.drift)
    if measured.moves and not found:
        sentence = "Inputs differ a little from the reference, and lastingly"
        worst = max(measured.features, key=lambda one: one.psi_low, default=None)
        value = f"most of all {worst.feature}" if worst is not None else ""
        yield "drift", "lasting", "digest", sentence, value
    for feature in found:
        size = "major" if feature.psi_low > rules.drift.major else "moderate"
        yield (
            "drift",
            feature.feature,
            "digest",
            f"{feature.feature} differs from the reference ({size})",
            f"PSI {feature.psi_low:.2f} (bound)",
        )
    together = measured.whole
    certain = together is not None and together.p_value < rules.drift.alpha
    if together is not None and certain and together.squared > rules.drift.together:
        sentence = "The rows as a whole differ from the reference"
        value = f"MMD² {together.squared:.3f} on {together.rows:,} rows"
        yield "drift", "rows", "digest", sentence, value
    score = measured.score
    if score is not None and drifted([score], rules.drift):
        sentence = f"v{measured.version} says other things than at training"
        yield "drift", "score", "digest", sentence, f"PSI {score.psi_low:.2f} (bound)"


def _faults(measured: Measurements, rules: Rules) -> _Found:
    """What breaks in the same way has one cause, and is one finding. It wakes somebody up only if
    it came all of a sudden: what was so for a week can wait for the morning."""
    for test in BROKEN:
        found = [f for f in faults(measured, rules) if f.test == test]
        if not found:
            continue
        worst = max(found, key=lambda fault: fault.now - fault.before)
        sudden = any(f.sudden and f.now - f.before >= rules.quality.page for f in found)
        sentence = f"{listed([f.feature for f in found])} {_said(test, len(found), worst.value)}"
        was = f"{worst.feature} {percent(worst.now)}, was {percent(worst.before)}"
        yield test, "features", "page" if sudden else "ticket", sentence, was


def faults(measured: Measurements, rules: Rules) -> list[Fault]:
    """Of the window that is open and of the one that closed last, those large enough to tell."""
    watched = measured.watched
    if watched is None:
        return []
    closed = watched.last
    last = closed.faults if closed is not None and closed.start == watched.next - 1 else ()
    found = {(fault.feature, fault.test): fault for fault in (*last, *watched.open_faults)}
    return [f for f in found.values() if f.now - f.before >= rules.quality.ticket]


def _said(test: str, count: int, value: str) -> str:
    verb = "is" if count == 1 else "are"
    return {
        "missing": f"{verb} missing more often than in the reference",
        "outside": f"{'lies' if count == 1 else 'lie'} beyond all that the reference has seen",
        "unseen": f"{'has' if count == 1 else 'have'} values that the reference never had",
        "spike": f"{verb} {value} far more often than in the reference",
    }[test]


def percent(share: float) -> str:
    return f"{share:.0%}" if share == 0 or share >= 0.1 else f"{share:.1%}"


def _harm(measured: Measurements, rules: Rules) -> _Found:
    """Errors that certainly rose by more than is tolerated: in the window that was graded last,
    or for good."""
    graded = [seen for seen in measured.watched.seen if seen.graded] if measured.watched else []
    if not graded or measured.baseline is None:
        return
    if not measured.lasting and not graded[-1].harmful:
        return
    way = "for good" if measured.lasting else "in the latest window with labels"
    meant = graded[-USUAL_WINDOWS:] if measured.lasting else graded[-1:]
    found = wilson(sum(seen.wrong for seen in meant), sum(seen.labels for seen in meant))
    if found is None:
        return
    was = measured.baseline[0] / measured.baseline[1]
    sentence = f"v{measured.version} is wrong more often than at training, {way}"
    value = f"wrong on {found.value:.1%} ({found.low:.1%} to {found.high:.1%}), was {was:.1%}"
    yield "harm", "errors", "page", sentence, value


def _concept(measured: Measurements, rules: Rules) -> _Found:
    watched = measured.watched
    if watched is not None and watched.distrust:
        sentence = f"Labels do not hold what the scores of v{measured.version} promise"
        value = f"estimate {watched.distrust}, not trusted"
        severity = "page" if watched.distrust == "too high" and measured.lasting else "ticket"
        yield "concept", "scores", severity, sentence, value


def _outlook(measured: Measurements, rules: Rules) -> _Found:
    """Harm that scores foretell before labels show it."""
    found = measured.outlook
    distrusted = measured.watched is not None and measured.watched.distrust
    if found is None or found.metric != "accuracy" or distrusted or measured.lasting:
        return
    if found.high < found.reference - rules.performance.harm:
        sentence = f"v{measured.version} is probably right less often than at training"
        value = f"about {found.value:.1%} ({found.low:.1%} to {found.high:.1%}) from {found.how}"
        yield "outlook", "accuracy", "ticket", sentence, f"{value}, was {found.reference:.1%}"


def _release(measured: Measurements, rules: Rules) -> _Found:
    if measured.better is not None:
        sentence = f"v{measured.better} is right more often than v{measured.version}"
        yield "release", "accuracy", "page", sentence, "on the same labelled rows"


def _latency(measured: Measurements, rules: Rules) -> _Found:
    p99 = measured.latency.p99
    if p99 is not None and p99 > rules.latency.slo_ms:
        sentence = f"v{measured.version} answers slower than promised"
        yield "latency", "p99", "page", sentence, f"p99 {p99:.1f} ms"


def _errors(measured: Measurements, rules: Rules) -> _Found:
    total = measured.requests
    if total and measured.errors / total > rules.errors.share:
        share = f"{measured.errors / total:.1%} of {total:,}"
        yield "errors", "errors", "page", f"v{measured.version} fails on requests", share


def _ranking(measured: Measurements, rules: Rules) -> _Found:
    found, reference = measured.mature, measured.reference.get("auc")
    if found is None or found.auc is None or reference is None:
        return
    if (
        found.labels >= rules.performance.labels
        and found.auc.high < reference - rules.performance.auc
    ):
        sentence = f"v{measured.version} ranks worse than at training"
        value = f"AUC {_short(found.auc.value)}, was {_short(reference)}"
        yield "performance", "auc", "page", sentence, value


def _calibration(measured: Measurements, rules: Rules) -> _Found:
    found, said = measured.mature, measured.mature_score
    if found is None or found.seen is None or said is None:
        return
    if found.labels < rules.performance.labels:
        return
    low, high = found.seen.low - said, said - found.seen.high
    if max(low, high) > rules.performance.calibration:
        way = "low" if low > high else "high"
        points = abs(found.seen.value - said) * 100
        sentence = f"Probabilities of v{measured.version} run {way}"
        value = f"{points:.0f} points: said {said:.0%}, seen {found.seen.value:.0%}"
        yield "calibration", "score", "ticket", sentence, value


def _errors_of_a_regression(measured: Measurements, rules: Rules) -> _Found:
    found, reference = measured.mature, measured.reference.get("mae")
    if found is None or found.mae is None or reference is None:
        return
    if found.labels >= rules.performance.labels and found.mae.low > reference * (
        1 + rules.performance.error
    ):
        sentence = f"v{measured.version} is further off than at training"
        value = f"off by {found.mae.value:.3g} on average, was {reference:.3g}"
        yield "performance", "error", "page", sentence, value


def _short(value: float) -> str:
    return f"{value:.3f}".lstrip("0")


def listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _fairness(measured: Measurements, rules: Rules) -> _Found:
    """Groups that certainly get something else, by more than is tolerated; the worst of a rate."""
    told = set()
    for feature, gap in measured.unequal:
        if gap.gap is None or gap.at_least <= rules.fairness.gap or gap.rate in told:
            continue
        told.add(gap.rate)
        sentence = f"The {gap.rate} rate of v{measured.version} differs by {feature}"
        points = [bound * 100 for bound in gap.gap]
        value = (
            f"{gap.group} {points[0]:+.0f} points ({points[1]:+.0f} to {points[2]:+.0f}) "
            f"against {gap.against}"
        )
        yield "fairness", gap.rate, "ticket", sentence, value


def _volume(measured: Measurements, rules: Rules) -> _Found:
    """Far fewer or far more rows in the last window than usual: the weeks before tell how much
    windows vary (negative binomial, by its first two moments)."""
    seen = [one.rows for one in measured.watched.seen] if measured.watched else []
    if len(seen) <= USUAL_WINDOWS:
        return
    *before, last = seen[-4 * USUAL_WINDOWS - 1 :]
    usual = sum(before) / len(before)
    ratio = max(last, 0.5) / max(usual, 0.5)
    if volume_p_value(last, before) < rules.volume.alpha and (
        max(ratio, 1 / ratio) > rules.volume.ratio
    ):
        way = "Far fewer rows" if ratio < 1 else "Far more rows"
        yield "volume", "rows", "ticket", f"{way} than usual", f"{last:,}, usually {usual:,.0f}"


_JUDGED = (
    _drift,
    _faults,
    _volume,
    _latency,
    _errors,
    _harm,
    _concept,
    _outlook,
    _release,
    _fairness,
    _ranking,
    _errors_of_a_regression,
    _calibration,
)
