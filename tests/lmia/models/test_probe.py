import json
import shutil

import numpy as np
import pytest
import torch

from lmia.models.load import load_model
from lmia.models.probe import Captions, Meter, Probe
from lmia.specs import RequestError

BLANK = Captions("blank", lambda caption: "")


@pytest.fixture
def probe(model, pictures):
    return Probe(model, pictures, noise_seed=5, batch=3)


def test_noise_belongs_to_the_picture_and_not_to_its_mates(probe, model, pictures):
    alone = Probe(model, pictures.take([4]), noise_seed=5)
    assert torch.equal(probe.noise(2)[4], alone.noise(2)[0])
    assert not torch.equal(probe.noise(2)[4], probe.noise(1)[4])
    assert not torch.equal(probe.noise(2), Probe(model, pictures, noise_seed=6).noise(2))


def test_a_score_does_not_depend_on_the_batch(probe, model, pictures):
    alone = np.concatenate([Probe(model, pictures.take([n]), noise_seed=5).loss(100, 1) for n in range(7)])
    assert np.allclose(probe.loss(100, 1), alone, rtol=1e-5)
    assert probe.loss(100, 1).dtype == np.float64


def test_loss_is_its_definition(probe):
    z0, noise, abar = probe.z0(), probe.noise(0), float(probe.model.scheduler.alphas_cumprod[100])
    z = abar**0.5 * z0 + (1 - abar) ** 0.5 * noise
    assert torch.allclose(probe.diffuse(100, noise), z, atol=1e-6)
    expected = (probe.eps(z, 100, probe.text()) - noise).square().mean(dim=(1, 2, 3))
    assert np.allclose(probe.loss(100), expected.numpy(), rtol=1e-5)


def test_nothing_is_evaluated_twice(model, pictures):
    meter = Meter()
    probe = Probe(model, pictures, base=model, noise_seed=5, batch=3, meter=meter)
    probe.loss(100)
    probe.eps_clean()
    assert meter.evaluations == 14
    probe.loss(100)
    probe.eps_clean()
    assert meter.evaluations == 14
    probe.loss(100, 1)
    probe.loss(100, captions=BLANK)
    assert meter.evaluations == 28
    probe.inverted(30, 10)
    assert meter.evaluations == 28 + 14  # the first step's was there
    probe.inverted(50, 10)
    assert meter.evaluations == 28 + 28
    assert np.array_equal(probe.base.loss(100), probe.loss(100)) and probe.base is probe.base
    assert meter.evaluations == 28 + 35, "what is spent on the base counts, too"
    Probe(model, pictures.take([0]), meter=meter).loss(100)
    assert meter.evaluations == 28 + 36


def test_inversion_is_undone_by_its_own_predictions(probe):
    states = probe.inverted(40, 10)
    assert len(states) == 5
    z = states[-1]
    for t in (40, 30, 20, 10):
        z = probe.ddim(z, probe.inverted_eps(t - 10, 10), t, t - 10)
    assert torch.allclose(z, probe.z0(), atol=1e-4)


def test_text_states_by_caption(probe):
    own, blank, other = probe.text(), probe.text(BLANK), probe.text(Captions("man", lambda caption: "a man"))
    assert own.shape == (7, 24, 16)
    assert torch.equal(blank[0], blank[6]) and not torch.equal(own[0], own[1])
    assert not torch.equal(other, blank) and torch.equal(other[0], other[6])
    assert torch.equal(probe.text(Captions("same", lambda caption: caption)), own)


def test_velocity_is_converted(folder, tmp_path, pictures, model):
    copy = tmp_path / "velocity"
    shutil.copytree(folder, copy)
    path = copy / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "v_prediction"}))
    plain = Probe(model, pictures)
    velocity = Probe(load_model([copy]), pictures)
    z = plain.diffuse(300, plain.noise(0))
    raw = plain.eps(z, 300, plain.text())  # the same weights read as v
    a, b = model.schedule(300)
    expected = a * raw + b * z
    assert torch.allclose(velocity.eps(z, 300, velocity.text()), expected, atol=1e-5)
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "sample"}))
    with pytest.raises(RequestError, match="prediction type 'sample'"):
        Probe(load_model([copy]), pictures)


def test_gradient_norms(probe, pictures, model):
    few = Probe(model, pictures.take([0, 1]), noise_seed=5)
    joint, separate = few.gradient_norms((100, 300)).swapaxes(0, 1)
    assert joint.shape == separate.shape == (2, len(list(model.unet.parameters())))
    assert (joint <= separate + 1e-9).all() and joint.sum() > 0  # triangle inequality
    assert few.meter.evaluations == 4  # both come from the same passes
    assert not any(value.requires_grad or value.grad is not None for value in model.unet.parameters())
    single = few.gradient_norms((100,))
    assert np.allclose(single[:, 0], single[:, 1])


def test_variation_is_seeded_and_memoised(probe):
    one = probe.vary(40, 20, 0)
    assert one.shape == (7, 3, 32, 32) and probe.meter.evaluations == 14
    assert probe.vary(40, 20, 0) is one
    assert not torch.equal(probe.vary(40, 20, 1), one)
    with pytest.raises(ValueError, match="not a multiple"):
        probe.vary(45, 20, 0)


def test_generation_counts_and_differs_by_draw(probe):
    one, two = probe.generate(3, 2, 0), probe.generate(3, 2, 0, draw=1)
    assert one.shape == (7, 32, 32, 3) and not np.array_equal(one, two)
    assert probe.meter.evaluations == 2 * 7 * 4 and probe.generate(3, 2, 0) is one


def test_without_a_model_only_pictures_can_be_looked_at(pictures):
    probe = Probe(None, pictures)
    assert len(probe.captions) == 7
    with pytest.raises(ValueError, match="no model"):
        probe.z0()
    with pytest.raises(ValueError, match="no base"):
        probe.base.z0()
