"""The leaderboard for a terminal: summary, what the usual cell is, and the tables."""

import io

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table as Grid
from rich.text import Text

from bench.leaderboard import texts
from bench.leaderboard.rank import Board
from bench.leaderboard.settings import Usual, as_line
from bench.leaderboard.tables import Table, attack_table, tables

WIDTH = 160
_LEAST = {"attack": 13, "setting": 16, "access": 9, "why": 24}
_BROKEN = {"lower bound": "lower\nbound", "base AUC": "base\nAUC", "blind AUC": "blind\nAUC"}
_TONES = {"leak": "bold blue", "clear": "bold green", "caution": "bold yellow", "note": "bold"}


def as_table(board: Board, width: int = WIDTH, color: bool = False) -> str:
    """Summary and tables, `width` columns wide."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=color, no_color=not color, highlight=False, emoji=False)
    head = f"{board.campaign.name}: {len(board.entries)} rows, {' and '.join(board.evidence) or 'no'} evidence"
    console.print(Panel(_summary(board), title=Text(head), title_align="left"))
    usual = as_line(Usual(board).pairs())
    if usual:
        console.print(Text(f"The usual setting: {usual}."))
    suite = attack_table(board)
    for table in (*tables(board), *([] if suite is None else [suite])):
        console.print()
        console.print(_grid(table))
        for line in (_order(table), table.remark):
            if line:
                console.print(Padding(Text(line, style="dim" if color else ""), (0, 2)))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _summary(board: Board) -> Text:
    summary = Text()
    for sentence in texts.summary(board):
        summary.append(f"{sentence.title}. ", style=_TONES[sentence.tone])
        summary.append(f"{sentence.text}\n")
    summary.rstrip()
    return summary


def _grid(table: Table) -> Grid:
    grid = Grid(
        box=box.SIMPLE_HEAD,
        title=Text(table.title),
        title_justify="left",
        title_style="bold",
        collapse_padding=True,
        pad_edge=False,
    )
    columns = table.shown("text")
    for column in columns:
        words = column.kind == "text"
        grid.add_column(
            _BROKEN.get(column.title, column.title.replace(" FPR", "\nFPR")),
            justify="left" if words else "right",
            overflow="fold",
            no_wrap=not words,
            min_width=_LEAST.get(column.key),
        )
    for line in table.lines:
        grid.add_row(*(Text(column.text(line)) for column in columns))
    return grid


def _order(table: Table) -> str:
    return texts.FOOTNOTES["bound"] if any(column.key == "bound" for column in table.columns) else ""
