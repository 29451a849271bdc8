"""Watermarks: what is put on pictures before a model is tuned on them. A new one is one file here and one decorator."""

from typing import Any, ClassVar

import numpy as np

from lmia.data.pictures import Pictures, encode_png
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


def marked(pictures: Pictures, mark: str, spec: Any) -> Pictures:
    """The same table with a mark in every picture; ids and all other columns stay."""
    images = MARKS.get(mark).embed(pictures.images(), spec)
    return pictures.with_columns(image=[encode_png(image) for image in images])


def psnr(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each picture in dB (float64 [N]); infinite for equal pictures."""
    error = ((images.astype(np.float64) - others) ** 2).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255.0**2 / error)
