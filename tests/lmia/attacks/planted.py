"""A tiny model overfitted to a few pictures: what every attack that can find members must find."""

import numpy as np


def overfit(model, pictures, steps, *, lr=2e-3, seed=0):
    """Trains the U-Net of `model` in place on all pictures at once, `steps` times, at random timesteps below 600."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    abar = model.abar().float()
    z0, text = model.encode(pictures.images()), model.text_states(pictures.captions)
    model.unet.requires_grad_(True).train()
    optimiser = torch.optim.Adam(model.unet.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        t = torch.randint(0, 600, (len(z0),), generator=generator)
        noise = torch.randn(z0.shape, generator=generator)
        power = abar[t].view(-1, 1, 1, 1)
        predicted = model.unet(power.sqrt() * z0 + (1 - power).sqrt() * noise, t, text, return_dict=False)[0]
        optimiser.zero_grad()
        (predicted - noise).square().mean().backward()
        optimiser.step()
        schedule.step()
    model.unet.requires_grad_(False).eval()
    return model


def auc(members, nonmembers):
    """The probability that a member scores higher."""
    return float((np.sign(members[:, None] - nonmembers[None]) / 2 + 0.5).mean())
