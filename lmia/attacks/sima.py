"""SimA: how much noise does the target see in the clean latent?

Paper: SimA: score-based membership inference on diffusion models (2025).
Equation: score = -||eps_th(z0, t, c)||_p, with z0 itself and not a noised latent.
Access: eps, one evaluation. Caption of the picture, no guidance. Nothing is random.
Sign: lower = member, hence minus.
Deviations: none.
"""

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from lmia.attacks import ATTACKS, Attack
from lmia.attacks.norms import norm_p
from lmia.specs import Spec

if TYPE_CHECKING:
    from lmia.data.pictures import Pictures


class SimaSpec(Spec):
    """Where on the schedule, and which norm."""

    t: int = Field(100, ge=0, le=999, description="timestep that the target is told")
    p: float = Field(4.0, ge=1, description="order of the norm")


@ATTACKS.register("sima")
class Sima(Attack):
    """Minus the norm of the noise prediction at the clean latent."""

    version = 1
    Spec = SimaSpec
    access = "eps"
    needs = frozenset({"model"})
    paper = "SimA 2025"

    @classmethod
    def evaluations(cls, spec: SimaSpec) -> dict[Hashable, int]:
        """At z0."""
        return {("eps", spec.t): 1}

    @classmethod
    def score_batch(
        cls, spec: SimaSpec, query: "Pictures", *, prepared: Any, probe: Any, base: Any, device: str
    ) -> np.ndarray:
        """-||eps_th(z0, t, c)||_p."""
        return -norm_p(probe.eps_clean(spec.t), spec.p)
