"""The leaderboard for a terminal: summary, what the usual cell is, and the tables."""

import io

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table as Grid
from rich.text import Text

from bench.leaderboard import texts
from bench.leaderboard.rank import Board
from bench.leaderboard.settings import Usual, as_line
from bench.leaderboard.tables import Table, attack_table, tables

WIDTH = 160
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
        console.print(_grid(table))
        for line in (_order(table), table.remark):
            if line:
                console.print(Text(f"  {line}", style="dim" if color else ""))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _summary(board: Board) -> Text:
    summary = Text()
    for sentence in texts.summary(board):
        summary.append(f"{sentence.title}. ", style=_TONES[sentence.tone])
        summary.append(f"{sentence.text}\n")
    summary.rstrip()
    return summary


def _grid(table: Table) -> Grid:
    grid = Grid(box=box.SIMPLE_HEAD, title=Text(table.title), title_justify="left", title_style="bold", expand=False)
    columns = table.shown("text")
    for column in columns:
        words = column.kind == "text"
        grid.add_column(column.title, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    for line in table.lines:
        grid.add_row(*(Text(str(column.value(line))) for column in columns))
    return grid


def _order(table: Table) -> str:
    return texts.FOOTNOTES["bound"] if any(column.key == "bound" for column in table.columns) else ""
