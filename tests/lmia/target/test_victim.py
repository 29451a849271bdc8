import json
import shutil

import numpy as np
import pytest
import torch

from lmia.specs import RequestError
from lmia.target.model import load_model
from lmia.target.sample import SampleSpec
from lmia.target.victim import Victim


@pytest.fixture
def victim(model, pictures):
    return Victim(model, noise_seed=5, batch=3).show(pictures)


def test_noise_belongs_to_the_picture_and_not_to_its_mates(victim, model, pictures):
    alone = Victim(model, noise_seed=5).show(pictures.take([4]))
    assert torch.equal(victim.noise(2)[4], alone.noise(2)[0])
    assert not torch.equal(victim.noise(2)[4], victim.noise(1)[4])
    assert not torch.equal(victim.noise(2), Victim(model, noise_seed=6).show(pictures).noise(2))


def test_a_score_does_not_depend_on_the_batch(victim, model, pictures):
    alone = np.concatenate([Victim(model, noise_seed=5).show(pictures.take([n])).loss(100, 1) for n in range(7)])
    assert np.allclose(victim.loss(100, 1), alone, rtol=1e-5)
    assert victim.loss(100, 1).dtype == np.float64


def test_loss_is_its_definition(victim):
    z0, noise, abar = victim.z0(), victim.noise(0), float(victim.model.scheduler.alphas_cumprod[100])
    z = abar**0.5 * z0 + (1 - abar) ** 0.5 * noise
    assert torch.allclose(victim.diffuse(100, noise), z, atol=1e-6)
    expected = (victim.eps(z, 100, victim.text()) - noise).square().mean(dim=(1, 2, 3))
    assert np.allclose(victim.loss(100), expected.numpy(), rtol=1e-5)


def test_nothing_is_evaluated_twice(victim, pictures):
    victim.loss(100)
    victim.eps_clean()
    assert victim.evaluations == 14
    victim.show(pictures).loss(100)
    victim.eps_clean()
    assert victim.evaluations == 14
    victim.loss(100, 1)
    victim.loss(100, captions="")
    assert victim.evaluations == 28
    victim.inverted(30, 10)
    assert victim.evaluations == 28 + 14  # the first step's was there
    victim.inverted(50, 10)
    assert victim.evaluations == 28 + 28
    victim.show(pictures.take([0])).loss(100)
    assert victim.evaluations == 28 + 29


def test_inversion_is_undone_by_its_own_predictions(victim):
    states = victim.inverted(40, 10)
    assert len(states) == 5
    z = states[-1]
    for t in (40, 30, 20, 10):
        z = victim.ddim(z, victim.inverted_eps(t - 10, 10), t, t - 10)
    assert torch.allclose(z, victim.z0(), atol=1e-4)


def test_text_states_by_caption(victim):
    own, blank, other = victim.text(), victim.text(""), victim.text(["a man"] * 7)
    assert own.shape == (7, 24, 16)
    assert torch.equal(blank[0], blank[6]) and not torch.equal(own[0], own[1])
    assert not torch.equal(other, blank)
    with pytest.raises(ValueError, match="2 captions for 7 pictures"):
        victim.text(["a", "b"])


def test_velocity_is_converted(folder, tmp_path, pictures, model):
    copy = tmp_path / "velocity"
    shutil.copytree(folder, copy)
    path = copy / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "v_prediction"}))
    plain = Victim(model).show(pictures)
    velocity = Victim(load_model([copy])).show(pictures)
    z = plain.diffuse(300, plain.noise(0))
    raw = plain.eps(z, 300, plain.text())  # the same weights read as v
    abar = plain.abar(300)
    expected = abar**0.5 * raw + (1 - abar) ** 0.5 * z
    assert torch.allclose(velocity.eps(z, 300, velocity.text()), expected, atol=1e-5)
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "sample"}))
    with pytest.raises(RequestError, match="prediction type 'sample'"):
        Victim(load_model([copy]))


def test_gradient_norms(victim, pictures, model):
    few = Victim(model, noise_seed=5).show(pictures.take([0, 1]))
    joint = few.gradient_norms([100, 300])
    separate = few.gradient_norms([100, 300], per_timestep=True)
    assert joint.shape == separate.shape == (2, len(list(model.unet.parameters())))
    assert (joint <= separate + 1e-9).all() and joint.sum() > 0  # triangle inequality
    assert few.evaluations == 4  # both come from the same passes
    assert not any(value.requires_grad or value.grad is not None for value in model.unet.parameters())
    single = few.gradient_norms([100])
    assert np.allclose(single, few.gradient_norms([100], per_timestep=True))


def test_variation_is_seeded_and_memoised(victim):
    one = victim.vary(40, 20, 0)
    assert one.shape == (7, 3, 32, 32) and victim.evaluations == 14
    assert victim.vary(40, 20, 0) is one
    assert not torch.equal(victim.vary(40, 20, 1), one)
    with pytest.raises(ValueError, match="not a multiple"):
        victim.vary(45, 20, 0)


def test_generation_counts_and_differs_by_draw(victim):
    spec = SampleSpec(steps=2, guidance=3, sampler="ddim")
    one, two = victim.generate(None, spec), victim.generate(None, spec, draw=1)
    assert one.shape == (7, 32, 32, 3) and not np.array_equal(one, two)
    assert victim.evaluations == 2 * 7 * 4


def test_nothing_shown(model):
    with pytest.raises(ValueError, match="show"):
        Victim(model).z0()
