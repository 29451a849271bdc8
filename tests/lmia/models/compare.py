"""Comparing what models compute, part by part."""

import shutil

import numpy as np
import torch

from lmia.resolve import overlay_files

PARTS = {"unet", "vae", "text_encoder"}


def overlay(given, base, to):
    """An overlay folder as the store would keep it."""
    for name, path in overlay_files(given, base, to / "scratch").items():
        target = to / "overlay" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return to / "overlay"


def outputs(model):
    """U-Net prediction, VAE encoding and text states, float32."""
    states = model.condition(["a photo of a man", ""])
    z = torch.linspace(-2, 2, 2 * 4 * 8 * 8).reshape(2, 4, 8, 8)
    with torch.no_grad():
        noise = model.unet(z, 500, torch.linspace(-1, 1, states.numel()).reshape(states.shape), return_dict=False)[0]
    images = np.arange(2 * 32 * 32 * 3, dtype=np.uint32).reshape(2, 32, 32, 3).astype(np.uint8)
    return {"unet": noise, "vae": model.encode(images), "text_encoder": states}


def equal(one, two):
    return {part for part in one if torch.equal(one[part], two[part])}


def close(one, two):
    return {part for part in one if torch.allclose(one[part], two[part], rtol=0, atol=1e-6)}
