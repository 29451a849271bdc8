"""The one entry from rows to something to look at: `render`."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.axes import AXES
from bench.leaderboard import words
from bench.leaderboard.rank import Board, Campaign, Entry, join
from bench.leaderboard.row import Measured, Row
from bench.leaderboard.side import Side
from lmia.specs import UnknownName

WIDTH = 160


def render(
    rows: Iterable[Row],
    sides: Mapping[str, Side] | None = None,
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
        sides: side material by cell: ROC curves, sample sheets, access.
        campaign: what the rows are shown in; None for "all".
        format: table, json, csv, md, html or figures.
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
    board = join(rows, sides, campaign)
    if format == "figures":
        from bench.leaderboard.figures import figures

        return figures(board, Path(out or "figures"))
    text = table(board, width, color) if format == "table" else _TEXTS[format](board)
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
    rates = sorted({rate for e in board.entries for rate in e.row.measured.tpr_at_fpr}, key=float, reverse=True)
    metrics = sorted({name for e in board.entries for name in e.row.measured.metrics})
    lines = [_csv_row(entry, board.campaign.name, rates, metrics) for entry in board.entries]
    out = io.StringIO()
    names = list(lines[0]) if lines else ["benchmark", "rank", "cell"]
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _csv_row(entry: Entry, benchmark: str, rates: list[str], metrics: list[str]) -> dict[str, Any]:
    row, m = entry.row, entry.row.measured
    line: dict[str, Any] = {"benchmark": benchmark, "rank": entry.rank, "cell": row.cell}
    line |= {axis: getattr(row.axes, axis) for axis in AXES}
    line |= {"estimand": row.estimand, "level": row.level, "role": row.role, "status": row.status}
    line |= {"flags": " ".join(row.flags), "reason": row.reason}
    for field in Measured.model_fields:
        value = getattr(m, field)
        if field.endswith("_ci"):
            line |= {f"{field[:-3]}_low": value and value[0], f"{field[:-3]}_high": value and value[1]}
        elif field not in ("tpr_at_fpr", "metrics", "estimates"):
            line[field] = value
    for rate in rates:
        found = m.tpr_at_fpr.get(rate)
        ci = found.ci if found else None
        line[f"tpr_at_fpr_{rate}"] = found.tpr if found else None
        line |= {f"tpr_at_fpr_{rate}_low": ci and ci[0], f"tpr_at_fpr_{rate}_high": ci and ci[1]}
    line |= {f"metric_{name}": m.metrics.get(name) for name in metrics}
    line |= {"p_adjusted": entry.p_adjusted, "bound": entry.bound}
    line["reported_auc"] = entry.reported.auc if entry.reported else None
    line |= row.cost.model_dump()
    line |= {"evidence": row.provenance.evidence, "revision": row.provenance.revision}
    line["made_at"] = row.provenance.made_at
    return {name: _safe(value) for name, value in line.items()}


def _safe(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula, defused."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def as_markdown(board: Board) -> str:
    """Summary, tables and footnotes in Markdown."""
    title = board.campaign.title or board.campaign.name
    parts = [f"# {_md(title)}", ""]
    if board.campaign.description:
        parts += [_md(board.campaign.description), ""]
    parts += [
        f"Campaign `{_md(board.campaign.name)}`, {len(board.entries)} rows, {' and '.join(board.evidence)} evidence."
    ]
    parts += ["", "## What this shows", ""]
    parts += [f"- **{_md(finding.title)}.** {_md(finding.text)}" for finding in words.findings(board)]
    usual = words.usual(board)
    ordinary = ", ".join(
        f"{words.AXIS_TITLES[axis]} {words.axis_text(value)}"
        for axis, value in usual.items()
        if value is not None and axis not in ("attack", "query")
    )
    parts += ["", f"Unless a row says otherwise: {_md(ordinary)}."]
    for name, title in words.SECTION_TITLES.items():
        entries = board.section(name)  # type: ignore[arg-type]
        if entries:
            parts += ["", f"## {title}", "", words.SECTION_NOTES[name], ""]
            heads, lines = _flat_table(board, name, entries)
            parts += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
            parts += ["| " + " | ".join(_md(cell) for cell in line) + " |" for line in lines]
    if board.attacks:
        parts += ["", "## Attacks, on the same targets", "", words.FOOTNOTES["suite"], ""]
        parts += [
            "| # | access | captions | shadow data | attack | Delta | lower bound | targets | NFE |",
            "|" + "---|" * 9,
        ]
        parts += ["| " + " | ".join(map(_md, line)) + " |" for line in _attack_lines(board)]
    parts += ["", "## How each number was computed", ""]
    parts += [f"- {_md(text)}" for text in words.FOOTNOTES.values()]
    return "\n".join(parts) + "\n"


def _md(text: str) -> str:
    text = " ".join(str(text).split())
    for char in "\\`*_|[]":
        text = text.replace(char, f"\\{char}")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _flat_table(board: Board, name: str, entries: list[Entry]) -> tuple[list[str], list[list[str]]]:
    """A section as plain text cells, for the terminal and for Markdown."""
    usual = words.usual(board)
    ranked, cross, apart = name == "ranked", name == "cross", name == "apart"
    heads = [*(["#"] if ranked else []), "attack", "setting"]
    heads += ["AUC", "source AUC", "left"] if cross else ["Delta", "MDE", *(["p adj."] if ranked else []), "AUC"]
    heads += ["TPR at 1 % FPR", "base", "blind", *(["why"] if apart else [])]
    lines = []
    for entry in entries:
        row, m = entry.row, entry.row.measured
        what = words.setting(row, words.unusual_axes(board, row, usual)) or "the usual one"
        tags = [*row.flags, *([row.estimand] if name == "other" else [])]
        tags += [f"{row.level} level"] if row.level != "picture" else []
        if tags:
            what += f" ({', '.join(tags)})"
        rate = m.tpr_at_fpr.get("0.01")
        rest, rest_ci = words.left(row)
        auc = words.with_interval(m.auc, m.auc_ci)
        line = [*([str(entry.rank)] if ranked else []), words.axis_text(row.axes.attack), what]
        if cross:
            line += [auc, words.with_interval(m.source_auc, m.source_auc_ci), words.with_interval(rest, rest_ci, True)]
        else:
            line += [words.with_interval(m.delta_auc, m.delta_auc_ci, True), words.number(m.mde)]
            line += [*([words.p_text(entry.p_adjusted)] if ranked else []), auc]
        line += [words.number(rate.tpr if rate else None), words.number(m.base_auc), words.number(m.blind_auc)]
        lines.append([*line, *([entry.why_unranked or ""] if apart else [])])
    return heads, lines


def _attack_lines(board: Board) -> list[list[str]]:
    lines = []
    for attack in board.attacks:
        own = ", ".join(
            f"{words.AXIS_TITLES[axis]} {words.axis_text(attack.axes[axis])}"
            for axis in ("aux", "guidance", "prompt", "steps")
            if attack.axes[axis] is not None and axis in board.varying
        )
        lines.append(
            [
                words.MISSING if attack.rank is None else str(attack.rank),
                *attack.track,
                words.axis_text(attack.axes["attack"]) + (f" ({own})" if own else ""),
                words.with_interval(attack.delta, attack.delta_ci, True),
                words.number(attack.bound, signed=True),
                f"{attack.num_targets} of {attack.num_suite}",
                words.amount(attack.nfe),
            ]
        )
    return lines


def table(board: Board, width: int = WIDTH, color: bool = False) -> str:
    """Summary and tables for a terminal."""
    from rich import box
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=color, no_color=not color, highlight=False, emoji=False)
    summary = Text()
    tones = {"leak": "bold blue", "clear": "bold green", "caution": "bold yellow", "note": "bold"}
    for finding in words.findings(board):
        summary.append(f"{finding.title}. ", style=tones[finding.tone])
        summary.append(f"{finding.text}\n")
    head = f"{board.campaign.name}: {len(board.entries)} rows, {' and '.join(board.evidence) or 'no'} evidence"
    summary.rstrip()
    console.print(Panel(summary, title=Text(head), title_align="left"))
    for name, title in words.SECTION_TITLES.items():
        entries = board.section(name)  # type: ignore[arg-type]
        if not entries:
            continue
        heads, lines = _flat_table(board, name, entries)
        shown = Table(box=box.SIMPLE_HEAD, title=Text(title), title_justify="left", title_style="bold", expand=False)
        for column in heads:
            plain = column in ("attack", "setting", "why")
            shown.add_column(column, justify="left" if plain else "right", overflow="fold", no_wrap=not plain)
        for line in lines:
            shown.add_row(*(Text(cell) for cell in line))
        console.print(shown)
    if board.attacks:
        shown = Table(box=box.SIMPLE_HEAD, title=Text("Attacks, on the same targets"), title_justify="left")
        for column in ("#", "access", "captions", "shadow data", "attack", "Delta", "lower bound", "targets", "NFE"):
            shown.add_column(column, justify="left" if column in ("access", "attack") else "right")
        for line in _attack_lines(board):
            shown.add_row(*(Text(cell) for cell in line))
        console.print(shown)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _page(board: Board) -> str:
    from bench.leaderboard.html import page

    return page(board)


_TEXTS: dict[str, Callable[[Board], str]] = {"json": as_json, "csv": as_csv, "md": as_markdown, "html": _page}
FORMATS = ("table", *_TEXTS, "figures")
