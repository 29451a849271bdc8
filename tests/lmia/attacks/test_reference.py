"""Scores against slow, literal transcriptions of the formulas in float64, one picture at a time."""

import copy
from itertools import pairwise

import numpy as np
import pytest

from lmia.attacks import attack_from
from lmia.attacks.clid import Clid
from lmia.attacks.reconstruction import Reconstruction
from lmia.seeds import rng
from tests.lmia.attacks.conftest import scored

SEED = 11


class Literal:
    """The target in double precision; alphas are computed from the betas' definition, not taken from a scheduler."""

    def __init__(self, model):
        self.model = model
        self.unet = copy.deepcopy(model.unet).double()
        self.vae = copy.deepcopy(model.vae).double()
        config = model.scheduler.config
        assert config.beta_schedule == "scaled_linear"
        betas = np.linspace(config.beta_start**0.5, config.beta_end**0.5, config.num_train_timesteps) ** 2
        self.abar = np.cumprod(1 - betas)

    def latent(self, image):
        import torch

        x = torch.tensor(image / 127.5 - 1, dtype=torch.float64).permute(2, 0, 1)[None]
        moments = self.vae.quant_conv(self.vae.encoder(x))
        return moments[:, : moments.shape[1] // 2] * self.vae.config.scaling_factor

    def picture(self, z):
        pixels = self.vae.decode(z / self.vae.config.scaling_factor).sample[0].permute(1, 2, 0)
        return (pixels.clamp(-1, 1).numpy() + 1) / 2

    def text(self, caption):
        return self.model.condition([caption]).double()

    def noise(self, record, index, like):
        import torch

        drawn = rng(SEED, "noise", record, index).standard_normal(like.shape[1:], dtype=np.float32)
        return torch.tensor(drawn).double()[None]

    def eps(self, z, t, c):
        import torch

        return self.unet(z, torch.tensor([t]), c).sample

    def loss(self, z0, t, noise, c):
        z = self.abar[t] ** 0.5 * z0 + (1 - self.abar[t]) ** 0.5 * noise
        return ((noise - self.eps(z, t, c)) ** 2).mean().item()


def loss(literal, record, image, caption):
    z0, c = literal.latent(image), literal.text(caption)
    return -np.mean([literal.loss(z0, 100, literal.noise(record, i, z0), c) for i in range(5)])


def pia(literal, record, image, caption, scale=False):
    z0, c = literal.latent(image), literal.text(caption)
    e0 = literal.eps(z0, 0, c)
    if scale:
        e0 = e0 * np.sqrt(2 / np.pi) / e0.abs().mean()
    z = np.sqrt(literal.abar[200]) * z0 + np.sqrt(1 - literal.abar[200]) * e0
    return -(((e0 - literal.eps(z, 200, c)).abs() ** 4).sum().item() ** 0.25)


def pian(literal, record, image, caption):
    return pia(literal, record, image, caption, scale=True)


def sima(literal, record, image, caption):
    z0 = literal.latent(image)
    return -((literal.eps(z0, 100, literal.text(caption)).abs() ** 4).sum().item() ** 0.25)


def secmi(literal, record, image, caption):
    z, c = literal.latent(image), literal.text(caption)

    def step(z, eps, s, t):
        z0 = (z - np.sqrt(1 - literal.abar[s]) * eps) / np.sqrt(literal.abar[s])
        return np.sqrt(literal.abar[t]) * z0 + np.sqrt(1 - literal.abar[t]) * eps

    for s in range(0, 100, 10):
        z = step(z, literal.eps(z, s, c), s, s + 10)
    up = step(z, literal.eps(z, 100, c), 100, 110)
    down = step(up, literal.eps(up, 110, c), 110, 100)
    return -((down - z) ** 2).sum().item()


def pfami(literal, record, image, caption):
    from PIL import Image

    c, size, growth = literal.text(caption), len(image), []
    z0 = literal.latent(image)
    noises = [literal.noise(record, i, z0) for i in (0, 1)]
    own = np.mean([literal.loss(z0, 100, e, c) for e in noises])
    for share in np.linspace(0.95, 0.70, 10):
        side = round(size * share)
        low = (size - side) // 2
        crop = Image.fromarray(image).crop((low, low, low + side, low + side)).resize((size, size), Image.BICUBIC)
        z = literal.latent(np.asarray(crop))
        growth.append((np.mean([literal.loss(z, 100, e, c) for e in noises]) - own) / own)
    return np.mean(growth)


def rediffuse(literal, record, image, caption):
    z0, c, drawn = literal.latent(image), literal.text(caption), []
    for i in range(10):
        z = np.sqrt(literal.abar[50]) * z0 + np.sqrt(1 - literal.abar[50]) * literal.noise(record, i, z0)
        for t in (50, 40, 30, 20, 10):
            eps = literal.eps(z, t, c)
            x0 = (z - np.sqrt(1 - literal.abar[t]) * eps) / np.sqrt(literal.abar[t])
            z = np.sqrt(literal.abar[t - 10]) * x0 + np.sqrt(1 - literal.abar[t - 10]) * eps
        drawn.append(literal.picture(z))
    return literal_ssim(image / 255, np.mean(drawn, axis=0))


def literal_ssim(x, y):
    """Gaussian-windowed SSIM of luminance, window by window."""
    x, y = (image @ [0.299, 0.587, 0.114] for image in (x, y))
    axis = np.arange(11) - 5
    window = np.exp(-(axis[:, None] ** 2 + axis[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for row in range(len(x) - 10):
        for column in range(len(x) - 10):
            p, q = x[row : row + 11, column : column + 11], y[row : row + 11, column : column + 11]
            mean_p, mean_q = (window * p).sum(), (window * q).sum()
            var_p, var_q = (window * (p - mean_p) ** 2).sum(), (window * (q - mean_q) ** 2).sum()
            covariance = (window * (p - mean_p) * (q - mean_q)).sum()
            top = (2 * mean_p * mean_q + 1e-4) * (2 * covariance + 9e-4)
            values.append(top / ((mean_p**2 + mean_q**2 + 1e-4) * (var_p + var_q + 9e-4)))
    return np.mean(values)


@pytest.fixture(scope="module")
def literal(target):
    return Literal(target)


@pytest.mark.parametrize("formula", [loss, pia, pian, sima, secmi, pfami, rediffuse], ids=lambda f: f.__name__)
def test_agrees_with_the_formula(formula, literal, target, query):
    import torch

    pictures = query.take([0, 1])
    scores = scored(attack_from(formula.__name__, {}), pictures, target, noise_seed=SEED)
    with torch.no_grad():
        rows = zip(pictures.ids, pictures.images(), pictures.captions, strict=True)
        expected = [formula(literal, *row) for row in rows]
    assert np.allclose(scores, expected, rtol=1e-4, atol=0), (scores, expected)


def test_clid_losses_agree_with_the_formula(literal, target, query):
    import torch

    from lmia.models.probe import Probe

    pictures = query.take([0, 1])
    measured = Clid(timesteps=(485, 495, 505)).measure(Probe(target, pictures, noise_seed=SEED))
    for row, (record, image, caption) in enumerate(
        zip(pictures.ids, pictures.images(), pictures.captions, strict=True)
    ):
        words = caption.split()
        assert len(words) in (8, 9)
        cuts = (0, 3, 5, 8) if len(words) == 8 else (0, 3, 6, 9)
        cut = [" ".join(words[start:end]) for start, end in pairwise(cuts)]
        with torch.no_grad():
            z0 = literal.latent(image)
            for column, words_left in enumerate([caption, *cut, ""]):
                c = literal.text(words_left)
                expected = np.mean(
                    [literal.loss(z0, t, literal.noise(record, i, z0), c) for i, t in enumerate((485, 495, 505))]
                )
                assert np.isclose(measured[row, column], expected, rtol=1e-5)


def test_gradient_norms_agree_with_the_formula(literal, target, query):
    from lmia.models.probe import Probe

    timesteps, pictures = (100, 700), query.take([1])
    measured = Probe(target, pictures, noise_seed=SEED).gradient_norms(timesteps)[0]
    z0, c = literal.latent(pictures.images()[0]).detach(), literal.text(pictures.captions[0])
    parameters = list(literal.unet.requires_grad_(True).parameters())
    gradients = []
    for t in timesteps:
        noise = literal.noise(pictures.ids[0], 0, z0)
        z = literal.abar[t] ** 0.5 * z0 + (1 - literal.abar[t]) ** 0.5 * noise
        literal.unet.zero_grad()
        ((noise - literal.eps(z, t, c)) ** 2).mean().backward()
        gradients.append([p.grad.clone() for p in parameters])
    literal.unet.requires_grad_(False)
    of_mean = [((a + b) / 2).norm().item() for a, b in zip(*gradients, strict=True)]
    mean_of = [(a.norm() + b.norm()).item() / 2 for a, b in zip(*gradients, strict=True)]
    for got, expected in zip(measured, (of_mean, mean_of), strict=True):
        assert np.abs(got - expected).max() <= 1e-4 * max(expected)


def test_reconstruction_is_the_cosine_with_what_was_drawn(target, base, query):
    from lmia.models.sample import SampleSpec, generate

    scores = scored(Reconstruction(m=2, steps=3, seed=4), query, target, base=base, noise_seed=SEED)
    sample = SampleSpec(guidance=7.5, steps=3, sampler="ddim", seed=4)
    for row, (record, caption) in enumerate(zip(query.ids, query.captions, strict=True)):
        own, cosines = base.encode(query.images()[[row]]).flatten().double(), []
        for draw in range(2):
            other = base.encode(generate(target, [f"{record}#{draw}"], [caption], sample)).flatten().double()
            cosines.append((own @ other / own.norm() / other.norm()).item())
        # the drawing is rounded to 8 bits, and its last digit may depend on the batch
        assert np.isclose(scores[row], np.mean(cosines), rtol=2e-3)
