"""A document as a PDF on A4, equal for equal documents: tables wrap, their heads repeat, nothing is cut off."""

import io
from pathlib import Path
from typing import Any

from bench.audit.document import Bullets, Code, Document, Gallery, Roc, Table, Terms, Text

INK, SOFT, LINE = "#1c2430", "#4d5765", "#c9c5bc"
TONES = {"leak": "#1f5fa8", "no": "#2f6f4f", "undetermined": "#b9660f"}
COLOURS = ("#1f5fa8", "#b9660f", "#2f9e63", "#5b6573")
FONTS = {"Sans": "DejaVuSans", "Sans-Bold": "DejaVuSans-Bold", "Mono": "DejaVuSansMono"}


def render(found: Document) -> bytes:
    """PDF bytes."""
    from reportlab.lib.colors import HexColor
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.units import mm
    from reportlab.platypus import HRFlowable, KeepTogether, Paragraph, SimpleDocTemplate, Spacer

    sink, style = io.BytesIO(), _Styles()
    width = A4[0] - 36 * mm

    def foot(canvas: Any, page: Any) -> None:
        canvas.saveState()
        canvas.setFont("Sans", 6.5)
        canvas.setFillColor(HexColor(SOFT))
        canvas.drawString(18 * mm, 10 * mm, found.footer)
        canvas.drawRightString(A4[0] - 18 * mm, 10 * mm, f"page {page.page}")
        canvas.restoreState()

    tone = TONES[found.tone]
    story: list[Any] = [
        Paragraph(_escape(found.kicker), style.soft),
        Spacer(1, 6),
        HRFlowable(width="100%", thickness=4, color=HexColor(tone), spaceAfter=6),
        Paragraph(f'<font color="{tone}"><b>{_escape(found.tag.upper())}</b></font>', style.small),
        Paragraph(_escape(found.headline), style.title),
        *(Paragraph(_escape(text), style.body) for text in (found.question, *found.lead)),
        HRFlowable(width="100%", thickness=0.6, color=HexColor(LINE), spaceBefore=4),
    ]
    for section in found.sections:
        flow = [part for block in section.blocks for part in _flow(block, style, width)]
        story += [KeepTogether([Paragraph(_escape(section.title), style.head), *flow[:1]]), *flow[1:]]
    document = SimpleDocTemplate(
        sink,
        pagesize=A4,
        leftMargin=18 * mm,
        rightMargin=18 * mm,
        topMargin=16 * mm,
        bottomMargin=18 * mm,
        title=found.headline,
        author="lmia",
        subject=found.question,
        lang="en",
        invariant=1,
    )
    document.build(story, onFirstPage=foot, onLaterPages=foot)
    return sink.getvalue()


class _Styles:
    def __init__(self) -> None:
        from matplotlib import get_data_path
        from reportlab.lib.colors import HexColor
        from reportlab.lib.styles import ParagraphStyle
        from reportlab.pdfbase import pdfmetrics
        from reportlab.pdfbase.ttfonts import TTFont

        for name, file in FONTS.items():
            pdfmetrics.registerFont(TTFont(name, str(Path(get_data_path(), "fonts/ttf", f"{file}.ttf"))))
        pdfmetrics.registerFontFamily("Sans", normal="Sans", bold="Sans-Bold", italic="Sans", boldItalic="Sans-Bold")

        def make(name: str, size: float, colour: str = INK, **more: Any) -> ParagraphStyle:
            given = {"fontName": "Sans", "leading": 1.4 * size, **more}
            return ParagraphStyle(name, fontSize=size, textColor=HexColor(colour), **given)

        self.body = make("body", 9, spaceBefore=3, spaceAfter=3)
        self.soft = make("soft", 8, SOFT, spaceBefore=3, spaceAfter=3)
        self.small = make("small", 8)
        self.title = make("title", 16, fontName="Sans-Bold", spaceBefore=2, spaceAfter=5)
        self.head = make("head", 11.5, fontName="Sans-Bold", spaceBefore=12, spaceAfter=3)
        self.cell = make("cell", 7.3)
        self.number = make("number", 7.3, alignment=2)
        self.cell_head = make("cell_head", 7.3, SOFT, fontName="Sans-Bold")
        self.number_head = make("number_head", 7.3, SOFT, fontName="Sans-Bold", alignment=2)
        self.code = make("code", 7.3, fontName="Mono", backColor=HexColor("#f3f1ec"), borderPadding=4, spaceBefore=6)


def _flow(block: Any, style: _Styles, width: float) -> list[Any]:
    from reportlab.platypus import ListFlowable, ListItem, Paragraph, Spacer

    if isinstance(block, Text):
        return [Paragraph(_escape(block.text), style.soft if block.soft else style.body)]
    if isinstance(block, Bullets):
        items = [ListItem(Paragraph(_escape(text), style.body)) for text in block.items]
        return [
            ListFlowable(items, bulletType="bullet", start="•", leftIndent=12, bulletFontName="Sans", bulletFontSize=8)
        ]
    if isinstance(block, Terms):
        return _terms(block.pairs, style, width)
    if isinstance(block, Table):
        more = _terms(block.meanings, style, width) if block.meanings else []
        return [Spacer(1, 3), _table(block, style, width), Spacer(1, 3), *more]
    if isinstance(block, Code):
        lines = [_escape(line).replace("  ", "&nbsp;&nbsp;") for line in block.text.splitlines()]
        return [Paragraph("<br/>".join(lines), style.code), Spacer(1, 6)]
    if isinstance(block, Roc):
        return [_roc(block, width)]
    assert isinstance(block, Gallery)
    return _gallery(block, style, width)


def _escape(text: str) -> str:
    from xml.sax.saxutils import escape

    return escape(text)


def _terms(pairs: Any, style: _Styles, width: float) -> list[Any]:
    from reportlab.platypus import Paragraph
    from reportlab.platypus import Table as Grid

    rows = [[Paragraph(f"<b>{_escape(k)}</b>", style.cell), Paragraph(_escape(v), style.cell)] for k, v in pairs]
    return [Grid(rows, colWidths=[0.22 * width, 0.78 * width], style=_lines(head=False))] if rows else []


def _table(block: Table, style: _Styles, width: float) -> Any:
    from reportlab.lib.colors import HexColor
    from reportlab.platypus import Paragraph
    from reportlab.platypus import Table as Grid

    total = sum(column.width for column in block.columns)
    heads = [Paragraph(_escape(c.title), style.cell_head if c.text else style.number_head) for c in block.columns]
    rows = [
        [
            Paragraph(_escape(text), style.cell if column.text else style.number)
            for text, column in zip(row, block.columns, strict=True)
        ]
        for row in block.rows
    ]
    marks = [("LINEBEFORE", (0, at + 1), (0, at + 1), 3, HexColor(TONES["leak"])) for at in sorted(block.marked)]
    widths = [width * column.width / total for column in block.columns]
    return Grid([heads, *rows], colWidths=widths, repeatRows=1, style=[*_lines(head=True), *marks])


def _lines(head: bool) -> list[Any]:
    from reportlab.lib.colors import HexColor

    colour = HexColor(LINE)
    return [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LINEBELOW", (0, 0), (-1, -1), 0.4, colour),
        ("LEFTPADDING", (0, 0), (-1, -1), 4),
        ("RIGHTPADDING", (0, 0), (-1, -1), 4),
        ("TOPPADDING", (0, 0), (-1, -1), 2.5),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 2.5),
        *([("LINEBELOW", (0, 0), (-1, 0), 0.9, colour)] if head else []),
    ]


def _roc(block: Roc, width: float) -> Any:
    from reportlab.graphics.shapes import Drawing, PolyLine, Rect, String
    from reportlab.graphics.shapes import Line as Stroke
    from reportlab.lib.colors import HexColor

    side, left, bottom = 170.0, 34.0, 28.0
    drawing, soft = Drawing(width, side + bottom + 8), HexColor(SOFT)
    drawing.add(Rect(left, bottom, side, side, fillColor=None, strokeColor=HexColor(LINE), strokeWidth=0.6))
    drawing.add(
        Stroke(left, bottom, left + side, bottom + side, strokeColor=soft, strokeDashArray=[1, 3], strokeWidth=0.8)
    )
    for tick in (0, 0.5, 1):
        text = f"{tick:g}".replace("0.", ".")
        drawing.add(String(left + side * tick - 3, bottom - 10, text, fontName="Sans", fontSize=7, fillColor=soft))
        drawing.add(String(left - 14, bottom + side * tick - 2.5, text, fontName="Sans", fontSize=7, fillColor=soft))
    label = "share of unused pictures accused, up: share of suspected ones found"
    drawing.add(String(left, bottom - 22, label, fontName="Sans", fontSize=7, fillColor=soft))
    for at, line in enumerate(block.lines):
        colour = HexColor(COLOURS[at % len(COLOURS)])
        dash = [4, 2] if line.dashed else None
        points = [c for x, y in line.corners() for c in (left + side * x, bottom + side * y)]
        drawing.add(PolyLine(points, strokeColor=colour, strokeWidth=1.3, strokeDashArray=dash))
        y = bottom + side - 14 - 14 * at
        drawing.add(
            Stroke(
                left + side + 16,
                y + 2.5,
                left + side + 36,
                y + 2.5,
                strokeColor=colour,
                strokeWidth=1.5,
                strokeDashArray=dash,
            )
        )
        drawing.add(String(left + side + 42, y, line.label, fontName="Sans", fontSize=7.5, fillColor=HexColor(INK)))
    return drawing


def _gallery(block: Gallery, style: _Styles, width: float) -> list[Any]:
    from reportlab.platypus import Image, Paragraph
    from reportlab.platypus import Table as Grid

    columns = 8
    side = width / columns - 6
    cells = [
        [Image(io.BytesIO(t.jpeg), side, side) if t.jpeg else "", Paragraph(_escape(t.name), style.cell)]
        for t in block.thumbs
    ]
    rows = [cells[at : at + columns] for at in range(0, len(cells), columns)]
    rows[-1] += [[""]] * (columns - len(rows[-1]))
    return [
        Grid(
            rows,
            colWidths=[width / columns] * columns,
            style=[
                ("LEFTPADDING", (0, 0), (-1, -1), 3),
                ("RIGHTPADDING", (0, 0), (-1, -1), 3),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ],
        )
    ]
