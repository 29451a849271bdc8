"""PNG figures from a board: for a README, for a paper's appendix. matplotlib without a display."""

import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.leaderboard.canvas import AMBER, BAND, BLUE, GREY, INK, LINE, PLUM, SOFT, new, png, title
from bench.leaderboard.charts import cost, epochs
from bench.leaderboard.findings import auc_minus_source, verdict, with_source_auc
from bench.leaderboard.formats import name, number, typographic, with_interval
from bench.leaderboard.rank import Board, Entry, Section
from bench.leaderboard.roc import rocs
from bench.leaderboard.settings import Usual, as_line
from bench.leaderboard.tables import USUAL, Column, Table, tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ROWS = 40
PICTURE_ROWS: dict[str, int] = {"ranked": 14, "cross": 8, "planted": 6, "apart": 6}
PICTURE_ROWS_ELSE = 4
WIDTH_IN = 11.0
CHARACTER = 0.0068
LETTER = 0.0060
"""Widths of digits and of letters as shares of the table's, at the size of its text."""


def figures(board: Board, folder: Path) -> list[Path]:
    """Writes every figure that the rows have something to show in; returns their paths.

    leaderboard.png (tables as a picture), delta.png (Delta, intervals and MDE), source.png (AUC beside source AUC),
    epochs.png (Delta over fine-tuning epochs), cost.png (Delta against evaluations), roc.png.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for file, draw in _FIGURES.items():
        figure = draw(board)
        if figure is not None:
            path = folder / f"{file}.png"
            path.write_bytes(png(figure))
            made.append(path)
    return made


def _leaderboard(board: Board) -> "Figure | None":
    found = [(table, _shown_rows(table)) for table in tables(board)]
    if not found:
        return None
    usual = textwrap.wrap(f"The usual setting: {as_line(Usual(board).pairs())}", 200)
    begin = 2.2 + 0.7 * len(usual)
    num_lines = begin + sum(min(len(table.lines), most + 1) + 2.4 for table, most in found) - 1
    figure, panel = new(WIDTH_IN, 0.26 * num_lines + 0.3)
    panel.axis("off")
    panel.set_xlim(0, 1)
    panel.set_ylim(num_lines, 0)
    heading = board.campaign.title or f"Leaderboard: {board.campaign.name}"
    panel.text(
        0, 0.6, textwrap.shorten(heading, 80, placeholder=" …"), fontsize=13, weight="bold", color=INK, va="center"
    )
    panel.text(1, 0.6, f"{' and '.join(board.evidence)} evidence", fontsize=8, color=AMBER, va="center", ha="right")
    for place, text in enumerate(usual):
        panel.text(0, 1.5 + 0.7 * place, text, fontsize=7, color=SOFT, va="center")
    line = begin
    for table, most in found:
        line = _draw(panel, table, most, line)
    figure.subplots_adjust(left=0.02, right=0.98, top=0.99, bottom=0.01)
    return figure


def _shown_rows(table: Table) -> int:
    """How many rows of a table are drawn; the line that tells of one more row could as well hold it."""
    most = PICTURE_ROWS.get(table.name, PICTURE_ROWS_ELSE)
    return most + 1 if len(table.lines) == most + 1 else most


def _draw(panel: "Axes", table: Table, most: int, line: float) -> float:
    """Draws a table from a line on; returns the line below it."""
    numbers = [column for column in table.shown("picture") if column.kind == "number" and column.key != "rank"]
    places, begin = _places(numbers, table.lines[:most])
    panel.text(0, line, table.title, fontsize=9.5, weight="bold", color=INK, va="center")
    line += 1
    panel.text(0.04, line, "attack and setting", fontsize=8, color=SOFT, va="center")
    for column, at in zip(numbers, places, strict=True):
        panel.text(at, line, column.title, fontsize=8, color=SOFT, va="center", ha="right")
    panel.plot([0, 1], [line + 0.45, line + 0.45], color=LINE, lw=0.8)
    by_key = {column.key: column for column in table.columns}
    for entry in table.lines[:most]:
        line += 1
        if entry.rank is not None:
            panel.text(0.022, line, str(entry.rank), fontsize=8.5, color=INK, va="center", ha="right")
        setting = str(by_key["setting"].value(entry)).removeprefix(USUAL).strip()
        comma = "" if not setting else " " if setting.startswith("(") else ", "
        label = f"{by_key['attack'].value(entry).text}{comma}{setting}"
        label = textwrap.shorten(label, int((begin - 0.05) / LETTER), placeholder=" …")
        panel.text(0.04, line, label, fontsize=8.5, color=INK, va="center")
        for column, at in zip(numbers, places, strict=True):
            text = typographic(column.text(entry))
            panel.text(at, line, text, fontsize=8.5, color=_colour(column, entry), va="center", ha="right")
    more = len(table.lines) - most
    if more > 0:
        line += 1
        text = f"and {more} more {'row' if more == 1 else 'rows'}: lmia leaderboard lists all"
        panel.text(0.04, line, text, fontsize=7.5, style="italic", color=SOFT, va="center")
    return line + 1.4


def _places(numbers: Sequence[Column], lines: Sequence[Entry]) -> tuple[list[float], float]:
    """Where number columns end, and where the first begins, as shares of the width."""
    at, places = 0.985, []
    for column in reversed(numbers):
        places.append(at)
        longest = max([len(column.title) * 0.9, *(len(column.text(line)) for line in lines)])
        at -= longest * CHARACTER + 0.025
    return places[::-1], at


def _colour(column: Column, entry: Entry) -> str:
    m = entry.row.measured
    if entry.section == "cross":
        return {"auc": BLUE, "source": AMBER}.get(column.key, INK)
    if column.key == "delta":
        return BLUE if verdict(m.delta_auc_ci, entry.p_adjusted) == "leak" else INK
    return SOFT if column.key == "mde" else INK


def _label(entry: Entry, usual: Usual) -> str:
    """Attack and setting on at most two lines."""
    setting = as_line(usual.differences(entry.row))
    kind = "confounded" if entry.row.confounded else entry.row.status if entry.row.status != "ok" else entry.section
    label = "" if kind in {"ranked", "cross"} else f"{kind}: "
    label += name(entry.row.axes.attack) + (f", {setting}" if setting else "")
    return textwrap.fill(label, 46, max_lines=2, placeholder=" ...")


def _fitting(board: Board) -> tuple[list[Entry], str]:
    """Entries with a Delta, at most MOST_ROWS, and what is not shown: ranked rows do not push out the other parts."""
    sections: tuple[Section, ...] = ("planted", "apart", "control")
    others = [e for section in sections for e in board.section(section) if e.row.measured.delta_auc is not None]
    ranked = board.section("ranked")
    shown = others[: MOST_ROWS // 2]
    kept = [*ranked[: MOST_ROWS - len(shown)], *shown]
    gone = Counter(entry.section for entry in (*ranked, *others) if entry not in kept)
    told = ", ".join(f"{count} {'weaker ' if section == 'ranked' else ''}{section}" for section, count in gone.items())
    return kept, f"; not shown: {told}" if told else ""


def _delta(board: Board) -> "Figure | None":
    entries, more = _fitting(board)
    if not entries:
        return None
    usual = Usual(board)
    height = 1.5 + 0.27 * len(entries)
    figure, panel = new(9.5, height)
    for place, entry in enumerate(entries):
        m = entry.row.measured
        assert m.delta_auc is not None
        ci = m.delta_auc_ci
        colour = {"leak": BLUE, "below": PLUM}.get(verdict(ci, entry.p_adjusted), GREY)
        if m.mde is not None:
            panel.barh(place, 2 * m.mde, left=-m.mde, height=0.62, color=BAND, zorder=1)
        if ci is not None:
            panel.plot(ci, [place, place], color=colour, lw=2, alpha=0.6, zorder=2, solid_capstyle="round")
        panel.plot([m.delta_auc], [place], "o", color=colour, ms=5.5, zorder=3)
        text = typographic(f"{with_interval(m.delta_auc, ci, signed=True)}   MDE {number(m.mde)}")
        panel.text(1.01, place, text, transform=panel.get_yaxis_transform(), va="center", fontsize=8, color=INK)
    panel.axvline(0, color=GREY, lw=1, zorder=1.5)
    panel.set_yticks(range(len(entries)), [_label(entry, usual) for entry in entries], fontsize=8, color=INK)
    panel.set_ylim(len(entries) - 0.4, -0.6)
    panel.set_xlabel(
        f"Delta: members against unseen people of the same source, 95 % interval; pale: below the MDE{more}",
        fontsize=8,
        color=SOFT,
    )
    title(figure, "Is anybody's membership given away?", height)
    figure.subplots_adjust(left=0.34, right=0.79, top=1 - 0.55 / height, bottom=0.6 / height)
    return figure


def _source(board: Board) -> "Figure | None":
    entries = with_source_auc(board)
    if not entries:
        return None
    gone = len(entries) - MOST_ROWS
    more = f"; not shown: {gone} with lower AUCs" if gone > 0 else ""
    entries = entries[:MOST_ROWS]
    usual = Usual(board)
    height = 1.5 + 0.27 * len(entries)
    figure, panel = new(9.5, height)
    values = []
    for place, entry in enumerate(entries):
        m = entry.row.measured
        assert m.auc is not None and m.source_auc is not None
        values += [m.auc, m.source_auc]
        panel.plot([m.source_auc, m.auc], [place, place], color=BLUE, lw=3, alpha=0.45, solid_capstyle="round")
        panel.plot([m.source_auc], [place], "o", color=AMBER, ms=6.5)
        panel.plot([m.auc], [place], "o", color=BLUE, ms=6.5)
        rest, ci = auc_minus_source(entry.row)
        text = typographic(f"{number(m.auc)} − {number(m.source_auc)}: {with_interval(rest, ci, signed=True)}")
        panel.text(1.01, place, text, transform=panel.get_yaxis_transform(), va="center", fontsize=8, color=INK)
    panel.axvline(0.5, color=GREY, lw=1)
    panel.set_yticks(range(len(entries)), [_label(entry, usual) for entry in entries], fontsize=8, color=INK)
    panel.set_ylim(len(entries) - 0.4, -0.6)
    panel.set_xlim(min(0.48, min(values) - 0.02), 1.01)
    panel.set_xlabel(
        f"AUC against people of another source: members (blue), people never seen (amber){more}", fontsize=8, color=SOFT
    )
    title(figure, "How much of the AUC is style?", height)
    figure.subplots_adjust(left=0.34, right=0.79, top=1 - 0.55 / height, bottom=0.6 / height)
    return figure


_FIGURES: dict[str, Callable[[Board], "Figure | None"]] = {
    "leaderboard": _leaderboard,
    "delta": _delta,
    "source": _source,
    "epochs": epochs,
    "cost": cost,
    "roc": rocs,
}
