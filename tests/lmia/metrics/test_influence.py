"""Variances against DeLong's and Obuchowski's formulas written out with double loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmia.metrics.estimands import paired
from lmia.metrics.influence import auc_statistic, combine, covariance, degrees_of_freedom
from lmia.metrics.scores import ScoreSet


def kernel(a, b):
    return float(a > b) + float(a == b) / 2


def components(scores, member):
    """DeLong's V10 per member and V01 per non-member."""
    high, low = scores[member], scores[~member]
    v10 = np.array([np.mean([kernel(x, y) for y in low]) for x in high])
    v01 = np.array([np.mean([kernel(x, y) for x in high]) for y in low])
    return v10, v01


def delong(first, second, member):
    """Covariance of two AUCs of the same pictures (DeLong et al. 1988)."""
    a, b = components(first, member), components(second, member)
    return np.cov(a[0], b[0])[0, 1] / member.sum() + np.cov(a[1], b[1])[0, 1] / (~member).sum()


def obuchowski(scores, member, persons):
    """Clustered variance (Obuchowski 1997), persons may have pictures in both classes."""
    v10, v01 = components(scores, member)
    value = v10.mean()
    m, n = member.sum(), (~member).sum()
    names = sorted(set(persons))
    in_m, in_n = persons[member], persons[~member]
    tens = np.array([(v10[in_m == p] - value).sum() for p in names])
    ones = np.array([(v01[in_n == p] - value).sum() for p in names])
    i10, i01, i = len(set(in_m)), len(set(in_n)), len(names)
    s10 = i10 / ((i10 - 1) * m) * (tens**2).sum()
    s01 = i01 / ((i01 - 1) * n) * (ones**2).sum()
    s11 = i / (i - 1) * (tens * ones).sum()
    return s10 / m + s01 / n + 2 * s11 / (m * n)


@st.composite
def cases(draw):
    m, n = draw(st.integers(2, 8)), draw(st.integers(2, 8))
    levels = draw(st.integers(2, 6))
    values = st.lists(st.integers(0, levels), min_size=m + n, max_size=m + n)
    scores = np.array([draw(values), draw(values)], float)
    persons = np.array([f"x{i}" for i in draw(st.lists(st.integers(0, 4), min_size=m + n, max_size=m + n))])
    return scores, np.arange(m + n) < m, persons


@settings(max_examples=300, deadline=None)
@given(cases())
def test_covariance_is_delongs(case):
    scores, member, _ = case
    ids = [str(i) for i in range(len(member))]
    sets = [ScoreSet(ids, s, member) for s in scores]
    found = covariance([auc_statistic(s) for s in sets])
    for i in range(2):
        for j in range(2):
            assert found[i, j] == pytest.approx(delong(scores[i], scores[j], member), abs=1e-12)
    difference = paired([(sets[0], sets[1])]).difference
    variance = delong(scores[0], scores[0], member) + delong(scores[1], scores[1], member)
    variance -= 2 * delong(scores[0], scores[1], member)
    assert (difference.se or 0) ** 2 == pytest.approx(variance, abs=1e-12)


@settings(max_examples=300, deadline=None)
@given(cases())
def test_variance_is_obuchowskis(case):
    scores, member, persons = case
    if min(len(set(persons[member])), len(set(persons[~member]))) < 2:
        return
    one = ScoreSet([str(i) for i in range(len(member))], scores[0], member, persons.tolist())
    found = covariance([auc_statistic(one)])[0, 0]
    assert found == pytest.approx(obuchowski(scores[0], member, persons), abs=1e-12)
    assert found >= -1e-15


@settings(max_examples=150, deadline=None)
@given(cases())
def test_contributions_sum_to_nothing_in_each_stratum(case):
    scores, member, persons = case
    statistic = auc_statistic(ScoreSet([str(i) for i in range(len(member))], scores[0], member, persons.tolist()))
    for effects in (statistic.effects, statistic.nulls):
        assert all(abs(effect.sum()) < 1e-12 for effect in effects.values())


def test_statistics_meet_by_person_not_by_row():
    random = np.random.default_rng(0)
    member = np.arange(40) < 20
    ids, persons = [str(i) for i in range(40)], [f"p{i // 4}" for i in range(40)]
    one = ScoreSet(ids, random.normal(size=40), member, persons)
    mixed = one.take(random.permutation(40))
    matrix = covariance([auc_statistic(one), auc_statistic(mixed)])
    assert matrix[0, 1] == pytest.approx(matrix[0, 0], rel=1e-12)
    other = ScoreSet([f"other {i}" for i in ids], one.scores, member, [f"other {p}" for p in persons])
    assert covariance([auc_statistic(one), auc_statistic(other)])[0, 1] == 0
    cancelled = combine([(1.0, auc_statistic(one)), (-1.0, auc_statistic(mixed))])
    assert abs(covariance([cancelled])[0, 0]) < 1e-30


def test_degrees_of_freedom_count_persons_and_fall_when_few_matter():
    random = np.random.default_rng(0)
    member = np.arange(400) < 200
    ids = [str(i) for i in range(400)]
    scores = random.normal(size=400)
    single = auc_statistic(ScoreSet(ids, scores, member))
    grouped = auc_statistic(ScoreSet(ids, scores, member, [f"p{i // 20}" for i in range(400)]))
    assert 300 < degrees_of_freedom([single]) <= 398
    assert degrees_of_freedom([grouped]) <= 18
    apart = scores + 20 * member
    apart[:3] -= 20  # three members on the wrong side carry the whole variance
    assert degrees_of_freedom([auc_statistic(ScoreSet(ids, apart, member))]) < 20
