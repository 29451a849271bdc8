"""Where a row stands on the grid, in words: the usual cell once, then each row's differences from it."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from bench.axes import AXES
from bench.leaderboard.formats import axis_text
from bench.leaderboard.rank import Board
from bench.leaderboard.row import Row

Pair = tuple[str, str]
_MARKS = ("target_mark", "member_mark", "nonmember_mark")
_TOLD_BY_THE_TABLE = ("attack", "query")


def settings(row: Row, axes: Iterable[str]) -> list[Pair]:
    """The row's values of some axes, those that apply, with the axes' titles; three equal marks are said once."""
    values = {axis: getattr(row.axes, axis) for axis in axes}
    pairs = [(axis, AXES[axis].title, axis_text(value)) for axis, value in values.items() if value is not None]
    if {*_MARKS} <= {*values} and len({values[mark] for mark in _MARKS}) == 1:
        first = [("", "all marks", text) for axis, _, text in pairs if axis == _MARKS[0]]
        pairs = first + [pair for pair in pairs if pair[0] not in _MARKS]
    return [(title, text) for _, title, text in pairs]


def as_line(pairs: Iterable[Pair]) -> str:
    """Titles and values as one line: "negatives shadow, guidance 7.5"."""
    return ", ".join(f"{title} {text}" for title, text in pairs)


class Usual:
    """The usual value of each axis: the campaign's default, else the most frequent value that is not null.

    Attributes:
        values: by axis; None where no row has any.
    """

    def __init__(self, board: Board) -> None:
        self._varying = board.varying
        self.values: dict[str, Any] = {}
        for axis in AXES:
            seen = Counter(v for entry in board.entries if (v := getattr(entry.row.axes, axis)) is not None)
            named = board.campaign.default.get(axis)
            self.values[axis] = named if named in seen else seen.most_common(1)[0][0] if seen else None

    def pairs(self) -> list[Pair]:
        """What is said once, above all tables."""
        return [
            (AXES[axis].title, axis_text(value))
            for axis, value in self.values.items()
            if value is not None and axis not in _TOLD_BY_THE_TABLE
        ]

    def differing(self, row: Row, but: Iterable[str] = ()) -> list[str]:
        """The axes in which a row differs from the usual cell; null (does not apply) is no difference."""
        left_out = {*_TOLD_BY_THE_TABLE, *but}
        values = {axis: getattr(row.axes, axis) for axis in self._varying if axis not in left_out}
        return [axis for axis, value in values.items() if value is not None and value != self.values[axis]]

    def differences(self, row: Row, but: Iterable[str] = ()) -> list[Pair]:
        """The same with titles and values; `but` names axes that are told elsewhere."""
        return settings(row, self.differing(row, but))
