"""Performance without labels against scikit-learn, scipy, closed forms and simulation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)
from sklearn.tree import DecisionTreeRegressor

from monitoring.stats import estimate, performance
from monitoring.stats.estimate import BETS, TOLERANCE, ConceptDetector, Errors, Labelled

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def _random_counts(chance: np.random.Generator, bins: int) -> tuple[Ints, Ints]:
    rows = chance.integers(0, 60, bins)
    return rows, chance.binomial(rows, np.linspace(0.05, 0.95, bins))


# --- edges and table ------------------------------------------------------------------------------


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=200),
    st.sampled_from([4, 16, 64]),
)
def test_edges_rise_and_are_few(scores: list[float], bins: int) -> None:
    edges = estimate.score_edges(np.array(scores), bins)
    assert (np.diff(edges) > 0).all()
    assert len(edges) < bins


def test_a_score_that_was_rare_has_a_bin_of_its_own() -> None:
    """999 in 1,000 scores are below .1; of the rest, .3, .5 and .9 are kept apart all the same."""
    scores = np.append(np.linspace(0, 0.1, 10_000), [0.3, 0.5, 0.9])
    bins = np.searchsorted(estimate.score_edges(scores), [0.05, 0.3, 0.5, 0.9])
    assert len(set(bins.tolist())) == 4


@pytest.mark.parametrize("seed", range(10))
def test_the_table_is_sklearns_isotonic_regression(seed: int) -> None:
    chance = np.random.default_rng(seed)
    rows, hits = _random_counts(chance, 30)
    seen = rows > 0
    truth = IsotonicRegression().fit(
        np.flatnonzero(seen), hits[seen] / rows[seen], sample_weight=rows[seen]
    )
    table = estimate.calibrate(rows, hits)
    assert table.chance[seen] == pytest.approx(truth.predict(np.flatnonzero(seen)))
    assert (table.seen == seen).all()


def test_a_bin_the_holdout_never_had_lies_between_its_neighbours() -> None:
    table = estimate.calibrate(np.array([0, 10, 0, 10, 0]), np.array([0, 2, 0, 6, 0]))
    assert table.chance == pytest.approx([0.2, 0.2, 0.4, 0.6, 0.6])
    assert table.seen.tolist() == [False, True, False, True, False]


def test_four_times_the_rows_halve_the_error_of_the_table() -> None:
    rows, hits = np.array([1000, 2000, 3000]), np.array([100, 900, 2500])
    once, fourfold = estimate.calibrate(rows, hits), estimate.calibrate(4 * rows, 4 * hits)
    assert fourfold.chance == pytest.approx(once.chance)
    assert fourfold.error == pytest.approx(once.error / 2, rel=1e-2)
    assert once.error == pytest.approx(np.sqrt(once.chance * (1 - once.chance) / rows), rel=1e-2)


def test_a_class_with_few_rows_takes_the_table_of_all() -> None:
    rows = np.array([[500, 500], [300, 300], [3, 2]])
    hits = np.array([[250, 400], [30, 290], [0, 2]])
    table = estimate.calibrate(rows, hits)
    assert table.chance[0] == pytest.approx([0.5, 0.8])
    assert table.chance[1] == pytest.approx([0.1, 290 / 300])
    assert table.chance[2] == pytest.approx(hits.sum(axis=0) / rows.sum(axis=0))
    assert len(np.unique(table.block)) == 6  # nobody's errors are another's


def test_without_a_holdout_there_is_no_table() -> None:
    with pytest.raises(ValueError, match="no rows to calibrate"):
        estimate.calibrate(np.zeros(4, int), np.zeros(4, int))


# --- binary ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_every_metric_is_sklearns_where_a_row_is_partly_positive(seed: int) -> None:
    """Each row counts as positive with weight p and as negative with weight 1 - p."""
    chance = np.random.default_rng(seed)
    table = estimate.calibrate(*_random_counts(chance, 12))
    counts = chance.integers(0, 20, (2, 12))
    bins, said = np.tile(np.arange(12), 2), np.repeat([0, 1], 12)
    truth = np.repeat([1, 0], 24)
    p = table.chance[bins]
    weights = np.concatenate([counts.ravel() * p, counts.ravel() * (1 - p)])
    bins, said = np.tile(bins, 2), np.tile(said, 2)
    found = estimate.binary(table, counts)
    assert found is not None
    for mine, theirs in (
        (found.accuracy, accuracy_score(truth, said, sample_weight=weights)),
        (found.precision, precision_score(truth, said, sample_weight=weights)),
        (found.recall, recall_score(truth, said, sample_weight=weights)),
        (found.f1, f1_score(truth, said, sample_weight=weights)),
        (found.auc, roc_auc_score(truth, bins, sample_weight=weights)),
    ):
        assert mine is not None
        assert mine.value == pytest.approx(theirs)
        assert 0 <= mine.low <= mine.value <= mine.high <= 1


def _interval_errors(table: estimate.Table, counts: Ints) -> list[float]:
    """Half-widths in standard errors."""
    found = estimate.binary(table, counts)
    assert found is not None
    return [(e.high - e.low) / 2 / stats.norm.ppf(0.975) for e in found[:5]]  # type: ignore[union-attr]


def test_standard_errors_are_those_of_simulated_holdouts_and_labels() -> None:
    """Delta method against 4,000 hold-outs and label draws: the spread of estimate minus truth."""
    chance = np.random.default_rng(0)
    bins, runs = 20, 4_000
    p = np.linspace(0.02, 0.5, bins)
    held = np.full(bins, 300)
    counts = np.stack([np.linspace(200, 20, bins), np.linspace(10, 220, bins)]).astype(int)
    off: list[list[float]] = []
    for _ in range(runs):
        found = estimate.binary(estimate.calibrate(held, chance.binomial(held, p)), counts)
        hits = chance.binomial(counts, p)
        assert found is not None
        off.append([e.value - t for e, t in zip(found[:5], _realised(counts, hits), strict=True)])  # type: ignore[union-attr]
    spread = np.std(off, axis=0)
    claimed = _interval_errors(estimate.calibrate(held, np.round(held * p)), counts)
    # The spread of 4,000 draws is known to 1.1 %; isotonic regression is a little better than its
    # blocks say.
    assert claimed == pytest.approx(spread, rel=0.06)


def _realised(counts: Ints, hits: Ints) -> tuple[float, ...]:
    """Accuracy, precision, recall, F1 and AUC, from hits per predicted class and bin."""
    true, positives, said = hits[1].sum(), hits.sum(), counts[1].sum()
    right = true + (counts - hits)[0].sum()
    auc = performance.auc((counts - hits).sum(axis=0), hits.sum(axis=0))
    assert auc is not None
    f1 = 2 * true / (said + positives)
    return right / counts.sum(), true / said, true / positives, f1, auc.value


def test_the_interval_holds_in_95_of_100_shifted_windows() -> None:
    """2,000 runs of hold-out and labels, scores shifted. Without the table's error: too few."""
    chance = np.random.default_rng(1)
    bins, runs = 16, 2_000
    p = np.linspace(0.05, 0.95, bins)
    held = np.linspace(120, 20, bins).astype(int)
    counts = np.stack([np.arange(bins)[::-1], np.arange(bins) * 6]).astype(int)
    covered, careless = np.zeros(5), 0
    for _ in range(runs):
        table = estimate.calibrate(held, chance.binomial(held, p))
        truths = _realised(counts, chance.binomial(counts, p))
        found, blind = (
            estimate.binary(t, counts) for t in (table, table._replace(error=0 * table.error))
        )
        assert found is not None
        assert blind is not None
        covered += [e.low <= t <= e.high for e, t in zip(found[:5], truths, strict=True)]  # type: ignore[union-attr]
        careless += blind.accuracy.low <= truths[0] <= blind.accuracy.high
    # .95 give or take 4 standard errors, .02, and isotonic regression's bias at 16 bins.
    assert (np.abs(covered / runs - 0.95) < 0.025).all()
    assert careless / runs < 0.9


def test_a_window_without_rows_and_metrics_without_a_denominator() -> None:
    table = estimate.calibrate(np.array([10, 10]), np.array([0, 0]))
    assert estimate.binary(table, np.zeros((2, 2))) is None
    found = estimate.binary(table, np.array([[5, 5], [0, 0]]))
    assert found is not None
    assert (found.precision, found.recall, found.f1, found.auc) == (None,) * 4
    assert found.accuracy.value == 1
    assert found.accuracy.low < 1


def test_rows_with_new_scores_are_counted() -> None:
    table = estimate.calibrate(np.array([10, 0]), np.array([2, 0]))
    found = estimate.binary(table, np.array([[6, 1], [0, 1]]))
    assert found is not None
    assert found.unseen == pytest.approx(0.25)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_scores_that_rise_raise_the_expected_share_of_positives(seed: int) -> None:
    """Moving rows of the predicted class 1 to a higher bin never lowers precision or recall."""
    chance = np.random.default_rng(seed)
    table = estimate.calibrate(chance.integers(1, 60, 8), chance.integers(0, 2, 8))
    counts = chance.integers(1, 20, (2, 8))
    moved = counts.copy()
    moved[1] = np.roll(counts[1], 1)
    moved[1, 7] += moved[1, 0]
    moved[1, 0] = 0
    before, after = estimate.binary(table, counts), estimate.binary(table, moved)
    assert before is not None
    assert after is not None
    assert before.precision is not None
    assert after.precision is not None
    assert after.precision.value >= before.precision.value - 1e-12


# --- many classes ---------------------------------------------------------------------------------


def test_the_holdout_itself_is_estimated_exactly() -> None:
    """Isotonic regression keeps the sum of hits: estimate and accuracy are the same."""
    chance = np.random.default_rng(0)
    rows = chance.integers(200, 900, (3, 10))
    right = chance.binomial(rows, np.linspace(0.3, 0.9, 10))
    found = estimate.top_class(estimate.calibrate(rows, right), rows)
    assert found is not None
    assert found.accuracy.value == pytest.approx(right.sum() / rows.sum())
    for i, precision in enumerate(found.precision):
        assert precision is not None
        assert precision.value == pytest.approx(right[i].sum() / rows[i].sum())
    pooled = estimate.top_class(
        estimate.calibrate(rows.sum(axis=0), right.sum(axis=0)), rows.sum(axis=0)
    )
    assert pooled is not None
    assert pooled.accuracy.value == pytest.approx(right.sum() / rows.sum())
    assert pooled.precision == ()


def test_one_bin_and_a_huge_holdout_is_wilson() -> None:
    table = estimate.calibrate(np.array([10**12]), np.array([9 * 10**11]))
    found = estimate.top_class(table, np.array([200]))
    assert found is not None
    assert found.accuracy == pytest.approx(performance.wilson(180, 200), rel=1e-5)


# --- regression -----------------------------------------------------------------------------------


def _errors(seed: int, n: int = 5_000, strata: int = 6) -> tuple[Ints, Floats, Errors]:
    chance = np.random.default_rng(seed)
    stratum = chance.integers(0, strata, n)
    errors = chance.normal(0.1 * stratum, 1 + stratum)
    return stratum, errors, estimate.error_sums(stratum, errors, strata)


def test_the_holdouts_own_errors_come_out_again() -> None:
    stratum, errors, sums = _errors(0)
    found = estimate.regression(sums, np.bincount(stratum))
    assert found is not None
    assert found.mae.value == pytest.approx(np.abs(errors).mean())
    assert found.rmse.value == pytest.approx(np.sqrt(np.mean(errors**2)))
    assert found.bias.value == pytest.approx(errors.mean())


def test_one_stratum_has_the_interval_of_a_new_mean() -> None:
    """mean +- 1.96 sd sqrt(1/n + 1/m)."""
    errors = np.random.default_rng(0).normal(0, 2, 4_000)
    sums = estimate.error_sums(np.zeros(4_000, int), errors, 1)
    found = estimate.regression(sums, np.array([500]))
    assert found is not None
    half = stats.norm.ppf(0.975) * errors.std(ddof=1) * np.sqrt(1 / 500 + 1 / 4_000)
    assert (found.bias.high - found.bias.low) / 2 == pytest.approx(half, rel=1e-3)


def test_sums_of_parts_are_sums_of_the_whole() -> None:
    stratum, errors, whole = _errors(1)
    parts = [estimate.error_sums(stratum[i::3], errors[i::3], 6) for i in range(3)]
    for total, *pieces in zip(whole, *parts, strict=True):
        assert np.sum(pieces, axis=0) == pytest.approx(total)


def test_intervals_of_errors_hold_when_the_strata_shift() -> None:
    chance = np.random.default_rng(2)
    runs, covered = 1_000, np.zeros(3)
    for run in range(runs):
        _, _, sums = _errors(run, n=1_500)
        stratum = np.repeat(np.arange(6), [20, 30, 50, 100, 200, 400])
        errors = chance.normal(0.1 * stratum, 1 + stratum)
        found = estimate.regression(sums, np.bincount(stratum))
        assert found is not None
        truths = np.abs(errors).mean(), float(np.sqrt(np.mean(errors**2))), errors.mean()
        covered += [e.low <= t <= e.high for e, t in zip(found[:3], truths, strict=True)]  # type: ignore[union-attr]
    assert (np.abs(covered / runs - 0.95) < 4 * np.sqrt(0.95 * 0.05 / runs)).all()


def test_a_stratum_the_holdout_never_had() -> None:
    sums = estimate.error_sums(np.array([0, 0, 2, 2]), np.array([1.0, -1.0, 3.0, -3.0]), 4)
    found = estimate.regression(sums, np.array([0, 1, 0, 1]))
    assert found is not None
    assert found.unseen == 1
    assert found.mae.value == pytest.approx((2 + 3) / 2)
    assert estimate.regression(sums, np.zeros(4)) is None
    with pytest.raises(ValueError, match="no rows to take errors from"):
        estimate.regression(Errors(*(np.zeros(4) for _ in range(5))), np.ones(4))


@pytest.mark.parametrize("strata", [1, 2, 9, 40])
def test_the_tree_is_sklearns(strata: int) -> None:
    """The same means for the same rows: same splits, same order of splitting."""
    chance = np.random.default_rng(3)
    bins = chance.integers(0, 12, (3_000, 4))
    loss = chance.exponential(1 + bins[:, 0] * (bins[:, 1] > 6) + 0.2 * bins[:, 2])
    tree = estimate.grow(bins, loss, strata, least=30)
    mine = tree.stratum(bins)
    means = np.bincount(mine, loss) / np.bincount(mine)
    assert tree.strata == strata
    if strata == 1:
        assert means == pytest.approx(loss.mean())
        return
    theirs = DecisionTreeRegressor(max_leaf_nodes=strata, min_samples_leaf=30, random_state=0)
    assert means[mine] == pytest.approx(theirs.fit(bins, loss).predict(bins))


def test_nothing_to_explain_is_not_split() -> None:
    bins = np.random.default_rng(0).integers(0, 5, (500, 2))
    assert estimate.grow(bins, np.ones(500)).strata == 1


# --- some labels ----------------------------------------------------------------------------------


def _sums(f: Floats, c: Floats, chosen: npt.NDArray[np.bool_]) -> Labelled:
    g, d = f[chosen], c[chosen]
    return Labelled(len(f), f.sum(), len(g), g.sum(), d.sum(), g @ g, g @ d, d @ d)


def test_it_is_the_regression_estimator() -> None:
    """The line of scipy's linregress at the mean of all f, and the error of its residuals."""
    chance = np.random.default_rng(0)
    f = chance.random(2_000)
    c = 0.3 + 0.5 * f + chance.normal(0, 0.1, 2_000)
    chosen = chance.random(2_000) < 0.1
    found = estimate.prediction_powered([_sums(f, c, chosen)], share=False)
    line = stats.linregress(f[chosen], c[chosen])
    n = int(chosen.sum())
    left = c[chosen] - line.intercept - line.slope * f[chosen]
    error = np.sqrt(left @ left / (n - 2) / n * (1 - n / 2_000))
    assert found is not None
    assert found.weight == pytest.approx(line.slope)
    assert found.estimate.value == pytest.approx(line.intercept + line.slope * f.mean())
    assert found.error == pytest.approx(error)
    assert found.gain == pytest.approx(1 - (1 - line.rvalue**2) * (n - 1) / (n - 2), abs=1e-9)
    assert found.estimate.high - found.estimate.value == pytest.approx(
        stats.t.ppf(0.975, n - 2) * error
    )


def test_a_useless_or_upside_down_estimate_is_left_out() -> None:
    c = np.array([0.0, 1.0] * 50)
    for f in (np.full(100, 0.7), 1 - c):
        found = estimate.prediction_powered([_sums(f, c, np.arange(100) < 40)])
        assert found is not None
        assert found.weight == 0
        assert found.estimate.value == 0.5


def test_with_all_rows_labelled_nothing_is_left_to_chance() -> None:
    chance = np.random.default_rng(0)
    f = chance.random(500)
    c = (chance.random(500) < f).astype(float)
    found = estimate.prediction_powered([_sums(f, c, np.ones(500, bool))])
    assert found is not None
    assert found.estimate[:3] == pytest.approx((c.mean(),) * 3)
    beyond = estimate.prediction_powered([_sums(f, c, np.ones(500, bool))], beyond=True)
    wilson = performance.wilson(int(c.sum()), 500)
    assert beyond is not None
    assert wilson is not None
    assert beyond.estimate[:3] == pytest.approx(wilson[:3], abs=1e-3)


def test_labels_without_an_error_do_not_make_sure() -> None:
    """All of 20 labels right of very many rows: Wilson's lower bound, with Student's t."""
    f = np.full(100_000, 0.9)
    found = estimate.prediction_powered([_sums(f, np.ones(100_000), np.arange(100_000) < 20)])
    t = stats.t.ppf(0.975, 18)
    assert found is not None
    assert found.estimate.value == 1
    assert found.estimate.low == pytest.approx(20 / (20 + t * t), rel=1e-3)


def test_too_few_labels_say_nothing() -> None:
    enough = Labelled(rows=100, labels=10, c=5, cc=5)
    assert estimate.prediction_powered([]) is None
    assert estimate.prediction_powered([enough, Labelled(rows=50, labels=1)]) is None
    assert estimate.prediction_powered([enough, Labelled()]) is not None


def test_cells_give_the_sums_of_their_rows_and_add_up() -> None:
    chance = np.random.default_rng(0)
    cells = chance.random((2, 5))
    cell = chance.integers(0, 10, 400)
    c = chance.integers(0, 2, 400)
    chosen = chance.random(400) < 0.3

    def counted(rows: npt.NDArray[np.bool_]) -> Labelled:
        wrong, right = (
            np.bincount(cell[rows & chosen & (c == said)], minlength=10).reshape(2, 5)
            for said in (0, 1)
        )
        everything = np.bincount(cell[rows], minlength=10).reshape(2, 5)
        return estimate.labelled(cells, everything, wrong, right)

    whole = counted(np.ones(400, bool))
    assert whole == pytest.approx(_sums(cells.ravel()[cell], c.astype(float), chosen))
    half = np.arange(400) < 130
    assert counted(half) + counted(~half) == pytest.approx(whole)


def _cover(draw: tuple[Floats, Floats], share: float, runs: int, seed: int) -> float:
    f, c = draw
    chance = np.random.default_rng(seed)
    truth, covered = c.mean(), 0
    for _ in range(runs):
        found = estimate.prediction_powered([_sums(f, c, chance.random(len(f)) < share)])
        assert found is not None
        covered += found.estimate.low <= truth <= found.estimate.high
    return covered / runs


@pytest.mark.parametrize(("accuracy", "seed"), [(0.7, 0), (0.93, 1), (0.5, 2)])
def test_intervals_hold_however_wrong_the_estimate_is(accuracy: float, seed: int) -> None:
    """5 % of 4,000 rows are labelled; f says .95 while the truth is anything. 4,000 draws."""
    chance = np.random.default_rng(seed)
    f = chance.beta(19, 1, 4_000)
    c = (chance.random(4_000) < np.clip(f - 0.95 + accuracy, 0, 1)).astype(float)
    assert _cover((f, c), 0.05, 4_000, seed) == pytest.approx(0.95, abs=0.018)


def test_rows_labelled_at_different_rates_are_strata() -> None:
    """Half of the disagreements and a fiftieth of the rest are labelled: as one, it is biased."""
    chance = np.random.default_rng(4)
    n, runs = 4_000, 1_500
    differ = chance.random(n) < 0.1
    f = np.where(differ, 0.6, 0.9)
    c = (chance.random(n) < np.where(differ, 0.4, 0.95)).astype(float)
    strata, mixed = 0, 0
    for _ in range(runs):
        chosen = chance.random(n) < np.where(differ, 0.5, 0.05)
        parts = [_sums(f[part], c[part], chosen[part]) for part in (differ, ~differ)]
        apart = estimate.prediction_powered(parts)
        together = estimate.prediction_powered([(parts[0] + parts[1])])
        assert apart is not None
        assert together is not None
        strata += apart.estimate.low <= c.mean() <= apart.estimate.high
        mixed += together.estimate.low <= c.mean() <= together.estimate.high
    assert strata / runs == pytest.approx(0.95, abs=0.03)
    assert mixed / runs < 0.9


def test_beyond_the_window_more_is_left_to_chance() -> None:
    """Half of 400 rows labelled, each run with rows of its own: the process is at .8."""
    chance = np.random.default_rng(5)
    runs, window, process = 2_000, 0, 0
    for _ in range(runs):
        f = chance.choice([0.7, 0.9], 400)
        c = (chance.random(400) < f).astype(float)
        sums = _sums(f, c, chance.random(400) < 0.5)
        narrow = estimate.prediction_powered([sums])
        wide = estimate.prediction_powered([sums], beyond=True)
        assert narrow is not None
        assert wide is not None
        window += narrow.estimate.low <= 0.8 <= narrow.estimate.high
        process += wide.estimate.low <= 0.8 <= wide.estimate.high
    assert process / runs == pytest.approx(0.95, abs=0.02)
    assert window / runs < 0.9


# --- concept drift --------------------------------------------------------------------------------

CHANCE = np.array([0.55, 0.7, 0.85, 0.97])


def _counts(cells: Ints, right: npt.NDArray[np.bool_]) -> tuple[Ints, Ints]:
    return np.bincount(cells[~right], minlength=4), np.bincount(cells[right], minlength=4)


def test_one_label_at_a_time_is_shiryaev_and_roberts() -> None:
    chance = np.random.default_rng(0)
    cells = chance.integers(0, 4, 60)
    right = chance.random(60) < CHANCE[cells]
    detector = ConceptDetector()
    state, sums = detector.start(), np.zeros((2, len(BETS)))
    for cell, hit in zip(cells, right, strict=True):
        state = detector.after(state, CHANCE, *_counts(cells[[]], right[[]]))  # nothing new
        state = detector.after(state, CHANCE, *_counts(np.array([cell]), np.array([hit])))
        d = CHANCE[cell] - hit
        gains = np.array([[d], [-d]]) - TOLERANCE
        sums = (sums + 1) * (1 + BETS * gains / (1 + TOLERANCE))
    assert np.expm1(state) == pytest.approx(sums)
    assert detector.evidence(state) == pytest.approx(np.log1p(sums.mean(axis=1)))


def test_all_starts_of_a_batch_are_at_its_beginning() -> None:
    """S <- (S + n) times the product over the batch, twice."""
    wrong, right = np.array([2, 1, 0, 0]), np.array([0, 3, 4, 1])
    d = np.concatenate([np.repeat(CHANCE, wrong), np.repeat(CHANCE - 1, right)])
    gains = np.stack([d, -d])[:, None] - TOLERANCE
    e = np.prod(1 + BETS[:, None] * gains / (1 + TOLERANCE), axis=-1)
    detector = ConceptDetector()
    once = detector.after(detector.start(), CHANCE, wrong, right)
    assert np.expm1(once) == pytest.approx(len(d) * e)
    twice = detector.after(once, CHANCE, wrong, right)
    assert np.expm1(twice) == pytest.approx((len(d) * e + len(d)) * e)


@given(st.integers(0, 2**32 - 1), st.integers(1, 80))
@settings(max_examples=50)
def test_sums_are_never_more_sure_than_cells(seed: int, n: int) -> None:
    chance = np.random.default_rng(seed)
    cells, right = chance.integers(0, 4, n), chance.random(n) < chance.random()
    wrong_counts, right_counts = _counts(cells, right)
    detector = ConceptDetector()
    exact = detector.after(detector.start(), CHANCE, wrong_counts, right_counts)
    batch = estimate.labelled(CHANCE, wrong_counts + right_counts, wrong_counts, right_counts)
    bound = detector.after_sums(detector.start(), batch)
    assert (bound <= exact + 1e-9).all()
    assert (bound >= 0).all()


def test_more_errors_are_more_evidence_that_the_estimate_is_too_high() -> None:
    detector = ConceptDetector()
    highs, lows = [], []
    for wrong in range(0, 101, 10):
        state = detector.after(
            detector.start(), CHANCE[:1], np.array([wrong]), np.array([100 - wrong])
        )
        high, low = detector.evidence(state).tolist()
        highs.append(high)
        lows.append(low)
    assert highs == sorted(highs)
    assert lows == sorted(lows, reverse=True)


@pytest.mark.parametrize(("by_sums", "batch"), [(False, 5), (False, 50), (True, 10)])
def test_false_alarms_stay_below_their_bound(by_sums: bool, batch: int) -> None:
    """Exactly at the tolerance: within n labels, at most n / threshold of runs alarm (Doob)."""
    chance = np.random.default_rng(6)
    detector, n, threshold, runs = ConceptDetector(), 100, 500, 300
    alarmed = 0
    for _ in range(runs):
        cells = chance.integers(0, 4, n)
        right = chance.random(n) < CHANCE[cells] - TOLERANCE
        state, fired = detector.start(), False
        for i in range(0, n, batch):
            wrongs, rights = _counts(cells[i : i + batch], right[i : i + batch])
            if by_sums:
                sums = estimate.labelled(CHANCE, wrongs + rights, wrongs, rights)
                state = detector.after_sums(state, sums)
            else:
                state = detector.after(state, CHANCE, wrongs, rights)
            fired = fired or detector.distrusts(state, threshold) is not None
        alarmed += fired
    # One side is at its limit, the other far inside; 4 standard errors above the bound.
    bound = n / threshold
    assert alarmed / runs < bound + 4 * np.sqrt(bound * (1 - bound) / runs)


@pytest.mark.parametrize(("drift", "says"), [(-0.15, "too high"), (0.15, "too low"), (0.0, None)])
def test_it_says_which_way_the_estimate_is_wrong(drift: float, says: str | None) -> None:
    chance = np.random.default_rng(7)
    cells = np.repeat([0, 1], 1_500)
    right = chance.random(3_000) < CHANCE[cells] + drift
    detector = ConceptDetector()
    state = detector.after(detector.start(), CHANCE, *_counts(cells, right))
    assert detector.distrusts(state) == says


def test_a_difference_within_the_tolerance_is_no_drift() -> None:
    """Four points off: a drift for a tolerance of one point, none for one of five."""
    wrong, right = np.array([3_400]), np.array([6_600])
    for tolerance, says in ((0.01, "too high"), (0.05, None)):
        detector = ConceptDetector(tolerance)
        state = detector.after(detector.start(), np.array([0.7]), wrong, right)
        assert detector.distrusts(state) == says
