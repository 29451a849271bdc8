"""The Loss attack: members have a lower denoising error.

Paper: Matsumoto, Miura, Yanai (2023); Carlini et al.: Extracting Training Data from Diffusion Models (2023).
Equation: L_t(x) = mean_i mean((e_i - eps_th(a z0 + b e_i, t, c))^2), a = sqrt(abar_t), b = sqrt(1 - abar_t);
    score = -L_t.
Access: eps (predictions of the noise at chosen latents). Caption of the picture, no guidance.
Sign: lower loss = member, hence minus.
Deviations: the noises e_i come from (noise seed, record id, i): the same for every target, condition and attack.
"""

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from lmia.attacks import ATTACKS, Attack
from lmia.specs import Spec

if TYPE_CHECKING:
    from lmia.data.pictures import Pictures
    from lmia.models.probe import Probe


class LossSpec(Spec):
    """Where on the schedule, and how many noises."""

    t: int = Field(100, ge=0, le=999, description="timestep")
    noises: int = Field(5, ge=1, description="noises averaged over")


@ATTACKS.register("loss")
class Loss(Attack):
    """Minus the denoising error at t."""

    version = 1
    Spec = LossSpec
    access = "eps"
    needs = frozenset({"model"})
    paper = "Matsumoto et al. 2023; Carlini et al. 2023"

    @classmethod
    def evaluations(cls, spec: LossSpec) -> dict[Hashable, int]:
        """One per noise."""
        return {("loss", spec.t, i, None): 1 for i in range(spec.noises)}

    @classmethod
    def score_batch(
        cls, spec: LossSpec, query: "Pictures", *, prepared: Any, probe: Any, base: Any, device: str
    ) -> np.ndarray:
        """-L_t."""
        return -mean_loss(probe, spec.t, spec.noises)


def mean_loss(probe: "Probe", t: int, noises: int) -> np.ndarray:
    """L_t over the first `noises` noises of the pictures at hand: float64 [N]."""
    return np.mean([probe.loss(t, i) for i in range(noises)], axis=0)


def t_profile(probe: "Probe", query: "Pictures", timesteps: Sequence[int], noises: int = 5) -> np.ndarray:
    """The loss over the schedule, -L_t for each t with the same noises: float64 [T, N], higher = member."""
    profile = np.empty((len(timesteps), len(query)))
    for start in range(0, len(query), probe.batch):
        rows = slice(start, min(start + probe.batch, len(query)))
        probe.show(query.take(list(range(rows.start, rows.stop))))
        for k, t in enumerate(timesteps):
            profile[k, rows] = -mean_loss(probe, t, noises)
    return profile
