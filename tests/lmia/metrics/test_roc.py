"""The ROC against scikit-learn and against its definition, on small cases that are mostly ties."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmia.metrics.roc import allowed_false_positives, auc, placements, roc_curve, tpr_at_fpr
from lmia.specs import RequestError


@st.composite
def cases(draw, largest=14):
    """Scores on a few levels, both classes present."""
    size = draw(st.integers(2, largest))
    levels = draw(st.integers(1, 5))
    scores = draw(st.lists(st.integers(0, levels - 1), min_size=size, max_size=size))
    member = draw(st.lists(st.booleans(), min_size=size, max_size=size).filter(lambda m: any(m) and not all(m)))
    scale = draw(st.sampled_from([1.0, -0.3, 1e-12, 1e12]))
    return np.array(scores) * scale, np.array(member)


def auc_by_definition(scores, member):
    pairs = [(a > b) + (a == b) / 2 for a in scores[member] for b in scores[~member]]
    return math.fsum(pairs) / len(pairs)


def tpr_by_definition(scores, member, fpr):
    """max{TPR : FPR <= fpr} over every threshold that there could be."""
    best = (0.0, 0)
    for threshold in [*scores.tolist(), math.inf]:
        accepted = scores >= threshold
        if (accepted & ~member).sum() / (~member).sum() <= fpr:
            best = max(best, ((accepted & member).sum() / member.sum(), int((accepted & ~member).sum())))
    return best[0]


@settings(max_examples=700, deadline=None)
@given(cases())
def test_auc_is_mann_whitney(case):
    from sklearn.metrics import roc_auc_score

    scores, member = case
    assert auc(scores, member) == pytest.approx(auc_by_definition(scores, member), abs=1e-12)
    assert auc(scores, member) == pytest.approx(roc_auc_score(member, scores), abs=1e-12)
    assert auc(scores, ~member) == pytest.approx(1 - auc(scores, member), abs=1e-12)
    assert auc(-scores, member) == pytest.approx(1 - auc(scores, member), abs=1e-12)


@settings(max_examples=700, deadline=None)
@given(cases(), st.sampled_from([0.05, 0.1, 0.2, 0.25, 1 / 3, 0.5, 0.7, 1.0]))
def test_tpr_is_the_largest_with_fpr_at_most_a(case, fpr):
    scores, member = case
    point = tpr_at_fpr(scores, member, fpr)
    if fpr < 1 / (~member).sum():
        assert point.tpr is None and "non-members" in point.note
        return
    assert point.tpr == pytest.approx(tpr_by_definition(scores, member, fpr), abs=1e-12)
    assert point.false_positives / (~member).sum() <= fpr
    accepted = np.ones(len(scores), bool) if point.threshold is None else scores > point.threshold
    assert point.true_positives == (accepted & member).sum()
    assert point.false_positives == (accepted & ~member).sum()
    assert bool(point.note) == (fpr < 10 / (~member).sum())


@settings(max_examples=500, deadline=None)
@given(cases())
def test_curve_equals_scikit_learn(case):
    from sklearn.metrics import roc_curve as reference

    scores, member = case
    curve = roc_curve(scores, member)
    fpr, tpr, threshold = reference(member, scores, drop_intermediate=False)
    assert np.array_equal(curve.threshold, threshold[1:])
    assert np.allclose(curve.tpr, tpr[1:], atol=0, rtol=1e-15)
    assert np.allclose(curve.fpr, fpr[1:], atol=0, rtol=1e-15)
    assert np.trapezoid(np.append(0, curve.tpr), np.append(0, curve.fpr)) == pytest.approx(auc(scores, member))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=12), st.lists(st.integers(0, 6), max_size=12))
def test_placements_count_in_whole_numbers(scores, reference):
    found = placements(np.array(scores, float), np.array(reference, float))
    assert found.tolist() == [2 * sum(r < s for r in reference) + sum(r == s for r in reference) for s in scores]


def test_swapping_the_labels_changes_tpr_at_low_fpr():
    """Members with a heavy upper tail: easy to find some of them, hard to clear non-members. A mirrored TPR fails."""
    random = np.random.default_rng(0)
    member = np.arange(4000) < 2000
    scores = random.normal(size=4000)
    scores[:400] += 6
    right = tpr_at_fpr(scores, member, 0.01)
    mirrored = tpr_at_fpr(-scores, ~member, 0.01)
    swapped = tpr_at_fpr(scores, ~member, 0.01)
    assert right.tpr == pytest.approx(0.2, abs=0.02)
    assert mirrored.tpr < 0.03 and swapped.tpr < 0.02
    assert auc(-scores, ~member) == auc(scores, member)  # the AUC cannot tell, which is why the TPR must


def test_bound_on_fpr_is_decided_on_the_quotient():
    assert allowed_false_positives(0.29, 100) == 29
    assert allowed_false_positives(0.1, 30) == 3
    assert allowed_false_positives(0.01, 99) == 0
    assert allowed_false_positives(1.0, 7) == 7
    for num in range(1, 400):
        for k in (1, num // 3, num):
            assert allowed_false_positives(k / num, num) == k if k else True


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(value):
    with pytest.raises(RequestError, match="rows"):
        auc(np.array([0.0, value, 1.0]), np.array([True, False, True]))


def test_one_class_and_wrong_fpr_are_refused():
    with pytest.raises(RequestError, match="both classes"):
        auc(np.zeros(3), np.ones(3, bool))
    with pytest.raises(RequestError, match="fpr = 0"):
        tpr_at_fpr(np.arange(4.0), np.array([True, False, True, False]), 0)
