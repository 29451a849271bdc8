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

from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from lmia.attacks import ATTACKS, Attack, Learned, Progress, Shadow, need, silent
from lmia.attacks.scoring import Labelled, on_shadows
from lmia.attacks.trees import decide_trees, fit_trees
from lmia.specs import RequestError, Spec

if TYPE_CHECKING:
    from lmia.data.pictures import Pictures


class ClidSpec(Spec):
    """Where on the schedule."""

    timesteps: tuple[int, ...] = Field((485, 495, 505), min_length=1, description="timesteps, one noise each")


class _Clid(Attack):
    """What both forms share."""

    access = "eps"
    needs = frozenset({"model", "captions", "shadow"})
    learns = True
    paper = "Zhai et al., NeurIPS 2024"

    @classmethod
    def evaluations(cls, spec: ClidSpec) -> dict[Hashable, int]:
        """The caption and its four reductions at each timestep."""
        captions = (None, "first third", "middle third", "last third", "")
        return {("loss", t, i, c): 1 for i, t in enumerate(spec.timesteps) for c in captions}

    @classmethod
    def check(cls, spec: ClidSpec, captions: Mapping[str, str | None]) -> None:
        """Refuses captions that cannot be cut into three."""
        for record, caption in captions.items():
            words = len((caption or "").split())
            if words < 3:
                raise RequestError(
                    f"attack {cls.name!r} cuts captions into thirds: that of {record!r} has {words} words, under 3"
                )


@ATTACKS.register("clid")
class Clid(_Clid):
    """The combination of the likelihood discrepancy and the loss."""

    version = 1
    Spec = ClidSpec

    @classmethod
    def fit(
        cls,
        spec: ClidSpec,
        inputs: Mapping[str, Any],
        *,
        device: str = "cpu",
        partial: Path | None = None,
        on_progress: Progress = silent,
    ) -> Learned:
        """Robust scales of D and -L(c), and the alpha with the best AUC, on shadow targets."""
        import torch
        from sklearn.metrics import roc_auc_score

        (shadows,) = need(inputs, ("shadow",), cls.name)
        for shadow in shadows:
            cls.check(spec, shadow.members.captions_by_id)
            cls.check(spec, shadow.nonmembers.captions_by_id)
        data = _on_shadows(spec, shadows)
        terms = _terms(data.values)
        low, median, high = np.quantile(terms, [0.25, 0.5, 0.75], axis=0)
        iqr = np.where(high > low, high - low, 1.0)
        scaled = (terms - median) / iqr
        grid = np.linspace(0, 1, 21)
        aucs = np.array([roc_auc_score(data.labels, a * scaled[:, 0] + (1 - a) * scaled[:, 1]) for a in grid])
        best = grid[aucs >= aucs.max()]
        alpha = best[np.argmin(np.abs(best - 0.5))]
        return {name: torch.tensor(value) for name, value in (("median", median), ("iqr", iqr), ("alpha", [alpha]))}

    @classmethod
    def prepare(cls, spec: ClidSpec, learned: Learned | None, *, base: Any, device: str) -> Any:
        """(median, iqr, alpha)."""
        assert learned is not None
        return learned["median"].numpy(), learned["iqr"].numpy(), float(learned["alpha"][0])

    @classmethod
    def score_batch(
        cls, spec: ClidSpec, query: "Pictures", *, prepared: Any, probe: Any, base: Any, device: str
    ) -> np.ndarray:
        """Alpha RS(D) + (1 - alpha) RS(-L(c))."""
        median, iqr, alpha = prepared
        scaled = (_terms(losses(probe, spec.timesteps)) - median) / iqr
        return alpha * scaled[:, 0] + (1 - alpha) * scaled[:, 1]


class ClidVectorSpec(ClidSpec):
    """Where on the schedule, and the boosted trees."""

    trees: int = Field(100, ge=1, description="boosting rounds")
    depth: int = Field(3, ge=1, le=10, description="of each tree")
    rate: float = Field(0.1, gt=0, le=1, description="shrinkage of each tree")
    seed: int = Field(0, ge=0, description="attack seed: ties between features")


@ATTACKS.register("clid_vector")
class ClidVector(_Clid):
    """Boosted trees on the discrepancies and the loss."""

    version = 1
    Spec = ClidVectorSpec

    @classmethod
    def fit(
        cls,
        spec: ClidVectorSpec,
        inputs: Mapping[str, Any],
        *,
        device: str = "cpu",
        partial: Path | None = None,
        on_progress: Progress = silent,
    ) -> Learned:
        """The trees, from shadow targets."""
        import torch

        (shadows,) = need(inputs, ("shadow",), cls.name)
        for shadow in shadows:
            cls.check(spec, shadow.members.captions_by_id)
            cls.check(spec, shadow.nonmembers.captions_by_id)
        data = _on_shadows(spec, shadows)
        trees = fit_trees(
            _vector(data.values), data.labels, trees=spec.trees, depth=spec.depth, rate=spec.rate, seed=spec.seed
        )
        return {name: torch.from_numpy(value) for name, value in trees.items()}

    @classmethod
    def prepare(cls, spec: ClidVectorSpec, learned: Learned | None, *, base: Any, device: str) -> Any:
        """The trees as arrays."""
        assert learned is not None
        return {name: tensor.numpy() for name, tensor in learned.items()}

    @classmethod
    def score_batch(
        cls, spec: ClidVectorSpec, query: "Pictures", *, prepared: Any, probe: Any, base: Any, device: str
    ) -> np.ndarray:
        """The trees' logit."""
        return decide_trees(prepared, _vector(losses(probe, spec.timesteps)))


def reductions(caption: str) -> list[str]:
    """First, middle and last third of a caption's words, and the empty caption."""
    words = caption.split()
    cuts = [round(len(words) * part / 3) for part in range(4)]
    return [" ".join(words[start:end]) for start, end in pairwise(cuts)] + [""]


def losses(probe: Any, timesteps: tuple[int, ...]) -> np.ndarray:
    """L of the caption, then of its four reductions, noise i at timestep i: float64 [N, 5]."""
    cut = list(zip(*(reductions(caption) for caption in probe.captions), strict=True))
    columns = [None, *(list(captions) for captions in cut[:3]), ""]
    return np.stack(
        [np.mean([probe.loss(t, i, captions=c) for i, t in enumerate(timesteps)], axis=0) for c in columns], axis=1
    )


def _on_shadows(spec: ClidSpec, shadows: Sequence[Shadow]) -> Labelled:
    """`losses` of all pictures of shadow targets."""
    return on_shadows(shadows, ("clid", spec.timesteps), lambda probe: losses(probe, spec.timesteps))


def _terms(values: np.ndarray) -> np.ndarray:
    """D and -L(c): [N, 2]."""
    return np.stack([values[:, 1:].mean(axis=1) - values[:, 0], -values[:, 0]], axis=1)


def _vector(values: np.ndarray) -> np.ndarray:
    """The four discrepancies and L(c): [N, 5]."""
    return np.concatenate([values[:, 1:] - values[:, :1], values[:, :1]], axis=1)
