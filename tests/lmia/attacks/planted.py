"""A denoiser that has memorised its training pictures: the limit that over-training goes to, without the training.

The optimal noise prediction for an empirical distribution of (latent, caption) pairs is known in closed form: it
points from z to the mean of the memorised latents, weighted by how likely each of them is behind z and the caption.
"""

import dataclasses

import numpy as np

CAPTION_WEIGHT = 40.0


def memorised(model, pictures):
    """`model` with a VAE that averages 4 x 4 pixels and a U-Net that knows `pictures` and nothing else."""
    import torch

    class Mode:
        def __init__(self, z):
            self.z = z

        def mode(self):
            return self.z

    class AveragingVae(torch.nn.Module):
        config = model.vae.config

        def encode(self, x, return_dict=False):
            z = torch.nn.functional.avg_pool2d(x, model.vae_scale)
            return (Mode(torch.cat([z, z.mean(dim=1, keepdim=True)], dim=1) / self.config.scaling_factor),)

        def decode(self, z, return_dict=False):
            pixels = torch.nn.functional.interpolate(z[:, :3], scale_factor=model.vae_scale, mode="nearest")
            return (pixels * self.config.scaling_factor,)

    class Memory(torch.nn.Module):
        config = model.unet.config

        def __init__(self, latents, texts, abar):
            super().__init__()
            self.latents = torch.nn.Parameter(latents)
            self.gain = torch.nn.Parameter(torch.ones(()))
            self.register_buffer("texts", texts)
            self.register_buffer("abar", abar)

        def forward(self, z, t, text, return_dict=False):
            power = self.abar[torch.as_tensor(t).reshape(-1).long()].view(-1, 1, 1, 1)
            a, b = power.sqrt(), (1 - power).sqrt()
            distance = (z[:, None] - a[:, None] * self.latents).square().sum(dim=(2, 3, 4)) / (2 * b.view(-1, 1) ** 2)
            spread = torch.cdist(self.texts.flatten(1), self.texts.flatten(1)).square().mean()
            words = torch.cdist(text.flatten(1), self.texts.flatten(1)).square() / spread
            weight = torch.softmax(-distance - CAPTION_WEIGHT * words, dim=1)
            mean = torch.einsum("nm,mchw->nchw", weight, self.latents)
            return (self.gain * (z - a * mean) / b,)

    own = dataclasses.replace(model, vae=AveragingVae())
    memory = Memory(own.encode(pictures.images()), own.condition(pictures.captions), own.scheduler.alphas_cumprod)
    return dataclasses.replace(own, unet=memory.requires_grad_(False))


def auc(members, nonmembers):
    """The probability that a member scores higher."""
    return float((np.sign(members[:, None] - nonmembers[None]) / 2 + 0.5).mean())
