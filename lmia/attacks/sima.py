"""SimA: how much noise does the target see in the clean latent?

Paper: SimA: score-based membership inference on diffusion models (2025).
Equation: score = -||eps_th(z0, t, c)||_p, with z0 itself and not a noised latent.
Access: eps, one evaluation. Caption of the picture, no guidance. Nothing is random.
Sign: lower = member, hence minus.
Deviations: none.
"""

from collections.abc import Hashable

import numpy as np
from pydantic import Field

from lmia.attacks import Attack
from lmia.attacks.norms import norm_p
from lmia.models.probe import Probe, eps_clean_key


class Sima(Attack, name="sima"):
    """Minus the norm of the noise prediction at the clean latent."""

    version = 1
    paper = "SimA 2025"

    t: int = Field(100, ge=0, le=999, description="timestep that the target is told")
    p: float = Field(4.0, ge=1, description="order of the norm")

    @property
    def evaluations(self) -> dict[Hashable, int]:
        """At z0."""
        return {eps_clean_key(self.t): 1}

    def score(self, target: Probe) -> np.ndarray:
        """-||eps_th(z0, t, c)||_p."""
        return -norm_p(target.eps_clean(self.t), self.p)
