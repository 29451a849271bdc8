"""One self-contained HTML file from a board: no network, no other files, every text escaped.

The tables are in the HTML itself and can be read without scripts; scripts add sorting, filters, ROC curves, the heat
map and the details of a row, from the data that the page carries with it (`page_data`).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import groupby
from typing import Any

import jinja2
from markupsafe import Markup

from bench.axes import AXES, TARGET_AXES
from bench.leaderboard import texts
from bench.leaderboard.findings import headline, with_source_auc
from bench.leaderboard.formats import MISSING, amount, axis_text, name, number, typographic, with_interval
from bench.leaderboard.page_data import script_data, sheets_of
from bench.leaderboard.rank import Board, Entry
from bench.leaderboard.settings import Usual
from bench.leaderboard.tables import Cell, Column, Plot, Table, attack_table, tables

SHOWN_ROWS = 60
_TRACK = ("access", "captions", "shadow")


def page(board: Board) -> str:
    """The leaderboard as one HTML document."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["typographic"] = typographic
    folder = resources.files("bench.leaderboard").joinpath("page")
    template = environment.from_string(folder.joinpath("page.html").read_text(encoding="utf-8"))
    sheets = sheets_of(board)
    return template.render(
        board=board,
        css=Markup(folder.joinpath("page.css").read_text(encoding="utf-8")),
        script=Markup(folder.joinpath("page.js").read_text(encoding="utf-8")),
        data=Markup(script_data(board, sheets, SHOWN_ROWS)),
        sentences=texts.summary(board),
        hero=_hero(board),
        sections=[_section(table) for table in tables(board)],
        tracks=_tracks(board),
        suite=[_target(key) for key in board.suite],
        usual=Usual(board).pairs(),
        filters=[(axis, AXES[axis].title, sorted(_values(board, axis), key=_axis_order)) for axis in board.varying],
        sheets=sheets,
        shown=SHOWN_ROWS,
        footnotes=texts.FOOTNOTES,
        glossary=texts.GLOSSARY,
        made_at=max((entry.row.provenance.made_at or "" for entry in board.entries), default=""),
        revisions=sorted({entry.row.provenance.revision or "" for entry in board.entries} - {""}),
        amount=amount,
    )


@dataclass(frozen=True)
class Bar:
    """Positions of a small interval plot, in per cent of its width."""

    kind: str
    value: float
    zero: float
    low: float | None = None
    high: float | None = None
    other: float | None = None
    band_low: float | None = None
    band_high: float | None = None
    tone: str = ""


class _Scale:
    """What the plots of a table span, equal for all its rows, in steps of .05."""

    def __init__(self, plots: Iterable[Plot | None]) -> None:
        drawn = [plot for plot in plots if plot is not None]
        ends = [v for p in drawn for v in (p.value, p.other, *(p.ci or ())) if v is not None]
        self.of_auc = any(plot.zero != 0 for plot in drawn)
        self.zero = 0.5 if self.of_auc else 0.0
        if self.of_auc:
            self.low, self.high = max(0.0, math.floor((min([0.5, *ends]) - 0.02) * 20) / 20), 1.0
        else:
            ends += [0.1, -0.1]
            self.low = max(-1.0, math.floor(min(ends) * 20) / 20)
            self.high = min(1.0, math.ceil(max(ends) * 20) / 20)

    def place(self, value: float) -> float:
        """A value's place, in per cent."""
        return _place(value, self.low, self.high)

    def bar(self, plot: Plot | None) -> Bar | None:
        """A plot's places."""
        if plot is None:
            return None
        return Bar(
            "pair" if self.of_auc else "delta",
            value=self.place(plot.value),
            zero=self.place(plot.zero),
            low=None if plot.ci is None else self.place(plot.ci[0]),
            high=None if plot.ci is None else self.place(plot.ci[1]),
            other=None if plot.other is None else self.place(plot.other),
            band_low=None if plot.unseen is None else self.place(-plot.unseen),
            band_high=None if plot.unseen is None else self.place(plot.unseen),
            tone=plot.verdict,
        )

    def marks(self) -> list[tuple[float, str]]:
        """Places and texts below the head of the column."""
        far = [end for end in (self.low, self.high) if abs(end - self.zero) > (self.high - self.low) / 4]
        values = sorted({self.zero, *far})
        return [(self.place(v), number(v, 2, not self.of_auc)) for v in values]


@dataclass(frozen=True)
class _Line:
    """A table row: the entry, its cells by column, and what the search looks through."""

    entry: Any
    cells: dict[str, Cell]
    search: str = ""


def _place(value: float, low: float, high: float) -> float:
    return round(100 * min(1.0, max(0.0, (value - low) / (high - low))), 2)


def _lines(table: Table, columns: Sequence[Column]) -> tuple[list[_Line], _Scale]:
    lines = [_Line(line, {column.key: column.value(line) for column in columns}) for line in table.lines]
    return lines, _Scale(line.cells["plot"].plot for line in lines if "plot" in line.cells)


def _section(table: Table) -> dict[str, Any]:
    columns = table.shown("page")
    lines, scale = _lines(table, columns)
    return {
        "table": table,
        "columns": [column for column in columns if column.key != "setting"],  # it stands below the attack's name
        "lines": [_Line(line.entry, line.cells, _search_text(line.entry)) for line in lines],
        "scale": scale,
    }


def _tracks(board: Board) -> dict[str, Any] | None:
    table = attack_table(board)
    if table is None:
        return None
    columns = table.shown("page")
    lines, scale = _lines(table, columns)
    heads = [column for column in columns if column.key in _TRACK]
    return {
        "table": table,
        "columns": [column for column in columns if column.key not in (*_TRACK, "setting")],
        "scale": scale,
        "groups": [
            ([(head.title, part) for head, part in zip(heads, track, strict=True)], list(group))
            for track, group in groupby(lines, key=lambda line: line.entry.track)
        ],
    }


def _hero(board: Board) -> dict[str, Any] | None:
    """The picture of the summary: how much of the headline AUC the source alone explains."""
    entry = headline(board, with_source_auc(board))
    if entry is None or entry.row.measured.auc is None or entry.row.measured.source_auc is None:
        return None
    auc, source_auc = entry.row.measured.auc, entry.row.measured.source_auc
    same = headline(board, board.section("ranked"))
    if same is not None and same.row.axes.attack != entry.row.axes.attack:
        same = None
    fair = None if same is None or same.row.measured.delta_auc is None else 0.5 + same.row.measured.delta_auc
    lowest = min([0.5, auc, source_auc, *([] if fair is None else [fair])])
    low = 0.5 if lowest == 0.5 else math.floor(lowest * 20) / 20
    found: dict[str, Any] = {
        "attack": name(entry.row.axes.attack),
        "auc": number(auc),
        "source_auc": number(source_auc),
        "left": number(round(auc, 2) - round(source_auc, 2), 2, signed=True),
        "source_at": _place(source_auc, low, 1.0),
        "auc_at": _place(auc, low, 1.0),
        "chance_at": _place(0.5, low, 1.0),
        "same": None,
    }
    if same is not None and fair is not None:
        m = same.row.measured
        found["same"] = {
            "delta": with_interval(m.delta_auc, m.delta_auc_ci, signed=True),
            "auc": number(fair),
            "at": _place(fair, low, 1.0),
            "mde": number(m.mde),
        }
    return found


def _target(key: tuple[Any, ...]) -> str:
    pairs = zip(TARGET_AXES, key, strict=True)
    return ", ".join(f"{AXES[axis].title} {axis_text(value)}" for axis, value in pairs if value is not None)


def _values(board: Board, axis: str) -> set[str]:
    return {axis_text(getattr(entry.row.axes, axis)) for entry in board.entries}


def _axis_order(value: str) -> tuple[int, float, str]:
    try:
        return 0, float(value), value
    except ValueError:
        return 1 if value != MISSING else 2, 0.0, value


def _search_text(entry: Entry) -> str:
    row = entry.row
    axes = " ".join(f"{axis} {about.title} {getattr(row.axes, axis)}" for axis, about in AXES.items())
    extra = [row.cell, row.role, row.status, row.estimand, row.level, *row.flags, row.reason or ""]
    return f"{axes} {' '.join(extra)}".replace("_", " ").lower()
