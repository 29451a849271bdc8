"""Scores of one slice, of several attacks at once, and of the blind control."""

import numpy as np
import pytest

from bench.artifacts.learned import learned
from bench.artifacts.scores import BlindCrossfitSpec, ScoresSpec, crossfitted, scores
from bench.stages.scores import read, to_parquet
from lmia.attacks.blind import Blind
from lmia.attacks.calibrated import Calibrated
from lmia.attacks.loss import Loss
from lmia.attacks.scoring import score_pass
from lmia.attacks.sima import Sima

from .conftest import BASE, MEMBERS, OTHERS, target

LOSS, SIMA = Loss(noises=1), Sima()


def asked(attack, **more):
    how = ScoresSpec(attack=attack, captions="caption", batch=4, **more)
    base = BASE if "base" in attack.needs else None
    return scores(how, MEMBERS, 3, model=target(), base=base)


def of(desk, artifact):
    desk.make(artifact)
    return read(desk.store, desk.manifest(artifact))


def test_attacks_on_one_model_and_set_share_each_slice(desk):
    desk.make(target(), MEMBERS)
    artifacts = [asked(LOSS), asked(SIMA)]
    jobs = desk.jobs(*artifacts)
    assert len(jobs) == 3 and all(len(job.payload.refs) == 2 for job in jobs) and jobs[0].executor == "data"
    assert sum(job.payload.nfe_asked for job in jobs) == 8 * (LOSS.nfe + SIMA.nfe)
    desk.make(*artifacts)
    model = desk.bench.model(desk.ref(target()), "float32")
    pictures = desk.pictures(MEMBERS)
    for attack, artifact in zip((LOSS, SIMA), artifacts, strict=True):
        found = of(desk, artifact)
        assert set(found) == set(pictures.ids)
        expected = score_pass([(attack, None)], pictures, model, batch=4).scores[0]
        assert [found[i] for i in pictures.ids] == pytest.approx(list(expected), rel=1e-5), "slices round otherwise"
        assert desk.manifest(artifact).total("nfe") == 8 * attack.nfe


def test_captions_and_base_are_what_the_spec_says(desk):
    plain, empty = (of(desk, scores(ScoresSpec(attack=LOSS, captions=c, batch=4), MEMBERS, 8, model=target()))
                    for c in ("caption", "empty"))  # fmt: skip
    assert plain != empty
    wrapped = Calibrated(attack=LOSS)
    base = of(desk, scores(ScoresSpec(attack=LOSS, captions="caption", batch=4), MEMBERS, 8, model=BASE))
    how = ScoresSpec(attack=wrapped, captions="caption", batch=4)
    found = of(desk, scores(how, MEMBERS, 8, model=target(), base=BASE))
    assert found == {name: plain[name] - base[name] for name in plain}


def test_a_learned_attack_scores_with_what_it_learned_and_needs_no_model(desk):
    blind = Blind()
    fitted = learned(blind, {"positives": MEMBERS, "negatives": OTHERS})
    found = of(desk, scores(ScoresSpec(attack=blind), MEMBERS, 8, learned=fitted))
    assert len(found) == 8 and np.isfinite(list(found.values())).all()


def test_crossfit_scores_both_sets(desk):
    found = of(desk, crossfitted(BlindCrossfitSpec(blind=Blind()), MEMBERS, OTHERS))
    assert set(found) == {*desk.pictures(MEMBERS).ids, *desk.pictures(OTHERS).ids}


@pytest.mark.parametrize(
    ("ids", "values"), [(["a", "b"], [1.0, np.nan]), (["a", "a"], [1.0, 2.0]), (["a"], [1.0, 2.0])]
)
def test_scores_are_finite_and_one_a_picture(ids, values):
    with pytest.raises(RuntimeError, match="scores"):
        to_parquet(ids, np.array(values))
