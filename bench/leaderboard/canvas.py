"""What all figures share: paper, colours, sizes, PNG bytes, and labels that stand at their points."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, LINE, PAPER = "#1c2430", "#5b6573", "#e2dfd8", "#fbfaf7"
BLUE, AMBER, GREY, PLUM, BAND = "#1f5fa8", "#b9660f", "#8a93a0", "#8a3f86", "#e9e5dc"
COLOURS = [BLUE, AMBER, "#2f9e63", PLUM, "#c0392b", "#7a68c9", "#8c6d46", "#3aa6b9"]
DPI = 144


def png(figure: "Figure", dpi: int = DPI) -> bytes:
    """A figure as PNG bytes, equal for equal figures (no date, no version inside)."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=dpi, facecolor=figure.get_facecolor(), metadata={"Software": None})
    return out.getvalue()


def new(width: float, height: float, columns: int = 1, rows: int = 1) -> tuple["Figure", Any]:
    """A figure of this size in inches, and its panels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor=PAPER)
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns)
    for panel in np.atleast_1d(panels).flat:
        panel.set_facecolor(PAPER)
        panel.tick_params(colors=SOFT, labelsize=8, length=0)
        for side in panel.spines.values():
            side.set_color(LINE)
    return figure, panels


def title(figure: "Figure", text: str, height: float) -> None:
    """Writes the title of a figure that is `height` inches high."""
    figure.text(0.02, 1 - 0.2 / height, text, fontsize=12, weight="bold", color=INK, va="center")


@dataclass(frozen=True)
class Point:
    """A point of a scatter plot and what it is called."""

    x: float
    y: float
    label: str


def label_points(panel: "Axes", points: Sequence[Point], size: float = 7.5) -> None:
    """Writes each label beside its point, on the side where there is room; a thin line leads to one that had to move.

    Call it when the panel has its final limits and place: what is free is measured on the canvas.
    """
    canvas: Any = panel.figure.canvas
    pixels = panel.figure.dpi / 72
    frame = panel.get_window_extent(canvas.get_renderer())
    at = [panel.transData.transform((point.x, point.y)) for point in points]
    taken = [_Box(x - 4 * pixels, y - 4 * pixels, x + 4 * pixels, y + 4 * pixels) for x, y in at]
    height = 1.15 * size * pixels
    for index in sorted(range(len(points)), key=lambda i: (-at[i][1], at[i][0])):
        point, (x, y) = points[index], at[index]
        drawn = panel.annotate(point.label, (0, 0), fontsize=size, annotation_clip=False)
        width = drawn.get_window_extent(canvas.get_renderer()).width
        drawn.remove()
        places = [(dx, dy, _beside(x + dx * pixels, y + dy * pixels, width, height, dx)) for dx, dy in _OFFSETS]
        inside = [place for place in places if place[2].within(frame)] or places
        dx, dy, box = min(inside, key=lambda place: sum(place[2].shared(other) for other in taken))
        taken.append(box)
        line = {"arrowstyle": "-", "color": SOFT, "lw": 0.6, "shrinkA": 0, "shrinkB": 3}
        panel.annotate(
            point.label,
            (point.x, point.y),
            (dx, dy),
            textcoords="offset points",
            fontsize=size,
            color=INK,
            va="center",
            ha="left" if dx > 0 else "right",
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.4, "alpha": 0.8},
            arrowprops=line if abs(dy) > size / 2 else None,
        )


@dataclass(frozen=True)
class _Box:
    """A rectangle on the canvas, in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def within(self, frame: Any) -> bool:
        """Whether all of it is in a frame of matplotlib's."""
        return bool(
            self.left >= frame.x0 and self.right <= frame.x1 and self.bottom >= frame.y0 and self.top <= frame.y1
        )

    def shared(self, other: "_Box") -> float:
        """Area that two boxes share."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)


def _beside(x: float, y: float, width: float, height: float, side: float) -> _Box:
    """A label that begins at x where `side` is positive, else ends there; y is its middle."""
    left = x if side > 0 else x - width
    return _Box(left, y - height / 2, left + width, y + height / 2)


_OFFSETS = sorted(
    ((side * (7 + 2.5 * abs(step)), 4.0 * step) for step in range(-18, 19) for side in (1, -1)),
    key=lambda offset: (abs(offset[1]) + 0.5 * abs(offset[0]), -offset[0], -offset[1]),
)
"""Where a label may stand beside its point, in points, the nearest first."""
