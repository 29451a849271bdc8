"""ReDiffuse: a member survives being noised a little and denoised again.

Paper: Li et al.: Towards Black-Box Membership Inference Attack for Diffusion Models (ICML 2025).
Equation: y_i = D(denoise_t(a z0 + b e_i)), i = 1 .. n, by t/k deterministic DDIM steps; score = SSIM(x, mean_i y_i)
    on luminance.
Access: img2img (the caller gives a picture, a strength and a prompt). Caption of the picture, guidance 1.
Sign: higher = member.
Deviations: none known. `rediffuse_vae` is its control: SSIM(x, D(E(x))), which the U-Net has no part in. Whatever the
    control achieves is the VAE's doing (how hard the picture is to reconstruct) and not membership.
"""

from collections.abc import Hashable
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field, model_validator

from lmia.attacks import Access, Attack
from lmia.models.probe import Probe, vary_key

if TYPE_CHECKING:
    import torch


class Rediffuse(Attack, name="rediffuse"):
    """SSIM of the picture with the mean of its variations."""

    version = 1
    paper = "Li et al., ICML 2025"
    access: ClassVar[Access] = "img2img"

    n: int = Field(10, ge=1, description="variations averaged over")
    t: int = Field(50, ge=1, le=999, description="timestep up to which noise is added")
    k: int = Field(10, ge=1, description="timesteps per denoising step; divides t")

    @model_validator(mode="after")
    def _divides(self) -> "Rediffuse":
        if self.t % self.k:
            raise ValueError(f"t = {self.t} is not a multiple of k = {self.k}")
        return self

    @property
    def evaluations(self) -> dict[Hashable, int]:
        """t/k steps for each variation."""
        return {vary_key(self.t, self.k, i): self.t // self.k for i in range(self.n)}

    def score(self, target: Probe) -> np.ndarray:
        """SSIM(x, mean_i y_i)."""
        variations = [target.vary(self.t, self.k, i).double() for i in range(self.n)]
        return similarity(target, sum(variations[1:], variations[0]) / self.n)


class RediffuseVae(Attack, name="rediffuse_vae"):
    """SSIM of the picture with its VAE round trip: ReDiffuse's control."""

    version = 1
    paper = "control for Li et al., ICML 2025"
    role = "control"
    access: ClassVar[Access] = "img2img"

    def score(self, target: Probe) -> np.ndarray:
        """SSIM(x, D(E(x)))."""
        return similarity(target, target.decode(target.z0()).double())


def similarity(target: Probe, pixels: "torch.Tensor") -> np.ndarray:
    """SSIM on luminance of the target's pictures with others [N, 3, S, S] in [-1, 1]."""
    x = np.moveaxis(target.images().astype(np.float64) / 255, 3, 1)
    return ssim(luminance(x), luminance((pixels.cpu().numpy() + 1) / 2))


def luminance(x: np.ndarray) -> np.ndarray:
    """Rec. 601 luma of RGB [N, 3, H, W]: [N, H, W]."""
    return np.einsum("nchw,c->nhw", x, [0.299, 0.587, 0.114])


def ssim(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Mean structural similarity of grey pictures [N, H, W] in [0, 1]: float64 [N].

    Wang et al. 2004: Gaussian window of 11 x 11 with sigma 1.5, K1 = .01, K2 = .03, where the window fits.
    """
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets**2) / (2 * 1.5**2))
    window /= window.sum()

    def smooth(a: np.ndarray) -> np.ndarray:
        for axis in (1, 2):
            a = np.lib.stride_tricks.sliding_window_view(a, len(window), axis=axis) @ window
        return a

    c1, c2 = 0.01**2, 0.03**2
    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    covariance = smooth(x * y) - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return (numerator / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean(axis=(1, 2))
