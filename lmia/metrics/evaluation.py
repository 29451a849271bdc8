"""Every metric for scores that somebody has: a table in memory or a file, with intervals that respect people."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmia.metrics.files import ScoreFile, read_scores, scores_of
from lmia.metrics.report import Group, compare, groups_of
from lmia.metrics.report import evaluate as results_of
from lmia.specs import RequestError

if TYPE_CHECKING:
    import pyarrow as pa

IN_MEMORY = "scores"


@dataclass(frozen=True)
class Evaluation:
    """What there is to say of scores. Results are JSON values; None = could not be computed, why is in its `warnings`.

    Attributes:
        file: the file, or "scores".
        by: the columns grouped by.
        groups: one result per group: group, auc, auc_ci, tpr_at_fpr, balanced_accuracy, warnings, ...
        over_seeds: the same over groups that differ in their seed only, where `seed` is among `by`.
        comparisons: of each group with what it was compared with.
    """

    file: str
    by: list[str]
    groups: list[dict[str, Any]]
    over_seeds: list[dict[str, Any]]
    comparisons: list[dict[str, Any]]


def evaluate(
    scores: "pa.Table | str | Path",
    *,
    member: str | Collection[str] = "member",
    by: Sequence[str] = (),
    lower_is_member: bool = False,
    against: str | None = None,
) -> Evaluation:
    """AUC, TPR at low FPR and balanced accuracy with 95 % intervals, group by group.

    Args:
        scores: a table with `score` and further columns (`lmia.score` makes one), or a .parquet, .csv or .tsv file.
            Intervals are clustered by person where there is a column `identity` (in a table also: `person`).
        member: who is a member: a column of true/false or 0/1, COLUMN=VALUE, or the ids of the members.
        by: one result per combination of these columns.
        lower_is_member: scores are distances, lower for members.
        against: compare on the same pictures: COLUMN=VALUE, one of the groups, or another file.

    Raises:
        RequestError: a mistake in the scores or in what was asked for; it names column and row.
    """
    if len(set(by)) != len(by):
        raise RequestError(f"by = {','.join(by)}: a column is given twice")
    name = str(scores) if isinstance(scores, str | Path) else IN_MEMORY

    def read(what: "pa.Table | str | Path") -> list[Group]:
        return groups_of(_read(what, by, member, lower_is_member), by)

    groups = read(scores)
    results, over_seeds = results_of(groups, by)
    comparisons: list[dict[str, Any]] = []
    if against is not None and (os.path.exists(against) or "=" not in against):
        comparisons = compare(groups, read(against), by, against)
    elif against is not None:
        comparisons = _within(groups, against, name, by)
    return Evaluation(name, list(by), results, over_seeds, comparisons)


def _read(
    scores: "pa.Table | str | Path", by: Sequence[str], member: str | Collection[str], lower_is_member: bool
) -> ScoreFile:
    import pyarrow as pa

    if isinstance(scores, str | Path):
        if not isinstance(member, str):
            raise RequestError("member: ids of members go with a table; of a file, name the column that marks them")
        return read_scores(scores, by=by, positive=member, lower_is_member=lower_is_member)
    if "identity" not in scores.column_names and "person" in scores.column_names:
        scores = scores.append_column("identity", scores["person"])
    if not isinstance(member, str):
        ids, known = set(member), scores["id"].to_pylist()
        if unknown := ids.difference(known):
            raise RequestError(f"member: {len(unknown)} ids have no score, such as {min(unknown)!r}")
        if "member" in scores.column_names:
            scores = scores.drop_columns("member")
        scores, member = scores.append_column("member", pa.array([record in ids for record in known])), "member"
    return scores_of(scores, IN_MEMORY, by=by, positive=member, lower_is_member=lower_is_member)


def _within(groups: list[Group], against: str, name: str, by: Sequence[str]) -> list[dict[str, Any]]:
    """Each group compared with one of them, by COLUMN=VALUE."""
    column, _, value = against.partition("=")
    if column not in by:
        raise RequestError(f"against = {against}: {column!r} is not among by = {','.join(by) or '(nothing)'}")
    chosen = [group for group in groups if str(group.label[column]) == value]
    rest = [group for group in groups if str(group.label[column]) != value]
    if not chosen or not rest:
        known = ", ".join(dict.fromkeys(str(group.label[column]) for group in groups))
        raise RequestError(f"{name}: column {column!r}: groups {known}; against {against} needs that one and another")
    results = []
    for label in dict.fromkeys(group.label[column] for group in rest):
        mine = [group for group in rest if group.label[column] == label]
        for result in compare(mine, chosen, [c for c in by if c != column], against):
            results.append({**result, "group": {column: label, **result["group"]}})
    return results
