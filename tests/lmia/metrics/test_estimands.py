"""The estimands: what must cancel cancels, what must be paired is paired, and nothing is NaN."""

import math

import numpy as np
import pytest

from lmia.metrics.estimands import (
    amplification,
    auc_estimate,
    cross_source,
    crossover_delta,
    paired,
    uncontrolled,
)
from lmia.metrics.estimates import Estimate, mde
from lmia.metrics.low_fpr import LowFpr, low_fpr
from lmia.metrics.scores import Scores, ScoreSet
from lmia.specs import RequestError


def halves(num=80, photos=2, seed=0):
    """Ids, persons and half A of `num` pictures."""
    ids = [f"picture {i}" for i in range(num)]
    persons = [f"person {i // photos}" for i in range(num)]
    return ids, persons, np.arange(num) < num // 2, np.random.default_rng(seed)


def twins(shift, *, num=80, photos=2, seed=0, shared=None):
    ids, persons, in_a, random = halves(num, photos, seed)
    common = random.normal(size=num) if shared is None else shared
    noise = random.normal(size=(2, num))
    a = ScoreSet(ids, common + 0.5 * noise[0] + shift * in_a, in_a, persons)
    b = ScoreSet(ids, common + 0.5 * noise[1] + shift * ~in_a, ~in_a, persons)
    return a, b


def numbers(result):
    for value in vars(result).values():
        if isinstance(value, Estimate):
            yield from (value.value, value.low, value.high, value.se)
        elif isinstance(value, float):
            yield value


@pytest.mark.parametrize("seed", range(20))
def test_a_score_that_the_twins_share_gives_exactly_zero(seed):
    ids, _, in_a, random = halves(num=74, photos=3, seed=seed)
    shared = random.normal(size=74) if seed % 2 else random.integers(0, 5, size=74) / 3.0
    in_a = random.permutation(in_a)
    world = (ScoreSet(ids, shared, in_a), ScoreSet(ids, shared, ~in_a))
    for result in (crossover_delta([world]), crossover_delta([world] * 3)):
        assert result.delta.value == 0.0
        assert result.delta.interval == [0.0, 0.0]
        assert result.auc.value == 0.5
    assert math.copysign(1, crossover_delta([world]).delta.value) == 1.0
    # A monotone transformation of one twin's scores changes nothing either.
    bent = (world[0], ScoreSet(ids, np.exp(shared), ~in_a))
    assert crossover_delta([bent]).delta.value == 0.0


def test_delta_is_the_mean_of_the_two_aucs():
    worlds = [twins(0.4, seed=k) for k in range(3)]
    result = crossover_delta(worlds)
    by_hand = np.mean([auc_estimate([s]).value for world in worlds for s in world])
    assert result.auc.value == pytest.approx(by_hand, abs=1e-12)
    assert result.delta.value == pytest.approx(by_hand - 0.5, abs=1e-12)
    assert result.delta.low + 0.5 == pytest.approx(result.auc.low, abs=1e-12)
    assert result.delta.num_worlds == 3 and "few worlds" in result.delta.note
    assert result.delta.low < result.delta.value < result.delta.high


def test_what_twins_share_leaves_the_interval_too():
    shared = np.random.default_rng(5).normal(size=400) * 3
    narrow = crossover_delta([twins(0.3, num=400, shared=shared)])
    a, _ = twins(0.3, num=400, shared=shared)
    assert narrow.delta.se < auc_estimate([a]).se / 2


def test_order_of_rows_does_not_matter():
    a, b = twins(0.4)
    mixed = b.take(np.random.default_rng(1).permutation(len(b)))
    assert crossover_delta([(a, mixed)]).delta.value == crossover_delta([(a, b)]).delta.value


def test_twins_must_be_twins():
    a, b = twins(0.4)
    with pytest.raises(RequestError, match="same side for both twins"):
        crossover_delta([(a, a)])
    with pytest.raises(RequestError, match="picture 0"):
        crossover_delta([(a, b.take(np.arange(1, 80)))])
    with pytest.raises(RequestError, match="none given"):
        crossover_delta([])


def test_cross_source_of_a_pure_style_score_leaves_nothing():
    ids, persons, in_a, random = halves(num=200)
    style = random.normal(size=200) + 2
    a, b = ScoreSet(ids, style, in_a, persons), ScoreSet(ids, style, ~in_a, persons)
    other = Scores([f"other {i}" for i in range(150)], random.normal(size=150))
    result = cross_source([[(a, other), (b, other)]])
    assert result.auc.value > 0.85
    # Averaged over both twins the very same pictures stand on both sides: the difference is nothing, without error.
    assert result.difference.value == pytest.approx(0, abs=1e-12)
    assert result.difference.high - result.difference.low < 1e-9
    one = cross_source([[(a, other)]])
    assert one.difference.low < 0 < one.difference.high


def test_cross_source_finds_what_membership_adds():
    a, b = twins(0.8, num=400)
    random = np.random.default_rng(3)
    other = [Scores([f"other {i}" for i in range(300)], random.normal(size=300) - 1.5) for _ in range(2)]
    result = cross_source([[(a, other[0]), (b, other[1])]])
    assert result.difference.value == pytest.approx(result.auc.value - result.source_auc.value, abs=1e-12)
    assert result.difference.low > 0
    with pytest.raises(RequestError, match="twins"):
        cross_source([[(a, other[0]), (ScoreSet(a.ids, a.scores, np.roll(a.member, 7)), other[1])]])


def test_a_target_without_a_twin_is_compared_with_what_never_saw_its_members():
    ids, persons, in_a, random = halves(num=400)
    base = ScoreSet(ids, random.normal(size=400), in_a, persons)
    target = ScoreSet(ids, base.scores + 1.0 * in_a, in_a, persons)
    blind = ScoreSet(ids, random.normal(size=400), in_a, persons)
    found = uncontrolled([target], [base], [blind])
    assert min(e.lower_bound() for e in (found.over_chance, found.over_base, found.over_blind)) > 0
    assert found.over_base.value == pytest.approx(found.auc.value - found.base_auc.value)
    nothing = uncontrolled([base], [ScoreSet(ids, random.normal(size=400), in_a, persons)], [blind])
    assert min(e.lower_bound() for e in (nothing.over_chance, nothing.over_base, nothing.over_blind)) < 0
    alone = uncontrolled([target])
    assert alone.over_base.value is None and "base" in alone.over_base.note and "blind" in alone.over_blind.note


def test_amplification_is_paired():
    ids, persons, in_a, random = halves(num=160)
    before = ScoreSet(ids, random.normal(size=160), in_a, persons)
    after = ScoreSet(ids, before.scores + 0.4 * in_a + 0.1 * random.normal(size=160), in_a, persons)
    result = amplification([(before, after)])
    assert result.difference.value == pytest.approx(result.second.value - result.first.value, abs=1e-12)
    assert result.difference.low > 0 and result.p_value < 0.01
    assert result.difference.se < auc_estimate([after]).se / 2
    same = paired([(before, before)])
    assert same.difference.interval == [0.0, 0.0] and same.p_value == 1.0
    with pytest.raises(RequestError, match="disagree at ids"):
        paired([(before, ScoreSet(ids, before.scores, ~in_a, persons))])


def test_perfect_separation_keeps_an_honest_interval():
    ids, _, in_a, random = halves(num=80, photos=1)
    score = random.random(80) + 5 * in_a
    estimate = auc_estimate([ScoreSet(ids, score, in_a)])
    assert estimate.value == 1.0 and estimate.high == 1.0
    assert estimate.low == pytest.approx(0.025 ** (1 / 40))
    mirrored = auc_estimate([ScoreSet(ids, -score, in_a)])
    assert mirrored.value == 0.0 and mirrored.high == pytest.approx(1 - 0.025 ** (1 / 40))
    world = (ScoreSet(ids, score, in_a), ScoreSet(ids, random.random(80) + 5 * ~in_a, ~in_a))
    delta = crossover_delta([world]).delta
    assert delta.value == 0.5 and delta.low == pytest.approx(0.025 ** (1 / 40) - 0.5)
    assert delta.lower_bound(0.025) == pytest.approx(delta.low)
    assert delta.lower_bound(0.001) == pytest.approx(0.001 ** (1 / 40) - 0.5), "a stricter level, a lower limit"
    difference = paired([(world[0], ScoreSet(ids, random.random(80) + 5 * in_a, in_a))]).difference
    assert difference.low < 0 < difference.high


def test_one_person_a_class_gives_no_interval_but_a_reason():
    ids = [f"p{i}" for i in range(8)]
    in_a = np.arange(8) < 4
    estimate = auc_estimate([ScoreSet(ids, np.arange(8.0), in_a, ["x"] * 4 + ["y"] * 4)])
    assert estimate.value == 0.0 and estimate.interval is None and "too few persons" in estimate.note
    assert estimate.p_greater(0.5) is None and estimate.lower_bound() is None


def test_no_result_has_a_nan():
    random = np.random.default_rng(0)
    for seed in range(40):
        num = int(random.integers(4, 14))
        ids, _, _, own = halves(num, 1, seed)
        in_a = np.arange(num) < num // 2
        levels = own.integers(0, 3, size=(3, num)).astype(float)
        persons = [f"x{i}" for i in own.integers(0, 4, size=num)]
        a, b = ScoreSet(ids, levels[0], in_a, persons), ScoreSet(ids, levels[1], ~in_a, persons)
        c = ScoreSet(ids, levels[2], in_a, persons)
        for result in (crossover_delta([(a, b)]), paired([(a, c)]), uncontrolled([a], [c], [c])):
            assert all(x is None or math.isfinite(x) for x in numbers(result))


def test_detectable_effect_does_not_shrink_with_what_was_found():
    weak = crossover_delta([twins(0.0, num=400, photos=1)]).mde
    strong = crossover_delta([twins(6.0, num=400, photos=1)]).mde
    assert strong == pytest.approx(weak, rel=0.25)
    assert mde(0.1) == pytest.approx(0.28016, abs=1e-4)


def test_low_fpr_of_worlds_and_twins():
    worlds = [twins(1.0, num=400, seed=k) for k in range(3)]
    result = low_fpr([list(world) for world in worlds], (0.1, 0.01, 0.001), replicates=300)
    assert list(result) == ["0.1", "0.01", "0.001"]
    assert isinstance(result["0.001"], str) and "1000 non-members" in result["0.001"]
    tenth, hundredth = result["0.1"], result["0.01"]
    assert isinstance(tenth, LowFpr) and isinstance(hundredth, LowFpr)
    assert tenth.ci[0] < tenth.tpr < tenth.ci[1] and tenth.fpr <= 0.1
    assert "fewer than 10" in hundredth.note and "fewer than 10" not in tenth.note
    alone = low_fpr([[worlds[0][0]]], (0.1,), replicates=300)["0.1"]
    assert alone.ci_given_threshold is not None and alone.threshold is not None
    again = low_fpr([[worlds[0][0]]], (0.1,), replicates=300)["0.1"]
    assert again == alone
