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

from collections.abc import Hashable
from typing import ClassVar

import numpy as np
from pydantic import Field

from lmia.attacks import Access
from lmia.attacks.trees import BoostedTrees
from lmia.models.probe import Probe, gradients_key


class Gsa1(BoostedTrees, name="gsa1"):
    """Norms of the gradient of the mean loss."""

    version = 1
    paper = "Pang et al., PoPETs 2025"
    access: ClassVar[Access] = "gradient"
    column: ClassVar[int] = 0

    timesteps: tuple[int, ...] = Field(
        (0, 100, 200, 300, 400, 500, 600, 700, 800, 900), min_length=1, description="timesteps averaged over"
    )

    @property
    def evaluations(self) -> dict[Hashable, int]:
        """One with its backward per timestep; both forms come from the same passes."""
        return {self.measurement: len(self.timesteps)}

    @property
    def measurement(self) -> Hashable:
        """Both forms' norms."""
        return gradients_key(self.timesteps)

    def measure(self, target: Probe) -> np.ndarray:
        """Norms of the mean gradient and mean norms, from the same passes: float64 [N, 2, P]."""
        return target.gradient_norms(self.timesteps)

    def features(self, values: np.ndarray) -> np.ndarray:
        """The norms of this form: float64 [N, P]."""
        return values[:, self.column]


class Gsa2(Gsa1, name="gsa2"):
    """Mean norms of the gradients of the losses."""

    version = 1
    column: ClassVar[int] = 1
