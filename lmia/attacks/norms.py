"""The p-norm that several attacks measure noise predictions with."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def norm_p(u: "torch.Tensor", p: float) -> np.ndarray:
    """(sum |u|^p)^(1/p) over all but the first axis of [N, ...], in double precision: float64 [N]."""
    return u.double().abs().pow(p).flatten(1).sum(dim=1).pow(1 / p).cpu().numpy()
