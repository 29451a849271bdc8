"""Joins rows for a campaign: sections, ranks, adjusted p-values, reported numbers, and attacks over a fixed suite.

Nothing of this is part of a row: the same row may stand in several campaigns.

What is ranked: rows with role `ranked`, status `ok`, estimand `same_source` and no `confounded` flag, in order of
the simultaneous lower bound of their Delta, then of Delta. Ranking cells tells where a leak shows; it does not tell
which attack is best (the one tried on the most over-trained target would win). Attacks are therefore compared
separately, over the same targets and in tracks of equal access (`rank_attacks`).
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from typing import Any, Literal, get_args

import yaml

from bench.axes import AXES, ENTRANT_AXES, TARGET_AXES
from bench.leaderboard.attachments import Attachments
from bench.leaderboard.row import Row, reasons_of, why_null
from lmia.metrics.multiplicity import holm, suite_interval, suite_lower_bound

ALPHA = 0.05


Section = Literal["ranked", "cross", "planted", "control", "other", "apart", "waiting"]
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Campaign:
    """A named set of cells.

    Attributes:
        name: the preset's name, or what the campaign is called.
        title: one line for people.
        description: a sentence or two on what was asked.
        default: the axes of the cell that was named in advance; it leads the summary.
        cells: addresses of the campaign's cells; None if every given row belongs to it.
        suite: the targets (axes of TARGET_AXES) that attacks are compared on; None for those that all attacks share.
    """

    name: str
    title: str = ""
    description: str = ""
    default: Mapping[str, Any] = field(default_factory=dict)
    cells: frozenset[str] | None = None
    suite: tuple[Mapping[str, Any], ...] | None = None


@dataclass(frozen=True)
class Reported:
    """A published number for the same question."""

    auc: float
    source: str
    evidence: str
    note: str | None = None


@dataclass(frozen=True)
class Entry:
    """A row in its campaign.

    Attributes:
        row: the row, untouched.
        attachments: what is shown beside it.
        section: where it is listed.
        rank: 1 is the strongest leak; None if the row is not ranked.
        why_unranked: what keeps it out of the ranks; None for a ranked row.
        p_value: one-sided, of Delta <= 0; None outside of the ranked section.
        p_adjusted: the same, Holm over the campaign's ranked rows.
        bound: lower bound of Delta, simultaneous over the campaign's ranked rows.
        reported: the published number for the same axes.
    """

    row: Row
    attachments: Attachments
    section: Section
    rank: int | None = None
    why_unranked: str | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    bound: float | None = None
    reported: Reported | None = None


@dataclass(frozen=True)
class AttackEntry:
    """An attack over the suite of targets.

    Attributes:
        track: (access, captions, shadow data): attacks are compared inside of one only.
        axes: the entrant's own axes (ENTRANT_AXES).
        level: picture, identity or set.
        rank: inside the track; None if it was not tried on the whole suite.
        num_targets: how many of the suite's targets it was tried on.
        num_suite: how many there are.
        delta: mean Delta over the suite's targets that it was tried on.
        delta_ci: 95 %, as wide as if the targets' errors were the same error (they share their pictures).
        bound: lower bound, simultaneous over the entrants of the campaign.
        nfe: U-Net evaluations per picture, mean.
        nfe_offline: U-Net evaluations before any picture, mean.
    """

    track: tuple[str, str, str]
    axes: Mapping[str, Any]
    level: str
    rank: int | None
    num_targets: int
    num_suite: int
    delta: float
    delta_ci: tuple[float, float] | None
    bound: float | None
    nfe: float | None
    nfe_offline: float | None


@dataclass(frozen=True)
class Board:
    """A campaign's rows, joined; `entries` are in the order in which they are shown."""

    campaign: Campaign
    entries: tuple[Entry, ...]
    attacks: tuple[AttackEntry, ...]
    suite: tuple[Key, ...]

    def section(self, name: Section) -> list[Entry]:
        """The entries of one section, in order."""
        return [entry for entry in self.entries if entry.section == name]

    @property
    def evidence(self) -> list[str]:
        """What the rows were measured on: drawn faces, photographs on a miniature model, photographs on a real one."""
        return sorted({entry.row.provenance.evidence for entry in self.entries})

    @cached_property
    def varying(self) -> list[str]:
        """Axes with more than one value among the rows (null included), in the canonical order."""
        values = defaultdict(set)
        for entry in self.entries:
            for axis in AXES:
                values[axis].add(getattr(entry.row.axes, axis))
        return [axis for axis in AXES if len(values[axis]) > 1]


def join(
    rows: Iterable[Row], attachments: Mapping[str, Attachments] | None = None, campaign: Campaign | None = None
) -> Board:
    """Joins rows with what depends on the campaign.

    Args:
        rows: rows; those outside of `campaign.cells` are left out.
        attachments: what is shown beside them, by cell.
        campaign: what they are shown in.
    """
    campaign = campaign or Campaign("all")
    attachments = attachments or {}
    kept = [row for row in rows if campaign.cells is None or row.cell in campaign.cells]
    repeated = [cell for cell, count in Counter(row.cell for row in kept).items() if count > 1]
    if repeated:
        raise ValueError(f"several rows for one cell: {', '.join(sorted(repeated)[:5])}")
    ranked = [row for row in kept if section_of(row) == "ranked"]
    p_values = {row.cell: p for row in ranked if (p := p_of(row)) is not None}
    adjusted = dict(zip(p_values, map(float, holm(list(p_values.values()))), strict=True))
    bounds = {row.cell: lower_bound(row, len(ranked)) for row in ranked}
    ranked.sort(key=lambda row: (-_or_low(bounds[row.cell]), -_or_low(row.measured.delta_auc), row.cell))
    ranks = {row.cell: place for place, row in enumerate(ranked, 1)}
    entries = [
        Entry(
            row=row,
            attachments=attachments.get(row.cell, Attachments()),
            section=section_of(row),
            rank=ranks.get(row.cell),
            why_unranked=why_unranked(row),
            p_value=p_values.get(row.cell),
            p_adjusted=adjusted.get(row.cell),
            bound=bounds.get(row.cell),
            reported=reported_for(row),
        )
        for row in kept
    ]
    entries.sort(key=_order)
    suite = _suite(entries, campaign)
    return Board(campaign, tuple(entries), tuple(rank_attacks(entries, suite)), tuple(suite))


def section_of(row: Row) -> Section:
    """Where a row is listed; only "ranked" rows have a rank."""
    if row.status == "waiting":
        return "waiting"
    if row.status != "ok" or row.confounded:
        return "apart"
    if row.role == "planted":
        return "planted"
    if row.estimand == "cross_source":
        return "cross"
    if row.estimand != "same_source":
        return "other"
    if row.role in ("control", "reference"):
        return "control"
    return "ranked" if row.measured.delta_auc is not None else "apart"


_APART = {
    "waiting": "not made yet",
    "cross": "members against another source: style and membership cannot be told apart",
    "planted": "planted to be found (few people, many epochs)",
    "control": "shown for comparison",
    "other": "another question than the ranked one",
}


def why_unranked(row: Row) -> str | None:
    """What keeps a row out of the ranks, in words; None for a ranked row."""
    section = section_of(row)
    if section == "ranked":
        return None
    if section in _APART:
        return _APART[section]
    if row.status != "ok":
        return f"{row.status}: {reasons_of(row).get('', row.reason)}"
    if row.confounded:
        why = reasons_of(row).get("")
        return "confounded: " + (why or "members and non-members differ in more than membership")
    return f"no Delta: {why_null(row, 'delta_auc')}"


def p_of(row: Row) -> float | None:
    """One-sided p-value of Delta <= 0: the permutation test of the set if there is one, else Delta's own t test."""
    if row.measured.set_p_value is not None:
        return row.measured.set_p_value
    return row.measured.delta_estimate().p_greater()


def lower_bound(row: Row, num_rows: int) -> float | None:
    """Lower bound of Delta that holds for all `num_rows` rows at once with probability .95 (Bonferroni, one-sided).

    From the row's own Student t on the log-odds scale; a row of version 1 is read as a normal estimate.
    """
    return row.measured.delta_estimate().lower_bound(ALPHA / max(num_rows, 1))


def rank_attacks(entries: Iterable[Entry], suite: Sequence[Key]) -> list[AttackEntry]:
    """Attacks over the suite of targets, ranked inside their track; ranked ones first, then by coverage."""
    tried: dict[Key, dict[Key, Entry]] = defaultdict(dict)
    for entry in entries:
        target = target_key(entry.row)
        if entry.section == "ranked" and target in suite:
            tried[(track_of(entry), entrant_key(entry.row), entry.row.level)][target] = entry
    found = []
    for (track, entrant, level), by_target in tried.items():
        rows = [entry.row for entry in by_target.values()]
        deltas = [row.measured.delta_auc for row in rows if row.measured.delta_auc is not None]
        estimates = [row.measured.delta_estimate() for row in rows]
        ci = suite_interval(estimates)
        found.append(
            AttackEntry(
                track=track,
                axes=dict(zip(ENTRANT_AXES, entrant, strict=True)),
                level=level,
                rank=None,
                num_targets=len(rows),
                num_suite=len(suite),
                delta=math.fsum(deltas) / len(deltas),
                delta_ci=None if ci is None else (ci[0], min(ci[1], 0.5)),
                bound=suite_lower_bound(estimates, ALPHA / len(tried)),
                nfe=_mean([row.cost.nfe for row in rows if row.cost.nfe is not None]),
                nfe_offline=_mean([row.cost.nfe_offline for row in rows if row.cost.nfe_offline is not None]),
            )
        )
    found.sort(key=lambda a: (a.track, a.level, a.num_targets < a.num_suite, -_or_low(a.bound), -a.delta, str(a.axes)))
    places: Counter[Key] = Counter()
    ranked = []
    for attack in found:
        if attack.num_targets == attack.num_suite:
            places[(attack.track, attack.level)] += 1
            attack = AttackEntry(**{**attack.__dict__, "rank": places[(attack.track, attack.level)]})  # noqa: PLW2901
        ranked.append(attack)
    return ranked


def track_of(entry: Entry) -> tuple[str, str, str]:
    """(access, captions, shadow data): what the attack is given; access and shadow data as the row's question says."""
    captions = entry.row.axes.captions
    captions = "none" if captions is None else str(captions)
    return entry.attachments.access or "access not stated", captions, entry.attachments.shadow or "none"


def target_key(row: Row) -> Key:
    """What the attack is tried on, as a key."""
    return tuple(getattr(row.axes, axis) for axis in TARGET_AXES)


def entrant_key(row: Row) -> Key:
    """What the attack is, as a key."""
    return tuple(getattr(row.axes, axis) for axis in ENTRANT_AXES)


@cache
def reported_numbers() -> tuple[dict[str, Any], ...]:
    """The published numbers of reported.yaml: {auc, source, evidence, note, axes}."""
    text = resources.files("bench.leaderboard").joinpath("reported.yaml").read_text(encoding="utf-8")
    numbers = yaml.safe_load(text)["numbers"]
    for number in numbers:
        unknown = set(number["axes"]) - set(AXES)
        assert not unknown, f"reported.yaml: {number['source']}: unknown axes {sorted(unknown)}"
    return tuple(numbers)


def reported_for(row: Row) -> Reported | None:
    """The published number whose axes, as far as it names them, are the row's; the most specific one if several."""
    matching = [
        number
        for number in reported_numbers()
        if all(getattr(row.axes, axis) == value for axis, value in number["axes"].items())
    ]
    if not matching:
        return None
    best = max(matching, key=lambda number: len(number["axes"]))
    return Reported(best["auc"], best["source"], best["evidence"], best.get("note"))


def _suite(entries: Sequence[Entry], campaign: Campaign) -> list[Key]:
    if campaign.suite is not None:
        return [tuple(target.get(axis) for axis in TARGET_AXES) for target in campaign.suite]
    targets: dict[Any, set[Key]] = defaultdict(set)
    for entry in entries:
        if entry.section == "ranked":
            targets[entry.row.axes.attack].add(target_key(entry.row))
    if not targets:
        return []
    return sorted(set.intersection(*targets.values()), key=str)


_SECTIONS = get_args(Section)


def _order(entry: Entry) -> tuple[Any, ...]:
    strength = entry.row.measured.auc if entry.section == "cross" else entry.row.measured.delta_auc
    place = entry.rank or 0
    severity = ("failed", "undersized", "waiting", "ok").index(entry.row.status)
    return _SECTIONS.index(entry.section), place, -severity, -_or_low(strength), entry.row.cell


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _or_low(value: float | None) -> float:
    return -math.inf if value is None else value
