"""SecMI: how exactly does one step of deterministic diffusion undo itself?

Paper: Duan, Kong, Wang, Shi, Xu: Are Diffusion Models Vulnerable to Membership Inference Attacks? (ICML 2023).
Equation: z~_t = deterministic DDIM inversion of z0 along 0, k, .., t; phi = the DDIM step t -> t + k with
    eps_th(z~_t, t, c), psi = the step back t + k -> t with eps_th anew at (phi(z~_t), t + k, c);
    stat: score = -sum((psi(phi(z~_t)) - z~_t)^2). NNs: a ResNet-18 on |psi(phi(z~_t)) - z~_t|, its logit margin.
Access: eps, t/k + 2 evaluations. Caption of the picture, no guidance. Nothing is random.
Sign: lower error = member, hence minus (stat); the margin of "member" (NNs).
Deviations: NNs is trained on shadow targets, never on target labels as in the authors' code; Adam, and the error map
    divided by its mean over the shadow data. The evaluation at t + k is the inversion's own next one, so SecMI at
    several t shares one trajectory; the authors spend 38 evaluations and a VAE decoding on the same score.
"""

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field, model_validator

from lmia.attacks import Attack
from lmia.attacks.networks import ShadowNetwork, small_stem
from lmia.models.probe import Probe, inverted_eps_key

if TYPE_CHECKING:
    import torch


class _Inversion(Attack):
    """What both forms share: where on the schedule, in which steps."""

    paper = "Duan et al., ICML 2023"

    t: int = Field(100, ge=1, le=998, description="timestep at which the error is taken (Shake-to-Leak: 140)")
    k: int = Field(10, ge=1, description="timesteps per DDIM step; divides t")

    @model_validator(mode="after")
    def _fits(self) -> "_Inversion":
        if self.t % self.k:
            raise ValueError(f"t = {self.t} is not a multiple of k = {self.k}")
        if self.t + self.k > 999:
            raise ValueError(f"t + k = {self.t + self.k} is beyond the schedule's last timestep 999")
        return self

    @property
    def evaluations(self) -> dict[Hashable, int]:
        """Along 0, k, .., t, t + k; the first one is at the clean latent."""
        return {inverted_eps_key(step, self.k): 1 for step in range(0, self.t + 2 * self.k, self.k)}


class Secmi(_Inversion, name="secmi"):
    """Minus the squared error of one step up and one step down."""

    version = 1

    def score(self, target: Probe) -> np.ndarray:
        """-sum((psi(phi(z~_t)) - z~_t)^2)."""
        return -(step_error(target, self.t, self.k) ** 2).sum(axis=(1, 2, 3))


class SecmiNns(ShadowNetwork, _Inversion, name="secmi_nns"):
    """A ResNet-18 on SecMI's error map, trained on shadow targets."""

    version = 1
    first_layer = "conv1.weight"

    epochs: int = Field(15, ge=1, description="passes over the shadow data; the last one is kept")

    @property
    def measurement(self) -> Hashable:
        """The error map."""
        return "step error", self.t, self.k

    def measure(self, target: Probe) -> np.ndarray:
        """|psi(phi(z~_t)) - z~_t|: float64 [N, C, H, W]."""
        return np.abs(step_error(target, self.t, self.k))

    def scales(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """The mean of the error maps."""
        return {"scale": np.array([values.mean()])}

    def standardised(self, values: np.ndarray, scales: Mapping[str, np.ndarray]) -> np.ndarray:
        """Error maps in units of their mean."""
        return values / scales["scale"]

    def network(self, channels: int) -> "torch.nn.Module":
        """A ResNet-18 for small maps."""
        import timm

        return small_stem(timm.create_model("resnet18", num_classes=2, in_chans=channels), channels)


def step_error(target: Probe, t: int, k: int) -> np.ndarray:
    """psi(phi(z~_t)) - z~_t: float64 [N, C, H, W]. The steps are taken in double precision: the error is small."""
    z = target.inverted(t, k)[-1].double()
    up = target.ddim(z, target.inverted_eps(t, k).double(), t, t + k)
    down = target.ddim(up, target.inverted_eps(t + k, k).double(), t + k, t)
    return (down - z).cpu().numpy()
