"""The sentences: findings in words, titles and notes of the tables, and how each number was computed."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.leaderboard import findings as f
from bench.leaderboard.formats import axis_text, name, number, with_interval
from bench.leaderboard.rank import Board, Section
from bench.leaderboard.row import Row
from bench.leaderboard.settings import Usual, as_line

SECTION_TITLES: dict[Section, str] = {
    "ranked": "Ranked: members against unseen people of the same source",
    "cross": "Not ranked: members against another source",
    "planted": "Planted: cells in which something must be found",
    "control": "Controls and references",
    "other": "Other questions",
    "apart": "Listed apart: flagged, undersized and failed",
    "waiting": "Waiting: cells that are not made yet",
}

SECTION_NOTES: dict[Section, str] = {
    "ranked": "The only fair comparison: same institution, same camera, same style; only membership differs. Ordered "
    "by the simultaneous lower bound of Delta, then by Delta.",
    "cross": "A high AUC here is mostly recognition of a style. Read the difference: AUC minus what unseen people of "
    "the members' own source score against the same outsiders.",
    "planted": "Few people, many epochs. If an attack finds nothing even here, its silence elsewhere says little.",
    "control": "What the same scores give where there is nothing to find, and comparisons of interest.",
    "other": "Persons instead of pictures, amplification, models without a twin.",
    "apart": "These numbers are not to be compared with the others; the reason stands beside each.",
    "waiting": "Nothing is known of these yet: they were asked for and no run has made them. Running the same command "
    "again goes on.",
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
    "mean 'member' by declaration of the attack, never by looking at the answers, so an AUC below .5 is shown as it "
    "is.",
    "source_auc": "Source AUC: the same scores against the same non-members, with people of the members' own source "
    "whom the model never saw in the members' place, averaged over both worlds. What is left of the AUC above it is "
    "what membership may claim.",
    "base_auc": "Base AUC: the same attack aimed at the model before fine-tuning. It has seen none of these people.",
    "blind_auc": "Blind AUC: a classifier of the pictures alone that never asks the model, trained on other people. "
    "Far from .5 it says that the two sets of pictures differ even without any model.",
    "tpr": "TPR at a low FPR: the largest share of members found while at most that share of non-members is accused, "
    "on the exact sorted scores. Refused (null) where there are too few non-members to have such a rate.",
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
    "twin": "a second target, trained on the other half of the people, so that each picture is once a member and once "
    "not",
    "world": "one realisation of a cell: which half was trained on, and the seeds",
    "cell": "one combination of settings; one row",
}


@dataclass(frozen=True)
class Sentence:
    """A finding in words.

    Attributes:
        tone: "leak" (members are found), "clear" (nothing is found), "caution" (do not be misled) or "note".
        title: what it says, short.
        text: the numbers behind it.
    """

    tone: f.Tone
    title: str
    text: str


def summary(board: Board) -> list[Sentence]:
    """What the rows show, in plain words and in the order in which a reader should hear it."""
    usual = Usual(board)
    return [Sentence(found.tone, *_WORDED[type(found)](found, usual)) for found in f.findings(board)]


def _waiting(found: f.Waiting, usual: Usual) -> tuple[str, str]:
    return (
        f"{found.num_waiting} of {found.num_rows} cells are not made yet",
        "They wait: running the same command again makes them. Until then the numbers below are of a part only, and "
        "ranks and adjusted p-values will change.",
    )


def _other_source(found: f.OtherSource, usual: Usual) -> tuple[str, str]:
    title = {
        "little": "Even against another source there is little to see",
        "style": "It looks like membership, but it is the style",
        "more": "Against another source, style does not explain it all",
    }[found.kind]
    text = (
        f"{_name(found.entry.row)}: members against people of another source score AUC {number(found.auc)}. But people "
        f"of the members' own source whom the model never saw score {number(found.source_auc)} against the very same "
        f"outsiders: what is left is {_difference(found.auc, found.source_auc)}."
    )
    if found.num_rows > 1:
        text += (
            f" Over all {found.num_rows} such rows the median AUC is {number(found.median_auc)} and the median "
            f"difference {number(found.median_left)}."
        )
    return title, text


def _same_source(found: f.SameSource, usual: Usual) -> tuple[str, str]:
    if found.strongest is None:
        return "Nothing is ranked", "No row compares members with unseen people of the same source."
    row = found.strongest.row
    strongest = f"The strongest is {_name(row)}{_where(row, usual)}: Delta {_delta(row)}."
    size = ""
    if found.mdes:
        low, middle, high = number(found.mdes[0]), number(statistics.median(found.mdes)), number(found.mdes[-1])
        span = low if low == high else f"{low} to {high} (median {middle})"
        size = f" The smallest Delta that these cells would have seen with probability .8 is {span}."
    cells = "cell" if found.num_ranked == 1 else "cells"
    if found.num_found:
        return (
            f"{found.num_found} of {found.num_ranked} ranked {cells} tell{'s' if found.num_found == 1 else ''} "
            "members apart",
            f"Against unseen people of the same source, the only fair comparison. {strongest}{size}",
        )
    return (
        f"No leak found in {found.num_ranked} ranked {cells}",
        f"Against unseen people of the same source no attack tells members apart (Holm-adjusted, 5 %). {strongest}"
        f"{size} A leak smaller than that may be there and not be seen.",
    )


def _planted(found: f.Planted, usual: Usual) -> tuple[str, str]:
    row = found.strongest.row
    if found.found:
        names = sorted({_name(entry.row) for entry in found.found})
        return (
            "Planted members are found",
            f"Where a leak was planted (few people, many epochs) it is found by {_list(names)}; the strongest, "
            f"{_name(row)}, has Delta {_delta(row)}. So the instruments work, and 'nothing found' elsewhere is news.",
        )
    return (
        "Planted members are not found",
        f"Where a leak was planted no attack found it (best: {_name(row)}, Delta {_delta(row)}). 'Nothing found' "
        "elsewhere then says little.",
    )


def _negatives(found: f.Negatives, usual: Usual) -> tuple[str, str]:
    weak, strong = found.weak, found.strong
    planted = " on a planted target" if strong.role == "planted" else ""
    return (
        "What the attack is contrasted with decides what it detects",
        f"{_name(strong)}{planted}, all else equal: with negatives '{axis_text(strong.axes.aux)}' Delta is "
        f"{_delta(strong)}, with '{axis_text(weak.axes.aux)}' {_delta(weak)}.",
    )


def _confounded(found: f.Confounded, usual: Usual) -> tuple[str, str]:
    row = found.strongest.row
    return (
        f"{found.num_rows} {'row is' if found.num_rows == 1 else 'rows are'} confounded by design",
        "Where members and non-members differ in more than membership (such as a watermark on the members only) the "
        f"AUC reaches {number(row.measured.auc)} ({_name(row)}). It is the difference that is detected, not "
        "membership; such rows are listed apart.",
    )


def _unequal_halves(found: f.UnequalHalves, usual: Usual) -> tuple[str, str]:
    return (
        "The pictures alone tell some halves apart",
        f"In {found.num_rows} of {found.num_checked} ranked rows a classifier that never asks the model does better or "
        "worse than chance. The cross-over cancels this in Delta; it should not be there in the first place.",
    )


def _no_verdict(found: f.NoVerdict, usual: Usual) -> tuple[str, str]:
    count = found.num_failed + found.num_undersized
    parts = [
        f"{found.num_failed} failed" if found.num_failed else "",
        f"{found.num_undersized} too small to judge" if found.num_undersized else "",
    ]
    what = " and ".join(part for part in parts if part)
    return (
        f"{count} {'cell has' if count == 1 else 'cells have'} no verdict",
        f"{what} of {found.num_rows}; the reasons stand beside them. A missing number is never a safe number.",
    )


def _drawn(found: f.Drawn, usual: Usual) -> tuple[str, str]:
    if not found.faces:
        return (
            "A miniature model" if found.wholly else "Partly a miniature model",
            "Measured on photographs and a miniature model. What is true of the method shows here; the levels are not "
            "those of Stable Diffusion 1.5.",
        )
    return (
        "Synthetic faces" if found.wholly else "Partly synthetic faces",
        "Measured on drawn faces and a miniature model. What is true of the method shows here; the levels are not "
        "those of Stable Diffusion 1.5 on photographs.",
    )


_WORDED: dict[type, Callable[[Any, Usual], tuple[str, str]]] = {
    f.Waiting: _waiting,
    f.OtherSource: _other_source,
    f.SameSource: _same_source,
    f.Planted: _planted,
    f.Negatives: _negatives,
    f.Confounded: _confounded,
    f.UnequalHalves: _unequal_halves,
    f.NoVerdict: _no_verdict,
    f.Drawn: _drawn,
}


def _name(row: Row) -> str:
    return name(row.axes.attack or "the attack")


def _delta(row: Row) -> str:
    return with_interval(row.measured.delta_auc, row.measured.delta_auc_ci, signed=True)


def _where(row: Row, usual: Usual) -> str:
    line = as_line(usual.differences(row))
    return f" ({line})" if line else ""


def _difference(a: float, b: float) -> str:
    """The difference as a reader gets it who subtracts the printed numbers."""
    return number(round(a, 2) - round(b, 2))


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
