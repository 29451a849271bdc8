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
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from lmia.attacks import ATTACKS, Attack
from lmia.attacks.norms import norm_p
from lmia.specs import Spec

if TYPE_CHECKING:
    from lmia.data.pictures import Pictures


class PiaSpec(Spec):
    """Where on the schedule, and which norm."""

    t: int = Field(200, ge=1, le=999, description="timestep")
    p: float = Field(4.0, ge=1, description="order of the norm")


@ATTACKS.register("pia")
class Pia(Attack):
    """Minus the error of predicting the target's own first prediction."""

    version = 1
    Spec = PiaSpec
    access = "eps"
    needs = frozenset({"model"})
    paper = "Kong et al., ICLR 2024"

    @classmethod
    def evaluations(cls, spec: PiaSpec) -> dict[Hashable, int]:
        """At z0 and at z_t."""
        return {("eps", 0): 1, (cls.name, spec.t): 1}

    @classmethod
    def score_batch(
        cls, spec: PiaSpec, query: "Pictures", *, prepared: Any, probe: Any, base: Any, device: str
    ) -> np.ndarray:
        """-||e0 - eps_th(a z0 + b e0, t, c)||_p."""
        return _score(probe, probe.eps_clean(0), spec, cls.name)


@ATTACKS.register("pian")
class Pian(Attack):
    """PIA with the first prediction scaled to a standard normal's mean modulus."""

    version = 1
    Spec = PiaSpec
    access = "eps"
    needs = frozenset({"model"})
    paper = "Kong et al., ICLR 2024"

    @classmethod
    def evaluations(cls, spec: PiaSpec) -> dict[Hashable, int]:
        """At z0 and at z_t."""
        return {("eps", 0): 1, (cls.name, spec.t): 1}

    @classmethod
    def score_batch(
        cls, spec: PiaSpec, query: "Pictures", *, prepared: Any, probe: Any, base: Any, device: str
    ) -> np.ndarray:
        """As PIA, with the normalised e0 in both places."""
        e0 = probe.eps_clean(0)
        modulus = e0.abs().mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
        return _score(probe, e0 * ((2 / np.pi) ** 0.5 / modulus), spec, cls.name)


def _score(probe: Any, e0: Any, spec: PiaSpec, name: str) -> np.ndarray:
    again = probe.once((name, spec.t), lambda: probe.eps(probe.diffuse(spec.t, e0), spec.t, probe.text()))
    return -norm_p(e0 - again, spec.p)
