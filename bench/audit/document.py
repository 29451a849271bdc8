"""A report as blocks of text, tables and figures: what it says is decided once, and drawn as HTML and as PDF."""

import base64
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Text:
    """A paragraph; `soft` for what explains."""

    kind: ClassVar = "text"
    text: str
    soft: bool = False


@dataclass(frozen=True)
class Bullets:
    """A list."""

    kind: ClassVar = "bullets"
    items: tuple[str, ...]


@dataclass(frozen=True)
class Terms:
    """Names with what they mean or are."""

    kind: ClassVar = "terms"
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its head.
        means: what the head means, said below the table; "" where it needs no saying.
        text: whether it holds words rather than numbers.
        width: in a print, against the other columns.
    """

    title: str
    means: str = ""
    text: bool = False
    width: float = 1.0


@dataclass(frozen=True)
class Table:
    """Rows of texts; `marked` are the numbers of those that stand out."""

    kind: ClassVar = "table"
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: frozenset[int] = frozenset()

    @property
    def meanings(self) -> tuple[tuple[str, str], ...]:
        """What the heads mean."""
        return tuple((column.title, column.means) for column in self.columns if column.means)


@dataclass(frozen=True)
class Code:
    """Text that is copied as it is."""

    kind: ClassVar = "code"
    text: str


@dataclass(frozen=True)
class Line:
    """A ROC curve: false and true positive rates, rising."""

    label: str
    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    dashed: bool = False

    def corners(self) -> list[tuple[float, float]]:
        """The points of its steps."""
        points = [(self.fpr[0], self.tpr[0])]
        for fpr, tpr in zip(self.fpr[1:], self.tpr[1:], strict=True):
            points += [(fpr, points[-1][1]), (fpr, tpr)]
        return [point for at, point in enumerate(points) if at == 0 or point != points[at - 1]]


@dataclass(frozen=True)
class Roc:
    """ROC curves in one frame."""

    kind: ClassVar = "roc"
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Thumb:
    """A small picture."""

    jpeg: bytes
    name: str

    @property
    def address(self) -> str:
        """As a data address."""
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode()


@dataclass(frozen=True)
class Gallery:
    """Small pictures side by side."""

    kind: ClassVar = "gallery"
    thumbs: tuple[Thumb, ...]


Block = Text | Bullets | Terms | Table | Code | Roc | Gallery


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """A report.

    Attributes:
        kicker: what this is, and of when.
        tone: leak, no or undetermined: its colour.
        tag: the answer in two words.
        headline: the answer as a sentence.
        question: what was asked.
        lead: what else stands in the box of the answer.
        sections: the rest.
        footer: what identifies it on every printed page.
    """

    kicker: str
    tone: str
    tag: str
    headline: str
    question: str
    lead: tuple[str, ...]
    sections: tuple[Section, ...] = field(default_factory=tuple)
    footer: str = ""
