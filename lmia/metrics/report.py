"""Every number for a file of scores: one result a group, groups that differ in their seed summarised, two files paired.

Results are plain JSON values. What could not be computed is None, and the reason is among the result's warnings.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmia.metrics.calibration import best_threshold, decide
from lmia.metrics.estimands import paired
from lmia.metrics.estimates import Estimate, t_quantile
from lmia.metrics.files import ScoreFile, where
from lmia.metrics.influence import auc_statistic
from lmia.metrics.low_fpr import LowFpr, low_fpr
from lmia.metrics.roc import FPRS
from lmia.metrics.scores import ScoreSet
from lmia.metrics.worlds import detectable, over_worlds
from lmia.specs import RequestError

CALIBRATION = ("calibration", "calibrate", "validation", "val")
REPORT = ("report", "test")
UNUSED = ("fit", "train")
SATURATED = 0.1  # share of pictures with another picture's score from which a warning is due


@dataclass(frozen=True, eq=False)
class Group:
    """The rows of one group and seed.

    Attributes:
        label: Column -> value, the columns grouped by (without the seed where it was not asked for).
        seed: The seed; None where the file has none.
        report: What the numbers are about.
        calibration: Where the threshold comes from, if the file has such a split.
        path: The file, for messages.
        rows: int64 [N], the report rows' numbers in it, from 0.
        named: Pictures are recognised across seeds and files (the file has ids, or every row has its person).
        warnings: What was noticed on the way.
    """

    label: dict[str, Any]
    seed: Any
    report: ScoreSet
    calibration: ScoreSet | None
    path: str
    rows: np.ndarray
    named: bool
    warnings: list[str]


def groups_of(file: ScoreFile, by: Sequence[str]) -> list[Group]:
    """One group per combination of values of the columns `by`, and per seed where the file has a `seed`."""
    columns = list(by)
    if "seed" in file.labels and "seed" not in columns:
        columns.append("seed")
    return [_group(file, by, columns, rows) for rows in _split(file, columns)]


def evaluate(groups: Sequence[Group], by: Sequence[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Results per group asked for, and summaries over seeds.

    Returns:
        Results: one per group. Where `seed` is not among `by` and a group has several, its result is the summary over
            them. Summaries: one per set of groups that differ in nothing but their seed, where `seed` is among `by`.
    """
    families: dict[tuple[Any, ...], list[Group]] = {}
    for group in groups:
        families.setdefault(tuple(group.label[c] for c in by if c != "seed"), []).append(group)
    several = [family for family in families.values() if len(family) > 1]
    if "seed" in by:
        return [_result([group]) for group in groups], [_result(family) for family in several]
    return [_result(family) for family in families.values()], []


def compare(groups: Sequence[Group], against: Sequence[Group], by: Sequence[str], what: str) -> list[dict[str, Any]]:
    """AUC minus the other's AUC on the same pictures, group by group; seeds are paired by value.

    Args:
        groups: The groups of the file under scrutiny.
        against: Those compared with.
        by: The columns that must agree for two groups to be a pair.
        what: The other file or group, for messages.
    """
    columns = [c for c in by if c != "seed"]
    others: dict[tuple[str, ...], list[Group]] = {}
    for group in against:
        others.setdefault(tuple(str(group.label.get(c)) for c in columns), []).append(group)
    families: dict[tuple[str, ...], list[Group]] = {}
    for group in groups:
        families.setdefault(tuple(str(group.label.get(c)) for c in columns), []).append(group)
    results = []
    for key, family in families.items():
        if key not in others:
            raise RequestError(f"{what}: no group {_named(dict(zip(columns, key, strict=True)))}")
        results.append(_compared(family, others[key], columns, what))
    return results


def _split(file: ScoreFile, columns: Sequence[str]) -> Iterator[np.ndarray]:
    """Row numbers of each combination of values, in order of first appearance."""
    code = np.zeros(len(file), dtype=np.int64)
    for column in columns:
        place: dict[Any, int] = {}
        own = np.array([place.setdefault(value, len(place)) for value in file.labels[column]], dtype=np.int64)
        _, code = np.unique(code * len(place) + own, return_inverse=True)
    order = np.argsort(code, kind="stable")
    ends = np.flatnonzero(np.diff(code[order])) + 1
    yield from sorted(np.split(order, ends), key=lambda rows: int(rows[0]))


def _group(file: ScoreFile, by: Sequence[str], columns: Sequence[str], rows: np.ndarray) -> Group:
    first = int(rows[0])
    label = {column: file.labels[column][first] for column in by}
    named = {column: file.labels[column][first] for column in columns}
    if file.ids is not None:
        _unique(file, rows, named)
    warnings: list[str] = []
    report, calibration = rows, None
    if "split" in file.labels and "split" not in by:
        report, calibration, warnings = _splits(file, rows, named)
    known = file.ids is not None or (file.identity is not None and None not in file.identity)
    if file.ids is None:
        warnings.append("no id column: pictures given twice cannot be noticed")
    if file.identity is None:
        warnings.append(
            "no identity column: every picture counts as another person; with several photos a person the intervals"
            " are too narrow"
        )
    group = Group(
        label,
        file.labels["seed"][first] if "seed" in file.labels else None,
        _score_set(file, report, named),
        None if calibration is None else _score_set(file, calibration, named),
        file.path,
        report,
        known,
        warnings,
    )
    return group


def _splits(
    file: ScoreFile, rows: np.ndarray, named: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    names = [str(file.labels["split"][row]).lower() for row in rows.tolist()]
    for row, name in zip(rows.tolist(), names, strict=True):
        if name not in (*CALIBRATION, *REPORT, *UNUSED):
            allowed = ", ".join((*CALIBRATION, *REPORT, *UNUSED))
            raise RequestError(
                f"{where(file.path, 'split', row)}: {name!r} is not one of {allowed} (or group by it: --by split)"
            )
    report = rows[np.array([name in REPORT for name in names])]
    calibration = rows[np.array([name in CALIBRATION for name in names])]
    if not report.size:
        raise RequestError(f"{where(file.path, 'split', int(rows[0]))}: no row to report on in group {_named(named)}")
    unused = len(rows) - len(report) - len(calibration)
    warnings = [f"{unused} rows of the fit split are not used"] if unused else []
    return report, calibration if calibration.size else None, warnings


def _score_set(file: ScoreFile, rows: np.ndarray, named: dict[str, Any]) -> ScoreSet:
    member = file.member[rows]
    if member.all() or not member.any():
        only = "members" if member.any() else "non-members"
        group = f" of group {_named(named)}" if named else ""
        place = where(file.path, "member", int(rows[0]))
        raise RequestError(f"{place}: only {only} among the {len(rows)} rows{group}; both classes are needed")
    listed = rows.tolist()
    ids = [f"row {row + 1}" for row in listed] if file.ids is None else [file.ids[row] for row in listed]
    identity = None if file.identity is None else [file.identity[row] for row in listed]
    return ScoreSet(ids, file.scores[rows], member, identity)


def _unique(file: ScoreFile, rows: np.ndarray, named: dict[str, Any]) -> None:
    assert file.ids is not None
    seen: dict[str, int] = {}
    for row in rows.tolist():
        before = seen.setdefault(file.ids[row], row)
        if before != row:
            group = f" in group {_named(named)}" if named else ""
            raise RequestError(
                f"{where(file.path, 'id', row)}: {file.ids[row]!r} is already in row {before + 1}{group}"
            )


def _result(family: Sequence[Group]) -> dict[str, Any]:
    """One group, or several that differ in nothing but their seed."""
    sets = [group.report for group in family]
    people = "matched" if all(group.named for group in family) else "unknown"
    statistics = [auc_statistic(s) for s in sets]
    estimate = over_worlds(statistics, "logit", people=people)
    warnings = list(dict.fromkeys(w for group in family for w in group.warnings))
    tied = max(_tied(s.scores) for s in sets)
    if tied > SATURATED:
        warnings.append(f"{tied:.0%} of the scores equal another one (saturated or rounded): ties count half")
    warnings += _notes_on("auc_ci", estimate)
    if len(family) > 1 and people == "unknown":
        warnings.append("pictures cannot be recognised across seeds: they are taken as shared, the wider assumption")
    result: dict[str, Any] = {
        "group": _label(family),
        "auc": estimate.value,
        "auc_ci": estimate.interval,
        "tpr_at_fpr": _tprs(sets, people, warnings),
        "num_members": _count(family, True),
        "num_nonmembers": _count(family, False),
        "num_identities": _identities(family),
        **_balanced(family, people, warnings),
        "mde": detectable(statistics, people=people),
        "auc_method": estimate.method,
    }
    if estimate.value is not None and estimate.high is not None and estimate.high < 0.5:
        warnings.append("AUC below .5: shown as it is; if these are distances, say --lower-is-member")
    if len(family) > 1:
        result |= _over_seeds(family, np.array([s.value for s in statistics]))
    return {**result, "warnings": warnings}


def _tprs(sets: Sequence[ScoreSet], people: str, warnings: list[str]) -> dict[str, dict[str, Any] | None]:
    found: dict[str, dict[str, Any] | None] = {}
    for name, value in low_fpr([[s] for s in sets], FPRS, people=people).items():
        if not isinstance(value, LowFpr):
            found[name] = None
            warnings.append(f"tpr_at_fpr {name}: {value}")
            continue
        found[name] = {
            "tpr": value.tpr,
            "ci": value.ci,
            "true_positives": value.true_positives,
            "false_positives": value.false_positives,
            "fpr": value.fpr,
            "threshold": value.threshold,
            "ci_given_threshold": value.ci_given_threshold,
            "method": value.method,
        }
        if value.note:
            warnings.append(f"tpr_at_fpr {name}: {value.note}")
    return found


def _balanced(family: Sequence[Group], people: str, warnings: list[str]) -> dict[str, Any]:
    empty = {"balanced_accuracy": None, "balanced_accuracy_ci": None, "decision": None}
    if any(group.calibration is None for group in family):
        warnings.append("balanced_accuracy: no calibration split to choose the threshold on (column split)")
        return empty
    decisions, statistics = [], []
    for group in family:
        assert group.calibration is not None
        shared = set(group.calibration.persons()) & set(group.report.persons())
        if shared:
            warnings.append(f"balanced_accuracy: {len(shared)} people are in both the calibration and the report split")
        decision = decide(group.report, best_threshold(group.calibration))
        decisions.append(decision)
        statistics.append(decision.statistic)
    estimate = decisions[0].balanced_accuracy if len(family) == 1 else over_worlds(statistics, "logit", people=people)
    warnings += _notes_on("balanced_accuracy_ci", estimate)
    single = decisions[0] if len(family) == 1 else None
    return {
        "balanced_accuracy": estimate.value,
        "balanced_accuracy_ci": estimate.interval,
        "decision": {
            "threshold": single.threshold if single else None,
            "tpr": float(np.mean([d.tpr for d in decisions])),
            "fpr": float(np.mean([d.fpr for d in decisions])),
            "tpr_ci_given_threshold": single.tpr_ci if single else None,
            "fpr_ci_given_threshold": single.fpr_ci if single else None,
        },
    }


def _over_seeds(family: Sequence[Group], values: np.ndarray) -> dict[str, Any]:
    num = len(values)
    half = t_quantile(0.975, num - 1) * float(values.std(ddof=1)) / math.sqrt(num)
    mean = float(values.mean())
    return {
        "num_seeds": num,
        "seeds": [group.seed for group in family],
        "auc_per_seed": values.tolist(),
        "auc_ci_seeds_only": [mean - half, mean + half],
        "auc_half_width_as_usually_printed": float(1.96 * values.std(ddof=0) / math.sqrt(num)),
    }


def _compared(family: list[Group], other: list[Group], columns: Sequence[str], what: str) -> dict[str, Any]:
    label = {c: family[0].label[c] for c in columns}
    place = f"{what}: group {_named(label)}" if label else what
    for group in (*family, *other):
        if not group.named:
            raise RequestError(f"{where(group.path, 'id')}: needed to compare the same pictures")
    if len(family) > 1 and len(other) > 1:
        mine, theirs = {str(g.seed): g for g in family}, {str(g.seed): g for g in other}
        if set(mine) != set(theirs):
            raise RequestError(f"{place}: column 'seed': {', '.join(sorted(theirs))}, not {', '.join(sorted(mine))}")
        pairs = [(theirs[seed], mine[seed]) for seed in mine]
    else:
        num = max(len(family), len(other))
        pairs = list(zip(other * (num // len(other)), family * (num // len(family)), strict=True))
    worlds = []
    for one, two in pairs:
        _same_pictures(one, two)
        worlds.append((one.report, two.report))
    found = paired(worlds)
    warnings = list(dict.fromkeys(w for group in (*family, *other) for w in group.warnings))
    return {
        "group": label,
        "against": what,
        "auc": found.second.value,
        "auc_against": found.first.value,
        "difference": found.difference.value,
        "difference_ci": found.difference.interval,
        "p_value": found.p_value,
        "mde": found.mde,
        "num_seeds": len(worlds),
        "method": found.difference.method,
        "warnings": warnings + _notes_on("difference_ci", found.difference),
    }


def _same_pictures(other: Group, mine: Group) -> None:
    for one, two in ((mine, other), (other, mine)):
        membership = dict(zip(two.report.ids, two.report.member.tolist(), strict=True))
        for row, name, member in zip(one.rows.tolist(), one.report.ids, one.report.member.tolist(), strict=True):
            if name not in membership:
                missing = f"{name!r} is not among the {len(membership)} of {_place(two)}; the same pictures are needed"
                raise RequestError(f"{where(one.path, 'id', row)}: {missing}")
            if membership[name] != member:
                raise RequestError(f"{where(one.path, 'member', row)}: id {name!r} is the opposite in {_place(two)}")


def _place(group: Group) -> str:
    return f"{group.path} ({_named(group.label)})" if group.label else group.path


def _label(family: Sequence[Group]) -> dict[str, Any]:
    label = family[0].label
    return label if len(family) == 1 else {c: v for c, v in label.items() if c != "seed"}


def _count(family: Sequence[Group], member: bool) -> int:
    """Different pictures over all seeds; the most in any one seed where they have no ids."""
    if len(family) > 1 and all(group.named for group in family):
        ids = (np.array(g.report.ids, dtype=object)[g.report.member == member] for g in family)
        return len({name for group in ids for name in group})
    return max(int((group.report.member == member).sum()) for group in family)


def _identities(family: Sequence[Group]) -> int | None:
    if any(group.report.identity is None for group in family):
        return None
    return len({person for group in family for person in group.report.persons()})


def _notes_on(what: str, estimate: Estimate) -> list[str]:
    return [f"{what}: {estimate.note}"] if estimate.note else []


def _tied(scores: np.ndarray) -> float:
    _, counts = np.unique(scores, return_counts=True)
    return float(counts[counts > 1].sum() / scores.size)


def _named(label: dict[str, Any]) -> str:
    return ", ".join(f"{column}={value}" for column, value in label.items()) or "(all rows)"
