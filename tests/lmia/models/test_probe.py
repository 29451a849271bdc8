import json
import shutil

import numpy as np
import pytest
import torch

from lmia.models.load import load_model
from lmia.models.probe import Probe
from lmia.models.sample import SampleSpec
from lmia.specs import RequestError


@pytest.fixture
def probe(model, pictures):
    return Probe(model, noise_seed=5, batch=3).show(pictures)


def test_noise_belongs_to_the_picture_and_not_to_its_mates(probe, model, pictures):
    alone = Probe(model, noise_seed=5).show(pictures.take([4]))
    assert torch.equal(probe.noise(2)[4], alone.noise(2)[0])
    assert not torch.equal(probe.noise(2)[4], probe.noise(1)[4])
    assert not torch.equal(probe.noise(2), Probe(model, noise_seed=6).show(pictures).noise(2))


def test_a_score_does_not_depend_on_the_batch(probe, model, pictures):
    alone = np.concatenate([Probe(model, noise_seed=5).show(pictures.take([n])).loss(100, 1) for n in range(7)])
    assert np.allclose(probe.loss(100, 1), alone, rtol=1e-5)
    assert probe.loss(100, 1).dtype == np.float64


def test_loss_is_its_definition(probe):
    z0, noise, abar = probe.z0(), probe.noise(0), float(probe.model.scheduler.alphas_cumprod[100])
    z = abar**0.5 * z0 + (1 - abar) ** 0.5 * noise
    assert torch.allclose(probe.diffuse(100, noise), z, atol=1e-6)
    expected = (probe.eps(z, 100, probe.text()) - noise).square().mean(dim=(1, 2, 3))
    assert np.allclose(probe.loss(100), expected.numpy(), rtol=1e-5)


def test_nothing_is_evaluated_twice(probe, pictures):
    probe.loss(100)
    probe.eps_clean()
    assert probe.evaluations == 14
    probe.show(pictures).loss(100)
    probe.eps_clean()
    assert probe.evaluations == 14
    probe.loss(100, 1)
    probe.loss(100, captions="")
    assert probe.evaluations == 28
    probe.inverted(30, 10)
    assert probe.evaluations == 28 + 14  # the first step's was there
    probe.inverted(50, 10)
    assert probe.evaluations == 28 + 28
    probe.show(pictures.take([0])).loss(100)
    assert probe.evaluations == 28 + 29


def test_inversion_is_undone_by_its_own_predictions(probe):
    states = probe.inverted(40, 10)
    assert len(states) == 5
    z = states[-1]
    for t in (40, 30, 20, 10):
        z = probe.ddim(z, probe.inverted_eps(t - 10, 10), t, t - 10)
    assert torch.allclose(z, probe.z0(), atol=1e-4)


def test_text_states_by_caption(probe):
    own, blank, other = probe.text(), probe.text(""), probe.text(["a man"] * 7)
    assert own.shape == (7, 24, 16)
    assert torch.equal(blank[0], blank[6]) and not torch.equal(own[0], own[1])
    assert not torch.equal(other, blank)
    with pytest.raises(ValueError, match="2 captions for 7 pictures"):
        probe.text(["a", "b"])


def test_velocity_is_converted(folder, tmp_path, pictures, model):
    copy = tmp_path / "velocity"
    shutil.copytree(folder, copy)
    path = copy / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "v_prediction"}))
    plain = Probe(model).show(pictures)
    velocity = Probe(load_model([copy])).show(pictures)
    z = plain.diffuse(300, plain.noise(0))
    raw = plain.eps(z, 300, plain.text())  # the same weights read as v
    abar = plain.abar(300)
    expected = abar**0.5 * raw + (1 - abar) ** 0.5 * z
    assert torch.allclose(velocity.eps(z, 300, velocity.text()), expected, atol=1e-5)
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "sample"}))
    with pytest.raises(RequestError, match="prediction type 'sample'"):
        Probe(load_model([copy]))


def test_gradient_norms(probe, pictures, model):
    few = Probe(model, noise_seed=5).show(pictures.take([0, 1]))
    joint = few.gradient_norms([100, 300])
    separate = few.gradient_norms([100, 300], per_timestep=True)
    assert joint.shape == separate.shape == (2, len(list(model.unet.parameters())))
    assert (joint <= separate + 1e-9).all() and joint.sum() > 0  # triangle inequality
    assert few.evaluations == 4  # both come from the same passes
    assert not any(value.requires_grad or value.grad is not None for value in model.unet.parameters())
    single = few.gradient_norms([100])
    assert np.allclose(single, few.gradient_norms([100], per_timestep=True))


def test_variation_is_seeded_and_memoised(probe):
    one = probe.vary(40, 20, 0)
    assert one.shape == (7, 3, 32, 32) and probe.evaluations == 14
    assert probe.vary(40, 20, 0) is one
    assert not torch.equal(probe.vary(40, 20, 1), one)
    with pytest.raises(ValueError, match="not a multiple"):
        probe.vary(45, 20, 0)


def test_generation_counts_and_differs_by_draw(probe):
    spec = SampleSpec(steps=2, guidance=3, sampler="ddim")
    one, two = probe.generate(None, spec), probe.generate(None, spec, draw=1)
    assert one.shape == (7, 32, 32, 3) and not np.array_equal(one, two)
    assert probe.evaluations == 2 * 7 * 4


def test_nothing_shown(model):
    with pytest.raises(ValueError, match="show"):
        Probe(model).z0()
