"""A small, fast version of the coverage simulation: the honest intervals cover, the naive ones do not."""

from collections import defaultdict

import numpy as np
import pytest
from intervals import judge
from simulation import Design, draw, true_tpr

from lmia.metrics.roc import auc, tpr_at_fpr
from lmia.seeds import rng

REPLICATES = 150


def coverage(design):
    hits = defaultdict(list)
    for r in range(REPLICATES):
        for key, (truth, ci) in judge(design, draw(design, 5, rng("small", design.num, design.photos, r)), r).items():
            hits[key].append(ci[0] <= truth <= ci[1])
    return {key: float(np.mean(values)) for key, values in hits.items()}


def test_simulated_truth_is_the_truth():
    sample = draw(Design(40_000, 1, 0.0, 0.9), 1, rng("truth"), twins=False)
    one = sample.targets[0]
    assert auc(one.scores, one.member) == pytest.approx(sample.target_auc[0], abs=0.005)
    shift = one.scores[one.member].mean()
    assert tpr_at_fpr(one.scores, one.member, 0.01).tpr == pytest.approx(true_tpr(shift, 0.01), abs=0.03)


@pytest.mark.parametrize("photos", [1, 8])
def test_honest_intervals_cover_and_naive_ones_fail(photos):
    found = coverage(Design(120, photos, 0.5 if photos > 1 else 0.0, 0.6))
    honest = {key: value for key, value in found.items() if not key[1].startswith("naive")}
    assert len(honest) == 9
    # Three standard errors of 150 replicates below .93.
    assert all(value > 0.87 for value in honest.values()), honest
    # Seeds of the attack alone say nothing about pictures.
    assert found["auc", "naive: seeds only, 1.96 sd / sqrt(K)", 5] < 0.8
    assert found["auc", "naive: mean of the worlds' own intervals / sqrt(K)", 5] < 0.88
    if photos > 1:
        assert found["auc", "naive: unclustered DeLong", 1] < 0.8
        assert found["tpr at fpr 0.1", "naive: Clopper-Pearson given this threshold", 1] < 0.75
