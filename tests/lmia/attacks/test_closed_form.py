"""Attacks on toy denoisers whose errors can be written down by hand."""

import dataclasses

import numpy as np
import pytest

from lmia.attacks import FitInputs, FitRun, attack_from
from lmia.attacks.calibrated import Calibrated
from lmia.attacks.clid import Clid
from lmia.attacks.generated_set_mean import GeneratedSetMean
from lmia.attacks.generated_set_nearest import GeneratedSetNearest
from lmia.attacks.secmi import step_error
from tests.lmia.attacks.conftest import drawn, scored


@pytest.fixture
def toy(target, query):
    """A Probe on a target whose U-Net is a given function of (z, t, text), and its parameter."""
    import torch

    from lmia.models.probe import Probe

    class Toy(torch.nn.Module):
        def __init__(self, function, value):
            super().__init__()
            self.value = torch.nn.Parameter(torch.tensor(value))
            self.function = function
            self.config = target.unet.config

        def forward(self, z, t, text, return_dict=False):
            return (self.function(self.value, z, t, text),)

    def make(function, value=1.0):
        return Probe(dataclasses.replace(target, unet=Toy(function, value)), query, noise_seed=3)

    return make


def linear(kappa, z, t, text):
    return kappa * z


def constant(kappa, z, t, text):
    return kappa.expand_as(z)


def score(name, probe, **settings):
    return attack_from(name, settings).score(probe)


def coefficients(probe, t):
    abar = float(probe.model.scheduler.alphas_cumprod[t])
    return abar**0.5, (1 - abar) ** 0.5


KAPPA = 0.3


def test_pia_of_a_linear_denoiser(toy):
    probe = toy(linear, KAPPA)
    a, b = coefficients(probe, 200)
    z0 = probe.z0().double().numpy()
    by_hand = -abs(KAPPA * (1 - a - b * KAPPA)) * (np.abs(z0) ** 4).sum(axis=(1, 2, 3)) ** 0.25
    assert np.allclose(score("pia", probe), by_hand, rtol=1e-5)


def test_pian_of_a_linear_denoiser(toy):
    probe = toy(linear, KAPPA)
    a, b = coefficients(probe, 200)
    z0 = probe.z0().double().numpy()
    e0 = z0 * np.sqrt(2 / np.pi) / np.abs(z0).mean(axis=(1, 2, 3), keepdims=True)
    by_hand = -((np.abs(e0 - KAPPA * (a * z0 + b * e0)) ** 4).sum(axis=(1, 2, 3)) ** 0.25)
    assert np.allclose(score("pian", probe), by_hand, rtol=1e-5)


def test_pia_and_secmi_of_a_constant_denoiser_are_zero(toy):
    probe = toy(constant)
    assert np.array_equal(score("pia", probe), np.zeros(4))
    # one step up and one down with the same prediction undo each other
    assert np.abs(score("secmi", probe)).max() < 1e-24


def test_secmi_of_a_linear_denoiser(toy):
    probe = toy(linear, KAPPA)

    def factor(s, t):
        (a, b), (a2, b2) = coefficients(probe, s), coefficients(probe, t)
        return a2 / a * (1 - b * KAPPA) + b2 * KAPPA

    z = probe.z0().double().numpy()
    for s in range(0, 100, 10):
        z = factor(s, s + 10) * z
    error = (factor(110, 100) * factor(100, 110) - 1) * z
    assert np.allclose(step_error(probe, 100, 10), error, rtol=1e-4)
    assert np.allclose(score("secmi", probe), -(error**2).sum(axis=(1, 2, 3)), rtol=1e-4)


def test_inversion_begins_at_index_0(toy):
    """The clean latent has abar_0, which is not 1."""
    probe = toy(constant, 0.0)
    first = probe.inverted(10, 10)[1] / probe.z0()
    assert np.allclose(first, coefficients(probe, 10)[0] / coefficients(probe, 0)[0], rtol=1e-5)


def test_sima_of_a_linear_denoiser(toy):
    probe = toy(linear, KAPPA)
    z0 = probe.z0().double().numpy()
    assert np.allclose(score("sima", probe, p=2), -KAPPA * np.sqrt((z0**2).sum(axis=(1, 2, 3))), rtol=1e-5)


def test_loss_of_a_linear_denoiser(toy):
    probe = toy(linear, KAPPA)
    a, b = coefficients(probe, 100)
    z0, noises = probe.z0().double().numpy(), [probe.noise(i).double().numpy() for i in range(5)]
    by_hand = np.mean([((KAPPA * (a * z0 + b * e) - e) ** 2).mean(axis=(1, 2, 3)) for e in noises], axis=0)
    assert np.allclose(score("loss", probe), -by_hand, rtol=1e-5)


def test_pfami_of_a_constant_denoiser_is_zero(toy):
    """Its loss does not depend on the picture, so cropping costs nothing."""
    assert np.array_equal(score("pfami", toy(constant)), np.zeros(4))


def test_clid_of_a_denoiser_without_captions_has_no_discrepancy(toy):
    values = Clid(timesteps=(485, 495, 505)).measure(toy(linear, KAPPA))
    assert np.array_equal(values[:, 1:], np.repeat(values[:, :1], 4, axis=1))


def test_clid_sees_the_caption(toy):
    """A denoiser that adds the mean text state: the loss of a reduced caption is another one."""
    probe = toy(lambda k, z, t, text: k * z + text.mean(dim=(1, 2)).view(-1, 1, 1, 1))
    values = Clid(timesteps=(500,)).measure(probe)
    assert (np.abs(values[:, 1:] - values[:, :1]) > 0).all()


def test_gsa_of_a_linear_denoiser(toy):
    probe = toy(linear, KAPPA)
    z0, noise = probe.z0().double().numpy(), probe.noise(0).double().numpy()
    slopes = []
    for t in (100, 700):
        a, b = coefficients(probe, t)
        z = a * z0 + b * noise
        slopes.append((2 * (KAPPA * z - noise) * z).mean(axis=(1, 2, 3)))
    of_mean, mean_of = probe.gradient_norms((100, 700))[:, :, 0].T
    assert np.allclose(of_mean, np.abs(np.mean(slopes, axis=0)), rtol=1e-4)
    assert np.allclose(mean_of, np.mean(np.abs(slopes), axis=0), rtol=1e-4)


def test_calibration_against_the_same_model_is_zero(target, query):
    scores = scored(Calibrated(), query, target, base=target, noise_seed=1)
    assert np.array_equal(scores, np.zeros(4))


def test_nearest_and_mean_of_the_picture_itself(query, base):
    nearest, mean = GeneratedSetNearest(), GeneratedSetMean()
    learned = nearest.fit(FitInputs(query, base=base), FitRun())
    assert np.allclose(scored(nearest, query, learned=learned, base=base), 0, atol=1e-6)
    learned = mean.fit(FitInputs(query.take([2]), base=base), FitRun())
    cosines = scored(mean, query, learned=learned, base=base)
    assert cosines.argmax() == 2 and np.isclose(cosines[2], 1)


def test_nearest_is_the_distance_of_unit_vectors(query, base):
    from lmia.attacks.encoders import VaeEncoder, load_encoder

    attack, generated = GeneratedSetNearest(k=2), drawn("others", 5)
    learned = attack.fit(FitInputs(generated, base=base), FitRun())
    encode = load_encoder(VaeEncoder(), base=base, device="cpu")
    u, v = (encode(p.images()) for p in (query, generated))
    u, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (u, v))
    distances = np.sort(np.linalg.norm(u[:, None] - v[None], axis=2), axis=1)
    assert np.allclose(scored(attack, query, learned=learned, base=base), -distances[:, :2].mean(axis=1))


def test_ssim():
    from lmia.attacks.rediffuse import ssim

    rng = np.random.default_rng(0)
    x = rng.uniform(size=(2, 24, 24))
    assert np.allclose(ssim(x, x), 1)
    # two flat pictures: only the luminance term is left
    grey = np.full((1, 16, 16), 0.5), np.full((1, 16, 16), 0.75)
    assert np.isclose(ssim(*grey)[0], (2 * 0.5 * 0.75 + 1e-4) / (0.5**2 + 0.75**2 + 1e-4))


def test_boosted_trees_as_tensors_are_the_same_trees():
    from sklearn.ensemble import GradientBoostingClassifier

    from lmia.attacks.trees import decide_trees, fit_trees

    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4))
    y = (x[:, 0] + rng.normal(size=60) > 0.3).astype(int)
    fitted = fit_trees(x, y, trees=20, depth=3, rate=0.1, seed=0)
    model = GradientBoostingClassifier(n_estimators=20, max_depth=3, learning_rate=0.1, random_state=0).fit(x, y)
    new = rng.normal(size=(100, 4))
    assert np.allclose(decide_trees(fitted, new), model.decision_function(new), rtol=1e-12)
