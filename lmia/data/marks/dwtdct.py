"""An invisible watermark that can be read again: the "dwtDct" method of the `invisible-watermark` package.

It is the method that Stable Diffusion's own scripts mark their output with. The picture's U channel (8-bit YUV) goes
through one level of the Haar wavelet; each 4 x 4 block of the approximation carries one bit, the message repeating
from block to block: the largest coefficient of the block (its first one aside) lies in the lower half of a step of the
quantiser for a 0 and in the upper half for a 1. (In spite of its name the method takes no cosine transform.)

Bits written here are read by the package and the other way round. The writer differs in what makes it work on
pictures of 64 pixels, where each bit has only a few blocks (the package refuses less than 256 x 256):

- the package moves the largest coefficient even if another one is then the largest, so that the bit is lost; here the
  cheapest change is made after which the right one is the largest;
- the package swaps horizontal and vertical details when it transforms back; here only what carries bits changes;
- the package converts the whole picture to 8-bit YUV and back; here the change is added to RGB, and where a channel
  would overflow the pixel is made darker or lighter, which leaves U as it is;
- what rounding to 8 bits has broken is repaired by another pass.
"""

import numpy as np
from pydantic import Field

from lmia.data.marks import MARKS, Watermark
from lmia.specs import RequestError, Spec

_BLOCK = 4
_PASSES = 4


class DwtDctSpec(Spec):
    """The message and how strongly it is written."""

    message: str = Field("lm", min_length=1, max_length=64, pattern=r"^[\x20-\x7e]+$", description="ASCII, 8 bits each")
    step: float = Field(36.0, ge=4, le=128, description="step of the quantiser; the package's decoder expects 36")


@MARKS.register("dwtdct")
class DwtDct(Watermark):
    """A message in the wavelet coefficients of the U channel."""

    version = 1
    Spec = DwtDctSpec

    @staticmethod
    def embed(images: np.ndarray, spec: DwtDctSpec) -> np.ndarray:
        """Writes the message into every picture.

        Raises:
            RequestError: the pictures are too small to hold every bit at least once.
        """
        bits = _bits(spec)
        _check_room(images, len(bits))
        marked = images.copy()
        for attempt in range(_PASSES):
            values = _blocks(_approximation(marked))
            wanted = np.resize(bits, values.shape[1])
            right = _read(values, spec.step) == wanted
            # what a first pass could not raise lies at the edge of the colours that there are
            change = _cheapest_change(values, wanted, spec.step, lower=~right & (attempt > 0))
            change[right & _firm(values, spec.step)] = 0
            if not change.any():
                break
            marked = _add_to_u(marked, _from_blocks(change, images.shape[1:3]))
        return marked

    @staticmethod
    def decode(images: np.ndarray, spec: DwtDctSpec) -> np.ndarray:
        """The bits read from each picture by majority over the blocks.

        Returns:
            bool [N, bits].
        """
        count = len(_bits(spec))
        _check_room(images, count)
        read = _read(_blocks(_approximation(images)), spec.step)
        votes = np.stack([read[:, bit::count].mean(axis=1) for bit in range(count)], axis=1)
        return votes * 255 > 127  # the package's rule for ties

    @staticmethod
    def bit_accuracy(images: np.ndarray, spec: DwtDctSpec) -> np.ndarray:
        """The share of the message's bits that each picture carries; about .5 without the mark.

        Returns:
            float64 [N].
        """
        return (DwtDct.decode(images, spec) == _bits(spec)).mean(axis=1)


def _bits(spec: DwtDctSpec) -> np.ndarray:
    return np.unpackbits(np.frombuffer(spec.message.encode("ascii"), np.uint8)).astype(bool)


def _check_room(images: np.ndarray, bits: int) -> None:
    high, wide = images.shape[1:3]
    room = (high // 8) * (wide // 8)
    if room < bits:
        raise RequestError(
            f"message of {bits} bits: a picture of {wide} x {high} pixels holds {room} (one for 8 x 8 pixels)"
        )


def _approximation(images: np.ndarray) -> np.ndarray:
    """Haar approximation of the 8-bit U channel, float64 [N, H', W'], sides cut to multiples of 4."""
    import pywt

    high, wide = (side // 4 * 4 for side in images.shape[1:3])
    rgb = images[:, :high, :wide].astype(np.float64)
    luma = rgb @ (0.299, 0.587, 0.114)
    u = np.clip(np.rint(0.492 * (rgb[..., 2] - luma) + 128), 0, 255)
    return pywt.dwt2(u, "haar", axes=(1, 2))[0]


def _blocks(frames: np.ndarray) -> np.ndarray:
    """Frames [N, H', W'] as [N, blocks, 16]: whole blocks in reading order, each flattened."""
    rows, columns = frames.shape[1] // _BLOCK, frames.shape[2] // _BLOCK
    cut = frames[:, : rows * _BLOCK, : columns * _BLOCK].reshape(-1, rows, _BLOCK, columns, _BLOCK)
    return cut.transpose(0, 1, 3, 2, 4).reshape(len(frames), rows * columns, _BLOCK * _BLOCK)


def _from_blocks(blocks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Change of U, float64 [N, H, W], whose Haar approximation is these blocks, with no details."""
    high, wide = size
    rows, columns = high // 4 * 4 // 2 // _BLOCK, wide // 4 * 4 // 2 // _BLOCK
    frames = blocks.reshape(-1, rows, columns, _BLOCK, _BLOCK).transpose(0, 1, 3, 2, 4)
    frames = frames.reshape(len(blocks), rows * _BLOCK, columns * _BLOCK)
    change = np.zeros((len(blocks), high, wide))
    change[:, : rows * 8, : columns * 8] = frames.repeat(2, axis=1).repeat(2, axis=2) / 2
    return change


def _read(values: np.ndarray, step: float) -> np.ndarray:
    """The bit of each block: bool [N, blocks]. Values are never negative, as U is not."""
    return values[..., 1:].max(axis=-1) % step > step / 2


def _firm(values: np.ndarray, step: float) -> np.ndarray:
    """Whether the largest coefficient is at least a ninth of a step away from where its bit flips."""
    place = values[..., 1:].max(axis=-1) % (step / 2)
    return np.minimum(place, step / 2 - place) >= step / 9


def _cheapest_change(values: np.ndarray, wanted: np.ndarray, step: float, lower: np.ndarray) -> np.ndarray:
    """The smallest change (sum of squares) that puts the largest coefficient into the middle of a right half-step.

    Tried are the middles around the largest coefficient: for one above, that coefficient is raised; for one below, all
    that lie higher are lowered to it; only the latter where `lower` says so.
    """
    top = values[..., 1:].max(axis=-1)
    base = (top // step + np.where(wanted, 0.75, 0.25)) * step
    targets = np.stack([base - step, base, base + step])  # [3, N, blocks]
    tried = values[None, ..., 1:]
    lowered = np.minimum(targets[..., None] - tried, 0)
    is_top = np.arange(tried.shape[-1]) == values[..., 1:].argmax(axis=-1)[..., None]
    change = np.where(is_top, targets[..., None] - tried, lowered)
    cost = (change**2).sum(axis=-1)
    cost[(targets < 0) | (targets > 2 * 255) | (lower & (targets > top))] = np.inf
    best = np.take_along_axis(change, cost.argmin(axis=0)[None, ..., None], axis=0)[0]
    return np.concatenate([np.zeros_like(best[..., :1]), best], axis=-1)


def _add_to_u(images: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Pictures whose U channel is changed by so much and whose luma stays as it is where 8 bits allow it."""
    rgb = images + change[..., None] * np.array([0.0, -0.395, 2.032])
    rgb -= np.maximum(rgb.max(axis=-1, keepdims=True) - 255, 0)
    rgb -= np.minimum(rgb.min(axis=-1, keepdims=True), 0)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
