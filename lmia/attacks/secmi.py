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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, model_validator

from lmia.attacks import ATTACKS, Attack, Learned, Progress, need, silent
from lmia.attacks.networks import restored, seeded, train_classifier
from lmia.attacks.scoring import on_shadows
from lmia.specs import Spec

if TYPE_CHECKING:
    from lmia.data.pictures import Pictures


class SecmiSpec(Spec):
    """Where on the schedule, in which steps."""

    t: int = Field(100, ge=1, le=998, description="timestep at which the error is taken (Shake-to-Leak: 140)")
    k: int = Field(10, ge=1, description="timesteps per DDIM step; divides t")

    @model_validator(mode="after")
    def _fits(self) -> "SecmiSpec":
        if self.t % self.k:
            raise ValueError(f"t = {self.t} is not a multiple of k = {self.k}")
        if self.t + self.k > 999:
            raise ValueError(f"t + k = {self.t + self.k} is beyond the schedule's last timestep 999")
        return self


@ATTACKS.register("secmi")
class Secmi(Attack):
    """Minus the squared error of one step up and one step down."""

    version = 1
    Spec = SecmiSpec
    access = "eps"
    needs = frozenset({"model"})
    paper = "Duan et al., ICML 2023"

    @classmethod
    def evaluations(cls, spec: SecmiSpec) -> dict[Hashable, int]:
        """t/k to invert, one at t, one at t + k."""
        return inversion(spec)

    @classmethod
    def score_batch(
        cls, spec: SecmiSpec, query: "Pictures", *, prepared: Any, probe: Any, base: Any, device: str
    ) -> np.ndarray:
        """-sum((psi(phi(z~_t)) - z~_t)^2)."""
        return -(step_error(probe, spec.t, spec.k) ** 2).sum(axis=(1, 2, 3))


class SecmiNnsSpec(SecmiSpec):
    """SecMI's error map and the network that judges it."""

    lr: float = Field(1e-3, gt=0, description="Adam learning rate")
    batch: int = Field(32, ge=2, description="error maps per step")
    epochs: int = Field(15, ge=1, description="passes over the shadow data; the last one is kept")
    seed: int = Field(0, ge=0, description="attack seed: weights and order")


@ATTACKS.register("secmi_nns")
class SecmiNns(Attack):
    """A ResNet-18 on SecMI's error map, trained on shadow targets."""

    version = 1
    Spec = SecmiNnsSpec
    access = "eps"
    needs = frozenset({"model", "shadow"})
    learns = True
    paper = "Duan et al., ICML 2023"

    @classmethod
    def evaluations(cls, spec: SecmiNnsSpec) -> dict[Hashable, int]:
        """As SecMI."""
        return inversion(spec)

    @classmethod
    def fit(
        cls,
        spec: SecmiNnsSpec,
        inputs: Mapping[str, Any],
        *,
        device: str = "cpu",
        partial: Path | None = None,
        on_progress: Progress = silent,
    ) -> Learned:
        """The network's state and the scale of the error maps."""
        import torch

        (shadows,) = need(inputs, ("shadow",), cls.name)
        maps = on_shadows(
            shadows, ("step error", spec.t, spec.k), lambda probe: np.abs(step_error(probe, spec.t, spec.k))
        )
        scale = float(maps.values.mean())
        x = torch.from_numpy(maps.values / scale).float().to(device)
        state = train_classifier(
            _network(spec, x.shape[1]).to(device),
            lambda rows: x[torch.from_numpy(rows).to(x.device)],
            maps.keys,
            maps.labels.tolist(),
            lr=spec.lr,
            batch=spec.batch,
            epochs=spec.epochs,
            seed=spec.seed,
            task=spec.resolved(),
            device=device,
            partial=partial,
            on_progress=on_progress,
        )
        return {f"network.{name}": tensor for name, tensor in state.items()} | {
            "scale": torch.tensor([scale], dtype=torch.float64)
        }

    @classmethod
    def prepare(cls, spec: SecmiNnsSpec, learned: Learned | None, *, base: Any, device: str) -> Any:
        """(network in eval mode, scale)."""
        assert learned is not None
        state = {name.removeprefix("network."): value for name, value in learned.items() if name != "scale"}
        network = restored(lambda: _network(spec, state["conv1.weight"].shape[1]), state)
        return network.to(device), float(learned["scale"][0])

    @classmethod
    def score_batch(
        cls, spec: SecmiNnsSpec, query: "Pictures", *, prepared: Any, probe: Any, base: Any, device: str
    ) -> np.ndarray:
        """The logit margin, member minus non-member."""
        import torch

        network, scale = prepared
        x = torch.from_numpy(np.abs(step_error(probe, spec.t, spec.k)) / scale).float().to(device)
        with torch.inference_mode():
            logits = network(x).double()
        return (logits[:, 1] - logits[:, 0]).cpu().numpy()


def inversion(spec: SecmiSpec) -> dict[Hashable, int]:
    """The evaluations along 0, k, .., t, t + k; the first one is at the clean latent."""
    return {
        ("eps", 0) if step == 0 else ("inverted", spec.k, step): 1 for step in range(0, spec.t + 2 * spec.k, spec.k)
    }


def step_error(probe: Any, t: int, k: int) -> np.ndarray:
    """psi(phi(z~_t)) - z~_t: float64 [N, C, H, W]. The steps are taken in double precision: the error is small."""
    z = probe.inverted(t, k)[-1].double()
    up = probe.ddim(z, probe.inverted_eps(t, k).double(), t, t + k)
    down = probe.ddim(up, probe.inverted_eps(t + k, k).double(), t + k, t)
    return (down - z).cpu().numpy()


def _network(spec: SecmiNnsSpec, channels: int) -> Any:
    """A ResNet-18 for small maps: 3 x 3 stride 1 first, no max-pool."""

    def make() -> Any:
        import timm
        import torch

        network = timm.create_model("resnet18", num_classes=2, in_chans=channels)
        network.conv1 = torch.nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
        network.maxpool = torch.nn.Identity()
        return network

    return seeded(spec.seed, make)
