"""PNG figures from a board: for a README, for a paper's appendix, for tracking. matplotlib without a display."""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.axes import ENTRANT_AXES
from bench.leaderboard import words
from bench.leaderboard.rank import AttackEntry, Board, Entry
from bench.leaderboard.side import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, LINE, PAPER = "#1c2430", "#5b6573", "#e2dfd8", "#fbfaf7"
BLUE, AMBER, GREY, PLUM, BAND = "#1f5fa8", "#b9660f", "#8a93a0", "#8a3f86", "#e9e5dc"
MOST_ROWS = 40
MOST_LINES = 8
DPI = 144
FLOOR = 1e-3


def figures(board: Board, folder: Path) -> list[Path]:
    """Writes every figure that the rows have something to show in; returns their paths.

    leaderboard.png (tables as a picture), delta.png (Delta, intervals and MDE), source.png (AUC beside source AUC),
    epochs.png (Delta over fine-tuning epochs), cost.png (Delta against evaluations), roc.png.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, draw in _FIGURES.items():
        figure = draw(board)
        if figure is not None:
            path = folder / f"{name}.png"
            path.write_bytes(png(figure))
            made.append(path)
    return made


def png(figure: "Figure", dpi: int = DPI) -> bytes:
    """A figure as PNG bytes, equal for equal figures (no date, no version inside)."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=dpi, facecolor=figure.get_facecolor(), metadata={"Software": None})
    return out.getvalue()


class RocPainter:
    """Draws one row's ROC curves, linear and logarithmic, small. Axes are drawn once, lines for each picture."""

    def __init__(self) -> None:
        figure, self._panels = _new(7.2, 3.3, columns=2)
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


def _new(width: float, height: float, columns: int = 1, rows: int = 1) -> tuple["Figure", Any]:
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


def _wrapped(labels: Sequence[str]) -> list[str]:
    return [textwrap.fill(label, 46, max_lines=2, placeholder=" ...") for label in labels]


def _label(board: Board, entry: Entry, usual: dict[str, Any]) -> str:
    name = words.axis_text(entry.row.axes.attack).replace("_", " ")
    setting = words.setting(entry.row, words.unusual_axes(board, entry.row, usual))
    return name + (f", {setting}" if setting else "")


def _delta(board: Board) -> "Figure | None":
    entries = [
        entry
        for name in ("ranked", "planted", "control")
        for entry in board.section(name)  # type: ignore[arg-type]
        if entry.row.measured.delta_auc is not None
    ]
    if not entries:
        return None
    left_out = max(0, len(entries) - MOST_ROWS)
    entries = entries[:MOST_ROWS]
    usual = words.usual(board)
    height = 1.5 + 0.27 * len(entries)
    figure, panel = _new(9.5, height)
    labels = []
    for place, entry in enumerate(entries):
        m = entry.row.measured
        assert m.delta_auc is not None
        ci = m.delta_auc_ci
        colour = {"leak": BLUE, "below": PLUM}.get(words.tone_of(ci, entry.p_adjusted), GREY)
        if m.mde is not None:
            panel.barh(place, 2 * m.mde, left=-m.mde, height=0.62, color=BAND, zorder=1)
        if ci is not None:
            panel.plot(ci, [place, place], color=colour, lw=2, alpha=0.6, zorder=2, solid_capstyle="round")
        panel.plot([m.delta_auc], [place], "o", color=colour, ms=5.5, zorder=3)
        text = f"{words.with_interval(m.delta_auc, ci, signed=True)}   MDE {words.number(m.mde)}".replace("-", "−")
        panel.text(1.01, place, text, transform=panel.get_yaxis_transform(), va="center", fontsize=8, color=INK)
        planted = {"planted": "planted: ", "control": "control: "}.get(entry.section, "")
        labels.append(planted + _label(board, entry, usual))
    panel.axvline(0, color=GREY, lw=1, zorder=1.5)
    panel.set_yticks(range(len(entries)), _wrapped(labels), fontsize=8, color=INK)
    panel.set_ylim(len(entries) - 0.4, -0.6)
    more = f" ({left_out} weaker rows not shown)" if left_out else ""
    panel.set_xlabel(
        f"Delta: members against unseen people of the same source, 95 % interval; pale: below the MDE{more}",
        fontsize=8,
        color=SOFT,
    )
    _title(figure, "Is anybody's membership given away?", height)
    figure.subplots_adjust(left=0.34, right=0.79, top=1 - 0.55 / height, bottom=0.6 / height)
    return figure


def _source(board: Board) -> "Figure | None":
    entries = [entry for entry in board.section("cross") if words.left(entry.row)[0] is not None]
    if not entries:
        return None
    left_out = max(0, len(entries) - MOST_ROWS)
    entries = entries[:MOST_ROWS]
    usual = words.usual(board)
    height = 1.5 + 0.27 * len(entries)
    figure, panel = _new(9.5, height)
    for place, entry in enumerate(entries):
        m = entry.row.measured
        assert m.auc is not None and m.source_auc is not None
        panel.plot([m.source_auc, m.auc], [place, place], color=BLUE, lw=3, alpha=0.45, solid_capstyle="round")
        panel.plot([m.source_auc], [place], "o", color=AMBER, ms=6.5)
        panel.plot([m.auc], [place], "o", color=BLUE, ms=6.5)
        rest, ci = words.left(entry.row)
        text = f"{words.number(m.auc)} − {words.number(m.source_auc)}: {words.with_interval(rest, ci, signed=True)}"
        text = text.replace("-", "−")
        panel.text(1.01, place, text, transform=panel.get_yaxis_transform(), va="center", fontsize=8, color=INK)
    panel.axvline(0.5, color=GREY, lw=1)
    labels = [_label(board, e, usual) for e in entries]
    panel.set_yticks(range(len(entries)), _wrapped(labels), fontsize=8, color=INK)
    panel.set_ylim(len(entries) - 0.4, -0.6)
    values = [v for e in entries for v in (e.row.measured.auc, e.row.measured.source_auc) if v is not None]
    panel.set_xlim(min(0.48, min(values) - 0.02), 1.01)
    more = f" ({left_out} rows not shown)" if left_out else ""
    panel.set_xlabel(
        f"AUC against people of another source: members (blue), people never seen (amber){more}", fontsize=8, color=SOFT
    )
    _title(figure, "How much of the AUC is style?", height)
    figure.subplots_adjust(left=0.34, right=0.79, top=1 - 0.55 / height, bottom=0.6 / height)
    return figure


def _leaderboard(board: Board) -> "Figure | None":
    entries = board.section("ranked")[:12]
    cross = board.section("cross")[:6]
    planted = board.section("planted")[:4]
    if not board.entries:
        return None
    usual = words.usual(board)
    blocks = [
        ("Ranked: members against unseen people of the same source", ["#", "Delta", "MDE", "p adj."], entries),
        ("Not ranked: members against another source", ["", "AUC", "source AUC", "what is left"], cross),
        ("Planted: something must be found here", ["", "Delta", "MDE", ""], planted),
    ]
    blocks = [block for block in blocks if block[2]]
    if not blocks:
        return None
    num_lines = sum(len(rows) + 2.2 for *_, rows in blocks) + 1.6
    height = 0.26 * num_lines + 0.3
    figure, panel = _new(10.5, height)
    panel.axis("off")
    panel.set_xlim(0, 1)
    panel.set_ylim(num_lines, 0)
    title = board.campaign.title or f"Leaderboard: {board.campaign.name}"
    panel.text(0, 0.6, title, fontsize=13, weight="bold", color=INK, va="center")
    evidence = " and ".join(board.evidence)
    panel.text(1, 0.6, f"{evidence} evidence", fontsize=8, color=AMBER, va="center", ha="right")
    line = 2.0
    places = (0.022, 0.62, 0.80, 0.985)
    for heading, heads, rows in blocks:
        panel.text(0, line, heading, fontsize=9.5, weight="bold", color=INK, va="center")
        line += 1
        for at, head in zip(places, heads, strict=True):
            panel.text(at, line, head, fontsize=8, color=SOFT, va="center", ha="right")
        panel.text(0.04, line, "attack and setting", fontsize=8, color=SOFT, va="center")
        panel.plot([0, 1], [line + 0.45, line + 0.45], color=LINE, lw=0.8)
        for entry in rows:
            line += 1
            for at, (text, colour) in zip(places, _figure_cells(entry), strict=True):
                panel.text(at, line, text.replace("-", "−"), fontsize=8.5, color=colour, va="center", ha="right")
            label = textwrap.shorten(_label(board, entry, usual), 70, placeholder=" …")  # the next column begins there
            panel.text(0.04, line, label, fontsize=8.5, color=INK, va="center")
        line += 1.2
    figure.subplots_adjust(left=0.02, right=0.98, top=0.99, bottom=0.01)
    return figure


def _figure_cells(entry: Entry) -> list[tuple[str, str]]:
    m = entry.row.measured
    if entry.section == "cross":
        rest, ci = words.left(entry.row)
        return [
            ("", INK),
            (words.with_interval(m.auc, m.auc_ci), BLUE),
            (words.with_interval(m.source_auc, m.source_auc_ci), AMBER),
            (words.with_interval(rest, ci, signed=True), INK),
        ]
    found = words.tone_of(m.delta_auc_ci, entry.p_adjusted) == "leak"
    return [
        (str(entry.rank or ""), INK),
        (words.with_interval(m.delta_auc, m.delta_auc_ci, signed=True), BLUE if found else INK),
        (words.number(m.mde), SOFT),
        (words.p_text(entry.p_adjusted) if entry.rank else "", INK),
    ]


def _epochs(board: Board) -> "Figure | None":
    """One panel an attack, or one for all where there are few lines."""
    lines: dict[Any, list[Entry]] = {}
    for entry in board.entries:
        if entry.section in ("ranked", "planted") and isinstance(entry.row.axes.epochs, int | float):
            axes = entry.row.axes.model_dump()
            del axes["epochs"]
            # A planted target has other people, so it is no further point of the same trajectory.
            lines.setdefault((tuple(axes.items()), entry.row.level, entry.section), []).append(entry)
    series = [sorted(e, key=lambda x: float(x.row.axes.epochs or 0)) for e in lines.values() if len(e) > 1]
    if not series:
        return None
    usual = words.usual(board)
    usual["epochs"] = None
    together = len(series) <= MOST_LINES
    lowest = min(e.row.measured.delta_auc or 0.0 for entries in series for e in entries)
    panels: dict[str, list[list[Entry]]] = {}
    for entries in series:
        panels.setdefault("" if together else str(entries[0].row.axes.attack), []).append(entries)
    columns = 1 if together else 4
    rows = -(-len(panels) // columns)
    height = 4.6 if together else 0.9 + 1.75 * rows
    figure, grid = _new(8.5 if together else 10.5, height, columns, rows)
    colours = _colours()
    settings = sorted(
        {_line_setting(board, entries[0], usual, together) for entries in series}, key=lambda t: (len(t), t)
    )
    for place, panel in enumerate(np.atleast_1d(grid).flat):
        if place >= len(panels):
            panel.axis("off")
            continue
        attack, group = sorted(panels.items())[place]
        for entries in group:
            setting = _line_setting(board, entries[0], usual, together)
            colour = colours[settings.index(setting) % len(colours)]
            x = [float(e.row.axes.epochs or 0) for e in entries]
            panel.plot(x, [e.row.measured.delta_auc or 0.0 for e in entries], "o-", color=colour, ms=3.5, lw=1.3)
            for e, at in zip(entries, x, strict=True):
                if e.row.measured.delta_auc_ci is not None:
                    panel.plot([at, at], e.row.measured.delta_auc_ci, color=colour, alpha=0.35)
        panel.axhline(0, color=GREY, lw=1)
        panel.set_title(attack.replace("_", " "), fontsize=9, color=INK, loc="left", pad=3)
        if not together:
            panel.set_ylim(min(-0.2, lowest - 0.05), 0.52)
            panel.tick_params(labelsize=7)
    handles = [
        figure.axes[0].plot([], [], "o-", color=colours[i % len(colours)], ms=4, label=text or "usual setting")[0]
        for i, text in enumerate(settings)
    ]
    figure.legend(handles=handles, fontsize=7.5, frameon=False, loc="upper right", ncols=min(4, len(handles)))
    figure.supxlabel("fine-tuning epochs", fontsize=8, color=SOFT)
    figure.supylabel("Delta", fontsize=8, color=SOFT)
    _title(figure, "Delta over fine-tuning epochs", height)
    figure.subplots_adjust(left=0.08, right=0.98, top=1 - 0.75 / height, bottom=0.55 / height, hspace=0.42, wspace=0.22)
    return figure


def _line_setting(board: Board, entry: Entry, usual: dict[str, Any], together: bool) -> str:
    """What tells a line from the others of its panel."""
    other = [axis for axis in words.unusual_axes(board, entry.row, usual) if axis not in ("epochs", "attack")]
    name = words.axis_text(entry.row.axes.attack).replace("_", " ") if together else ""
    return ", ".join(text for text in (name, words.setting(entry.row, other)) if text)


def _entrant(attack: AttackEntry, usual: dict[str, Any]) -> str:
    """An attack's name, and how it differs from the usual setting."""
    name = words.axis_text(attack.axes["attack"]).replace("_", " ")
    told = ("attack", "captions")  # by the name and by the panel
    own = [axis for axis in ENTRANT_AXES if axis not in told and attack.axes[axis] not in (None, usual[axis])]
    return ", ".join([name, *(f"{words.AXIS_TITLES[axis]} {words.axis_text(attack.axes[axis])}" for axis in own)])


def _cost(board: Board) -> "Figure | None":
    """One panel per kind of captions, a colour per access; hollow: learned on people with known membership."""
    attacks = [a for a in board.attacks if a.rank is not None and a.nfe is not None]
    if len(attacks) < 3:
        return None
    kinds = [k for k in _CAPTION_TITLES if any(a.track[1] == k for a in attacks)]
    figure, grid = _new(
        8.5 if len(kinds) == 1 else 11.5, 4.6 * -(-len(kinds) // 2), min(2, len(kinds)), -(-len(kinds) // 2)
    )
    colours = dict(zip(("text-to-image", "img2img", "eps", "gradient"), _colours(), strict=False))
    most = max(a.nfe or 0 for a in attacks) + 1
    usual = words.usual(board)
    values = [v for a in attacks for v in (a.delta, *(a.delta_ci or ()))]
    low, high = min(values) - 0.03, max(values) + 0.05
    panels = list(np.atleast_1d(grid).flat)
    for panel, kind in zip(panels, kinds, strict=False):
        panel.set_xscale("log")
        panel.set_xlim(0.75, most * 2.6)
        panel.set_ylim(low, high)
        own = [a for a in attacks if a.track[1] == kind]
        taken: list[tuple[float, float]] = []
        for attack in sorted(own, key=lambda a: (a.nfe or 0, a.delta)):
            colour = colours.get(attack.track[0], INK)
            x = (attack.nfe or 0) + 1
            if attack.delta_ci is not None:
                panel.plot([x, x], attack.delta_ci, color=colour, alpha=0.3)
            face = colour if attack.track[2] == "none" else PAPER
            panel.plot([x], [attack.delta], "o", color=colour, mfc=face, ms=6)
            name = _entrant(attack, usual)
            at = _free(taken, float(np.log10(x)), attack.delta, (high - low) * 0.045)
            right = x > 0.6 * most
            panel.text(
                x / 1.12 if right else x * 1.12,
                at,
                name,
                fontsize=7.5,
                color=INK,
                va="center",
                ha="right" if right else "left",
            )
        panel.minorticks_off()
        ticks = sorted({(a.nfe or 0) + 1 for a in own})
        ticks = [t for n, t in enumerate(ticks) if n == 0 or t / ticks[n - 1] > 1.25 or t == ticks[-1]]
        panel.set_xticks(ticks, [f"{tick - 1:g}" for tick in ticks])
        panel.axhline(0, color=GREY, lw=1)
        panel.set_title(_CAPTION_TITLES[kind], fontsize=9, color=INK, loc="left", pad=3)
    for panel in panels[len(kinds) :]:
        panel.axis("off")
    handles = [
        panels[0].plot([], [], "o", color=colour, label=access)[0]
        for access, colour in colours.items()
        if any(a.track[0] == access for a in attacks)
    ]
    handles.append(panels[0].plot([], [], "o", color=INK, mfc=PAPER, label="with shadow data")[0])
    figure.legend(handles=handles, fontsize=8, frameon=False, loc="upper right", ncols=len(handles))
    figure.supxlabel("evaluations of the U-Net per picture", fontsize=8, color=SOFT)
    figure.supylabel("mean Delta over the suite, 95 %", fontsize=8, color=SOFT)
    height = 4.6 * -(-len(kinds) // 2)
    _title(figure, "What an attack costs and what it finds", height)
    figure.subplots_adjust(left=0.08, right=0.98, top=1 - 0.65 / height, bottom=0.55 / height, hspace=0.22, wspace=0.15)
    return figure


_CAPTION_TITLES = {
    "caption": "given the training captions",
    "class": "given one template caption for all",
    "empty": "given no captions",
    "none": "captions are not asked for",
}


def _free(taken: list[tuple[float, float]], x: float, y: float, height: float) -> float:
    """A label's height near y that no earlier label (log10 x, y) of nearly the same x has; it is then taken."""
    steps = sorted(range(-12, 13), key=lambda step: (abs(step), -step))
    at = next(
        (
            y + s * height
            for s in steps
            if all(abs(x - a) > 0.45 or abs(y + s * height - b) >= height for a, b in taken)
        ),
        y,
    )
    taken.append((x, at))
    return at


def _rocs(board: Board) -> "Figure | None":
    picked = [
        next((e for e in board.section(name) if e.side.curves), None)  # type: ignore[arg-type]
        for name in ("cross", "ranked", "planted")
    ]
    entries = [entry for entry in picked if entry is not None]
    if not entries:
        return None
    figure, (left, right) = _new(9.5, 4.4, columns=2)
    colours = _colours()
    pairs = [(curve, colours[i]) for i, entry in enumerate(entries) for curve in entry.side.curves]
    _roc(left, pairs, log=False)
    _roc(right, pairs, log=True)
    titles = {"cross": "other source", "ranked": "same source, strongest", "planted": "planted"}
    for i, entry in enumerate(entries):
        name = words.axis_text(entry.row.axes.attack).replace("_", " ")
        left.plot(
            [],
            [],
            color=colours[i],
            label=f"{titles[entry.section]}: {name}, AUC {words.number(entry.row.measured.auc)}",
        )
    left.legend(fontsize=7, frameon=False, loc="lower right")
    _title(figure, "ROC, one line for each world", 4.4)
    figure.subplots_adjust(left=0.07, right=0.98, top=0.88, bottom=0.13, wspace=0.2)
    return figure


def roc_figure(lines: Sequence[tuple[Curve, str]]) -> bytes:
    """Labelled ROC curves, linear and with a logarithmic false positive rate, as PNG bytes."""
    figure, (left, right) = _new(9.5, 4.2, columns=2)
    colours = _colours()
    for panel, log in ((left, False), (right, True)):
        _roc(panel, [(curve, colours[i]) for i, (curve, _) in enumerate(lines)], log=log)
    for i, (_, label) in enumerate(lines):
        left.plot([], [], "-" if i % 2 == 0 else "--", color=colours[i], label=label)
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


def _title(figure: "Figure", text: str, height: float) -> None:
    figure.text(0.02, 1 - 0.2 / height, text, fontsize=12, weight="bold", color=INK, va="center")


def _colours() -> list[str]:
    return [BLUE, AMBER, "#2f9e63", PLUM, "#c0392b", "#7a68c9", "#8c6d46", "#3aa6b9"]


_FIGURES = {
    "leaderboard": _leaderboard,
    "delta": _delta,
    "source": _source,
    "epochs": _epochs,
    "cost": _cost,
    "roc": _rocs,
}
