"""The "hidden" watermark of Holme et al.: the logo in the middle at one percent opacity.

It moves a pixel by at most 2 or 3 of 255 grey levels and carries no message: no watermarking algorithm at all. It is
here because the paper's test 12 uses it; `dwtdct` is a watermark that can be read again.
"""

import numpy as np
from pydantic import Field

from lmia.data.marks import MARKS, Watermark
from lmia.data.marks._logo import blend
from lmia.specs import Spec


class HiddenSpec(Spec):
    """How large and how faint the logo is."""

    width: float = Field(350 / 512, gt=0, le=1, description="width of the logo, of the picture's width")
    opacity: float = Field(0.01, gt=0, le=1, description="1 covers the picture")


@MARKS.register("hidden")
class Hidden(Watermark):
    """A logo too faint to be seen."""

    version = 1
    Spec = HiddenSpec

    @staticmethod
    def embed(images: np.ndarray, spec: HiddenSpec) -> np.ndarray:
        """Blends the logo into the middle."""
        edge = (1 - spec.width) / 2
        high, wide = images.shape[1:3]
        return blend(images, edge, 0.5 - spec.width * wide / high / 2, spec.width, spec.opacity)
