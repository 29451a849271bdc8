"""Set-level tests: uniform p-values where nothing was used, power where something was."""

import itertools

import numpy as np
import pytest
from scipy import stats

from lmia.metrics.scores import Scores
from lmia.metrics.sets import power_curve, set_p_value
from lmia.specs import RequestError

SETS = 1000


def people(name, num, photos, random, shift=0.0, *, icc=0.5):
    """Scores of `num` people with correlated photos."""
    who = np.repeat(np.arange(num), photos)
    ids = [f"{name} {i}" for i in range(num * photos)]
    persons = [f"{name} person {i}" for i in who]
    own = random.normal(size=num)[who] * np.sqrt(icc)
    return Scores(ids, own + np.sqrt(1 - icc) * random.normal(size=who.size) + shift, persons)


def uniform(p_values):
    """p of the Kolmogorov-Smirnov test; permutation p-values are multiples of 1/200 and moved to their middles."""
    return stats.kstest(p_values, "uniform").pvalue


def test_null_p_values_are_uniform():
    """1,000 simulated sets: two sets of the same source, nobody was used."""
    random = np.random.default_rng(0)
    permutation = []
    for k in range(SETS):
        a, b = people("a", 12, 3, random), people("b", 15, 3, random)
        permutation.append(set_p_value(a, b, permutations=199, seed=k) - 1 / 400)
    assert uniform(permutation) > 0.01
    assert 0.03 < np.mean(np.array(permutation) <= 0.05) < 0.07


def test_permuting_pictures_instead_of_people_would_not_be_uniform():
    random = np.random.default_rng(2)
    found = []
    for k in range(200):
        a, b = people("a", 10, 8, random), people("b", 10, 8, random)
        found.append(set_p_value(Scores(a.ids, a.scores), Scores(b.ids, b.scores), permutations=99, seed=k))
    assert uniform(found) < 1e-3


def test_small_sets_are_enumerated_exactly():
    a = Scores(["a", "b", "c"], np.array([3.0, 1.0, 2.5]))
    b = Scores(["d", "e", "f", "g"], np.array([0.0, 2.5, 1.5, -1.0]))
    values = np.concatenate([a.scores, b.scores])
    sums = [sum(c) for c in itertools.combinations(values, 3)]
    assert set_p_value(a, b) == np.mean(np.array(sums) >= 6.5 - 1e-12)
    many = set_p_value(a, b, permutations=34)  # fewer than the 35 ways: drawn instead
    assert many * 35 == pytest.approx(round(many * 35))


def test_a_used_set_is_found():
    random = np.random.default_rng(3)
    a, b = people("a", 60, 2, random, 0.8), people("b", 60, 2, random)
    assert set_p_value(a, b) < 0.05
    assert set_p_value(b, a) > 0.9
    assert set_p_value(a, b, seed=1) == set_p_value(a, b, seed=1)


def test_power_is_that_of_scipys_welch_test():
    """The share of resampled sets that scipy's test rejects, drawn anew."""
    random = np.random.default_rng(4)
    a, b = people("a", 30, 1, random, 0.6, icc=0.0), people("b", 40, 1, random, icc=0.0)
    drawn = [(random.choice(a.scores, 12), random.choice(b.scores, 40)) for _ in range(2000)]
    p = [stats.ttest_ind(*pair, equal_var=False, alternative="greater").pvalue for pair in drawn]
    assert power_curve(a, b, (12,)).power[0] == pytest.approx(np.mean(np.array(p) <= 0.05), abs=0.04)


def test_power_grows_with_the_set_and_its_smallest_size_has_the_power():
    random = np.random.default_rng(5)
    a, b = people("a", 200, 1, random, 0.5, icc=0.0), people("b", 200, 1, random, icc=0.0)
    curve = power_curve(a, b, (5, 20, 80, 320), draws=500)
    assert curve.power == sorted(curve.power) and curve.power[-1] > 0.95
    assert 5 < curve.smallest < 80
    stricter = power_curve(a, b, (5, 20, 80, 320), alpha=0.01, draws=500)
    assert stricter.smallest > curve.smallest
    # The normal approximation: the unseen set is as it is, 200 people.
    difference = a.scores.mean() - b.scores.mean()
    approximate = a.scores.var(ddof=1) / ((difference / 2.486) ** 2 - b.scores.var(ddof=1) / 200)
    assert curve.smallest == pytest.approx(approximate, rel=0.3)
    nothing = power_curve(b, a, (5, 50), draws=200)
    assert nothing.smallest is None and "not reached with 50 people" in nothing.note


def test_bad_sets_are_refused():
    a = Scores(["a", "b"], np.arange(2.0), ["p", "q"])
    b = Scores(["c", "d"], np.arange(2.0), ["q", "r"])
    with pytest.raises(RequestError, match="both the suspected and the unseen set: q"):
        set_p_value(a, b)
    c = Scores(["e", "f"], np.arange(2.0), ["s", "t"])
    with pytest.raises(RequestError, match="at least 2"):
        power_curve(a, c, (1, 5))
