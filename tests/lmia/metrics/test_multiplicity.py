"""Adjusted p-values and bounds that hold together."""

import numpy as np
import pytest
from scipy import stats

from lmia.metrics.estimates import Estimate, from_interval, missing
from lmia.metrics.multiplicity import (
    benjamini_hochberg,
    holm,
    rank_attacks,
    simultaneous_lower_bounds,
    suite_mean,
)


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
        assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))
    assert holm([]).size == benjamini_hochberg([]).size == 0


def test_family_wise_error_holds():
    random = np.random.default_rng(1)
    wrong = np.mean([(holm(random.random(8)) <= 0.05).any() for _ in range(4000)])
    assert wrong < 0.06


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_simultaneous_bounds_hold_together(rho):
    random = np.random.default_rng(2)
    correlation = np.full((6, 6), rho) + (1 - rho) * np.eye(6)
    draws = random.multivariate_normal(np.zeros(6), correlation, size=600)
    exceeded = {"max-t": 0, "bonferroni": 0}
    for row in draws:
        estimates = [estimate(x, 1.0) for x in row]
        exceeded["bonferroni"] += max(simultaneous_lower_bounds(estimates)) > 0
    level = simultaneous_lower_bounds([estimate(0.0, 1.0)] * 6, correlation=correlation)[0]
    exceeded["max-t"] = int((draws.max(axis=1) + level > 0).sum())
    assert exceeded["bonferroni"] / 600 < 0.075
    assert 0.03 < exceeded["max-t"] / 600 < 0.075
    assert level >= simultaneous_lower_bounds([estimate(0.0, 1.0)] * 6)[0] - 1e-3


def test_ranking_prefers_what_is_sure():
    suite = {
        "sharp": [estimate(0.10, 0.005), estimate(0.10, 0.005)],
        "noisy": [estimate(0.15, 0.1), estimate(0.15, 0.1)],
        "nothing": [estimate(0.0, 0.01), estimate(0.0, 0.01)],
        "failed": [estimate(0.4, 0.01), missing("the cell failed")],
    }
    ranked = rank_attacks(suite)
    assert [r.name for r in ranked] == ["sharp", "nothing", "noisy"]
    assert [r.rank for r in ranked] == [1, 2, 3]
    assert ranked[0].lower < 0.10
    failed = suite_mean(suite["failed"])
    assert failed.value is None and "the cell failed" in failed.note


def test_an_estimate_is_read_back_from_a_row():
    back = from_interval(0.1, [0.06, 0.14])
    assert back.se == pytest.approx(0.0204, abs=1e-4)
    assert back.lower_bound(0.025) == pytest.approx(0.06)
    assert from_interval(None, None).value is None
