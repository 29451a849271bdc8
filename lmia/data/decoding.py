"""Encoded pictures to uint8 RGB, as trainers read them; what has no one meaning in 8 bit is refused by its name.

Eight bits a channel are taken as they are, sixteen by their high byte, in grey as in colour (what Pillow does with
colour; its own conversion of 16-bit grey cuts all that is above 255 and makes a white picture). Whole numbers and
floats of 32 bit name no white, so nothing says how bright they are. An alpha channel is dropped and a colour profile
ignored, as trainers' own `convert("RGB")` does.
"""

import functools
import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lmia.specs import RequestError

SUFFIXES = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".avif", ".avifs", ".heic", ".heif", ".hif"),
    *(".bmp", ".dib", ".gif", ".tif", ".tiff", ".jp2", ".j2k", ".jpx", ".pbm", ".pgm", ".ppm", ".pnm"),
    *(".pcx", ".qoi", ".ras", ".sgi", ".tga"),
}
"""Endings of files that are read as pictures."""
ONE_OF_SEVERAL = ("MPO", "ICNS")
"""Formats that hold the same picture several times; in the others further frames are other pictures."""


@functools.cache
def _register_plugins() -> None:
    from pillow_heif import register_heif_opener

    register_heif_opener()


def decode(data: bytes, name: str) -> np.ndarray:
    """One encoded picture as uint8 [H, W, 3] RGB, turned upright.

    Args:
        data: the file's bytes, in any format that Pillow or pillow-heif reads.
        name: what an error calls it.

    Raises:
        RequestError: it cannot be read, or its numbers have no one meaning in 8 bit.
    """
    _register_plugins()
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(_rgb(ImageOps.exif_transpose(image), image.format))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        why = str(error).replace("<_io.BytesIO object at ", "").partition(" 0x")[0]
        why = "it is no picture, or damaged" if isinstance(error, UnidentifiedImageError) else why
        raise RequestError(f"picture {name!r} cannot be read: {why}") from error


def count_frames(data: bytes) -> int:
    """How many different pictures a file holds, of which the first is read; 1 where it cannot be told."""
    _register_plugins()
    try:
        with Image.open(io.BytesIO(data)) as image:
            return 1 if image.format in ONE_OF_SEVERAL else int(getattr(image, "n_frames", 1))
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        return 1


def _rgb(image: Image.Image, form: str | None) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and form == "PPM"):
        values = np.asarray(image)
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        kind = "whole numbers of 32 bit" if image.mode == "I" else "floating-point numbers"
        raise ValueError(f"its pixels are {kind}, which name no white: save it with 8 or 16 bit a channel")
    if image.mode == "LAB":
        raise ValueError("its colours are L*a*b*: save it as RGB")
    return image.convert("RGB")
