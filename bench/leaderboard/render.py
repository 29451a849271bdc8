"""The one entry from rows to something to look at: `render`."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.leaderboard.attachments import Attachments
from bench.leaderboard.fields import fields
from bench.leaderboard.latex import as_latex
from bench.leaderboard.markdown import as_markdown
from bench.leaderboard.rank import Board, Campaign, Entry, join
from bench.leaderboard.row import Row
from lmia.specs import UnknownName

WIDTH = 160


def render(
    rows: Iterable[Row],
    attachments: Mapping[str, Attachments] | None = None,
    campaign: Campaign | None = None,
    format: str = "table",
    out: str | Path | None = None,
    *,
    width: int = WIDTH,
    color: bool = False,
) -> str | list[Path]:
    """Renders a campaign's rows.

    Args:
        rows: rows, in any order.
        attachments: what is shown beside them, by cell: ROC curves, sample sheets, access.
        campaign: what the rows are shown in; None for "all".
        format: one of FORMATS.
        out: file to write (for figures: the folder); None to get the text back (figures need a folder).
        width: columns of the terminal (table).
        color: whether the terminal shows colours (table).

    Returns:
        The text if `out` is None, else the paths written.

    Raises:
        UnknownName: no such format.
    """
    if format not in FORMATS:
        raise UnknownName("format", format, FORMATS)
    board = join(rows, attachments, campaign)
    if format == "figures":
        from bench.leaderboard.figures import figures

        return figures(board, Path(out or "figures"))
    text = _table(board, width, color) if format == "table" else _TEXTS[format](board)
    if out is None:
        return text
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
    return [path]


def as_dict(entry: Entry, benchmark: str) -> dict[str, Any]:
    """A row as JSON values with what its campaign adds: benchmark, reported, p_adjusted, rank."""
    reported = entry.reported
    return entry.row.to_dict() | {
        "benchmark": benchmark,
        "reported": None if reported is None else {"auc": reported.auc, "source": f"{reported.source}, real faces"},
        "p_adjusted": entry.p_adjusted,
        "rank": entry.rank,
    }


def as_json(board: Board) -> str:
    """A JSON array of rows, ranked ones first."""
    rows = [as_dict(entry, board.campaign.name) for entry in board.entries]
    return json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(board: Board) -> str:
    """One line a row, intervals as _low and _high, a missing number as an empty field."""
    columns = fields(board.entries)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["benchmark", *(column.key for column in columns)])
    name = _safe(board.campaign.name)
    writer.writerows([name, *(_safe(column.value(entry)) for column in columns)] for entry in board.entries)
    return out.getvalue()


def _safe(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula, defused."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _table(board: Board, width: int, color: bool) -> str:
    from bench.leaderboard.terminal import as_table

    return as_table(board, width, color)


def _page(board: Board) -> str:
    from bench.leaderboard.html import page

    return page(board)


_TEXTS: dict[str, Callable[[Board], str]] = {
    "json": as_json,
    "csv": as_csv,
    "md": as_markdown,
    "latex": as_latex,
    "html": _page,
}
FORMATS = ("table", *_TEXTS, "figures")
