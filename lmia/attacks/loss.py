"""The Loss attack: members have a lower denoising error.

Paper: Matsumoto, Miura, Yanai (2023); Carlini et al.: Extracting Training Data from Diffusion Models (2023).
Equation: L_t(x) = mean_i mean((e_i - eps_th(a z0 + b e_i, t, c))^2), a = sqrt(abar_t), b = sqrt(1 - abar_t);
    score = -L_t.
Access: eps (predictions of the noise at chosen latents). Caption of the picture, no guidance.
Sign: lower loss = member, hence minus.
Deviations: the noises e_i come from (noise seed, record id, i): the same for every target, condition and attack.
"""

from collections.abc import Hashable

import numpy as np
from pydantic import Field

from lmia.attacks import Attack
from lmia.models.probe import Probe, loss_key


class Loss(Attack, name="loss"):
    """Minus the denoising error at t."""

    version = 1
    paper = "Matsumoto et al. 2023; Carlini et al. 2023"

    t: int = Field(100, ge=0, le=999, description="timestep")
    noises: int = Field(5, ge=1, description="noises averaged over")

    @property
    def evaluations(self) -> dict[Hashable, int]:
        """One per noise."""
        return {loss_key(self.t, i): 1 for i in range(self.noises)}

    def score(self, target: Probe) -> np.ndarray:
        """-L_t."""
        return -mean_loss(target, self.t, self.noises)


def mean_loss(target: Probe, t: int, noises: int) -> np.ndarray:
    """L_t over the first `noises` noises of the target's pictures: float64 [N]."""
    return np.mean([target.loss(t, i) for i in range(noises)], axis=0)
