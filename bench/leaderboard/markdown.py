"""The leaderboard in Markdown: summary, tables and footnotes."""

from bench.leaderboard import texts
from bench.leaderboard.rank import Board
from bench.leaderboard.settings import Usual, as_line
from bench.leaderboard.tables import Table, attack_table, tables


def as_markdown(board: Board) -> str:
    """One document with a heading a section."""
    about = board.campaign
    parts = [f"# {_escaped(about.title or about.name)}", ""]
    if about.description:
        parts += [_escaped(about.description), ""]
    parts += [f"Campaign `{_escaped(about.name)}`, {len(board.entries)} rows, {' and '.join(board.evidence)} evidence."]
    parts += ["", "## What this shows", ""]
    parts += [f"- **{_escaped(one.title)}.** {_escaped(one.text)}" for one in texts.summary(board)]
    parts += ["", f"Unless a row says otherwise: {_escaped(as_line(Usual(board).pairs()))}."]
    suite = attack_table(board)
    for table in (*tables(board), *([] if suite is None else [suite])):
        parts += ["", f"## {table.title}", "", table.note, "", *_lines(table)]
        parts += ["", table.remark] if table.remark else []
    parts += ["", "## How each number was computed", ""]
    parts += [f"- {_escaped(text)}" for text in texts.FOOTNOTES.values()]
    return "\n".join(parts) + "\n"


def _lines(table: Table) -> list[str]:
    columns = table.shown("text")
    lines = ["| " + " | ".join(column.title for column in columns) + " |"]
    lines += ["|" + "".join("---|" if column.kind == "text" else "---:|" for column in columns)]
    lines += ["| " + " | ".join(_escaped(c.text(line)) for c in columns) + " |" for line in table.lines]
    return lines


def _escaped(text: str) -> str:
    text = " ".join(str(text).split())
    for char in "\\`*_|[]":
        text = text.replace(char, f"\\{char}")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
