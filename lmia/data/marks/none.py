"""No watermark."""

import numpy as np

from lmia.data.marks import MARKS, Watermark
from lmia.specs import Spec


class NoneSpec(Spec):
    """Nothing to choose."""


@MARKS.register("none")
class NoMark(Watermark):
    """Pictures as they are."""

    version = 1
    Spec = NoneSpec

    @staticmethod
    def embed(images: np.ndarray, spec: NoneSpec) -> np.ndarray:
        """A copy."""
        return images.copy()
