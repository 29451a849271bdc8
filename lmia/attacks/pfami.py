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
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from lmia.attacks import ATTACKS, Attack
from lmia.attacks.encoders import resized
from lmia.attacks.loss import mean_loss
from lmia.specs import Spec

if TYPE_CHECKING:
    from lmia.data.pictures import Pictures


class PfamiSpec(Spec):
    """Which neighbours a picture is compared with, and where on the schedule."""

    crops: int = Field(10, ge=1, description="centre crops, of sides equally spaced between `largest` and `smallest`")
    largest: float = Field(0.95, gt=0, lt=1, description="side of the largest crop, as a share of the picture's")
    smallest: float = Field(0.70, gt=0, lt=1, description="side of the smallest crop")
    timesteps: tuple[int, ...] = Field((100,), min_length=1, description="timesteps averaged over")
    noises: int = Field(2, ge=1, description="noises that each loss is averaged over")


@ATTACKS.register("pfami")
class Pfami(Attack):
    """The mean relative growth of the loss under cropping."""

    version = 1
    Spec = PfamiSpec
    access = "eps"
    needs = frozenset({"model"})
    paper = "Fu et al. 2023"

    @classmethod
    def evaluations(cls, spec: PfamiSpec) -> dict[Hashable, int]:
        """Each noise at each timestep for the picture and each crop."""
        own: dict[Hashable, int] = {("loss", t, i, None): 1 for t in spec.timesteps for i in range(spec.noises)}
        count = len(spec.timesteps) * spec.noises
        return own | {("crop losses", share, spec.timesteps, spec.noises): count for share in shares(spec)}

    @classmethod
    def score_batch(
        cls, spec: PfamiSpec, query: "Pictures", *, prepared: Any, probe: Any, base: Any, device: str
    ) -> np.ndarray:
        """The mean over crops and timesteps of (L_t(crop x) - L_t(x)) / L_t(x)."""
        own = {t: mean_loss(probe, t, spec.noises) for t in spec.timesteps}
        growth = []
        for share in shares(spec):
            cropped = crop_losses(probe, share, spec.timesteps, spec.noises)
            growth += [(loss - own[t]) / own[t] for t, loss in zip(spec.timesteps, cropped, strict=True)]
        return np.mean(growth, axis=0)


def shares(spec: PfamiSpec) -> list[float]:
    """Sides of the crops, as shares of the picture's."""
    return np.linspace(spec.largest, spec.smallest, spec.crops).tolist()


def centre_crops(images: np.ndarray, share: float) -> np.ndarray:
    """The central square of side round(share S) of pictures uint8 [N, S, S, 3], resized back to S."""
    size = images.shape[1]
    side = max(1, round(share * size))
    start = (size - side) // 2
    return resized(images[:, start : start + side, start : start + side], size, "bicubic")


def crop_losses(probe: Any, share: float, timesteps: tuple[int, ...], noises: int) -> np.ndarray:
    """L_t of the central crops of the pictures at hand, remembered by the Probe: float64 [T, N]."""

    def compute() -> np.ndarray:
        z0 = probe.encode(centre_crops(probe.images(), share))
        return np.stack([np.mean([probe.loss(t, i, z0=z0) for i in range(noises)], axis=0) for t in timesteps])

    return probe.once(("crop losses", share, timesteps, noises), compute)
