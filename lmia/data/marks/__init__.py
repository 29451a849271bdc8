"""Watermarks: what is put on pictures before a model is tuned on them. A new one is one file here and one decorator."""

from typing import Any, ClassVar

import numpy as np

from lmia.registry import Registry
from lmia.specs import Spec


class Watermark:
    """A mark that can be embedded in pictures; the same picture always gets the same mark."""

    name: ClassVar[str]
    version: ClassVar[int]
    Spec: ClassVar[type[Spec]]

    @staticmethod
    def embed(images: np.ndarray, spec: Any) -> np.ndarray:
        """Marked copies of pictures, uint8 [N, H, W, 3]."""
        raise AssertionError("a watermark defines embed")


MARKS: Registry[type[Watermark]] = Registry("watermark", "lmia.data.marks")
