"""The verdict of an audit: what is claimed, what is not, and when nothing may be said."""

import numpy as np
import pytest

from lmia.metrics.scores import ScoreSet
from lmia.metrics.verdict import Evidence, conclude


def scores(shift, seed=0, *, people=40, photos=2, shared=None):
    """Members score `shift` higher; `shared` adds what every score of these pictures has in common."""
    draw = np.random.default_rng(seed)
    count = people * photos
    ids = [f"{side}/{n}" for side in ("in", "out") for n in range(count)]
    who = [f"{side}/person{n // photos}" for side in ("in", "out") for n in range(count)]
    member = np.repeat([True, False], count)
    values = draw.standard_normal(2 * count) + shift * member
    return ScoreSet(ids, values + (0 if shared is None else shared), member, who)


def evidence(shift, seed=0, base=0.0, **more):
    return Evidence(f"attack{seed}", scores(shift, seed, **more), scores(base, seed + 100, **more))


FAIR = {"pictures": scores(0, 999)}


def test_a_leak_is_claimed_with_every_control_met():
    verdict = conclude([evidence(1.5), evidence(0, 1)], FAIR, fpr=0.05)
    assert verdict.outcome == "leak" and not verdict.remedies
    assert verdict.findings[0].attack == "attack0" and verdict.findings[0].found and not verdict.findings[1].found
    assert verdict.findings[0].p_adjusted == pytest.approx(2e-4)
    assert verdict.picture_level in ("weak", "not reliable"), "a mean shift does not identify single pictures"


def test_what_stands_out_alone_is_reliable():
    many = conclude([evidence(12, people=200)], {"pictures": scores(0, 999, people=200)}, fpr=0.05)
    assert many.picture_level == "reliable"
    few = conclude([evidence(12)], FAIR, fpr=0.05)
    assert few.outcome == "leak" and few.picture_level == "not reliable", "2 accused people support no rate"


def test_no_leak_comes_with_its_detectable_effect():
    verdict = conclude([evidence(0, seed) for seed in range(4)], FAIR)
    assert verdict.outcome == "no leak found" and verdict.picture_level is None
    assert 0 < verdict.mde < 0.5
    few = conclude([evidence(0, seed, people=10) for seed in range(4)], {"pictures": scores(0, 999, people=10)})
    assert few.mde > verdict.mde, "fewer people see less"
    assert conclude([evidence(0, 0)], FAIR).mde < verdict.mde, "one attack pays for no others"


def test_sets_that_differ_without_the_model_are_undetermined_whatever_the_attack_says():
    verdict = conclude([evidence(3)], {"pictures": scores(2, 999)})
    assert verdict.outcome == "undetermined" and "told apart by their pictures alone" in verdict.reasons[0]
    assert all(f.p_value is None and not f.found for f in verdict.findings)
    assert any("split one pool at random" in remedy for remedy in verdict.remedies)
    by_words = conclude([evidence(3)], {**FAIR, "captions": scores(2, 998)})
    assert by_words.outcome == "undetermined" and "captions alone" in by_words.reasons[0]
    vouched = conclude([evidence(3)], {"pictures": scores(2, 999)}, random_split=True)
    assert vouched.outcome == "leak", "of a random split the difference is an accident: it counts once"


def test_a_weak_difference_in_style_is_weighed_and_does_not_veto():
    """30 people against 30, attack 1.00, blind to pictures .53, to captions .66: that was 'undetermined'."""
    few = {"people": 30, "photos": 1}
    blind = {"pictures": scores(0.1, 5, **few), "captions": scores(0.75, 3, **few)}
    verdict = conclude([evidence(8, **few)], blind)
    assert verdict.blind["captions"].low > 0.5, "the case is one where captions differ significantly"
    assert verdict.outcome == "leak" and verdict.findings[0].against == "blind (captions)"
    below = conclude([evidence(3)], {"pictures": scores(-1, 999)})
    assert below.outcome == "leak", "a blind classifier that is worse than chance tells nothing apart"


def test_what_the_base_model_shows_as_well_is_no_leak_and_no_all_clear():
    verdict = conclude([evidence(1.5, base=1.5)], FAIR)
    assert verdict.findings[0].against == "base" and verdict.findings[0].limit < 0
    assert verdict.outcome == "undetermined" and "has seen them" in verdict.reasons[0]
    assert any("cannot have seen" in remedy for remedy in verdict.remedies)
    assert conclude([evidence(0, base=0.1)], FAIR).outcome == "no leak found"


@pytest.mark.parametrize("noise", [0.0, 1e-6])
@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_a_base_that_is_the_model_is_no_control(noise, shift):
    """It gave an all-clear to a model that had memorised its members."""
    target = scores(shift)
    wobble = noise * np.random.default_rng(1).standard_normal(len(target))
    base = ScoreSet(target.ids, target.scores + wobble, target.member, target.identity)
    verdict = conclude([Evidence("loss", target, base)], FAIR)
    assert verdict.outcome == "undetermined" and "the adapter changes nothing" in verdict.reasons[0]
    assert any("--base" in remedy for remedy in verdict.remedies)
    vouched = conclude([Evidence("loss", target, base)], FAIR, random_split=True)
    assert vouched.outcome == ("leak" if shift else "no leak found"), "a random split needs no base"


def test_nothing_left_after_the_bases_score_was_taken_off_means_that_it_is_the_model():
    target = scores(0)
    nothing = ScoreSet(target.ids, np.zeros(len(target)), target.member, target.identity)
    verdict = conclude([Evidence("calibrated", nothing, None, "it subtracts the base's")], FAIR)
    assert verdict.outcome == "undetermined" and "base model is no control" in verdict.reasons[0]


def test_without_a_base_nothing_is_said_unless_the_split_is_vouched_for():
    lone = [Evidence("loss", scores(1.5))]
    verdict = conclude(lone, FAIR)
    assert verdict.outcome == "undetermined" and "--base" in verdict.remedies[0]
    assert conclude(lone, FAIR, random_split=True).outcome == "leak"
    assert conclude([Evidence("calibrated", scores(1.5), None, "it subtracts the base's")], FAIR).outcome == "leak"


def test_too_few_people_and_no_blind_control():
    few = conclude([evidence(5, people=5)], {"pictures": scores(0, 999, people=5)})
    assert few.outcome == "undetermined" and "too few" in few.reasons[0]
    assert conclude([evidence(5)], {}).outcome == "undetermined"


def test_difficulty_that_target_and_base_share_does_not_hide_a_leak():
    shared = 5 * np.random.default_rng(7).standard_normal(160)
    target, base = scores(1.5, 0, shared=shared), scores(0, 100, shared=shared)
    p = conclude([Evidence("loss", target, base)], FAIR).findings[0].p_value
    assert p < 0.001, "the permutation test looks at the gain over the base"


def test_labels_swapped_change_the_answer():
    one = evidence(1.5)
    flipped = [ScoreSet(s.ids, s.scores, ~s.member, s.identity) for s in (one.target, one.base)]
    blind = ScoreSet(
        FAIR["pictures"].ids, -FAIR["pictures"].scores, ~FAIR["pictures"].member, FAIR["pictures"].identity
    )
    verdict = conclude([Evidence("attack0", *flipped)], {"pictures": blind})
    assert verdict.outcome == "no leak found" and verdict.findings[0].p_value > 0.99


def test_false_claims_stay_below_alpha():
    """80 audits of models that were not tuned on anybody, 5 attacks each: at level .05 at most a few claims."""
    claims = sum(
        conclude(
            [evidence(0, 1000 * trial + k, people=12) for k in range(5)],
            {"pictures": scores(0, 1000 * trial + 500, people=12)},
        ).outcome
        == "leak"
        for trial in range(80)
    )
    assert claims <= 6, "P(more than 6 of 80 at .05) is below .03; the joint rule claims far less often"
