"""GSA: the gradients that a picture asks for tell whether the target has already followed them.

Paper: Pang, Wang, Kang, Huai, Zhang: White-box Membership Inference Attacks against Diffusion Models (PoPETs 2025).
Equation: g_j = ||d/d theta_j mean_t L_t(x)||_2 for each parameter tensor j of the U-Net (GSA1, one gradient), or
    mean over t of ||d L_t(x) / d theta_j||_2 (GSA2, one per timestep); score = logit of boosted trees on
    (g_1, .., g_P), fitted on shadow targets.
Access: gradient (white box). Caption of the picture, no guidance.
Sign: the logit of "member": higher = member.
Deviations: scikit-learn's boosted trees instead of XGBoost. LoRA targets are loaded merged, so these are gradients in
    the merged weights and not in the adapter's. 10 timesteps equally spaced over the schedule, one noise for all.
"""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from lmia.attacks import ATTACKS, Attack, Learned, Progress, need, silent
from lmia.attacks.scoring import on_shadows
from lmia.attacks.trees import decide_trees, fit_trees
from lmia.specs import Spec

if TYPE_CHECKING:
    from lmia.data.pictures import Pictures


class GsaSpec(Spec):
    """Where on the schedule, and the boosted trees."""

    timesteps: tuple[int, ...] = Field(
        (0, 100, 200, 300, 400, 500, 600, 700, 800, 900), min_length=1, description="timesteps averaged over"
    )
    trees: int = Field(100, ge=1, description="boosting rounds")
    depth: int = Field(3, ge=1, le=10, description="of each tree")
    rate: float = Field(0.1, gt=0, le=1, description="shrinkage of each tree")
    seed: int = Field(0, ge=0, description="attack seed: ties between features")


class _Gsa(Attack):
    """What both forms share."""

    Spec = GsaSpec
    access = "gradient"
    needs = frozenset({"model", "shadow"})
    learns = True
    paper = "Pang et al., PoPETs 2025"
    per_timestep: bool

    @classmethod
    def evaluations(cls, spec: GsaSpec) -> dict[Hashable, int]:
        """One with its backward per timestep; both forms come from the same passes."""
        return {("gradients", spec.timesteps): len(spec.timesteps)}

    @classmethod
    def fit(
        cls,
        spec: GsaSpec,
        inputs: Mapping[str, Any],
        *,
        device: str = "cpu",
        partial: Path | None = None,
        on_progress: Progress = silent,
    ) -> Learned:
        """The trees, from the gradient norms on shadow targets."""
        import torch

        (shadows,) = need(inputs, ("shadow",), cls.name)
        data = on_shadows(shadows, ("gradients", spec.timesteps), lambda probe: _both_norms(spec, probe))
        x = data.values[:, int(cls.per_timestep)]
        trees = fit_trees(x, data.labels, trees=spec.trees, depth=spec.depth, rate=spec.rate, seed=spec.seed)
        return {name: torch.from_numpy(value) for name, value in trees.items()}

    @classmethod
    def prepare(cls, spec: GsaSpec, learned: Learned | None, *, base: Any, device: str) -> Any:
        """The trees as arrays."""
        assert learned is not None
        return {name: tensor.numpy() for name, tensor in learned.items()}

    @classmethod
    def score_batch(
        cls, spec: GsaSpec, query: "Pictures", *, prepared: Any, probe: Any, base: Any, device: str
    ) -> np.ndarray:
        """The trees' logit."""
        return decide_trees(prepared, probe.gradient_norms(spec.timesteps, per_timestep=cls.per_timestep))


@ATTACKS.register("gsa1")
class Gsa1(_Gsa):
    """Norms of the gradient of the mean loss."""

    version = 1
    per_timestep = False


@ATTACKS.register("gsa2")
class Gsa2(_Gsa):
    """Mean norms of the gradients of the losses."""

    version = 1
    per_timestep = True


def _both_norms(spec: GsaSpec, probe: Any) -> np.ndarray:
    """Norms of the mean gradient and mean norms, from the same passes: float64 [N, 2, P]."""
    return np.stack([probe.gradient_norms(spec.timesteps, per_timestep=each) for each in (False, True)], axis=1)
