"""The p-norm that several attacks measure noise predictions with."""

from typing import Any

import numpy as np


def norm_p(u: Any, p: float) -> np.ndarray:
    """(sum |u|^p)^(1/p) over all but the first axis of a tensor [N, ...], in double precision: float64 [N]."""
    return u.double().abs().pow(p).flatten(1).sum(dim=1).pow(1 / p).cpu().numpy()
