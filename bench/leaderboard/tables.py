"""Every table of a leaderboard, defined once: terminal, Markdown, LaTeX, page and picture walk these columns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bench.axes import AXES, ENTRANT_AXES
from bench.leaderboard import texts
from bench.leaderboard.findings import Verdict, auc_minus_source, verdict
from bench.leaderboard.formats import MISSING, amount, axis_text, digits_for, interval, name, number, p_text, percent
from bench.leaderboard.rank import AttackEntry, Board, Entry, Section
from bench.leaderboard.row import Interval, Row, why_null
from bench.leaderboard.settings import Pair, Usual, as_line

Place = Literal["picture", "text", "page"]
"""Where a table is shown, by the room that there is: a picture, text (terminal, Markdown, LaTeX), the page."""

USUAL = "the usual one"


@dataclass(frozen=True)
class Plot:
    """A small plot of an interval: a dot, its interval, a second dot, what could not have been seen, and zero."""

    value: float
    ci: Interval | None = None
    other: float | None = None
    unseen: float | None = None
    zero: float = 0.0
    verdict: Verdict = ""


@dataclass(frozen=True)
class Cell:
    """What one column says of one line.

    Attributes:
        text: the value; empty where there is nothing to say.
        more: what stands beside it (text) or below it (page), smaller: an interval, a remark.
        value: what it sorts by; None sorts last.
        note: what is said when it is pointed at: why a number is missing, what stands behind it.
        missing: a number that could not be computed, shown as a dash.
        pairs: settings that differ from the usual ones.
        flags: what must not be overlooked.
        tags: what kind of row it is.
        plot: a picture of the value.
    """

    text: str = ""
    more: str = ""
    value: float | str | None = None
    note: str = ""
    missing: bool = False
    pairs: tuple[Pair, ...] = ()
    flags: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    plot: Plot | None = None

    def __str__(self) -> str:
        """All of it as one line."""
        if self.pairs or self.flags or self.tags:
            told = ", ".join((*self.flags, *self.tags))
            return f"{as_line(self.pairs) or self.text}{f' ({told})' if told else ''}"
        return f"{self.text} {self.more}".strip()


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        key: its name in the page's address and in tests.
        title: its head.
        value: the cell of a line.
        note: key of its footnote in `texts.FOOTNOTES`.
        kind: how it is set.
        needs: the least room in which it is shown.
        rising: whether the smallest is the most interesting.
        brief: whether text leaves out what stands beside the value.
    """

    key: str
    title: str
    value: Callable[[Any], Cell]
    note: str = ""
    kind: Literal["number", "text", "plot"] = "number"
    needs: Place = "text"
    rising: bool = False
    brief: bool = False

    def text(self, line: Any) -> str:
        """What text forms say of a line."""
        cell = self.value(line)
        return cell.text if self.brief else str(cell)


@dataclass(frozen=True)
class Table:
    """A table: what it is called, its columns and its lines.

    Attributes:
        empty: titles of columns without a number in any line; they are told of and not shown.
    """

    name: str
    title: str
    note: str
    columns: tuple[Column, ...]
    lines: tuple[Any, ...]
    empty: tuple[str, ...] = field(default=())

    def shown(self, place: Place) -> list[Column]:
        """The columns for which there is room."""
        room = ("picture", "text", "page")
        return [column for column in self.columns if room.index(column.needs) <= room.index(place)]

    @property
    def remark(self) -> str:
        """What must be said about columns that are not shown."""
        return f"No row here has a number for: {', '.join(self.empty)}." if self.empty else ""


def tables(board: Board) -> list[Table]:
    """One table per section that has rows, in the order in which they are shown."""
    usual = Usual(board)
    found = []
    for section, title in texts.SECTION_TITLES.items():
        entries = board.section(section)
        if entries:
            columns = _COLUMNS.get(section, _delta_columns)(section, entries, usual)
            found.append(_table(section, title, texts.SECTION_NOTES[section], columns, entries))
    return found


def attack_table(board: Board) -> Table | None:
    """The attacks over the suite of targets, by track; None if there are none."""
    if not board.attacks:
        return None
    usual = Usual(board)
    columns = [
        Column("rank", "#", lambda a: Cell(MISSING if a.rank is None else str(a.rank), value=a.rank), rising=True),
        *(Column(key, title, _of_track(index), kind="text") for index, (key, title) in _TRACK),
        Column("attack", "attack", _attack_of_suite, kind="text"),
        Column("setting", "setting", lambda a: _setting_of_suite(a, usual), kind="text"),
        Column("plot", "mean Delta", _plot_of_suite, kind="plot", needs="page"),
        Column("delta", "Delta", lambda a: _ranged(a.delta, a.delta_ci, signed=True), "delta"),
        Column("bound", "lower bound", lambda a: _plain(a.bound, "no interval"), "bound"),
        Column("targets", "targets", _coverage, brief=True),
        Column("nfe", "NFE", lambda a: _nfe(a.nfe, a.nfe_offline), "cost", rising=True, brief=True),
    ]
    return _table("attacks", "Attacks, on the same targets", texts.FOOTNOTES["suite"], columns, board.attacks)


def _table(key: str, title: str, note: str, columns: Sequence[Column], lines: Sequence[Any]) -> Table:
    """Leaves out the columns in which no line has a value."""
    empty = {
        column.key
        for column in columns
        if column.kind == "number" and not any(column.value(line).value is not None for line in lines)
    }
    kept = tuple(column for column in columns if column.key not in empty)
    gone = tuple(column.title for column in columns if column.key in empty and column.key != "reported")
    return Table(key, title, note, kept, tuple(lines), gone)


_TRACK = tuple(enumerate((("access", "access"), ("captions", "captions"), ("shadow", "shadow data"))))


def _delta_columns(section: Section, entries: Sequence[Entry], usual: Usual) -> list[Column]:
    ranked = section == "ranked"
    return [
        *([_RANK] if ranked else []),
        *_who(section, usual),
        Column("plot", "Delta, its interval and the MDE band", _plot_of_delta, "mde", "plot", "page"),
        Column("delta", "Delta", lambda e: _measured(e.row, "delta_auc", signed=True), "delta", needs="picture"),
        *([_BOUND, _P] if ranked else []),
        Column("mde", "MDE", lambda e: _measured(e.row, "mde"), "mde", needs="picture", rising=True),
        _AUC,
        *(replace(column, needs="page") if section == "apart" else column for column in (*_rates(entries), *_CONTROLS)),
        *([_WHY] if section == "apart" else []),
    ]


def _cross_columns(section: Section, entries: Sequence[Entry], usual: Usual) -> list[Column]:
    return [
        *_who(section, usual),
        Column("plot", "source AUC and AUC", _plot_of_auc, "source_auc", "plot", "page"),
        Column("auc", "AUC", lambda e: _measured(e.row, "auc"), "auc", needs="picture"),
        Column("source", "source AUC", lambda e: _measured(e.row, "source_auc"), "source_auc", needs="picture"),
        Column("left", "what is left", _what_is_left, "source_auc", needs="picture"),
        *_rates(entries),
        *_CONTROLS,
    ]


def _waiting_columns(section: Section, entries: Sequence[Entry], usual: Usual) -> list[Column]:
    question = Column("question", "question", lambda e: _text(texts.ESTIMANDS[e.row.estimand]), kind="text")
    return [*_who(section, usual), question, Column("role", "role", lambda e: _text(e.row.role), kind="text")]


_COLUMNS = {"cross": _cross_columns, "waiting": _waiting_columns}


def _who(section: Section, usual: Usual) -> list[Column]:
    def setting(entry: Entry) -> Cell:
        row = entry.row
        pairs = tuple(usual.differences(row))
        tags = [texts.ESTIMANDS[row.estimand]] if section == "other" else []
        tags += [f"{row.level} level"] if row.level != "picture" else []
        tags += [row.role] if section == "control" else []
        flags: list[str] = [row.status] if row.status not in ("ok", "waiting") else []
        flags += [flag.replace("_", " ") for flag in row.flags if flag != section]
        text = "" if pairs else USUAL
        return Cell(text, value=as_line(pairs), pairs=pairs, flags=tuple(flags), tags=tuple(tags))

    return [
        Column("attack", "attack", lambda e: _text(name(e.row.axes.attack)), kind="text", needs="picture", rising=True),
        Column("setting", "setting", setting, kind="text", needs="picture", rising=True),
    ]


def _rates(entries: Sequence[Entry]) -> list[Column]:
    """True positive rates at the highest two FPRs, of 1 % and less, that any row has a number for."""
    known = {rate for entry in entries for rate, found in entry.row.measured.tpr_at_fpr.items() if found is not None}
    low = [rate for rate in sorted(known, key=float, reverse=True) if float(rate) <= 0.01][:2]
    shown = low or sorted(known, key=float)[:1]
    places: tuple[Place, ...] = ("text", "page")
    return [
        Column(f"tpr{rate}", f"TPR at {percent(rate)} FPR", _at_rate(rate), "tpr", needs=place, brief=True)
        for rate, place in zip(shown, places, strict=False)
    ]


def _at_rate(rate: str) -> Callable[[Entry], Cell]:
    return lambda entry: _rate(entry.row, rate)


def _text(text: str) -> Cell:
    return Cell(text, value=text)


def _ranged(value: float, ci: Interval | None, signed: bool = False) -> Cell:
    digits = digits_for(ci)
    return Cell(number(value, digits, signed), interval(ci, digits, signed), value)


def _missing(why: str) -> Cell:
    return Cell(MISSING, note=why, missing=True)


def _plain(value: float | None, why: str) -> Cell:
    return _missing(why) if value is None else Cell(number(value, 2, signed=True), value=value)


def _measured(row: Row, key: str, signed: bool = False) -> Cell:
    value = getattr(row.measured, key)
    ci = getattr(row.measured, f"{key}_ci", None)
    return _missing(why_null(row, key)) if value is None else _ranged(value, ci, signed)


def _what_is_left(entry: Entry) -> Cell:
    rest, ci = auc_minus_source(entry.row)
    if rest is None:
        return _missing(why_null(entry.row, "source_auc"))
    return Cell(number(rest, 2, signed=True), interval(ci, 2, signed=True), rest)


def _rate(row: Row, rate: str) -> Cell:
    found = row.measured.tpr_at_fpr.get(rate)
    if found is None:
        return _missing("too few non-members for this rate" if row.status == "ok" else why_null(row, "tpr_at_fpr"))
    note = "" if found.false_positives is None else f"{amount(found.false_positives)} false positives"
    return Cell(number(found.tpr), interval(found.ci), found.tpr, note)


def _p_value(entry: Entry) -> Cell:
    return Cell(
        p_text(entry.p_adjusted),
        value=entry.p_adjusted,
        note=f"unadjusted: {p_text(entry.p_value)}",
        missing=entry.p_adjusted is None,
    )


def _reported(entry: Entry) -> Cell:
    if entry.reported is None:
        return Cell()
    note = entry.reported.source + (f" ({entry.reported.note})" if entry.reported.note else "")
    return Cell(number(entry.reported.auc), f"{entry.reported.evidence} faces", entry.reported.auc, note)


def _nfe(nfe: float | None, offline: float | None) -> Cell:
    more = f"+ {amount(offline)} offline" if offline else ""
    return Cell(amount(nfe), more, nfe, "" if nfe is not None else "not counted", missing=nfe is None)


def _plot_of_delta(entry: Entry) -> Cell:
    m = entry.row.measured
    if m.delta_auc is None:
        return Cell()
    shown = verdict(m.delta_auc_ci, entry.p_adjusted)
    return Cell(value=m.delta_auc, plot=Plot(m.delta_auc, m.delta_auc_ci, unseen=m.mde, verdict=shown))


def _plot_of_auc(entry: Entry) -> Cell:
    m = entry.row.measured
    return Cell() if m.auc is None else Cell(value=m.auc, plot=Plot(m.auc, other=m.source_auc, zero=0.5))


def _plot_of_suite(attack: AttackEntry) -> Cell:
    shown = verdict(attack.delta_ci)
    return Cell(value=attack.delta, plot=Plot(attack.delta, attack.delta_ci, verdict=shown))


def _of_track(index: int) -> Callable[[AttackEntry], Cell]:
    return lambda attack: _text(attack.track[index])


def _attack_of_suite(attack: AttackEntry) -> Cell:
    flags = (f"{attack.level} level",) if attack.level != "picture" else ()
    text = name(attack.axes["attack"])
    return Cell(text, value=text, flags=flags)


def _setting_of_suite(attack: AttackEntry, usual: Usual) -> Cell:
    """What the attack is given that differs from the usual, beside what its track says."""
    told = ("attack", "captions")
    own = [axis for axis in ENTRANT_AXES if axis not in told and attack.axes[axis] not in (None, usual.values[axis])]
    pairs = tuple((AXES[axis].title, axis_text(attack.axes[axis])) for axis in own)
    return Cell("" if pairs else USUAL, value=as_line(pairs), pairs=pairs)


def _coverage(attack: AttackEntry) -> Cell:
    text = f"{attack.num_targets} of {attack.num_suite}"
    return Cell(text, "not ranked" if attack.rank is None else "", attack.num_targets)


_RANK = Column("rank", "#", lambda e: Cell(str(e.rank or ""), value=e.rank), needs="picture", rising=True)
_BOUND = Column("bound", "lower bound", lambda e: _plain(e.bound, "no interval"), "bound", needs="picture")
_P = Column("p", "p adj.", _p_value, "p", needs="picture", rising=True)
_AUC = Column("auc", "AUC", lambda e: _measured(e.row, "auc"), "auc")
_WHY = Column("why", "why it stands here", lambda e: _text(e.why_unranked or ""), kind="text", rising=True)
_CONTROLS = (
    Column("base", "base AUC", lambda e: _measured(e.row, "base_auc"), "base_auc", brief=True),
    Column("blind", "blind AUC", lambda e: _measured(e.row, "blind_auc"), "blind_auc", brief=True),
    Column("reported", "reported", _reported, "reported", needs="page"),
    Column("nfe", "NFE", lambda e: _nfe(e.row.cost.nfe, e.row.cost.nfe_offline), "cost", needs="page", rising=True),
)
