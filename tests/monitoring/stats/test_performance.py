"""Quality against scikit-learn, scipy and published numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from monitoring.stats import performance


def scored(n: int = 5_000) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    truth = random.integers(0, 2, n)
    return truth, np.clip(random.normal(0.4 + 0.2 * truth, 0.2), 0.001, 0.999)


def grid(truth: np.ndarray, scores: np.ndarray, bins: int = 1024) -> list[np.ndarray]:
    return [
        np.bincount((scores[truth == label] * bins).astype(int), minlength=bins) for label in (0, 1)
    ]


def test_auc_from_bins_is_scikit_learns() -> None:
    """1,024 bins cost less than .0005."""
    truth, scores = scored()
    found = performance.auc(*grid(truth, scores))
    assert found is not None
    assert found.value == pytest.approx(metrics.roc_auc_score(truth, scores), abs=5e-4)
    assert found.low < found.value < found.high


def test_wilson_is_scipys() -> None:
    """The score interval without continuity correction."""
    for k, n in ((0, 10), (3, 10), (10, 10), (812, 1000)):
        truth = stats.binomtest(k, n).proportion_ci(method="wilson")
        found = performance.wilson(k, n)
        assert found is not None
        assert (found.low, found.high) == pytest.approx((truth.low, truth.high), abs=1e-9)


def test_confusion_metrics_are_scikit_learns() -> None:
    """Precision, recall and F1 of the same decisions."""
    truth, scores = scored()
    said = scores >= 0.5
    table = performance.Confusion(*map(int, metrics.confusion_matrix(truth, said).ravel()))
    for name, found in (
        ("precision_score", performance.precision(table)),
        ("recall_score", performance.recall(table)),
        ("f1_score", performance.f1(table)),
    ):
        assert found is not None
        assert found.value == pytest.approx(getattr(metrics, name)(truth, said))
        assert found.low < found.value < found.high


def test_reliability_finds_what_was_put_in() -> None:
    """Outcomes drawn with the said probability are calibrated; halved ones are off by half."""
    random = np.random.default_rng(0)
    scores = random.uniform(size=200_000)
    good = grid((random.uniform(size=200_000) < scores).astype(int), scores)
    bad = grid((random.uniform(size=200_000) < scores / 2).astype(int), scores)
    assert performance.reliability(*good).error < 0.01
    assert performance.reliability(*bad).error == pytest.approx(0.25, abs=0.01)


def test_nothing_comes_of_nothing() -> None:
    """Without observations there is no estimate, rather than a zero."""
    assert performance.wilson(0, 0) is None
    assert performance.auc(np.zeros(4, np.int64), np.ones(4, np.int64)) is None
    assert performance.precision(performance.Confusion(5, 0, 3, 0)) is None


def test_wilson_is_newcombes_published_interval() -> None:
    """Newcombe (1998), Statistics in Medicine 17:857, table I, method 3."""
    for k, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        found = performance.wilson(k, n)
        assert found is not None
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


@given(
    st.floats(0.005, 0.4),
    st.floats(0, 1),
    st.sampled_from([0.8, 0.95, 0.99]),
)
def test_so_many_labels_are_just_enough(half: float, share: float, confidence: float) -> None:
    """Wilson's formula, written out, is no wider with them and wider with one fewer."""

    def width(n: int) -> float:
        z = stats.norm.ppf(0.5 + confidence / 2)
        root = np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        return float(z / (1 + z * z / n) * root)

    n = performance.required_labels(half, share, confidence)
    assert width(n) <= half * (1 + 1e-9)
    assert n == 1 or width(n - 1) > half * (1 - 1e-9)


def test_labels_to_a_width_are_a_few_more_than_the_textbooks() -> None:
    """139, 865 and 3,458 at an accuracy of .9 and +-5, 2 and 1 points."""
    for half, textbook in ((0.05, 139), (0.02, 865), (0.01, 3_458)):
        assert textbook <= performance.required_labels(half, 0.9) <= textbook + 4


def test_the_mean_is_scipys_t_interval() -> None:
    """From sums alone; no bound below the least possible."""
    values = np.random.default_rng(0).exponential(size=60)
    found = performance.mean(60, values.sum(), np.sum(values**2))
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    cut = performance.mean(2, 1.0, 1.0, least=0.0)
    assert cut is not None
    assert cut.low == 0
    assert performance.mean(1, 1.0, 1.0) is None


def test_f1_has_the_beta_interval_of_its_share() -> None:
    """And a width where all is right and where nothing is."""
    found = performance.f1(performance.Confusion(50, 5, 8, 30))
    assert found is not None
    ends = stats.beta(30.5, 14).ppf([0.025, 0.975])
    assert (found.low, found.high) == pytest.approx(tuple(2 * ends / (1 + ends)))
    perfect = performance.f1(performance.Confusion(50, 0, 0, 30))
    hopeless = performance.f1(performance.Confusion(50, 3, 8, 0))
    assert perfect is not None
    assert hopeless is not None
    assert perfect.low < perfect.value == perfect.high == 1
    assert hopeless.low == hopeless.value == 0 < hopeless.high


def answers(classes: int, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, what was said (the last index: unknown), and the table of both."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, n)
    said = np.where(random.random(n) < 0.7, truth, random.integers(0, classes + 1, n))
    table = np.zeros((classes, classes + 1), np.int64)
    np.add.at(table, (truth, said), 1)
    return truth, said, table


@pytest.mark.parametrize("classes", [2, 3, 12])
def test_macro_averages_are_scikit_learns(classes: int) -> None:
    """Over the true classes; Matthews' coefficient counts unknown answers as one more class."""
    truth, said, table = answers(classes, 600)
    found = performance.macro(table)
    assert found is not None
    assert found.mcc is not None
    of = {"labels": range(classes), "average": "macro", "zero_division": 0}
    for estimate, expected in (
        (found.precision, metrics.precision_score(truth, said, **of)),
        (found.recall, metrics.recall_score(truth, said, **of)),
        (found.f1, metrics.f1_score(truth, said, **of)),
        (found.mcc, metrics.matthews_corrcoef(truth, said)),
    ):
        assert estimate.value == pytest.approx(expected)
        assert estimate.low < estimate.value < estimate.high


def test_each_class_is_scikit_learns() -> None:
    """Against all others; the interval is that of the binary table."""
    truth, said, table = answers(4, 300)
    found = performance.per_class(table)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        truth, said, labels=range(4)
    )
    for k, one in enumerate(found):
        assert one.labels == support[k]
        for estimate, expected in ((one.precision, precision), (one.recall, recall), (one.f1, f1)):
            assert estimate is not None
            assert estimate.value == pytest.approx(expected[k])


def test_with_two_classes_draws_are_of_jeffreys_beta() -> None:
    """Recall of one class is Beta(1/2 + hits, 1/2 + misses); here the other has none to miss."""
    table = np.array([[100_000, 0], [12, 30]])
    found = performance.macro(table)
    assert found is not None
    ends = (1 + stats.beta(30.5, 12.5).ppf([0.025, 0.975])) / 2
    assert (found.recall.low, found.recall.high) == pytest.approx(tuple(ends), abs=0.006)


@pytest.mark.parametrize(("classes", "n", "most"), [(2, 60, 0.985), (3, 200, 0.985), (6, 200, 1)])
def test_macro_intervals_cover(classes: int, n: int, most: float) -> None:
    """95 % of 250 tables, less three and a half standard errors; more with many classes."""
    random = np.random.default_rng(classes)
    shares = random.dirichlet(np.full(classes, 5.0))[:, None] * (
        0.8 * np.eye(classes) + 0.2 / classes
    )
    truth = performance._averages(shares[None], np.ones(classes, bool))[:, 0]
    covered = np.zeros(4)
    for _ in range(250):
        found = performance.macro(random.multinomial(n, shares.ravel()).reshape(shares.shape))
        assert found is not None
        covered += [
            e is not None and e.low <= t <= e.high for e, t in zip(found, truth, strict=True)
        ]
    assert (covered / 250 >= 0.902).all()
    assert (covered / 250 <= most).all()


def test_calibration_in_the_large_is_the_textbooks_z() -> None:
    """Against exact scores, to what bins of a thousandth cost; z from sum p (1 - p)."""
    random = np.random.default_rng(0)
    scores = random.beta(2, 3, 4_000)
    truth = (random.random(4_000) < scores + 0.03).astype(int)
    found = performance.in_the_large(*grid(truth, scores), score_sum=float(scores.sum()))
    assert found is not None
    z = (truth.sum() - scores.sum()) / np.sqrt(np.sum(scores * (1 - scores)))
    assert found.z == pytest.approx(z, rel=1e-3)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-2)
    expected = stats.ttest_1samp(truth - scores, 0).confidence_interval()
    assert (found.value, found.low, found.high) == pytest.approx(
        (np.mean(truth - scores), expected.low, expected.high), abs=1e-5
    )


def test_calibration_error_is_rid_of_its_bias() -> None:
    """400 windows of 500 labels: much closer to the truth than the plain one, calibrated and with
    one half of the scores 10 points too high; the test rejects calibrated scores about as often
    as promised, and the others with the power of 8 bins and a noncentrality of about 13."""
    random = np.random.default_rng(0)
    power = float(stats.ncx2.sf(stats.chi2.isf(0.05, 8), 8, 13))
    for gap, truth, wanted in ((0.0, 0.0, 0.05), (0.1, 0.05, power)):
        found = []
        for _ in range(400):
            scores = random.uniform(0.1, 0.9, 500)
            came = random.random(500) < scores - gap * (scores > 0.5)
            one = performance.calibration_error(*grid(came, scores))
            assert one is not None
            found.append((one.plain, one.corrected, one.noise, one.p_value <= 0.05))
        plain, corrected, noise, rate = np.mean(found, axis=0)
        assert abs(corrected - truth) < 0.4 * abs(plain - truth)
        assert rate == pytest.approx(wanted, abs=0.06)
        if gap == 0:
            assert plain == pytest.approx(noise, rel=0.05)


def test_labels_by_lot_are_no_selection_and_others_are() -> None:
    """5 % rejected of 1,000 lots, to four standard errors; all where labels follow the score."""
    random = np.random.default_rng(0)
    by_lot = by_score = 0
    for _ in range(1_000):
        bins = (random.beta(2, 5, 2_000) * 64).astype(int)
        every = np.bincount(bins, minlength=64)
        for likely in (np.full(2_000, 0.1), 0.2 * bins / 32):
            labelled = np.bincount(bins[random.random(2_000) < likely], minlength=64)
            rejected = performance.selection(every, labelled).p_value <= 0.05
            if likely[0] == likely[-1] == 0.1:
                by_lot += rejected
            else:
                by_score += rejected
    assert 50 - 28 <= by_lot <= 50 + 28
    assert by_score >= 990


def test_the_weighted_estimate_covers_where_the_plain_one_does_not() -> None:
    """Labels of low scores come more often, and low scores are more often wrong."""
    random = np.random.default_rng(0)
    covered = plain = 0
    for _ in range(500):
        scores = random.random(4_000)
        right = random.random(4_000) < 0.6 + 0.35 * scores
        labelled = random.random(4_000) < 0.2 * (1 - scores)
        bins = (scores * 64).astype(int)
        counts = [
            np.bincount(bins[rows], minlength=64)
            for rows in (bins >= 0, labelled, labelled & right)
        ]
        found = performance.post_stratified(*counts)
        naive = performance.wilson(int(counts[2].sum()), int(counts[1].sum()))
        assert found is not None
        assert naive is not None
        covered += found.low <= 0.775 <= found.high
        plain += naive.low <= 0.775 <= naive.high
    assert 0.95 - 0.034 <= covered / 500 <= 0.95 + 0.034
    assert plain / 500 < 0.5


def test_the_weighted_estimate_is_cochrans() -> None:
    """Large strata: the formula written out; one stratum: the plain share."""
    every, n, k = np.array([900, 100]), np.array([400, 600]), np.array([300, 540])
    found = performance.post_stratified(every, n, k)
    assert found is not None
    assert found.value == pytest.approx(0.9 * 0.75 + 0.1 * 0.9)
    spread = np.sqrt(0.81 * 0.75 * 0.25 / 400 + 0.01 * 0.9 * 0.1 / 600)
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.01)
    one = performance.post_stratified(np.array([500, 0]), np.array([40, 2]), np.array([30, 2]))
    assert one is not None
    assert one.value == pytest.approx(32 / 42)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=40))
def test_every_stratum_has_labels_enough(labelled: list[int]) -> None:
    """Or there is but one; cells keep their order."""
    counts = np.array(labelled)
    strata = performance._strata(counts)
    assert (np.diff(strata) >= 0).all()
    assert strata[-1] == 0 or np.bincount(strata, counts).min() >= performance.STRATUM_LABELS


def test_more_nothing_comes_of_nothing() -> None:
    """No labels, no class, one class only."""
    empty = np.zeros((3, 4), np.int64)
    assert performance.macro(empty) is None
    assert performance.calibration_error(empty[0], empty[0]) is None
    assert performance.in_the_large(empty[0], empty[0]) is None
    assert performance.post_stratified(empty[0], empty[0], empty[0]) is None
    assert performance.selection(empty[0], empty[0]).p_value == 1
    only = performance.macro(np.array([[7, 1], [0, 0]]))
    assert only is not None
    assert only.mcc is None
