"""Charts of Delta over something: fine-tuning epochs, and the cost of an attack."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.axes import AXES, ENTRANT_AXES
from bench.leaderboard.canvas import COLOURS, GREY, INK, PAPER, SOFT, Point, label_points, new, title
from bench.leaderboard.formats import axis_text, name
from bench.leaderboard.rank import AttackEntry, Board, Entry
from bench.leaderboard.settings import Usual, as_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LINES = 8
_ACCESS = ("text-to-image", "img2img", "eps", "gradient")
_CAPTIONS = {
    "caption": "given the training captions",
    "class": "given one template caption for all",
    "empty": "given no captions",
    "none": "captions are not asked for",
}


def epochs(board: Board) -> "Figure | None":
    """Delta over epochs: one panel an attack, or one for all where there are few lines."""
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
    usual = Usual(board)
    together = len(series) <= MOST_LINES
    lowest = min(e.row.measured.delta_auc or 0.0 for entries in series for e in entries)
    panels: dict[str, list[list[Entry]]] = {}
    for entries in series:
        panels.setdefault("" if together else str(entries[0].row.axes.attack), []).append(entries)
    columns = 1 if together else 4
    rows = -(-len(panels) // columns)
    height = 4.6 if together else 0.9 + 1.75 * rows
    figure, grid = new(8.5 if together else 10.5, height, columns, rows)
    settings = sorted({_line_setting(entries[0], usual, together) for entries in series}, key=lambda t: (len(t), t))
    for place, panel in enumerate(np.atleast_1d(grid).flat):
        if place >= len(panels):
            panel.axis("off")
            continue
        attack, group = sorted(panels.items())[place]
        for entries in group:
            setting = _line_setting(entries[0], usual, together)
            colour = COLOURS[settings.index(setting) % len(COLOURS)]
            x = [float(e.row.axes.epochs or 0) for e in entries]
            panel.plot(x, [e.row.measured.delta_auc or 0.0 for e in entries], "o-", color=colour, ms=3.5, lw=1.3)
            for e, at in zip(entries, x, strict=True):
                if e.row.measured.delta_auc_ci is not None:
                    panel.plot([at, at], e.row.measured.delta_auc_ci, color=colour, alpha=0.35)
        panel.axhline(0, color=GREY, lw=1)
        panel.set_title(name(attack), fontsize=9, color=INK, loc="left", pad=3)
        if not together:
            panel.set_ylim(min(-0.2, lowest - 0.05), 0.52)
            panel.tick_params(labelsize=7)
    handles = [
        figure.axes[0].plot([], [], "o-", color=COLOURS[i % len(COLOURS)], ms=4, label=text or "usual setting")[0]
        for i, text in enumerate(settings)
    ]
    figure.legend(handles=handles, fontsize=7.5, frameon=False, loc="upper right", ncols=min(4, len(handles)))
    figure.supxlabel("fine-tuning epochs", fontsize=8, color=SOFT)
    figure.supylabel("Delta", fontsize=8, color=SOFT)
    title(figure, "Delta over fine-tuning epochs", height)
    figure.subplots_adjust(left=0.08, right=0.98, top=1 - 0.75 / height, bottom=0.55 / height, hspace=0.42, wspace=0.22)
    return figure


def _line_setting(entry: Entry, usual: Usual, together: bool) -> str:
    """What tells a line from the others of its panel."""
    setting = as_line(usual.differences(entry.row, but=("epochs",)))
    return ", ".join(text for text in (name(entry.row.axes.attack) if together else "", setting) if text)


def cost(board: Board) -> "Figure | None":
    """One panel per kind of captions, a colour per access; hollow: learned on people with known membership."""
    attacks = [a for a in board.attacks if a.rank is not None and a.nfe is not None]
    if len(attacks) < 3:
        return None
    kinds = [*(k for k in _CAPTIONS if any(a.track[1] == k for a in attacks))]
    kinds += sorted({a.track[1] for a in attacks} - {*kinds})
    columns, rows = min(2, len(kinds)), -(-len(kinds) // 2)
    height = 5.2 * rows
    figure, grid = new(8.5 if len(kinds) == 1 else 12.5, height, columns, rows)
    colours = dict(zip(_ACCESS, COLOURS, strict=False))
    values = [v for a in attacks for v in (a.delta, *(a.delta_ci or ()))]
    panels = list(np.atleast_1d(grid).flat)
    figure.subplots_adjust(left=0.07, right=0.98, top=1 - 0.75 / height, bottom=0.6 / height, hspace=0.2, wspace=0.12)
    for panel, kind in zip(panels, kinds, strict=False):
        own = [a for a in attacks if a.track[1] == kind]
        most = max(a.nfe or 0 for a in own) + 1
        panel.set_xscale("log")
        panel.set_xlim(min(a.nfe or 0 for a in own) / 1.6 + 0.5, most * (2.8 if most > 1 else 3))
        panel.set_ylim(min(values) - 0.03, max(values) + 0.05)
        for attack in own:
            colour = colours.get(attack.track[0], INK)
            x = (attack.nfe or 0) + 1
            if attack.delta_ci is not None:
                panel.plot([x, x], attack.delta_ci, color=colour, alpha=0.3)
            face = colour if attack.track[2] == "none" else PAPER
            panel.plot([x], [attack.delta], "o", color=colour, mfc=face, ms=6)
        _number_evaluations(panel, [(a.nfe or 0) + 1 for a in own])
        panel.axhline(0, color=GREY, lw=1)
        panel.set_title(_CAPTIONS.get(kind, kind), fontsize=9, color=INK, loc="left", pad=3)
        usual = Usual(board)
        label_points(panel, [Point((a.nfe or 0) + 1, a.delta, _entrant(a, usual)) for a in own])
    for panel in panels[len(kinds) :]:
        panel.axis("off")
    handles = [
        panels[0].plot([], [], "o", color=colour, label=access)[0]
        for access, colour in colours.items()
        if any(a.track[0] == access for a in attacks)
    ]
    if any(a.track[2] != "none" for a in attacks):
        handles.append(panels[0].plot([], [], "o", color=INK, mfc=PAPER, label="with shadow data")[0])
    figure.legend(handles=handles, fontsize=8, frameon=False, loc="upper right", ncols=len(handles))
    gone = len(board.attacks) - len(attacks)
    more = f"; not shown: {gone} that were not tried on the whole suite, or not counted" if gone else ""
    figure.supxlabel(f"evaluations of the U-Net per picture{more}", fontsize=8, color=SOFT)
    figure.supylabel("mean Delta over the suite, 95 %", fontsize=8, color=SOFT)
    title(figure, "What an attack costs and what it finds", height)
    return figure


def _number_evaluations(panel: Any, places: Sequence[float]) -> None:
    """Ticks at the attacks' own numbers, as far as they do not run into each other; 0 stands at 1."""
    shown: list[float] = []
    for place in sorted({*places}):
        if not shown or place / shown[-1] > 1.25:
            shown.append(place)
    panel.minorticks_off()
    panel.set_xticks(shown, [f"{place - 1:g}" for place in shown])


def _entrant(attack: AttackEntry, usual: Usual) -> str:
    """An attack's name, and how it differs from the usual setting."""
    told = ("attack", "captions")  # by the name and by the panel
    own = [axis for axis in ENTRANT_AXES if axis not in told and attack.axes[axis] not in (None, usual.values[axis])]
    level = [f"{attack.level} level"] if attack.level != "picture" else []
    settings = [f"{AXES[axis].title} {axis_text(attack.axes[axis])}" for axis in own]
    return ", ".join([name(attack.axes["attack"]), *settings, *level])
