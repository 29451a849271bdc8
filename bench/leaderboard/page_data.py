"""What the page's script works with: rows, their details as texts, thinned ROC curves; and the picture sheets."""

import base64
import hashlib
import io
import json
import math
from dataclasses import dataclass, replace
from typing import Any

from bench.axes import AXES
from bench.leaderboard.attachments import Curve
from bench.leaderboard.fields import details
from bench.leaderboard.formats import name
from bench.leaderboard.rank import Board, Entry
from bench.leaderboard.settings import Usual, as_line

SHEET_WIDTH_PX = 1024
SHEET_LOSSLESS_BYTES = 60_000
SHEETS_BYTES = 16_000_000
CURVE_POINTS = 240_000


@dataclass(frozen=True)
class Sheet:
    """A picture sheet, shown once for all the rows that share it."""

    uri: str
    title: str
    width: int
    height: int
    num_rows: int


@dataclass(frozen=True)
class Sheets:
    """Sheets by the digest of their content, and how many did not fit into the page."""

    shown: dict[str, Sheet]
    num_left_out: int


def sheets_of(board: Board) -> Sheets:
    """The rows' sheets, each once, within a bound on the size of the page."""
    found: dict[str, Sheet] = {}
    left_out: set[str] = set()
    total = 0
    for entry in board.entries:
        data = entry.attachments.sheet_bytes()
        if data is None:
            continue
        key = _digest(data)
        if key in found:
            found[key] = replace(found[key], num_rows=found[key].num_rows + 1)
            continue
        kind, small, width, height = _compressed(data)
        if total + len(small) > SHEETS_BYTES:
            left_out.add(key)
            continue
        total += len(small)
        uri = f"data:image/{kind};base64,{base64.b64encode(small).decode()}"
        found[key] = Sheet(uri, entry.attachments.sheet_title or "drawn by the target", width, height, 1)
    return Sheets(found, len(left_out))


def script_data(board: Board, sheets: Sheets, shown_rows: int) -> str:
    """All that the script needs, as JSON that cannot end its script element, whatever its strings hold."""
    num_curves = sum(len(entry.attachments.curves) for entry in board.entries)
    limit = min(160, max(16, CURVE_POINTS // max(num_curves, 1)))
    usual = Usual(board)
    data = {
        "campaign": board.campaign.name,
        "shown": shown_rows,
        "axes": [{"key": axis, "title": about.title} for axis, about in AXES.items()],
        "varying": board.varying,
        "rows": {entry.row.cell: _row(entry, usual, sheets, limit) for entry in board.entries},
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


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


def _row(entry: Entry, usual: Usual, sheets: Sheets, limit: int) -> dict[str, Any]:
    data = entry.attachments.sheet_bytes()
    key = _digest(data) if data is not None else None
    return {
        "row": entry.row.to_dict(),
        "section": entry.section,
        "label": _label(entry, usual),
        "details": details(entry),
        "curves": [_curve(curve, limit) for curve in entry.attachments.curves],
        "sheet": key if key in sheets.shown else None,
    }


def _label(entry: Entry, usual: Usual) -> str:
    row = entry.row
    kind = {"cross_source": "other source", "same_source": "same source"}.get(row.estimand, name(row.estimand))
    setting = as_line(usual.differences(row))
    planted = "planted, " if row.role == "planted" else ""
    return f"{name(row.axes.attack)}, {planted}{kind}" + (f" ({setting})" if setting else "")


def _curve(curve: Curve, limit: int) -> dict[str, Any]:
    fpr, tpr = thin(curve, limit)
    return {"world": curve.world, "fpr": fpr, "tpr": tpr, "auc": curve.auc}


def _digest(data: bytes) -> str:
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
