r"""The tables in LaTeX, for a paper: one `longtable` a section, to be read by \input; needs booktabs and longtable."""

import re

from bench.leaderboard import texts
from bench.leaderboard.rank import Board
from bench.leaderboard.settings import Usual, as_line
from bench.leaderboard.tables import Table, attack_table, tables

_SPECIAL = {char: f"\\{char}" for char in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    '"': "''",
    "–": "--",
    "−": "$-$",
    "[": "{[}",  # after \\ a bare bracket would be an option of the line break
    "]": "{]}",
}
_TEXT_CM = {"attack": 2.4, "setting": 4.0, "why": 4.5}


def as_latex(board: Board) -> str:
    """One longtable a section, with captions and labels (tab:CAMPAIGN-SECTION)."""
    head = [
        f"% {' '.join(board.campaign.name.split())}: {len(board.entries)} rows, rendered by lmia.",
        r"% \usepackage{booktabs,longtable,array}",
    ]
    usual = as_line(Usual(board).pairs())
    suite = attack_table(board)
    found = [*tables(board), *([] if suite is None else [suite])]
    usually = [usual] + [""] * len(found)  # said once
    lines = [line for table, text in zip(found, usually, strict=False) for line in _lines(table, board, text)]
    return "\n".join([*head, *lines]) + "\n"


def _lines(table: Table, board: Board, usual: str) -> list[str]:
    columns = table.shown("text")
    form = "".join(
        f">{{\\raggedright\\arraybackslash}}p{{{_TEXT_CM.get(c.key, 1.8)}cm}}" if c.kind == "text" else "r"
        for c in columns
    )
    notes = [table.title + ".", table.note, f"The usual setting: {usual}." if usual else "", table.remark]
    if any(column.key == "bound" for column in columns):
        notes.append(texts.FOOTNOTES["bound"])
    caption = _escaped(" ".join(note for note in notes if note))
    label = "tab:" + re.sub(r"[^A-Za-z0-9-]+", "-", f"{board.campaign.name}-{table.name}")
    heads = " & ".join(_escaped(column.title) for column in columns) + r" \\"
    return [
        "",
        r"\begingroup\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\begin{{longtable}}{{{form}}}",
        rf"\caption{{{caption}}}\label{{{label}}}\\",
        r"\toprule",
        heads,
        r"\midrule",
        r"\endfirsthead",
        r"\toprule",
        heads,
        r"\midrule",
        r"\endhead",
        r"\bottomrule",
        r"\endfoot",
        *(" & ".join(_number(c.text(line)) for c in columns) + r" \\" for line in table.lines),
        r"\end{longtable}",
        r"\endgroup",
    ]


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(char, char) for char in " ".join(text.split()))


def _number(text: str) -> str:
    """Escaped, with minus signs before numbers."""
    return re.sub(r"(?<![\w.])-(?=[.\d])", "$-$", _escaped(text))
