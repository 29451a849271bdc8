"""PFAMI: a member sits in a local minimum of the loss, so disturbing it costs more than disturbing a non-member.

Paper: Fu, Wang, Gao, Liu, Li, Jiang: A Probabilistic Fluctuation based Membership Inference Attack for Diffusion
    Models (2023).
Equation: score = mean over crops r and timesteps t of (L_t(crop_r x) - L_t(x)) / L_t(x); L_t = mean over noises of
    mean((e_i - eps_th(a z0 + b e_i, t, c))^2), the same noises e_i for x and all its crops.
Access: eps. Caption of the picture, no guidance. Crops are of the picture (centre, resized back) and encoded anew.
Sign: higher = member.
Deviations: crops are resized with Pillow's bicubic filter.
"""

from collections.abc import Hashable

import numpy as np
from pydantic import Field

from lmia.attacks import Attack
from lmia.attacks.encoders import resized
from lmia.attacks.loss import mean_loss
from lmia.models.probe import Probe, loss_key


class Pfami(Attack, name="pfami"):
    """The mean relative growth of the loss under cropping."""

    version = 1
    paper = "Fu et al. 2023"

    crops: int = Field(10, ge=1, description="centre crops, of sides equally spaced between `largest` and `smallest`")
    largest: float = Field(0.95, gt=0, lt=1, description="side of the largest crop, as a share of the picture's")
    smallest: float = Field(0.70, gt=0, lt=1, description="side of the smallest crop")
    timesteps: tuple[int, ...] = Field((100,), min_length=1, description="timesteps averaged over")
    noises: int = Field(2, ge=1, description="noises that each loss is averaged over")

    @property
    def shares(self) -> list[float]:
        """Sides of the crops, as shares of the picture's."""
        return np.linspace(self.largest, self.smallest, self.crops).tolist()

    @property
    def evaluations(self) -> dict[Hashable, int]:
        """Each noise at each timestep for the picture and each crop."""
        own = {loss_key(t, i): 1 for t in self.timesteps for i in range(self.noises)}
        return own | {self.crop_key(share): len(self.timesteps) * self.noises for share in self.shares}

    def crop_key(self, share: float) -> Hashable:
        """Of `crop_losses`."""
        return "crop losses", share, self.timesteps, self.noises

    def score(self, target: Probe) -> np.ndarray:
        """The mean over crops and timesteps of (L_t(crop x) - L_t(x)) / L_t(x)."""
        own = {t: mean_loss(target, t, self.noises) for t in self.timesteps}
        growth = []
        for share in self.shares:
            cropped = self.crop_losses(target, share)
            growth += [(loss - own[t]) / own[t] for t, loss in zip(self.timesteps, cropped, strict=True)]
        return np.mean(growth, axis=0)

    def crop_losses(self, target: Probe, share: float) -> np.ndarray:
        """L_t of the central crops of the target's pictures, remembered by the Probe: float64 [T, N]."""

        def compute() -> np.ndarray:
            z0 = target.encode(centre_crops(target.images(), share))
            return np.stack(
                [np.mean([target.loss_of(z0, t, i) for i in range(self.noises)], axis=0) for t in self.timesteps]
            )

        return target.once(self.crop_key(share), compute)


def centre_crops(images: np.ndarray, share: float) -> np.ndarray:
    """The central square of side round(share S) of pictures uint8 [N, S, S, 3], resized back to S."""
    size = images.shape[1]
    side = max(1, round(share * size))
    start = (size - side) // 2
    return resized(images[:, start : start + side, start : start + side], size, "bicubic")
