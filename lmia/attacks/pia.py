"""PIA and PIAN: the target's own first noise prediction stands for the noise.

Paper: Kong, Duan, Ma, Shen, Shi, Zhu, Xu: An Efficient Membership Inference Attack for the Diffusion Model by
    Proximal Initialization (ICLR 2024).
Equation: e0 = eps_th(z0, 0, c); score = -||e0 - eps_th(a z0 + b e0, t, c)||_p, a = sqrt(abar_t), b = sqrt(1 - abar_t).
    PIAN: e0 sqrt(2/pi) / mean|e0| stands in both places of e0, so that it has a standard normal's mean modulus.
Access: eps, two evaluations. Caption of the picture, no guidance. Nothing is random.
Sign: lower = member, hence minus.
Deviations: the paper prints sqrt(pi/2) in PIAN; only sqrt(2/pi) matches E|N(0,1)|.
"""

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from lmia.attacks import Attack
from lmia.attacks.norms import norm_p
from lmia.models.probe import Probe, eps_clean_key

if TYPE_CHECKING:
    import torch


class Pia(Attack, name="pia"):
    """Minus the error of predicting the target's own first prediction."""

    version = 1
    paper = "Kong et al., ICLR 2024"

    t: int = Field(200, ge=1, le=999, description="timestep")
    p: float = Field(4.0, ge=1, description="order of the norm")

    @property
    def evaluations(self) -> dict[Hashable, int]:
        """At z0 and at z_t."""
        return {eps_clean_key(0): 1, self.again_key: 1}

    @property
    def again_key(self) -> Hashable:
        """Of eps_th(a z0 + b e0, t, c)."""
        return self.name, self.t

    def first(self, target: Probe) -> "torch.Tensor":
        """e0."""
        return target.eps_clean(0)

    def score(self, target: Probe) -> np.ndarray:
        """-||e0 - eps_th(a z0 + b e0, t, c)||_p."""
        e0 = self.first(target)
        again = target.once(self.again_key, lambda: target.eps(target.diffuse(self.t, e0), self.t, target.text()))
        return -norm_p(e0 - again, self.p)


class Pian(Pia, name="pian"):
    """PIA with the first prediction scaled to a standard normal's mean modulus."""

    version = 1

    def first(self, target: Probe) -> "torch.Tensor":
        """The normalised e0."""
        e0 = target.eps_clean(0)
        modulus = e0.abs().mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
        return e0 * ((2 / np.pi) ** 0.5 / modulus)
