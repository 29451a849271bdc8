"""The logo that the visible and the hidden mark share: a red disc with a ring and a bust in white."""

import numpy as np

_RED = (0.78, 0.05, 0.16)


def blend(images: np.ndarray, left: float, top: float, width: float, opacity: float) -> np.ndarray:
    """Pictures with the logo over them.

    Args:
        images: uint8 [N, H, W, 3].
        left: left edge of the logo, as a fraction of the picture's width.
        top: upper edge, as a fraction of the picture's height.
        width: width of the logo, as a fraction of the picture's width.
        opacity: 1 covers, 0 leaves no trace.

    Returns:
        uint8 [N, H, W, 3].
    """
    high, wide = images.shape[1:3]
    radius = width * wide / 2
    x = (np.arange(wide) + 0.5 - left * wide - radius) / radius
    y = (np.arange(high) + 0.5 - top * high - radius) / radius
    x, y = np.meshgrid(x, y)

    def inside(distance: np.ndarray) -> np.ndarray:
        return np.clip(0.5 - distance * radius, 0, 1)

    reach = np.hypot(x, y)
    disc = inside(reach - 1)
    ring = inside(np.abs(reach - 0.84) - 0.07)
    head = inside(np.hypot(x, y + 0.22) - 0.25)
    shoulders = inside(np.maximum((np.hypot(x / 0.5, (y - 0.62) / 0.5) - 1) * 0.5, reach - 0.72))
    white = np.maximum(np.maximum(ring, head), shoulders)[..., None]
    logo = 255 * (white + (1 - white) * np.array(_RED))
    alpha = opacity * disc[..., None]
    return np.rint(images + alpha * (logo - images)).astype(np.uint8)
