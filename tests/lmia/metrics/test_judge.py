"""Judging: what is asked decides what is computed, every number stands beside its controls, and gaps have reasons."""

import numpy as np
import pytest
from scipy import stats

from lmia.metrics.estimands import auc_estimate, cross_source, crossover_delta, paired
from lmia.metrics.judge import Question, TargetScores, World, gains, joined, judge, labelled
from lmia.metrics.low_fpr import LowFpr
from lmia.metrics.scores import Scores, ScoreSet
from lmia.metrics.sets import set_p_value
from lmia.specs import RequestError

PEOPLE, PHOTOS = 40, 2
COUNT = PEOPLE * PHOTOS
IDS = [f"photo {n}" for n in range(COUNT)]
WHO = [f"person {n // PHOTOS}" for n in range(COUNT)]
IN_A = np.arange(COUNT) < COUNT // 2


def scores(values, member=IN_A):
    return ScoreSet(IDS, np.asarray(values, dtype=np.float64), member, WHO)


def world(seed, leak=0.0, *, other=None, base=True, gap=None):
    """Twins whose scores share the pictures' difficulty; each gives its own half `leak` more."""
    random = np.random.default_rng(seed)
    difficulty = 2 * random.normal(size=COUNT)
    targets = []
    for member in (IN_A, ~IN_A):
        own = scores(difficulty + random.normal(size=COUNT) + leak * member, member)
        beside = {}
        if other is not None:
            beside = {"other": elsewhere(random, other), "base_other": elsewhere(random, other)}
        if base and member is IN_A:
            beside["base_same"] = scores(difficulty + random.normal(size=COUNT), member)
        targets.append(TargetScores(own, loss_gap=gap, **beside))
    return World(targets, seed)


def elsewhere(random, shift):
    return Scores([f"other {n}" for n in range(60)], random.normal(size=60) + shift, [f"o{n}" for n in range(60)])


def same_source(worlds, **more):
    return judge(Question("same_source", worlds, **more))


# ---- members


def test_members_are_those_that_were_trained_on():
    seen, unseen = Scores(["a", "b"], np.arange(2.0), ["p", "q"]), Scores(["c"], np.ones(1), ["r"])
    found = labelled(seen, unseen, {"a", "b"}, None)
    assert found.ids == ["a", "b", "c"] and found.member.tolist() == [True, True, False]
    assert found.persons() == ["p", "q", "r"]
    with pytest.raises(RequestError, match=r"1 pictures are not trained on.*: b"):
        labelled(seen, unseen, {"a"}, None)
    with pytest.raises(RequestError, match=r"1 pictures are trained on.*: c"):
        labelled(seen, unseen, {"a", "b", "c"}, None)


def test_a_person_is_a_member_by_photos_that_were_held_back():
    seen, unseen = Scores(["a2", "b2"], np.arange(2.0), ["p", "q"]), Scores(["c2"], np.ones(1), ["r"])
    assert labelled(seen, unseen, {"a1", "b1"}, {"p", "q"}).num_members == 2
    with pytest.raises(RequestError, match="held-back photos were trained on: b2"):
        labelled(seen, unseen, {"a1", "b2"}, {"p", "q"})
    with pytest.raises(RequestError, match=r"not trained on.*: b2"):
        labelled(seen, unseen, {"a1"}, {"p"})


def test_joined_sets_keep_persons_and_do_not_invent_any():
    known, unknown = Scores(["a"], np.ones(1), ["p"]), Scores(["b"], np.zeros(1))
    assert joined(known, unknown).persons() == ["p", "b"]
    assert joined(unknown, Scores(["c"], np.zeros(1))).identity is None


# ---- gains


def test_gains_by_hand():
    """(own - other) / spread per world, added up: differences (1, -1, 3, -3) have spread sqrt(5)."""
    ids, member = ["a", "b", "c", "d"], np.array([True, True, False, False])
    target, twin = ScoreSet(ids, np.array([5.0, 1, 3, 0]), member), ScoreSet(ids, np.array([4.0, 2, 0, 3]), ~member)
    expected = np.array([1.0, -1, 3, -3]) / np.sqrt(5)
    assert gains([(target, twin)]).scores == pytest.approx(expected)
    assert gains([(target, twin)] * 3).scores == pytest.approx(3 * expected)
    assert gains([(target, twin)]).member.tolist() == member.tolist()
    assert gains([(target, target)]).scores.tolist() == [0.0] * 4, "no spread, nothing gained"


def test_gains_do_not_depend_on_order_scale_or_what_is_shared():
    (target, twin), (second, second_twin) = ([t.same for t in world(seed, 1.0).targets] for seed in (0, 1))
    expected = gains([(target, twin), (second, second_twin)]).scores
    mixed = twin.take(np.random.default_rng(2).permutation(COUNT))
    assert gains([(target, mixed), (second, second_twin)]).scores.tolist() == expected.tolist()
    # Another scale and offset of one world's scores, and a difficulty that its twins share.
    hard = 10 * np.random.default_rng(3).normal(size=COUNT)
    moved = [ScoreSet(s.ids, 7 * s.scores + 3 + hard, s.member, s.identity) for s in (second, second_twin)]
    assert gains([(target, twin), tuple(moved)]).scores == pytest.approx(expected)


def test_gains_of_twins_that_know_nobody_are_exchangeable():
    """600 same-source questions without a leak, difficulty shared and photos of a person alike: p is uniform."""
    found = []
    for seed in range(600):
        random = np.random.default_rng(seed)
        person = random.normal(size=PEOPLE).repeat(PHOTOS)
        pairs = []
        for _ in range(2):
            own = [person + 0.5 * random.normal(size=COUNT) for _ in range(2)]
            pairs.append((scores(own[0]), scores(own[1], ~IN_A)))
        gained = gains(pairs)
        found.append(set_p_value(gained.members(), gained.nonmembers(), permutations=199, seed=seed) - 1 / 400)
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert 0.03 < np.mean(np.array(found) <= 0.05) < 0.07


def test_gains_see_a_leak_below_what_the_pictures_differ_by():
    target, twin = (t.same for t in world(0, 1.0).targets)
    gained = gains([(target, twin)])
    assert set_p_value(gained.members(), gained.nonmembers()) < 0.001
    assert set_p_value(target.members(), target.nonmembers()) > 0.01, "the scores alone are too noisy"
    assert set_p_value(gained.nonmembers(), gained.members()) > 0.99


# ---- estimands


@pytest.mark.parametrize("estimand", ["same_source", "person"])
def test_crossover(estimand):
    worlds = [world(0, 0.8, gap=0.25), world(1, 0.8, gap=0.75)]
    blind = scores(np.random.default_rng(9).normal(size=COUNT))
    found = judge(Question(estimand, worlds, blind))
    pairs = [tuple(t.same for t in w.targets) for w in worlds]
    expected = crossover_delta(pairs)
    assert found.estimates["delta_auc"] == expected.delta and found.estimates["auc"] == expected.auc
    assert found.mde == expected.mde and found.status == "ok"
    assert found.estimates["base_auc"] == auc_estimate([w.targets[0].base_same for w in worlds])
    assert found.estimates["blind_auc"] == auc_estimate([blind])
    gained = gains(pairs)
    assert found.set_p_value == set_p_value(gained.members(), gained.nonmembers())
    assert found.loss_gap == 0.5 and found.num_models == 4
    assert (found.num_members, found.num_nonmembers, found.num_identities) == (40, 40, 40)
    assert [len(sets) for sets in found.sets] == [2, 2]
    assert isinstance(found.tpr_at_fpr["0.1"], LowFpr) and isinstance(found.tpr_at_fpr["0.01"], str)
    assert list(found.reasons) == ["source_auc", "tpr_at_fpr"]


def test_conditions_of_one_seed_are_one_world():
    pair = world(0, 1.0)
    assert same_source([pair, World(world(1, 1.0).targets, 0)]).num_models == 2


def test_controls_that_are_not_there_have_their_reasons():
    found = same_source([world(0, base=False)], absent={"base_auc": "it subtracts the base's score"})
    assert found.reasons["base_auc"] == "it subtracts the base's score"
    assert found.reasons["blind_auc"] == "not asked for" and "base_auc" not in found.estimates
    assert found.loss_gap is None


def test_cross_source_stands_beside_its_control():
    worlds = [world(seed, 1.0, other=-1.0) for seed in (0, 1)]
    blind = joined(Scores(IDS, np.arange(COUNT, dtype=np.float64), WHO), elsewhere(np.random.default_rng(0), 0.0))
    found = judge(Question("cross_source", worlds, blind))
    expected = cross_source([[(t.same, t.other) for t in w.targets] for w in worlds])
    assert found.estimates["auc"] == expected.auc and found.estimates["source_auc"] == expected.source_auc
    assert found.estimates["difference"] == expected.difference
    base = [joined(w.targets[0].base_same.members(), w.targets[0].base_other) for w in worlds]
    assert found.estimates["base_auc"] == auc_estimate(base)
    assert found.set_p_value is None and found.mde is None and "delta_auc" not in found.estimates
    assert {"delta_auc", "mde", "set_p_value"} < set(found.reasons)
    assert (found.num_members, found.num_nonmembers) == (40, 60), "members against the other source"
    with pytest.raises(RequestError, match="no scores of the other source"):
        judge(Question("cross_source", [world(0)]))


def test_drawn_pictures_have_an_auc_and_nothing_else():
    drawn = [ScoreSet(IDS, np.random.default_rng(seed).normal(size=COUNT) + IN_A, IN_A) for seed in range(2)]
    found = judge(Question("uncontrolled", [World([TargetScores(s) for s in drawn])]))
    assert found.estimates == {"auc": auc_estimate(drawn)} and found.num_identities == COUNT
    assert set(found.reasons) == {"delta_auc", "mde", "set_p_value", "source_auc", "tpr_at_fpr"}


def amplified(seed, gain, member=IN_A):
    random = np.random.default_rng(seed)
    before = random.normal(size=COUNT) + 0.3 * member
    after = before + gain * member + 0.3 * random.normal(size=COUNT)
    return World([TargetScores(scores(after), base_same=scores(before))], seed)


def test_amplification_is_after_minus_before_on_the_same_pictures():
    worlds = [amplified(seed, 0.7) for seed in range(3)]
    found = judge(Question("amplification", worlds))
    expected = paired([(w.targets[0].base_same, w.targets[0].same) for w in worlds])
    assert found.estimates["delta_auc"] == expected.difference and found.estimates["delta_auc"].low > 0
    assert found.estimates["auc"] == expected.second and found.estimates["base_auc"] == expected.first
    assert found.mde == expected.mde and found.num_models == 3 and found.set_p_value < 0.001
    assert judge(Question("amplification", [amplified(7, 0.0)])).set_p_value > 0.05


def test_amplification_of_photos_of_the_same_people_has_no_permutation_test():
    """Hold-outs that are unseen photos of the trained people: persons cannot be permuted, photos are paired."""
    member = np.arange(COUNT) % PHOTOS == 0
    random = np.random.default_rng(0)
    before = ScoreSet(IDS, random.normal(size=COUNT), member, WHO)
    after = ScoreSet(IDS, before.scores + member, member, WHO)
    found = judge(Question("amplification", [World([TargetScores(after, base_same=before)])]))
    assert found.set_p_value is None and "the same people" in found.reasons["set_p_value"]
    assert found.estimates["delta_auc"].p_greater() < 0.001
    with pytest.raises(RequestError, match="model before"):
        judge(Question("amplification", [World([TargetScores(after)])]))
    with pytest.raises(RequestError, match="2 targets, one is needed"):
        judge(Question("amplification", [world(0)]))


# ---- edges


def test_few_pictures_support_no_interval():
    ids, member = [f"p{n}" for n in range(14)], np.arange(14) < 7
    random = np.random.default_rng(0)
    pair = [TargetScores(ScoreSet(ids, random.normal(size=14), m)) for m in (member, ~member)]
    found = same_source([World(pair)])
    assert found.status == "undersized" and found.reasons[""].startswith("7 pictures on a side: fewer than 8")


def test_one_person_on_a_side_has_a_value_and_a_reason_for_its_interval():
    who = ["x"] * (COUNT // 2) + ["y"] * (COUNT // 2)
    pair = [TargetScores(ScoreSet(t.same.ids, t.same.scores, t.same.member, who)) for t in world(0, base=False).targets]
    found = same_source([World(pair)])
    assert found.estimates["auc"].value is not None and "too few persons" in found.reasons["auc_ci"]
    assert "too few persons" in found.reasons["delta_auc_ci"]


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(RequestError, match="worlds: none given"):
        same_source([])
    with pytest.raises(RequestError, match="1 targets, a target and its twin"):
        same_source([World(world(0).targets[:1])])
