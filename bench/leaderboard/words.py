"""Numbers and rows in words: formatting, labels, the summary in plain words, and how each number was computed."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.axes import AXES
from bench.leaderboard.rank import ALPHA, Board, Entry
from bench.leaderboard.row import Interval, Row

MISSING = "–"

AXIS_TITLES = {name: axis.title for name, axis in AXES.items()}

SECTION_TITLES = {
    "ranked": "Ranked: members against unseen people of the same source",
    "cross": "Not ranked: members against another source",
    "planted": "Planted: cells in which something must be found",
    "control": "Controls and references",
    "other": "Other questions",
    "apart": "Listed apart: flagged, undersized and failed",
}

SECTION_NOTES = {
    "ranked": "The only fair comparison: same institution, same camera, same style; only membership differs. "
    "Ordered by the simultaneous lower bound of Delta, then by Delta.",
    "cross": "A high AUC here is mostly recognition of a style. Read the difference: AUC minus what unseen people of "
    "the "
    "members' own source score against the same outsiders.",
    "planted": "Few people, many epochs. If an attack finds nothing even here, its silence elsewhere says little.",
    "control": "What the same scores give where there is nothing to find, and comparisons of interest.",
    "other": "Persons instead of pictures, amplification, models without a twin.",
    "apart": "These numbers are not to be compared with the others; the reason stands beside each.",
}

ESTIMANDS = {
    "same_source": "members against unseen people of the same source",
    "cross_source": "members against people of another source",
    "person": "unseen photos of trained people against unseen people",
    "amplification": "after amplification, minus before",
    "uncontrolled": "a model without a twin",
}

FOOTNOTES = {
    "delta": "Delta = (AUC in world A + AUC in world B) / 2 - 1/2, members against unseen people of the same source. "
    "In world B the two halves have changed places, so everything that both targets share (style, the base model, how "
    "difficult a picture is) cancels exactly. 0: nothing leaks. .5: every member is told apart.",
    "interval": "Intervals are 95 %. They follow the design: photos of one person are one cluster, and pictures and "
    "seeds are crossed; an interval over seeds alone would be several times too narrow.",
    "mde": "MDE, the minimum detectable effect: the smallest Delta that this design would have seen with probability "
    ".8. 'Nothing found' with an MDE of .02 and with one of .3 are different sentences.",
    "auc": "AUC: how often a random member scores higher than a random non-member (ties count half). Higher scores "
    "mean "
    "'member' by declaration of the attack, never by looking at the answers, so an AUC below .5 is shown as it is.",
    "source_auc": "Source AUC: the same scores against the same non-members, with people of the members' own source "
    "whom "
    "the model never saw in the members' place, averaged over both worlds. What is left of the AUC above it is what "
    "membership may claim.",
    "base_auc": "Base AUC: the same attack aimed at the model before fine-tuning. It has seen none of these people.",
    "blind_auc": "Blind AUC: a classifier of the pictures alone that never asks the model, trained on other people. "
    "Far "
    "from .5 it says that the two sets of pictures differ even without any model.",
    "tpr": "TPR at a low FPR: the largest share of members found while at most that share of non-members is accused, "
    "on "
    "the exact sorted scores. Refused (null) where there are too few non-members to have such a rate.",
    "p": "p: one-sided. Identities permuted over the whole set where the row has such a test, else a normal test of "
    "Delta. p adj.: Holm over the ranked rows of this campaign.",
    "bound": "Lower bound: of Delta, one-sided, such that all ranked rows' bounds hold together with probability .95 "
    "(Bonferroni). Ranks are ordered by it.",
    "reported": "Reported: the number published for the same axes. The people of that study are not public, so source "
    "and base model differ; it is a signpost, not a target.",
    "cost": "NFE: evaluations of the model's U-Net per scored picture; offline: before any picture is scored.",
    "suite": "Attacks are compared on the same targets only, inside tracks of equal access, captions and shadow data; "
    "planted cells are left out. The interval of the mean is as wide as if all targets shared one error.",
    "missing": "A dash is a number that could not be computed; point at it for the reason. A missing number is never "
    "a safe number.",
}

GLOSSARY = {
    "member": "a picture that the model was fine-tuned on",
    "unseen people, same source": "people photographed by the same institution in the same way, not used for training",
    "another source": "people photographed elsewhere, in another style",
    "target": "the fine-tuned model under attack",
    "twin": "a second target, trained on the other half of the people, so that each picture is once a member and "
    "once not",
    "world": "one realisation of a cell: which half was trained on, and the seeds",
    "cell": "one combination of settings; one row",
}


@dataclass(frozen=True)
class Finding:
    """One sentence or two of the summary.

    Attributes:
        tone: "leak" (members are found), "clear" (nothing is found), "caution" (do not be misled) or "note".
        title: what it says, short.
        text: the numbers behind it.
    """

    tone: Literal["leak", "clear", "caution", "note"]
    title: str
    text: str


def number(value: float | None, digits: int = 2, signed: bool = False) -> str:
    """A number as people read it: .93, 1.00, -.02; a dash for None."""
    if value is None:
        return MISSING
    text = f"{abs(value):.{digits}f}"
    sign = "-" if value < 0 and float(text) != 0 else "+" if signed and float(text) != 0 else ""
    return sign + (text[1:] if text.startswith("0.") else text)


def digits_for(ci: Interval | None) -> int:
    """Two digits, three where the interval is narrow enough to mean them."""
    return 3 if ci is not None and ci[1] - ci[0] < 0.02 else 2


def interval(ci: Interval | None, digits: int = 2, signed: bool = False) -> str:
    """An interval, "[.91, .95]"; empty for None."""
    return f"[{number(ci[0], digits, signed)}, {number(ci[1], digits, signed)}]" if ci is not None else ""


def tone_of(ci: Interval | None, p_adjusted: float | None = None) -> Literal["leak", "below", "none", ""]:
    """How a Delta is shown: as a leak where its interval and, if there is one, the adjusted p-value say so."""
    if ci is None:
        return ""
    if ci[0] > 0 and (p_adjusted is None or p_adjusted < ALPHA):
        return "leak"
    return "below" if ci[1] < 0 else "none"


def with_interval(value: float | None, ci: Interval | None, signed: bool = False) -> str:
    """A number and its interval, ".93 [.91, .95]"."""
    digits = digits_for(ci)
    return f"{number(value, digits, signed)} {interval(ci, digits, signed)}".strip()


def p_text(p: float | None) -> str:
    """A p-value: < .001, .032, .41."""
    if p is None:
        return MISSING
    return "< .001" if p < 0.001 else number(p, 3 if p < 0.1 else 2)


def amount(value: float | None) -> str:
    """A count, a time or a size, short: 12, 3.4, 1,200, 2.5 M."""
    if value is None:
        return MISSING
    if value >= 1e6:
        return f"{value / 1e6:.3g} M"
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.2g}"


def axis_text(value: Any) -> str:
    """An axis value: 7.5, 100, class, own captions; a dash where the axis does not apply."""
    if value is None:
        return MISSING
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    return str(value)


_MARKS = ("target_mark", "member_mark", "nonmember_mark")


def settings(row: Row, axes: Iterable[str]) -> list[tuple[str, str]]:
    """The row's values of some axes, those that apply, with the axes' titles; three equal marks are said once."""
    values = {axis: getattr(row.axes, axis) for axis in axes}
    pairs = [(axis, AXIS_TITLES[axis], axis_text(value)) for axis, value in values.items() if value is not None]
    if {*_MARKS} <= {*values} and len({values[mark] for mark in _MARKS}) == 1:
        first = [("", "all marks", text) for axis, _, text in pairs if axis == _MARKS[0]]
        pairs = first + [pair for pair in pairs if pair[0] not in _MARKS]
    return [(title, text) for _, title, text in pairs]


def setting(row: Row, axes: Iterable[str]) -> str:
    """The same as one line: "negatives shadow, guidance 7.5"."""
    return ", ".join(f"{title} {text}" for title, text in settings(row, axes))


def left(row: Row) -> tuple[float | None, Interval | None]:
    """AUC minus source_auc, and its paired interval where the row's metrics have one (left_low, left_high)."""
    measured = row.measured
    if measured.auc is None or measured.source_auc is None:
        return None, None
    low, high = measured.metrics.get("left_low"), measured.metrics.get("left_high")
    return measured.auc - measured.source_auc, (low, high) if low is not None and high is not None else None


def counts_text(row: Row) -> str:
    """How many pictures and people a row rests on."""
    m = row.measured
    parts = [
        f"{amount(m.num_members)} members" if m.num_members is not None else "",
        f"{amount(m.num_nonmembers)} non-members" if m.num_nonmembers is not None else "",
        f"{amount(m.num_identities)} people" if m.num_identities is not None else "",
        f"{m.worlds} world{'' if m.worlds == 1 else 's'}" if m.worlds is not None else "",
    ]
    return ", ".join(part for part in parts if part)


def findings(board: Board) -> list[Finding]:
    """What the rows show, in plain words and in the order in which a reader should hear it."""
    found = [
        _cross_source(board),
        _same_source(board),
        _planted(board),
        _negatives(board),
        _confounded(board),
        _blind(board),
        _trouble(board),
        _evidence(board),
    ]
    return [finding for finding in found if finding is not None]


def headline(board: Board, entries: Sequence[Entry]) -> Entry | None:
    """The entry that the campaign named in advance, else the one with the highest AUC."""
    wanted = {axis: value for axis, value in board.campaign.default.items() if axis != "query"}
    if wanted:
        for entry in entries:
            if all(getattr(entry.row.axes, axis) == value for axis, value in wanted.items()):
                return entry
    return max(entries, key=lambda entry: entry.row.measured.auc or 0, default=None)


def _cross_source(board: Board) -> Finding | None:
    usable = [entry for entry in board.section("cross") if left(entry.row)[0] is not None]
    entry = headline(board, usable)
    if entry is None:
        return None
    row = entry.row
    auc, source_auc, rest = row.measured.auc, row.measured.source_auc, left(row)[0]
    assert auc is not None and source_auc is not None and rest is not None
    above = auc - 0.5
    if above < 0.05:
        title, tone = "Even against another source there is little to see", "note"
    elif rest < above / 3:
        title, tone = "It looks like membership, but it is the style", "caution"
    else:
        title, tone = "Against another source, style does not explain it all", "note"
    text = (
        f"{_name(row)}: members against people of another source score AUC {number(auc)}. But people of the members' "
        "own "
        f"source whom the model never saw score {number(source_auc)} against the very same outsiders: what is left is "
        f"{_difference(auc, source_auc)}."
    )
    if len(usable) > 1:
        rests = [value for e in usable if (value := left(e.row)[0]) is not None]
        text += (
            f" Over all {len(usable)} such rows the median AUC is "
            f"{number(statistics.median(e.row.measured.auc or 0 for e in usable))} and the median difference "
            f"{number(statistics.median(rests))}."
        )
    return Finding(tone, title, text)  # type: ignore[arg-type]


def _same_source(board: Board) -> Finding | None:
    ranked = board.section("ranked")
    if not ranked:
        return Finding("note", "Nothing is ranked", "No row compares members with unseen people of the same source.")
    tested = [entry for entry in ranked if entry.p_adjusted is not None]
    hits = [entry for entry in tested if tone_of(entry.row.measured.delta_auc_ci, entry.p_adjusted) == "leak"]
    mdes = [entry.row.measured.mde for entry in ranked if entry.row.measured.mde is not None]
    best = (hits or ranked)[0]
    strongest = (
        f"The strongest is {_name(best.row)}{_where(board, best.row)}: Delta "
        f"{with_interval(best.row.measured.delta_auc, best.row.measured.delta_auc_ci, signed=True)}."
    )
    size = ""
    if mdes:
        low, middle, high = number(min(mdes)), number(statistics.median(mdes)), number(max(mdes))
        span = low if low == high else f"{low} to {high} (median {middle})"
        size = f" The smallest Delta that these cells would have seen with probability .8 is {span}."
    cells = "cell" if len(ranked) == 1 else "cells"
    if hits:
        return Finding(
            "leak",
            f"{len(hits)} of {len(ranked)} ranked {cells} tell{'s' if len(hits) == 1 else ''} members apart",
            f"Against unseen people of the same source, the only fair comparison. {strongest}{size}",
        )
    return Finding(
        "clear",
        f"No leak found in {len(ranked)} ranked {cells}",
        f"Against unseen people of the same source no attack tells members apart (Holm-adjusted, 5 %). "
        f"{strongest}{size}"
        " A leak smaller than that may be there and not be seen.",
    )


def _planted(board: Board) -> Finding | None:
    planted = [entry for entry in board.section("planted") if entry.row.measured.delta_auc is not None]
    if not planted:
        return None
    best = max(planted, key=lambda entry: entry.row.measured.delta_auc or 0)
    ci = best.row.measured.delta_auc_ci
    number_text = with_interval(best.row.measured.delta_auc, ci, signed=True)
    found = [entry for entry in planted if tone_of(entry.row.measured.delta_auc_ci) == "leak"]
    if found:
        names = sorted({_name(entry.row) for entry in found})
        return Finding(
            "leak",
            "Planted members are found",
            f"Where a leak was planted (few people, many epochs) it is found by {_list(names)}; the strongest, "
            f"{_name(best.row)}, has Delta {number_text}. So the instruments work, and 'nothing found' elsewhere is "
            "news.",
        )
    return Finding(
        "caution",
        "Planted members are not found",
        f"Where a leak was planted no attack found it (best: {_name(best.row)}, Delta {number_text}). 'Nothing found' "
        "elsewhere then says little.",
    )


def _negatives(board: Board) -> Finding | None:
    groups: dict[Any, list[Entry]] = defaultdict(list)
    for entry in board.section("ranked") + board.section("planted"):
        if entry.row.axes.aux is not None and entry.row.measured.delta_auc_ci is not None:
            others = tuple(getattr(entry.row.axes, axis) for axis in AXES if axis != "aux")
            groups[(others, entry.row.role, entry.row.level)].append(entry)
    best = None
    for group in groups.values():
        group.sort(key=lambda entry: entry.row.measured.delta_auc or 0)
        low, high = group[0].row.measured, group[-1].row.measured
        assert low.delta_auc_ci is not None and high.delta_auc_ci is not None
        gap = (high.delta_auc or 0) - (low.delta_auc or 0)
        if low.delta_auc_ci[1] < high.delta_auc_ci[0] and (best is None or gap > best[0]):
            best = (gap, group[0].row, group[-1].row)
    if best is None:
        return None
    weak, strong = best[1:]
    strong_delta = with_interval(strong.measured.delta_auc, strong.measured.delta_auc_ci, signed=True)
    weak_delta = with_interval(weak.measured.delta_auc, weak.measured.delta_auc_ci, signed=True)
    return Finding(
        "leak",
        "What the attack is contrasted with decides what it detects",
        f"{_name(strong)}{_planted_words(strong)}, all else equal: with negatives '{axis_text(strong.axes.aux)}' Delta "
        f"is {strong_delta}, with '{axis_text(weak.axes.aux)}' {weak_delta}.",
    )


def _confounded(board: Board) -> Finding | None:
    flagged = [e for e in board.section("apart") if e.row.confounded and e.row.measured.auc is not None]
    if not flagged:
        return None
    best = max(flagged, key=lambda entry: entry.row.measured.auc or 0)
    return Finding(
        "caution",
        f"{len(flagged)} {'row is' if len(flagged) == 1 else 'rows are'} confounded by design",
        f"Where members and non-members differ in more than membership (such as a watermark on the members only) the "
        "AUC "
        f"reaches {number(best.row.measured.auc)} ({_name(best.row)}). It is the difference that is detected, not "
        "membership; such rows are listed apart.",
    )


def _blind(board: Board) -> Finding | None:
    unfair = [
        entry
        for entry in board.section("ranked")
        if (ci := entry.row.measured.blind_auc_ci) is not None and not ci[0] <= 0.5 <= ci[1]
    ]
    checked = [entry for entry in board.section("ranked") if entry.row.measured.blind_auc_ci is not None]
    # One in twenty 95 % intervals misses; only more than that says something about the split.
    if len(unfair) <= max(1, len(checked) // 20):
        return None
    return Finding(
        "caution",
        "The pictures alone tell some halves apart",
        f"In {len(unfair)} of {len(checked)} ranked rows a classifier that never asks the model does better or worse "
        "than "
        "chance. The cross-over cancels this in Delta; it should not be there in the first place.",
    )


def _trouble(board: Board) -> Finding | None:
    failed = sum(entry.row.status == "failed" for entry in board.entries)
    small = sum(entry.row.status == "undersized" for entry in board.entries)
    if not failed + small:
        return None
    parts = [f"{failed} failed" if failed else "", f"{small} too small to judge" if small else ""]
    what = " and ".join(part for part in parts if part)
    return Finding(
        "caution",
        f"{failed + small} {'cell has' if failed + small == 1 else 'cells have'} no verdict",
        f"{what} of {len(board.entries)}; the reasons stand beside them. A missing number is never a safe number.",
    )


def _evidence(board: Board) -> Finding | None:
    if "synthetic" not in board.evidence:
        return None
    return Finding(
        "note",
        "Synthetic faces" if board.evidence == ["synthetic"] else "Partly synthetic faces",
        "Measured on drawn faces and a miniature model. What is true of the method shows here; the levels are not "
        "those "
        "of Stable Diffusion 1.5 on photographs.",
    )


def _name(row: Row) -> str:
    return str(row.axes.attack or "the attack").replace("_", " ")


def usual(board: Board) -> dict[str, Any]:
    """The usual value of each axis: the campaign's default, else the most frequent value that is not null."""
    values: dict[str, Any] = {}
    for axis in AXES:
        seen = Counter(v for entry in board.entries if (v := getattr(entry.row.axes, axis)) is not None)
        named = board.campaign.default.get(axis)
        values[axis] = named if named in seen else seen.most_common(1)[0][0] if seen else None
    return values


def unusual_axes(board: Board, row: Row, ordinary: Mapping[str, Any]) -> list[str]:
    """The axes in which a row differs from the usual cell; null (does not apply) is no difference."""
    values = {axis: getattr(row.axes, axis) for axis in board.varying}
    return [a for a, v in values.items() if a not in ("attack", "query") and v is not None and v != ordinary[a]]


def _where(board: Board, row: Row) -> str:
    words = setting(row, unusual_axes(board, row, usual(board)))
    return f" ({words})" if words else ""


def _planted_words(row: Row) -> str:
    return " on a planted target" if row.role == "planted" else ""


def _difference(a: float, b: float) -> str:
    """The difference as a reader gets it who subtracts the printed numbers."""
    return number(round(a, 2) - round(b, 2))


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def tracks(board: Board) -> Mapping[tuple[str, str, str], list[Any]]:
    """Attack entries by track."""
    grouped: dict[tuple[str, str, str], list[Any]] = defaultdict(list)
    for attack in board.attacks:
        grouped[attack.track].append(attack)
    return grouped
