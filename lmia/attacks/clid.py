"""CLiD: a member's loss suffers more when its caption is cut, since the target learned the pair.

Paper: Zhai, Chen, Dong, Li, Hu, et al.: Membership Inference on Text-to-Image Diffusion Models via Conditional
    Likelihood Discrepancy (NeurIPS 2024).
Equation: L(c) = mean over t of mean((e_t - eps_th(a z0 + b e_t, t, c))^2), the same noises for all captions;
    D = mean over c* of L(c*) - L(c), c* = the first, middle and last third of the caption's words, and "".
    threshold: score = alpha RS(D) + (1 - alpha) RS(-L(c)), RS(v) = (v - median) / IQR, with medians, IQRs and alpha
    from shadow targets. vector: boosted trees on (L(c*_1) - L(c), .., L(c*_4) - L(c), L(c)), fitted on shadow targets.
Access: eps with captions of the caller's choice, 5 evaluations per timestep. No guidance.
Sign: higher = member.
Deviations: everything fitted is fitted on shadow targets, never on the pictures that are scored; scikit-learn's boosted
    trees instead of XGBoost. Captions of fewer than 3 words are refused.
"""

from collections.abc import Callable, Hashable, Mapping
from itertools import pairwise

import numpy as np
from pydantic import Field

from lmia.attacks import FitInputs, FitRun, Learned, Need, to_tensors
from lmia.attacks.shadows import Labelled, ShadowTrained
from lmia.attacks.trees import BoostedTrees
from lmia.models.probe import Captions, Probe, loss_key
from lmia.specs import RequestError


class _Clid(ShadowTrained):
    """What both forms share: where on the schedule."""

    paper = "Zhai et al., NeurIPS 2024"

    timesteps: tuple[int, ...] = Field((485, 495, 505), min_length=1, description="timesteps, one noise each")

    @property
    def needs(self) -> frozenset[Need]:
        """As all that are shadow-trained, and captions."""
        return super().needs | {"captions"}

    @property
    def evaluations(self) -> dict[Hashable, int]:
        """The caption and its four reductions at each timestep."""
        return {loss_key(t, i, c): 1 for i, t in enumerate(self.timesteps) for c in (None, *REDUCTIONS)}

    @property
    def measurement(self) -> Hashable:
        """The losses under all captions."""
        return "clid", self.timesteps

    def check(self, captions: Mapping[str, str | None]) -> None:
        """Refuses captions that cannot be cut into three."""
        for record, caption in captions.items():
            words = len((caption or "").split())
            if words < 3:
                raise RequestError(
                    f"attack {self.name!r} cuts captions into thirds: that of {record!r} has {words} words, under 3"
                )

    def measure(self, target: Probe) -> np.ndarray:
        """L of the caption, then of its four reductions, noise i at timestep i: float64 [N, 5]."""
        return np.stack(
            [
                np.mean([target.loss(t, i, c) for i, t in enumerate(self.timesteps)], axis=0)
                for c in (None, *REDUCTIONS)
            ],
            axis=1,
        )

    def fit(self, inputs: FitInputs, run: FitRun) -> Learned:
        """As any shadow-trained attack, on captions that can be cut."""
        for shadow in inputs.shadows:
            self.check(shadow.members.captions_by_id)
            self.check(shadow.nonmembers.captions_by_id)
        return super().fit(inputs, run)


class Clid(_Clid, name="clid"):
    """The combination of the likelihood discrepancy and the loss."""

    version = 1

    def learn(self, data: Labelled, run: FitRun) -> Learned:
        """Robust scales of D and -L(c), and the alpha with the best AUC."""
        from sklearn.metrics import roc_auc_score

        terms = _terms(data.values)
        low, median, high = np.quantile(terms, [0.25, 0.5, 0.75], axis=0)
        iqr = np.where(high > low, high - low, 1.0)
        scaled = (terms - median) / iqr
        grid = np.linspace(0, 1, 21)
        aucs = np.array([roc_auc_score(data.labels, a * scaled[:, 0] + (1 - a) * scaled[:, 1]) for a in grid])
        best = grid[aucs >= aucs.max()]
        return to_tensors({"median": median, "iqr": iqr, "alpha": best[np.argmin(np.abs(best - 0.5))]})

    def decision(self, learned: Learned, device: str) -> Callable[[np.ndarray], np.ndarray]:
        """Alpha RS(D) + (1 - alpha) RS(-L(c))."""
        median, iqr, alpha = learned["median"].numpy(), learned["iqr"].numpy(), float(learned["alpha"][0])

        def decide(values: np.ndarray) -> np.ndarray:
            scaled = (_terms(values) - median) / iqr
            return alpha * scaled[:, 0] + (1 - alpha) * scaled[:, 1]

        return decide


class ClidVector(_Clid, BoostedTrees, name="clid_vector"):
    """Boosted trees on the discrepancies and the loss."""

    version = 1

    def features(self, values: np.ndarray) -> np.ndarray:
        """The four discrepancies and L(c): [N, 5]."""
        return np.concatenate([values[:, 1:] - values[:, :1], values[:, :1]], axis=1)


def third(number: int) -> Callable[[str], str]:
    """The first, middle or last (0, 1, 2) third of a caption's words."""

    def cut(caption: str) -> str:
        words = caption.split()
        start, end = list(pairwise(round(len(words) * part / 3) for part in range(4)))[number]
        return " ".join(words[start:end])

    return cut


REDUCTIONS = (
    *(Captions(f"{name} third", third(number)) for number, name in enumerate(("first", "middle", "last"))),
    Captions("empty", lambda caption: ""),
)
"""What a caption is cut to."""


def _terms(values: np.ndarray) -> np.ndarray:
    """D and -L(c): [N, 2]."""
    return np.stack([values[:, 1:].mean(axis=1) - values[:, 0], -values[:, 0]], axis=1)
