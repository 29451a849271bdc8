"""What a fine-tuning method is given in each step."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Batch:
    """One training batch, on the model's device."""

    z0: "Tensor"
    """Latents of the pictures: float32 [B, C, H, W]."""
    noise: "Tensor"
    """Standard normal, float32 [B, C, H, W]."""
    t: "Tensor"
    """Timesteps: int64 [B]."""
    condition: "Tensor"
    """Of the captions: [B, L, D]."""
    images: np.ndarray | None = None
    """The pictures, uint8 [B, S, S, 3], when latents are not cached."""
    captions: Sequence[str] = ()
    """When the condition is not cached."""
    extra: "dict[str, Batch]" = field(default_factory=dict)
    """A batch as large of each extra input that the method needs, by its name."""
