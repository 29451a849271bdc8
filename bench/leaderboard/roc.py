"""ROC curves as pictures: of a campaign, of an audit, and small ones for tracking."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.leaderboard.attachments import Curve
from bench.leaderboard.canvas import BLUE, COLOURS, GREY, LINE, SOFT, new, png, title
from bench.leaderboard.formats import name, number
from bench.leaderboard.rank import Board, Section

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FLOOR = 1e-3
_SHOWN: tuple[Section, ...] = ("cross", "ranked", "planted")


class RocPainter:
    """Draws one row's ROC curves, linear and logarithmic, small. Axes are drawn once, lines for each picture."""

    def __init__(self) -> None:
        figure, self._panels = new(7.2, 3.3, columns=2)
        self._figure: Any = figure
        self._figure.set_dpi(96)
        for panel, log in zip(self._panels, (False, True), strict=True):
            _roc(panel, [], log=log)
        self._figure.subplots_adjust(left=0.08, right=0.97, top=0.96, bottom=0.15, wspace=0.25)
        canvas: Any = self._figure.canvas
        canvas.draw()
        self._canvas, self._empty = canvas, canvas.copy_from_bbox(self._figure.bbox)

    def png(self, curves: Sequence[Curve]) -> bytes:
        """PNG bytes; worlds are told apart by solid and dashed lines."""
        from PIL import Image

        self._canvas.restore_region(self._empty)
        for panel, log in zip(self._panels, (False, True), strict=True):
            for line in _lines(panel, [(curve, BLUE) for curve in curves], log):
                panel.draw_artist(line)
                line.remove()
        out = io.BytesIO()
        Image.fromarray(np.asarray(self._canvas.buffer_rgba())).convert("RGB").save(out, "PNG")
        return out.getvalue()


def rocs(board: Board) -> "Figure | None":
    """The strongest row with curves of the sections cross, ranked and planted; None if there is none."""
    picked = [next((e for e in board.section(section) if e.attachments.curves), None) for section in _SHOWN]
    entries = [entry for entry in picked if entry is not None]
    if not entries:
        return None
    figure, (left, right) = new(9.5, 4.4, columns=2)
    pairs = [(curve, COLOURS[i]) for i, entry in enumerate(entries) for curve in entry.attachments.curves]
    _roc(left, pairs, log=False)
    _roc(right, pairs, log=True)
    titles = {"cross": "other source", "ranked": "same source, strongest", "planted": "planted"}
    for i, entry in enumerate(entries):
        attack = name(entry.row.axes.attack)
        left.plot(
            [],
            [],
            color=COLOURS[i],
            label=f"{titles[entry.section]}: {attack}, AUC {number(entry.row.measured.auc)}",
        )
    left.legend(fontsize=7, frameon=False, loc="lower right")
    title(figure, "ROC, one line for each world", 4.4)
    figure.subplots_adjust(left=0.07, right=0.98, top=0.88, bottom=0.13, wspace=0.2)
    return figure


def roc_figure(lines: Sequence[tuple[Curve, str]]) -> bytes:
    """Labelled ROC curves, linear and with a logarithmic false positive rate, as PNG bytes."""
    figure, (left, right) = new(9.5, 4.2, columns=2)
    for panel, log in ((left, False), (right, True)):
        _roc(panel, [(curve, COLOURS[i]) for i, (curve, _) in enumerate(lines)], log=log)
    for i, (_, label) in enumerate(lines):
        left.plot([], [], "-" if i % 2 == 0 else "--", color=COLOURS[i], label=label)
    left.legend(fontsize=8, frameon=False, loc="lower right")
    figure.subplots_adjust(left=0.07, right=0.98, top=0.97, bottom=0.13, wspace=0.2)
    return png(figure)


def _roc(panel: "Axes", curves: Sequence[tuple[Curve, str]], log: bool) -> None:
    floor = FLOOR
    _lines(panel, curves, log)
    diagonal = [floor * 10 ** (i / 20) for i in range(61)] if log else [0.0, 1.0]
    panel.plot(diagonal, diagonal, ":", color=GREY, lw=1)
    if log:
        panel.set_xscale("log")
        panel.minorticks_off()
        panel.set_xticks([0.001, 0.01, 0.1, 1], ["0.1 %", "1 %", "10 %", "100 %"])
    panel.set_xlim(floor if log else 0, 1)
    panel.set_ylim(0, 1.01)
    panel.grid(color=LINE, lw=0.6)
    panel.set_xlabel("false positive rate" + (", logarithmic" if log else ""), fontsize=8, color=SOFT)
    if not log:
        panel.set_ylabel("true positive rate", fontsize=8, color=SOFT)


def _lines(panel: "Axes", curves: Sequence[tuple[Curve, str]], log: bool) -> list[Any]:
    lines = []
    for index, (curve, colour) in enumerate(curves):
        fpr = [max(f, FLOOR) for f in curve.fpr] if log else list(curve.fpr)
        style = "-" if index % 2 == 0 else "--"
        lines += panel.plot(fpr, list(curve.tpr), style, color=colour, lw=1.4, drawstyle="steps-post")
    return lines
