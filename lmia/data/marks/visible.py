"""A visible logo in the corner, as in Holme et al.

Their code pastes the university's logo, 100 pixels wide, at (5, 5) from the top left of 512 x 512 pictures (the paper
says top right); here it is our own logo, and sizes scale with the picture.
"""

import numpy as np
from pydantic import Field

from lmia.data.marks import MARKS, Watermark
from lmia.data.marks._logo import blend
from lmia.specs import Spec


class VisibleSpec(Spec):
    """Where the logo is and how large."""

    width: float = Field(100 / 512, gt=0, le=1, description="width of the logo, of the picture's width")
    offset: float = Field(5 / 512, ge=0, lt=1, description="distance from the left and the upper edge")
    opacity: float = Field(1.0, gt=0, le=1, description="1 covers the picture")


@MARKS.register("visible")
class Visible(Watermark):
    """A logo at the top left."""

    version = 1
    Spec = VisibleSpec

    @staticmethod
    def embed(images: np.ndarray, spec: VisibleSpec) -> np.ndarray:
        """Covers the corner with the logo."""
        return blend(images, spec.offset, spec.offset, spec.width, spec.opacity)
