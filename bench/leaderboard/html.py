"""One self-contained HTML file from a board: no network, no other files, every text escaped.

The tables are in the HTML itself and can be read without scripts; scripts add sorting, filters, ROC curves, the heat
map and the details of a row, from the data that the page carries with it.
"""

import base64
import hashlib
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from bench.axes import AXES, TARGET_AXES
from bench.leaderboard import words
from bench.leaderboard.rank import AttackEntry, Board, Entry
from bench.leaderboard.row import Measured, Row, why_null
from bench.leaderboard.side import Curve

SHEET_WIDTH_PX = 1024
SHEET_LOSSLESS_BYTES = 60_000
SHEETS_BYTES = 16_000_000
CURVE_POINTS = 240_000
SHOWN_ROWS = 60


@dataclass(frozen=True)
class Cell:
    """One table cell: its text, what it sorts by (None sorts last), and what it says when pointed at."""

    text: str
    sort: float | str | None = None
    title: str = ""
    sub: str = ""
    kind: str = "num"
    bar: Any = None


@dataclass(frozen=True)
class Column:
    """One table column; `note` is the key of its footnote."""

    key: str
    title: str
    note: str = ""
    kind: str = "num"


@dataclass(frozen=True)
class Bar:
    """Positions of a small interval plot, in per cent of its width."""

    kind: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    other: float | None = None
    zero: float | None = None
    band_low: float | None = None
    band_high: float | None = None
    tone: str = ""


def page(board: Board) -> str:
    """The leaderboard as one HTML document."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    folder = resources.files("bench.leaderboard").joinpath("page")
    template = environment.from_string(folder.joinpath("page.html").read_text(encoding="utf-8"))
    sheets = _sheets(board)
    ordinary = words.usual(board)
    return template.render(
        board=board,
        css=Markup(folder.joinpath("page.css").read_text(encoding="utf-8")),
        script=Markup(folder.joinpath("page.js").read_text(encoding="utf-8")),
        data=Markup(_script_safe(_data(board, sheets))),
        findings=words.findings(board),
        hero=_hero(board),
        sections=[_section(board, name, ordinary) for name in words.SECTION_TITLES if board.section(name)],  # type: ignore[arg-type]
        tracks=_tracks(board),
        suite=[_target_text(key) for key in board.suite],
        usual=[
            (words.AXIS_TITLES[axis], words.axis_text(ordinary[axis]))
            for axis in AXES
            if ordinary[axis] is not None and axis not in ("query", "attack")
        ],
        filters=[
            (axis, words.AXIS_TITLES[axis], sorted(_values(board, axis), key=_axis_order)) for axis in board.varying
        ],
        sheets=sheets,
        shown=SHOWN_ROWS,
        footnotes=words.FOOTNOTES,
        glossary=words.GLOSSARY,
        axis_titles=words.AXIS_TITLES,
        made_at=max((entry.row.provenance.made_at or "" for entry in board.entries), default=""),
        revisions=sorted({entry.row.provenance.revision or "" for entry in board.entries} - {""}),
        amount=words.amount,
    )


def thin(curve: Curve, limit: int) -> tuple[list[float], list[float]]:
    """At most about `limit` points of a curve, dense at low FPR so that the logarithmic view keeps its shape.

    Args:
        curve: points in rising order.
        limit: number of points, at least 8.
    """
    fpr, tpr = list(curve.fpr), list(curve.tpr)
    last = len(fpr) - 1
    corners = [
        i
        for i in range(len(fpr))
        if i in (0, last) or not ((fpr[i - 1] == fpr[i] == fpr[i + 1]) or (tpr[i - 1] == tpr[i] == tpr[i + 1]))
    ]
    if len(corners) > limit:
        top = len(corners) - 1
        even = {round(top * i / (limit // 2)) for i in range(limit // 2 + 1)}
        early = {round(math.exp(math.log(top + 1) * i / (limit // 2))) - 1 for i in range(limit // 2 + 1)}
        corners = [corners[i] for i in sorted(even | early) if i <= top]
    return [round(fpr[i], 4) for i in corners], [round(tpr[i], 4) for i in corners]


def _section(board: Board, name: Any, ordinary: dict[str, Any]) -> dict[str, Any]:
    entries = board.section(name)
    columns, cells = (_cross_table if name == "cross" else _delta_table)(board, name, entries, ordinary)
    return {
        "name": name,
        "title": words.SECTION_TITLES[name],
        "note": words.SECTION_NOTES[name],
        "columns": columns,
        "rows": [(entry, _search_text(entry), row) for entry, row in zip(entries, cells, strict=True)],
        "axis": _axis_marks(entries, name),
    }


def _delta_table(
    board: Board, name: str, entries: Sequence[Entry], ordinary: dict[str, Any]
) -> tuple[list[Column], list[list[Cell]]]:
    low, high = _range(entries)
    rates = _rates(entries)
    published = any(entry.reported for entry in entries)
    columns = [
        *([Column("rank", "#")] if name == "ranked" else []),
        Column("what", "attack and setting", kind="text"),
        Column("plot", "Delta, its interval and the MDE band", "mde", kind="plot"),
        Column("delta", "Delta", "delta"),
        *([Column("bound", "lower bound", "bound"), Column("p", "p adj.", "p")] if name == "ranked" else []),
        Column("mde", "MDE", "mde"),
        Column("auc", "AUC", "auc"),
        *[Column(f"tpr{rate}", f"TPR at {_percent(rate)} FPR", "tpr") for rate in rates],
        Column("base", "base AUC", "base_auc"),
        Column("blind", "blind AUC", "blind_auc"),
        *([Column("reported", "reported", "reported")] if published else []),
        Column("nfe", "NFE", "cost"),
        *([Column("why", "why it stands here", kind="text")] if name == "apart" else []),
    ]
    table = []
    for entry in entries:
        row, m = entry.row, entry.row.measured
        cells = {
            "rank": Cell(str(entry.rank or ""), entry.rank),
            "what": _what(board, entry, ordinary),
            "plot": Cell("", m.delta_auc, kind="plot", bar=_delta_bar(entry, low, high)),
            "delta": _measured(row, "delta_auc", signed=True),
            "bound": _plain(entry.bound, signed=True, why="no interval"),
            "p": Cell(words.p_text(entry.p_adjusted), entry.p_adjusted, f"unadjusted: {words.p_text(entry.p_value)}"),
            "mde": _measured(row, "mde"),
            "auc": _measured(row, "auc"),
            "base": _measured(row, "base_auc"),
            "blind": _measured(row, "blind_auc"),
            "reported": _reported(entry),
            "nfe": _nfe(row),
            "why": Cell(entry.why_unranked or "", entry.why_unranked or "", kind="text"),
            **{f"tpr{rate}": _rate(row, rate) for rate in rates},
        }
        table.append([cells[column.key] for column in columns])
    return columns, table


def _cross_table(
    board: Board, name: str, entries: Sequence[Entry], ordinary: dict[str, Any]
) -> tuple[list[Column], list[list[Cell]]]:
    low, high = _auc_range(entries)
    rates = _rates(entries)
    published = any(entry.reported for entry in entries)
    columns = [
        Column("what", "attack and setting", kind="text"),
        Column("plot", "source AUC and AUC", "source_auc", kind="plot"),
        Column("auc", "AUC", "auc"),
        Column("source", "source AUC", "source_auc"),
        Column("left", "what is left", "source_auc"),
        *[Column(f"tpr{rate}", f"TPR at {_percent(rate)} FPR", "tpr") for rate in rates],
        Column("base", "base AUC", "base_auc"),
        Column("blind", "blind AUC", "blind_auc"),
        *([Column("reported", "reported", "reported")] if published else []),
        Column("nfe", "NFE", "cost"),
    ]
    table = []
    for entry in entries:
        row, m = entry.row, entry.row.measured
        rest, rest_ci = words.left(row)
        bar = None
        if m.auc is not None:
            bar = Bar(
                "pair",
                value=_place(m.auc, low, high),
                other=_place(m.source_auc, low, high),
                zero=_place(0.5, low, high),
            )
        cells = {
            "what": _what(board, entry, ordinary),
            "plot": Cell("", m.auc, kind="plot", bar=bar),
            "auc": _measured(row, "auc"),
            "source": _measured(row, "source_auc"),
            "left": Cell(
                _typographic(words.number(rest, 2, signed=True)),
                rest,
                sub=_typographic(words.interval(rest_ci, 2, signed=True)),
                title="" if rest is not None else why_null(row, "source_auc"),
            ),
            "base": _measured(row, "base_auc"),
            "blind": _measured(row, "blind_auc"),
            "reported": _reported(entry),
            "nfe": _nfe(row),
            **{f"tpr{rate}": _rate(row, rate) for rate in rates},
        }
        table.append([cells[column.key] for column in columns])
    return columns, table


def _what(board: Board, entry: Entry, ordinary: dict[str, Any]) -> Cell:
    row = entry.row
    chips = words.settings(row, words.unusual_axes(board, row, ordinary))
    name = words.axis_text(row.axes.attack).replace("_", " ")
    flags: list[str] = [] if row.status == "ok" else [row.status]
    flags += [flag.replace("_", " ") for flag in row.flags]
    tags = [words.ESTIMANDS[row.estimand]] if entry.section == "other" else []
    tags += [f"{row.level} level"] if row.level != "picture" else []
    tags += [row.role] if entry.section == "control" else []
    return Cell(name, name, kind="what", bar={"chips": chips, "flags": flags, "tags": tags, "usual": not chips})


def _measured(row: Row, field: str, signed: bool = False) -> Cell:
    value = getattr(row.measured, field)
    ci = getattr(row.measured, f"{field}_ci", None)
    if value is None:
        return Cell(words.MISSING, None, why_null(row, field), kind="num na")
    digits = words.digits_for(ci)
    return Cell(
        _typographic(words.number(value, digits, signed)), value, sub=_typographic(words.interval(ci, digits, signed))
    )


def _plain(value: float | None, signed: bool, why: str) -> Cell:
    if value is None:
        return Cell(words.MISSING, None, why, kind="num na")
    return Cell(_typographic(words.number(value, 2, signed)), value)


def _rate(row: Row, rate: str) -> Cell:
    found = row.measured.tpr_at_fpr.get(rate)
    if found is None:
        why = "too few non-members for this rate" if row.status == "ok" else why_null(row, "tpr_at_fpr")
        return Cell(words.MISSING, None, why, kind="num na")
    title = "" if found.false_positives is None else f"{words.amount(found.false_positives)} false positives"
    return Cell(words.number(found.tpr), found.tpr, title, words.interval(found.ci))


def _reported(entry: Entry) -> Cell:
    if entry.reported is None:
        return Cell("", None)
    title = entry.reported.source + (f" ({entry.reported.note})" if entry.reported.note else "")
    return Cell(words.number(entry.reported.auc), entry.reported.auc, title, f"{entry.reported.evidence} faces")


def _nfe(row: Row) -> Cell:
    offline = row.cost.nfe_offline
    sub = f"+ {words.amount(offline)} offline" if offline else ""
    return Cell(words.amount(row.cost.nfe), row.cost.nfe, "" if row.cost.nfe is not None else "not counted", sub)


def _delta_bar(entry: Entry, low: float, high: float) -> Bar | None:
    m = entry.row.measured
    if m.delta_auc is None:
        return None
    ci = m.delta_auc_ci
    return Bar(
        "delta",
        value=_place(m.delta_auc, low, high),
        low=None if ci is None else _place(ci[0], low, high),
        high=None if ci is None else _place(ci[1], low, high),
        zero=_place(0, low, high),
        band_low=None if m.mde is None else _place(-m.mde, low, high),
        band_high=None if m.mde is None else _place(m.mde, low, high),
        tone=words.tone_of(ci, entry.p_adjusted),
    )


def _range(entries: Sequence[Entry]) -> tuple[float, float]:
    """What a Delta plot spans, equal for all rows of a section, in steps of .05."""
    values = [0.1, -0.1]
    for entry in entries:
        m = entry.row.measured
        values += [v for v in (m.delta_auc, *(m.delta_auc_ci or ())) if v is not None]
    return max(-1.0, math.floor(min(values) * 20) / 20), min(1.0, math.ceil(max(values) * 20) / 20)


def _auc_range(entries: Sequence[Entry]) -> tuple[float, float]:
    values = [0.5, *(v for e in entries for v in (e.row.measured.auc, e.row.measured.source_auc) if v is not None)]
    return max(0.0, math.floor((min(values) - 0.02) * 20) / 20), 1.0


def _axis_marks(entries: Sequence[Entry], name: str) -> list[tuple[float, str]]:
    low, high = _auc_range(entries) if name == "cross" else _range(entries)
    middle = 0.5 if name == "cross" else 0.0
    far = [end for end in (low, high) if abs(end - middle) > (high - low) / 4]
    values = sorted({middle, *far})
    return [(_place(v, low, high) or 0.0, _typographic(words.number(v, 2, name != "cross"))) for v in values]


def _place(value: float | None, low: float, high: float) -> float | None:
    return None if value is None else round(100 * min(1.0, max(0.0, (value - low) / (high - low))), 2)


def _hero(board: Board) -> dict[str, Any] | None:
    """The picture of the summary: how much of the headline AUC the source alone explains."""
    usable = [entry for entry in board.section("cross") if words.left(entry.row)[0] is not None]
    entry = words.headline(board, usable)
    if entry is None or entry.row.measured.auc is None or entry.row.measured.source_auc is None:
        return None
    auc, source_auc = entry.row.measured.auc, entry.row.measured.source_auc
    same = words.headline(board, board.section("ranked"))
    if same is not None and same.row.axes.attack != entry.row.axes.attack:
        same = None
    fair = None if same is None or same.row.measured.delta_auc is None else 0.5 + same.row.measured.delta_auc
    values = [0.5, auc, source_auc, *([] if fair is None else [fair])]
    low = 0.5 if min(values) == 0.5 else math.floor(min(values) * 20) / 20
    return {
        "attack": words.axis_text(entry.row.axes.attack).replace("_", " "),
        "auc": words.number(auc),
        "source_auc": words.number(source_auc),
        "left": _typographic(words.number(round(auc, 2) - round(source_auc, 2), 2, signed=True)),
        "source_at": _place(source_auc, low, 1.0),
        "auc_at": _place(auc, low, 1.0),
        "chance_at": _place(0.5, low, 1.0),
        "same": None
        if same is None or fair is None
        else {
            "delta": _typographic(
                words.with_interval(same.row.measured.delta_auc, same.row.measured.delta_auc_ci, signed=True)
            ),
            "auc": words.number(fair),
            "at": _place(fair, low, 1.0),
            "mde": words.number(same.row.measured.mde),
        },
    }


def _tracks(board: Board) -> list[dict[str, Any]]:
    if not board.attacks:
        return []
    ends = [0.1, -0.1]
    for attack in board.attacks:
        ends += [attack.delta, *(attack.delta_ci or ())]
    low, high = math.floor(min(ends) * 20) / 20, math.ceil(max(ends) * 20) / 20
    return [
        {"track": track, "attacks": [_attack_row(attack, low, high) for attack in attacks]}
        for track, attacks in words.tracks(board).items()
    ]


def _attack_row(attack: AttackEntry, low: float, high: float) -> dict[str, Any]:
    ci = attack.delta_ci
    own = [axis for axis in ("aux", "guidance", "prompt", "steps") if attack.axes[axis] is not None]
    return {
        "rank": attack.rank,
        "name": words.axis_text(attack.axes["attack"]).replace("_", " "),
        "chips": [(words.AXIS_TITLES[axis], words.axis_text(attack.axes[axis])) for axis in own],
        "delta": _typographic(words.number(attack.delta, words.digits_for(ci), signed=True)),
        "ci": _typographic(words.interval(ci, words.digits_for(ci), signed=True)),
        "bound": _typographic(words.number(attack.bound, 2, signed=True)),
        "coverage": f"{attack.num_targets} of {attack.num_suite}",
        "nfe": words.amount(attack.nfe),
        "nfe_offline": words.amount(attack.nfe_offline) if attack.nfe_offline else "",
        "level": attack.level,
        "bar": Bar(
            "delta",
            value=_place(attack.delta, low, high),
            low=None if ci is None else _place(ci[0], low, high),
            high=None if ci is None else _place(ci[1], low, high),
            zero=_place(0, low, high),
            tone=words.tone_of(ci),
        ),
    }


def _target_text(key: tuple[Any, ...]) -> str:
    pairs = zip(TARGET_AXES, key, strict=True)
    return ", ".join(
        f"{words.AXIS_TITLES[axis]} {words.axis_text(value)}" for axis, value in pairs if value is not None
    )


def _rates(entries: Sequence[Entry]) -> list[str]:
    """The FPRs that a table shows: the highest two that any row has a number for."""
    known = {rate for entry in entries for rate, found in entry.row.measured.tpr_at_fpr.items() if found is not None}
    return [rate for rate in sorted(known, key=float, reverse=True) if float(rate) <= 0.01][:2] or sorted(known)[:1]


def _percent(rate: str) -> str:
    return f"{float(rate) * 100:g} %"


def _typographic(text: str) -> str:
    return text.replace("-", "−")


def _values(board: Board, axis: str) -> list[str]:
    return list({words.axis_text(getattr(entry.row.axes, axis)) for entry in board.entries})


def _axis_order(value: str) -> tuple[int, float, str]:
    try:
        return 0, float(value), value
    except ValueError:
        return 1 if value != words.MISSING else 2, 0.0, value


def _search_text(entry: Entry) -> str:
    row = entry.row
    axes = " ".join(f"{axis} {words.AXIS_TITLES[axis]} {getattr(row.axes, axis)}" for axis in AXES)
    extra = [row.cell, row.role, row.status, row.estimand, row.level, *row.flags, row.reason or ""]
    return f"{axes} {' '.join(extra)}".replace("_", " ").lower()


@dataclass(frozen=True)
class Sheet:
    """A picture sheet, shown once for all the rows that share it."""

    uri: str
    title: str
    width: int
    height: int
    num_rows: int


def _sheets(board: Board) -> dict[str, Sheet]:
    """Sheets by content, within a bound on the size of the page (what does not fit is left out)."""
    found: dict[str, Sheet] = {}
    total = 0
    for entry in board.entries:
        data = entry.side.sheet_bytes()
        if data is None:
            continue
        key = _sheet_key(data)
        if key in found:
            old = found[key]
            found[key] = Sheet(old.uri, old.title, old.width, old.height, old.num_rows + 1)
            continue
        kind, small, width, height = _compressed(data)
        if total + len(small) > SHEETS_BYTES:
            continue
        total += len(small)
        uri = f"data:image/{kind};base64,{base64.b64encode(small).decode()}"
        found[key] = Sheet(uri, entry.side.sheet_title or "drawn by the target", width, height, 1)
    return found


def _sheet_key(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _compressed(data: bytes) -> tuple[str, bytes, int, int]:
    """A sheet as it is if small, else at most SHEET_WIDTH_PX wide and lossy: it is there to be looked at."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as opened:
        width, height = opened.size
        if len(data) <= SHEET_LOSSLESS_BYTES and opened.format == "PNG":
            return "png", data, width, height
        picture = opened.convert("RGB")
    if width > SHEET_WIDTH_PX:
        picture = picture.resize((SHEET_WIDTH_PX, round(height * SHEET_WIDTH_PX / width)), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=82)
    return "webp", out.getvalue(), *picture.size


def _data(board: Board, sheets: dict[str, Sheet]) -> dict[str, Any]:
    num_curves = sum(len(entry.side.curves) for entry in board.entries)
    limit = min(160, max(16, CURVE_POINTS // max(num_curves, 1)))
    return {
        "campaign": board.campaign.name,
        "axes": [{"key": axis, "title": words.AXIS_TITLES[axis]} for axis in AXES],
        "varying": board.varying,
        "rows": {entry.row.cell: _row_data(entry, sheets, limit) for entry in board.entries},
    }


def _row_data(entry: Entry, sheets: dict[str, Sheet], limit: int) -> dict[str, Any]:
    row = entry.row
    blanks = [f for f in Measured.model_fields if getattr(row.measured, f) is None and not f.endswith("_ci")]
    data = entry.side.sheet_bytes()
    key = _sheet_key(data) if data is not None else None
    return {
        "row": row.to_dict(),
        "section": entry.section,
        "rank": entry.rank,
        "p_adjusted": entry.p_adjusted,
        "why": entry.why_unranked,
        "nulls": {field: why_null(row, field) for field in blanks},
        "curves": [_curve_data(curve, limit) for curve in entry.side.curves],
        "sheet": key if key in sheets else None,
        "access": entry.side.access,
        "reported": None
        if entry.reported is None
        else f"{words.number(entry.reported.auc)}, {entry.reported.source}"
        + (f" ({entry.reported.note})" if entry.reported.note else ""),
    }


def _curve_data(curve: Curve, limit: int) -> dict[str, Any]:
    fpr, tpr = thin(curve, limit)
    return {"world": curve.world, "fpr": fpr, "tpr": tpr, "auc": curve.auc}


def _script_safe(data: Any) -> str:
    """JSON that cannot end its script element, whatever its strings hold."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text
