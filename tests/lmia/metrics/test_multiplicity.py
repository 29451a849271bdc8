"""Adjusted p-values and bounds that hold together."""

import numpy as np
import pytest

from lmia.metrics.estimands import crossover_delta
from lmia.metrics.estimates import Estimate, from_interval, missing
from lmia.metrics.multiplicity import holm, suite_interval, suite_lower_bound
from lmia.metrics.scores import ScoreSet


def estimate(value, se):
    return Estimate(value, value - 1.96 * se, value + 1.96 * se, se, "")


def holm_by_definition(p):
    """The smallest level at which each hypothesis is rejected by the step-down procedure."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, worst = [0.0] * len(p), 0.0
    for step, i in enumerate(order):
        worst = max(worst, min(1.0, p[i] * (len(p) - step)))
        adjusted[i] = worst
    return adjusted


def test_adjusted_p_values():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    random = np.random.default_rng(0)
    for _ in range(500):
        p = random.choice([0.001, 0.01, 0.02, 0.05, 0.2, 1.0], size=random.integers(1, 12)) * random.choice([1, 0.5])
        assert holm(p) == pytest.approx(holm_by_definition(p.tolist()))
    assert holm([]).size == 0


def test_family_wise_error_holds():
    random = np.random.default_rng(1)
    wrong = np.mean([(holm(random.random(8)) <= 0.05).any() for _ in range(4000)])
    assert wrong < 0.06


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_simultaneous_bounds_hold_together(rho):
    random = np.random.default_rng(2)
    correlation = np.full((6, 6), rho) + (1 - rho) * np.eye(6)
    draws = random.multivariate_normal(np.zeros(6), correlation, size=600)
    exceeded = [max(estimate(x, 1.0).lower_bound(0.05 / 6) for x in row) > 0 for row in draws]
    assert np.mean(exceeded) < 0.075


def test_a_mean_over_the_suite_is_as_sure_as_if_all_errors_were_one():
    suite = [estimate(0.10, 0.01), estimate(0.20, 0.03)]
    low, high = suite_interval(suite)
    assert (low, high) == pytest.approx((0.15 - 1.96 * 0.02, 0.15 + 1.96 * 0.02))
    bounds = [suite_lower_bound(suite, alpha) for alpha in (0.05, 0.005)]
    assert bounds[0] == pytest.approx(0.15 - 1.6449 * 0.02, abs=1e-5) and bounds[1] < bounds[0]
    broken = [*suite, missing("the cell failed")]
    assert suite_interval(broken) is None and suite_lower_bound(broken, 0.05) is None
    assert suite_interval([]) is None and suite_lower_bound([], 0.05) is None


def test_a_mean_over_the_suite_covers_whatever_the_targets_share():
    random = np.random.default_rng(3)
    for rho in (0.0, 0.5, 1.0):
        shared = np.sqrt(rho) * random.normal(size=(2000, 1))
        errors = shared + np.sqrt(1 - rho) * random.normal(size=(2000, 4))
        above = [suite_lower_bound([estimate(x, 1.0) for x in row], 0.05) > 0 for row in errors]
        assert np.mean(above) < 0.065


def test_an_estimate_is_read_back_from_a_row():
    back = from_interval(0.1, [0.06, 0.14])
    assert back.se == pytest.approx(0.0204, abs=1e-4)
    assert back.lower_bound(0.025) == pytest.approx(0.06)
    assert from_interval(None, None).value is None


def test_bounds_of_few_worlds_hold_together_by_their_own_t_better_than_by_a_normal():
    """100 benchmarks of 10 questions without a leak, 3 worlds each whose targets differ: is any bound above 0?"""
    random = np.random.default_rng(4)
    ids, in_a = [f"p{n}" for n in range(40)], np.arange(40) < 20
    wrong = {"own t": 0, "normal": 0}
    for _ in range(100):
        found = []
        for _ in range(10):
            worlds = []
            for shift in random.normal(0, 0.5, size=3):
                a, b = random.normal(size=(2, 40))
                worlds.append((ScoreSet(ids, a + shift * in_a, in_a), ScoreSet(ids, b + shift * ~in_a, ~in_a)))
            found.append(crossover_delta(worlds).delta)
        wrong["own t"] += any(e.lower_bound(0.05 / 10) > 0 for e in found)
        wrong["normal"] += any(from_interval(e.value, e.interval).lower_bound(0.05 / 10) > 0 for e in found)
    assert wrong["own t"] <= 11, f"{wrong}: P(more than 11 of 100 at .05) is below .01"
    assert wrong["normal"] > wrong["own t"], f"{wrong}: what a printed interval alone would say"
