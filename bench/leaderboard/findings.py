"""What a campaign's rows show, decided: one function and one kind of finding each. The words are in `texts`."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.axes import AXES
from bench.leaderboard.rank import ALPHA, Board, Entry
from bench.leaderboard.row import Interval, Row

Verdict = Literal["leak", "below", "none", ""]
Tone = Literal["leak", "clear", "caution", "note"]
"""Members are found; nothing is found; do not be misled; by the way."""

LITTLE_AUC = 0.05
"""An AUC less than this above .5 is little to see."""


@dataclass(frozen=True)
class OtherSource:
    """Members against people of another source: how much of the AUC unseen people of the members' source score, too.

    Attributes:
        entry: the row that is told, the one named in advance if there is one.
        kind: "little" to see, most of it is "style", or style does not explain it ("more").
        num_rows: rows that such a comparison is possible in.
        median_auc: over these.
        median_left: median of AUC minus source AUC over these.
    """

    entry: Entry
    auc: float
    source_auc: float
    kind: Literal["little", "style", "more"]
    num_rows: int
    median_auc: float
    median_left: float

    @property
    def tone(self) -> Tone:
        """Style that looks like membership misleads."""
        return "caution" if self.kind == "style" else "note"


@dataclass(frozen=True)
class SameSource:
    """The ranked rows. `strongest` is None if there are none; `mdes` are the minimum detectable effects, ascending."""

    num_ranked: int
    num_found: int
    strongest: Entry | None
    mdes: tuple[float, ...]

    @property
    def tone(self) -> Tone:
        """A leak where a row is shown as one."""
        return "note" if self.strongest is None else "leak" if self.num_found else "clear"


@dataclass(frozen=True)
class Planted:
    """Cells in which something must be found: `found` it is in, and the highest Delta."""

    found: tuple[Entry, ...]
    strongest: Entry

    @property
    def tone(self) -> Tone:
        """Instruments that see nothing where something is are a caution."""
        return "leak" if self.found else "caution"


@dataclass(frozen=True)
class Negatives:
    """Two rows that differ in the attack's negatives only, with intervals of Delta that do not overlap."""

    weak: Row
    strong: Row
    tone: Tone = "leak"


@dataclass(frozen=True)
class Confounded:
    """Rows in which members and non-members differ in more than membership, and the highest AUC among them."""

    num_rows: int
    strongest: Entry
    tone: Tone = "caution"


@dataclass(frozen=True)
class UnequalHalves:
    """More ranked rows than chance allows in which the pictures alone, without any model, tell the halves apart."""

    num_rows: int
    num_checked: int
    tone: Tone = "caution"


@dataclass(frozen=True)
class NoVerdict:
    """Cells that were tried and have no verdict."""

    num_failed: int
    num_undersized: int
    num_rows: int
    tone: Tone = "caution"


@dataclass(frozen=True)
class Waiting:
    """Cells that are not made yet."""

    num_waiting: int
    num_rows: int
    tone: Tone = "note"


@dataclass(frozen=True)
class Drawn:
    """Some or all rows are of drawn faces, or of a miniature model."""

    wholly: bool
    faces: bool
    tone: Tone = "note"


Finding = OtherSource | SameSource | Planted | Negatives | Confounded | UnequalHalves | NoVerdict | Waiting | Drawn


def findings(board: Board) -> list[Finding]:
    """What the rows show, in the order in which a reader should hear it."""
    found: list[Finding | None] = [
        _waiting(board),
        _other_source(board),
        _same_source(board),
        _planted(board),
        _negatives(board),
        _confounded(board),
        _unequal_halves(board),
        _no_verdict(board),
        _drawn(board),
    ]
    return [finding for finding in found if finding is not None]


def verdict(ci: Interval | None, p_adjusted: float | None = None) -> Verdict:
    """What a Delta is shown as: a leak where its interval and, if there is one, the adjusted p-value say so."""
    if ci is None:
        return ""
    if ci[0] > 0 and (p_adjusted is None or p_adjusted < ALPHA):
        return "leak"
    return "below" if ci[1] < 0 else "none"


def auc_minus_source(row: Row) -> tuple[float | None, Interval | None]:
    """AUC minus source_auc, and its paired interval where the row's metrics have one (left_low, left_high)."""
    measured = row.measured
    if measured.auc is None or measured.source_auc is None:
        return None, None
    low, high = measured.metrics.get("left_low"), measured.metrics.get("left_high")
    return measured.auc - measured.source_auc, (low, high) if low is not None and high is not None else None


def headline(board: Board, entries: Sequence[Entry]) -> Entry | None:
    """The entry that the campaign named in advance, else the one with the highest AUC."""
    wanted = {axis: value for axis, value in board.campaign.default.items() if axis != "query"}
    if wanted:
        for entry in entries:
            if all(getattr(entry.row.axes, axis) == value for axis, value in wanted.items()):
                return entry
    return max(entries, key=lambda entry: entry.row.measured.auc or 0, default=None)


def with_source_auc(board: Board) -> list[Entry]:
    """Entries of the section `cross` in which AUC and source AUC can be compared."""
    return [entry for entry in board.section("cross") if auc_minus_source(entry.row)[0] is not None]


def _waiting(board: Board) -> Waiting | None:
    count = len(board.section("waiting"))
    return Waiting(count, len(board.entries)) if count else None


def _other_source(board: Board) -> OtherSource | None:
    usable = with_source_auc(board)
    entry = headline(board, usable)
    if entry is None:
        return None
    auc, source_auc = entry.row.measured.auc, entry.row.measured.source_auc
    assert auc is not None and source_auc is not None
    above = auc - 0.5
    return OtherSource(
        entry=entry,
        auc=auc,
        source_auc=source_auc,
        kind="little" if above < LITTLE_AUC else "style" if auc - source_auc < above / 3 else "more",
        num_rows=len(usable),
        median_auc=statistics.median(e.row.measured.auc or 0 for e in usable),
        median_left=statistics.median(rest for e in usable if (rest := auc_minus_source(e.row)[0]) is not None),
    )


def _same_source(board: Board) -> SameSource | None:
    ranked = board.section("ranked")
    if not ranked:
        # Cells that wait may yet be ranked: nothing to say before they are made.
        return None if board.section("waiting") else SameSource(0, 0, None, ())
    tested = [entry for entry in ranked if entry.p_adjusted is not None]
    hits = [entry for entry in tested if verdict(entry.row.measured.delta_auc_ci, entry.p_adjusted) == "leak"]
    mdes = sorted(entry.row.measured.mde for entry in ranked if entry.row.measured.mde is not None)
    return SameSource(len(ranked), len(hits), (hits or ranked)[0], tuple(mdes))


def _planted(board: Board) -> Planted | None:
    planted = [entry for entry in board.section("planted") if entry.row.measured.delta_auc is not None]
    if not planted:
        return None
    found = [entry for entry in planted if verdict(entry.row.measured.delta_auc_ci) == "leak"]
    return Planted(tuple(found), max(planted, key=lambda entry: entry.row.measured.delta_auc or 0))


def _negatives(board: Board) -> Negatives | None:
    best: tuple[float, Row, Row] | None = None
    for group in _alike_but_for_negatives(board.section("ranked") + board.section("planted")):
        group.sort(key=lambda row: row.measured.delta_auc or 0)
        low, high = group[0].measured, group[-1].measured
        assert low.delta_auc_ci is not None and high.delta_auc_ci is not None
        gap = (high.delta_auc or 0) - (low.delta_auc or 0)
        if low.delta_auc_ci[1] < high.delta_auc_ci[0] and (best is None or gap > best[0]):
            best = (gap, group[0], group[-1])
    return None if best is None else Negatives(best[1], best[2])


def _alike_but_for_negatives(entries: Iterable[Entry]) -> Iterable[list[Row]]:
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in (entry.row for entry in entries):
        if row.axes.aux is not None and row.measured.delta_auc_ci is not None:
            others = tuple(getattr(row.axes, axis) for axis in AXES if axis != "aux")
            groups[(others, row.role, row.level)].append(row)
    return groups.values()


def _confounded(board: Board) -> Confounded | None:
    flagged = [e for e in board.section("apart") if e.row.confounded and e.row.measured.auc is not None]
    if not flagged:
        return None
    return Confounded(len(flagged), max(flagged, key=lambda entry: entry.row.measured.auc or 0))


def _unequal_halves(board: Board) -> UnequalHalves | None:
    intervals = [ci for e in board.section("ranked") if (ci := e.row.measured.blind_auc_ci) is not None]
    unfair = sum(not low <= 0.5 <= high for low, high in intervals)
    # One in twenty 95 % intervals misses; only more than that says something about the split.
    return UnequalHalves(unfair, len(intervals)) if unfair > max(1, len(intervals) // 20) else None


def _no_verdict(board: Board) -> NoVerdict | None:
    failed = sum(entry.row.status == "failed" for entry in board.entries)
    small = sum(entry.row.status == "undersized" for entry in board.entries)
    return NoVerdict(failed, small, len(board.entries)) if failed + small else None


def _drawn(board: Board) -> Drawn | None:
    if all(word == "real" for word in board.evidence):
        return None
    return Drawn(len(board.evidence) == 1, "synthetic" in board.evidence)
