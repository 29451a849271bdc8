"""The shared pass: equal scores, fewer evaluations, clear errors."""

import numpy as np
import pytest

from lmia.attacks import ATTACKS, FitInputs, FitRun, Shadow, attack_from
from lmia.attacks.blind import Blind
from lmia.attacks.calibrated import Calibrated
from lmia.attacks.combined import Combined
from lmia.attacks.loss import Loss
from lmia.attacks.scoring import nfe_asked, nfe_shared, score_pass
from lmia.attacks.secmi import Secmi
from lmia.specs import RequestError, UnknownName
from tests.lmia.attacks.conftest import drawn, fitted, scored, small


def entries(learned):
    return [(small(name), learned(name)) for name in ATTACKS.names() if small(name).access == "eps"]


def test_together_as_alone_with_half_the_evaluations(scores, learned, target, base, query):
    attacks = entries(learned)
    together = score_pass(attacks, query, target, base=base, noise_seed=5)
    for (attack, _), values in zip(attacks, together.scores, strict=True):
        assert np.array_equal(values, scores(attack.name, target)), attack.name
    spent, asked = together.evaluations, [attack for attack, _ in attacks]
    assert spent == nfe_shared(asked) * len(query), "what the plan promises is what is spent"
    assert 2 * spent <= nfe_asked(asked) * len(query)


def test_one_attack_with_several_specs(scores, target, query):
    (early, late), spent = score_pass([(Secmi(), None), (Secmi(t=140), None)], query, target, noise_seed=5)
    assert np.array_equal(early, scores("secmi", target))
    assert not np.array_equal(early, late)
    assert spent == 16 * len(query), "one trajectory serves both"


def test_chunks_do_not_matter(learned, target, base):
    pictures, attacks = drawn("many", 11), [(small("loss"), None), (small("pia"), None)]
    whole = score_pass(attacks, pictures, target, noise_seed=5, batch=4)
    parts = score_pass(attacks, pictures, target, noise_seed=5, batch=4, chunk=3)
    for one, other in zip(whole.scores, parts.scores, strict=True):
        assert np.array_equal(one, other), "a chunk is rounded up to whole batches: the same bits"


def test_noises_belong_to_the_record(target, query):
    """Another noise seed gives other scores; another target, order or subset the same noises."""
    one = scored(Loss(), query, target, noise_seed=1, batch=1)
    assert not np.array_equal(one, scored(Loss(), query, target, noise_seed=2, batch=1))
    assert np.array_equal(one[2:3], scored(Loss(), query.take([2]), target, noise_seed=1, batch=1))


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (Loss(), "'loss' needs a model"),
        (Calibrated(), "'calibrated' needs a model"),
        (Blind(), "'blind' needs a learned state"),
    ],
)
def test_mistakes_are_named_before_any_work(attack, message, query):
    with pytest.raises(RequestError, match=message):
        score_pass([(attack, None)], query, None)


def test_names_and_settings_are_checked():
    with pytest.raises(UnknownName, match="did you mean 'loss'"):
        attack_from("los", {})
    with pytest.raises(RequestError, match=r"attacks.loss: .*did you mean 'noises'"):
        attack_from("loss", {"noise": 3}, "attacks.loss")
    with pytest.raises(RequestError, match="t = -1"):
        attack_from("loss", {"t": -1})
    with pytest.raises(RequestError, match="kind 'pia' is not that of 'loss'"):
        attack_from("loss", {"kind": "pia"})
    with pytest.raises(TypeError, match="'blind' scores with what it learned"):
        Blind().score(None)


def test_missing_captions_are_refused(target, learned, query):
    bare = query.with_columns(caption=["a man", *query.captions[1:]])
    with pytest.raises(RequestError, match=r"query/0.* 2 words"):
        scored(small("clid"), bare, target, learned("clid"))
    none = query.with_columns(caption=[None] * len(query))
    with pytest.raises(RequestError, match="needs a caption"):
        scored(small("reconstruction"), none, target, base=target)


def test_fit_names_what_is_missing():
    for name in ATTACKS.names():
        if small(name).learns:
            with pytest.raises(RequestError, match="cannot be fitted without"):
                small(name).fit(FitInputs(), FitRun())


def test_wrapping_is_checked():
    inside = Calibrated(attack={"kind": "pia", "t": 200}).identity()["attack"]
    assert inside == {"kind": "pia", "version": 1}, (
        "settings equal to the defaults are dropped: equal requests are equal"
    )
    for method, values, message in (
        (Calibrated, {"attack": "piaa"}, "did you mean 'pia'"),
        (Calibrated, {"attack": {"kind": "pia", "tt": 3}}, "tt"),
        (Calibrated, {"attack": {"t": 3}}, "the kind of the attack is missing"),
        (Calibrated, {"attack": "generated_set_nearest"}, "nothing to calibrate"),
        (Calibrated, {"attack": "calibrated"}, "cannot wrap itself"),
        (Combined, {"attacks": [{"kind": "combined"}]}, "cannot contain itself"),
        (Combined, {"attacks": ["blind"]}, "cannot be combined"),
    ):
        with pytest.raises(ValueError, match=message):
            method.model_validate(values)


def test_bounds_are_checked():
    for values, message in (({"t": 105}, "multiple of k"), ({"t": 990, "k": 10}, "last timestep")):
        with pytest.raises(ValueError, match=message):
            Secmi(**values)


def test_access_of_a_wrapper_is_that_of_what_it_wraps():
    assert Calibrated(attack="gsa1").access == "gradient" and Calibrated(attack="gsa1").learns
    assert "shadow" in Calibrated(attack="gsa1").needs
    assert Combined().access == "eps"
    both = Combined(attacks=["rediffuse", {"kind": "calibrated", "attack": "gsa2"}])
    assert both.access == "gradient"
    assert both.needs == {"model", "shadow", "base"}


def test_attacks_fitted_on_one_shadow_share_what_they_measure(target):
    def both_fitted(*shadows):
        return [
            fitted(small(name), FitInputs(shadows=(shadow,)))
            for name, shadow in zip(("gsa1", "gsa2"), shadows, strict=True)
        ]

    def shadow():
        return Shadow(target, drawn("in", 4), drawn("out", 4))

    one, two, both = shadow(), shadow(), shadow()
    apart, together = both_fitted(one, two), both_fitted(both, both)
    assert all(
        a.keys() == b.keys() and all((a[k] == b[k]).all() for k in a) for a, b in zip(apart, together, strict=True)
    )
    spent = [shadow.meter.evaluations for shadow in (one, two, both)]
    assert spent == [16, 16, 16], "8 pictures at 2 timesteps, once for both"
