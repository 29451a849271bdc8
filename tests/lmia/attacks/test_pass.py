"""The shared pass: equal scores, fewer evaluations, clear errors."""

import numpy as np
import pytest

from lmia.attacks import ATTACKS, Attack
from lmia.attacks.scoring import attack_of, nfe_asked, nfe_shared, score_pass
from lmia.specs import RequestError, UnknownName
from tests.lmia.attacks.conftest import drawn, small


def entries(learned):
    chosen = [name for name in ATTACKS.names() if ATTACKS.get(name).access == "eps"]
    return [(name, small(name), learned(name)) for name in chosen]


def test_together_as_alone_with_half_the_evaluations(scores, learned, target, base, query):
    from lmia.models.probe import Probe

    attacks = entries(learned)
    probe, reference = Probe(target, 5), Probe(base, 5)
    together = score_pass(attacks, query, probe, base=reference)
    for name, _, _ in attacks:
        assert np.array_equal(together[name], scores(name, target)), name
    spent, specs = probe.evaluations + reference.evaluations, [entry[:2] for entry in attacks]
    assert spent == nfe_shared(specs) * len(query), "what the plan promises is what is spent"
    assert 2 * spent <= nfe_asked(specs) * len(query)


def test_one_attack_with_several_specs(scores, target, query):
    from lmia.models.probe import Probe

    spec = ATTACKS.get("secmi").Spec
    probe = Probe(target, 5)
    both = score_pass([("secmi:100", spec(), None), ("secmi:140", spec(t=140), None)], query, probe)
    assert np.array_equal(both["secmi:100"], scores("secmi", target))
    assert not np.array_equal(both["secmi:100"], both["secmi:140"])
    assert probe.evaluations == 16 * len(query), "one trajectory serves both"


def test_chunks_do_not_matter(learned, target, base):
    from lmia.models.probe import Probe

    pictures, attacks = drawn("many", 11), [("loss", small("loss"), None), ("pia", small("pia"), None)]
    whole = score_pass(attacks, pictures, Probe(target, 5, 4))
    parts = score_pass(attacks, pictures, Probe(target, 5, 4), chunk=3)
    for name in whole:
        assert np.array_equal(whole[name], parts[name]), "a chunk is rounded up to whole batches: the same bits"


def test_t_profile(target, query):
    from lmia.attacks.loss import t_profile
    from lmia.models.probe import Probe

    attack = ATTACKS.get("loss")
    profile = t_profile(Probe(target, 5), query, (50, 100, 800), noises=2)
    assert profile.shape == (3, len(query))
    assert np.array_equal(profile[1], attack.score(attack.Spec(noises=2), query, probe=Probe(target, 5)))


def test_noises_belong_to_the_record(target, query):
    """Another noise seed gives other scores; another target, order or subset the same noises."""
    from lmia.models.probe import Probe

    attack = ATTACKS.get("loss")
    one = attack.score(attack.Spec(), query, probe=Probe(target, 1, 1))
    assert not np.array_equal(one, attack.score(attack.Spec(), query, probe=Probe(target, 2, 1)))
    assert np.array_equal(one[2:3], attack.score(attack.Spec(), query.take([2]), probe=Probe(target, 1, 1)))


@pytest.mark.parametrize(
    ("attacks", "message"),
    [
        ([("los", None, None)], "did you mean 'loss'"),
        ([("loss", ATTACKS.get("loss").Spec(), None)], "'loss' needs a model"),
        ([("blind", ATTACKS.get("blind").Spec(), None)], "'blind' needs a learned state"),
        ([("loss", None, None), ("loss", None, None)], "NAME:TAG"),
    ],
)
def test_mistakes_are_named_before_any_work(attacks, message, query):
    with pytest.raises((RequestError, UnknownName), match=message):
        score_pass(attacks, query, None)


def test_missing_captions_are_refused(target, learned, query):
    from lmia.models.probe import Probe

    bare = query.with_columns(caption=["a man", *query.captions[1:]])
    with pytest.raises(RequestError, match=r"query/0.* 2 words"):
        score_pass([("clid", small("clid"), learned("clid"))], bare, Probe(target))
    none = query.with_columns(caption=[None] * len(query))
    with pytest.raises(RequestError, match="needs a caption"):
        score_pass([("reconstruction", small("reconstruction"), None)], none, Probe(target), base=Probe(target))


def test_fit_names_what_is_missing():
    for name in ATTACKS.names():
        if ATTACKS.get(name).fits(small(name)):
            with pytest.raises(RequestError, match="cannot be fitted without"):
                ATTACKS.get(name).fit(small(name), {})


def test_wrapping_is_checked():
    calibrated, combined = ATTACKS.get("calibrated").Spec, ATTACKS.get("combined").Spec
    assert calibrated(attack="pia", settings={"t": 200}).identity() == {"attack": "pia"}
    for spec, values, message in (
        (calibrated, {"attack": "piaa"}, "did you mean 'pia'"),
        (calibrated, {"attack": "pia", "settings": {"tt": 3}}, "tt"),
        (calibrated, {"attack": "generated_set_nearest"}, "nothing to calibrate"),
        (calibrated, {"attack": "calibrated"}, "cannot wrap itself"),
        (combined, {"attacks": [{"attack": "combined"}]}, "cannot contain itself"),
    ):
        with pytest.raises(ValueError, match=message):
            spec.model_validate(values)


def test_bounds_are_checked():
    secmi = ATTACKS.get("secmi").Spec
    for values, message in (({"t": 105}, "multiple of k"), ({"t": 990, "k": 10}, "last timestep")):
        with pytest.raises(ValueError, match=message):
            secmi(**values)


def test_access_of_a_wrapper_is_that_of_what_it_wraps():
    calibrated, combined = ATTACKS.get("calibrated"), ATTACKS.get("combined")
    assert calibrated.access_for(calibrated.Spec(attack="gsa1")) == "gradient"
    assert "shadow" in calibrated.requires(calibrated.Spec(attack="gsa1"))
    assert combined.access_for(combined.Spec()) == "eps"
    both = [{"attack": "rediffuse"}, {"attack": "calibrated", "settings": {"attack": "gsa2"}}]
    assert combined.access_for(combined.Spec(attacks=both)) == "gradient"
    assert combined.requires(combined.Spec(attacks=both)) == {"model", "shadow", "base"}


def test_labels():
    assert attack_of("loss") == attack_of("loss:t=400") == "loss"
    assert issubclass(ATTACKS.get("loss"), Attack)


def test_attacks_fitted_on_one_shadow_share_what_they_measure(target):
    from lmia.attacks import Shadow

    def fitted(*shadows):
        return [
            ATTACKS.get(name).fit(small(name), {"shadow": [shadow]})
            for name, shadow in zip(("gsa1", "gsa2"), shadows, strict=True)
        ]

    def shadow():
        return Shadow(target, drawn("in", 4), drawn("out", 4))

    one, two, both = shadow(), shadow(), shadow()
    apart, together = fitted(one, two), fitted(both, both)
    assert all(
        a.keys() == b.keys() and all((a[k] == b[k]).all() for k in a) for a, b in zip(apart, together, strict=True)
    )
    spent = [sum(probe.evaluations for probe in shadow.probes) for shadow in (one, two, both)]
    assert spent == [16, 16, 16], "8 pictures at 2 timesteps, once for both"
