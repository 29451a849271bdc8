"""The bootstrap behind TPR at low FPR, and thresholds that are carried over."""

import numpy as np
import pytest
from scipy import stats

from lmia.metrics.bootstrap import (
    auc_replicates,
    crossed_bootstrap,
    draw_weights,
    people_of,
    tpr_replicates,
    tpr_replicates_unclustered,
)
from lmia.metrics.calibration import best_threshold, decide
from lmia.metrics.estimands import auc_estimate
from lmia.metrics.estimates import clopper_pearson
from lmia.metrics.roc import auc, roc_curve, tpr_at_fpr
from lmia.metrics.scores import ScoreSet


def sample(num=200, photos=1, seed=0, shift=1.0, levels=None):
    random = np.random.default_rng(seed)
    member = np.arange(num) < num // 2
    scores = random.normal(size=num) + shift * member
    if levels:
        scores = np.round(scores * levels) / levels
    persons = [f"p{i // photos}" for i in range(num)] if photos > 1 else None
    return ScoreSet([str(i) for i in range(num)], scores, member, persons)


@pytest.mark.parametrize("levels", [None, 2])
def test_a_replicate_is_the_metric_of_the_resampled_pictures(levels):
    s = sample(60, photos=3, levels=levels)
    people = people_of([s])
    random = np.random.default_rng(1)
    weights = draw_weights(people.strata, 200, random)
    found = tpr_replicates([s], (0.1, 0.3), 200, np.random.default_rng(1), people)
    assert weights.sum(axis=1).tolist() == [20.0] * 200
    for row, w in zip(found, weights, strict=True):
        repeat = np.repeat(np.arange(60), w[people.codes[0]].astype(int))
        for value, fpr in zip(row[0], (0.1, 0.3), strict=True):
            expected = tpr_at_fpr(s.scores[repeat], s.member[repeat], fpr)
            assert value == pytest.approx(expected.tpr, abs=1e-12)


def test_an_auc_replicate_is_the_auc_of_the_resampled_pictures():
    one, two = sample(60, photos=3, levels=2), sample(60, photos=3, seed=4)
    people = people_of([one, two])
    weights = draw_weights(people.strata, 100, np.random.default_rng(1))
    found = auc_replicates([one, two], 100, np.random.default_rng(1))
    for row, w in zip(found, weights, strict=True):
        for k, s in enumerate((one, two)):
            repeat = np.repeat(np.arange(60), w[people.codes[k]].astype(int))
            assert row[k] == pytest.approx(auc(s.scores[repeat], s.member[repeat]), abs=1e-6)


def test_the_crossed_bootstrap_agrees_with_the_formula_where_it_should():
    random = np.random.default_rng(0)
    s = sample(400, photos=4)
    worlds = [ScoreSet(s.ids, s.scores + 0.3 * random.normal(size=400), s.member, s.identity) for _ in range(12)]
    drawn = crossed_bootstrap([[w] for w in worlds], replicates=1000)
    formula = auc_estimate(worlds)
    assert drawn.value == pytest.approx(formula.value, abs=1e-12)
    assert drawn.se == pytest.approx(formula.se, rel=0.15)
    assert drawn.low == pytest.approx(formula.low, abs=0.02)


def test_order_statistics_draw_from_the_same_distribution():
    s = sample(400, levels=8)
    random = np.random.default_rng(0)
    slow = tpr_replicates([s], (0.1, 0.02), 4000, random)[:, 0]
    fast = tpr_replicates_unclustered(s, (0.1, 0.02), 4000, random)[:, 0]
    for j in range(2):
        assert stats.ks_2samp(slow[:, j], fast[:, j]).pvalue > 1e-3
        assert slow[:, j].mean() == pytest.approx(fast[:, j].mean(), abs=0.01)


def test_people_on_both_sides_are_drawn_once():
    member = np.array([True, False, True, False])
    s = ScoreSet(list("abcd"), np.arange(4.0), member, ["p", "p", "q", "r"])
    people = people_of([s])
    assert sorted(len(x) for x in people.strata) == [1, 1, 1]


def test_clopper_pearson_is_scipys():
    for k, n in ((0, 10), (10, 10), (3, 17)):
        ci = stats.binomtest(k, n).proportion_ci(0.95, "exact")
        assert clopper_pearson(k, n) == pytest.approx((ci.low, ci.high))


def test_the_best_threshold_is_the_best():
    s = sample(80, levels=3)
    threshold = best_threshold(s)
    curve = roc_curve(s.scores, s.member)
    best = ((curve.tpr + 1 - curve.fpr) / 2).max()
    assert decide(s, threshold).balanced_accuracy.value == pytest.approx(best)


def test_a_carried_threshold_reports_what_it_does():
    calibration, other = sample(300, seed=1), sample(300, seed=2)
    report = ScoreSet([f"r{i}" for i in other.ids], other.scores, other.member)
    result = decide(report, best_threshold(calibration))
    assert result.tpr == result.true_positives / 150 and result.fpr == result.false_positives / 150
    assert result.balanced_accuracy.value == pytest.approx((result.tpr + 1 - result.fpr) / 2)
    assert result.balanced_accuracy.low < result.balanced_accuracy.value < result.balanced_accuracy.high
    tpr, fpr = result.tpr, result.fpr
    expected = np.sqrt((tpr * (1 - tpr) + fpr * (1 - fpr)) / 149) / 2
    assert result.balanced_accuracy.se == pytest.approx(expected, rel=1e-9)
    nothing = decide(report, 1e9)
    assert nothing.balanced_accuracy.value == 0.5
    assert nothing.balanced_accuracy.low < 0.5 < nothing.balanced_accuracy.high
