"""A row as one flat line of named fields, defined once: CSV, the details on the page and MLflow walk it."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.axes import AXES
from bench.leaderboard.findings import auc_minus_source
from bench.leaderboard.formats import MISSING, amount, axis_text, name, number, p_text, percent, typographic
from bench.leaderboard.rank import Entry
from bench.leaderboard.row import Cost, Measured, why_null

Scalar = str | int | float | None
Group = Literal["setting", "row", "number", "cost", "origin"]


@dataclass(frozen=True)
class Field:
    """One field of a flattened row.

    Attributes:
        key: its name in CSV.
        title: its name for people.
        group: what it belongs to.
        value: the field of an entry; None if there is none.
        metric: its name among MLflow's metrics, where it is a number of its own there; empty if it is none.
    """

    key: str
    title: str
    group: Group
    value: Callable[[Entry], Scalar]
    metric: str = ""


def fields(entries: Sequence[Entry]) -> list[Field]:
    """The fields that lines of these entries have: the fixed ones, and every rate and metric that any of them has."""
    rates = sorted({rate for e in entries for rate in e.row.measured.tpr_at_fpr}, key=float, reverse=True)
    metrics = sorted({metric for e in entries for metric in e.row.measured.metrics})
    return [
        Field("rank", "rank", "row", lambda e: e.rank, "rank"),
        Field("cell", "cell", "row", lambda e: e.row.cell),
        *(Field(axis, about.title, "setting", _axis(axis)) for axis, about in AXES.items()),
        *(Field(key, key, "row", _of_row(key)) for key in ("estimand", "level", "role", "status")),
        Field("flags", "flags", "row", lambda e: " ".join(e.row.flags)),
        Field("reason", "reason", "row", lambda e: e.row.reason),
        *(found for key in Measured.model_fields for found in _of_measured(key)),
        Field(
            "auc_minus_source_auc",
            "what is left",
            "number",
            lambda e: auc_minus_source(e.row)[0],
            "auc_minus_source_auc",
        ),
        *(found for rate in rates for found in _of_rate(rate)),
        *(Field(f"metric_{m}", name(m), "number", _metric(m), f"metrics/{m}") for m in metrics),
        Field("p_value", "p", "number", lambda e: e.p_value, "p_value"),
        Field("p_adjusted", "p, Holm", "number", lambda e: e.p_adjusted, "p_adjusted"),
        Field("bound", "lower bound", "number", lambda e: e.bound, "delta_bound"),
        Field(
            "reported_auc", "reported AUC", "number", lambda e: e.reported.auc if e.reported else None, "reported_auc"
        ),
        *(Field(key, _COST_TITLES.get(key, key), "cost", _of_cost(key), f"cost/{key}") for key in Cost.model_fields),
        Field("evidence", "evidence", "origin", lambda e: e.row.provenance.evidence),
        Field("revision", "revision", "origin", lambda e: e.row.provenance.revision),
        Field("made_at", "made", "origin", lambda e: e.row.provenance.made_at),
    ]


def metrics(entry: Entry) -> dict[str, float]:
    """The numbers of an entry by their names in MLflow; what is null is left out."""
    found = {field.metric: field.value(entry) for field in fields([entry]) if field.metric}
    return {key: float(value) for key, value in found.items() if isinstance(value, int | float)}


def details(entry: Entry) -> list[tuple[str, list[tuple[str, str]]]]:
    """All of an entry as titled groups of titles and texts, for people; a missing number says why."""
    row = entry.row
    found = {field.key: field for field in fields([entry])}
    values = {key: field.value(entry) for key, field in found.items()}
    groups: dict[Group, list[tuple[str, str]]] = {"setting": [], "number": [], "row": [], "cost": []}
    for key, field in found.items():
        if key.endswith(("_low", "_high", "_false_positives")) or key in _COUNTS or field.group == "origin":
            continue
        value = values[key]
        if field.group == "number":
            text = typographic(_number_text(key, values))
            if value is None and key in Measured.model_fields:
                text = f"{MISSING} {why_null(row, key)}"
            elif value is None:
                text = f"{MISSING} too few non-members" if key.startswith("tpr_at_fpr") else ""
        else:
            text = "" if value is None else axis_text(value) if field.group == "setting" else _plain_text(value)
        if text:
            groups[field.group].append((field.title, text))
    if entry.reported is not None:
        note = f" ({entry.reported.note})" if entry.reported.note else ""
        groups["number"].append(("reported by", f"{entry.reported.source}{note}"))
    groups["row"] += [("not ranked", entry.why_unranked)] if entry.why_unranked else []
    groups["row"] += [("access", entry.attachments.access)] if entry.attachments.access else []
    for key in (*_COUNTS, "evidence", "revision", "made_at"):
        if (value := values[key]) is not None:
            groups["cost"].append((found[key].title, _plain_text(value)))
    numerics = row.provenance.numerics
    if numerics is not None:
        groups["cost"].append(("numerics", numerics if isinstance(numerics, str) else json.dumps(numerics)))
    titles = {"setting": "Setting", "number": "Numbers", "row": "This row", "cost": "Counts, cost, origin"}
    return [(title, groups[group]) for group, title in titles.items()]  # type: ignore[index]


_COUNTS = ("num_members", "num_nonmembers", "num_identities", "worlds")
_COST_TITLES = {"nfe": "NFE", "nfe_offline": "NFE offline", "peak_memory_mb": "peak memory, MB"}
_TITLES = {
    "num_members": "members",
    "num_nonmembers": "non-members",
    "num_identities": "people",
    "auc": "AUC",
    "delta_auc": "Delta",
    "mde": "MDE",
    "source_auc": "source AUC",
    "base_auc": "base AUC",
    "blind_auc": "blind AUC",
    "set_p_value": "set p",
}


def _number_text(key: str, values: dict[str, Scalar]) -> str:
    value = values[key]
    if not isinstance(value, int | float):
        return ""
    if key in ("p_value", "p_adjusted", "set_p_value"):
        return p_text(value)
    if key.startswith("metric_"):
        return f"{value:.4g}"
    signed = key in ("delta_auc", "auc_minus_source_auc", "bound")
    low, high = values.get(f"{key}_low"), values.get(f"{key}_high")
    text = number(value, 3, signed)
    if isinstance(low, int | float) and isinstance(high, int | float):
        text += f" [{number(low, 3, signed)}, {number(high, 3, signed)}]"
    false = values.get(f"{key}_false_positives")
    return text if false is None else f"{text}, {_plain_text(false)} false positives"


def _plain_text(value: Scalar) -> str:
    return amount(value) if isinstance(value, int | float) else name(value) if value else ""


def _axis(axis: str) -> Callable[[Entry], Scalar]:
    return lambda e: getattr(e.row.axes, axis)


def _of_row(key: str) -> Callable[[Entry], Scalar]:
    return lambda e: getattr(e.row, key)


def _of_cost(key: str) -> Callable[[Entry], Scalar]:
    return lambda e: getattr(e.row.cost, key)


def _metric(metric: str) -> Callable[[Entry], Scalar]:
    return lambda e: e.row.measured.metrics.get(metric)


def _of_measured(key: str) -> Iterable[Field]:
    """A number of `measured` as a field, an interval as two; what holds several has fields of its own, or none."""
    if key in ("tpr_at_fpr", "metrics", "estimates"):
        return

    def end(index: int) -> Callable[[Entry], Any]:
        return lambda e: (getattr(e.row.measured, key) or (None, None))[index]

    plain = key.removesuffix("_ci")
    title = _TITLES.get(plain, name(plain))
    if plain == key:
        yield Field(key, title, "number", lambda e: getattr(e.row.measured, key), key)
    else:
        for index, bound in enumerate(("low", "high")):
            yield Field(f"{plain}_{bound}", f"{title}, {bound}", "number", end(index), f"{plain}_{bound}")


def _of_rate(rate: str) -> Iterable[Field]:
    key, title = f"tpr_at_fpr_{rate}", f"TPR at {percent(rate)} FPR"

    def found(read: Callable[[Any], Scalar]) -> Callable[[Entry], Scalar]:
        return lambda e: None if (found := e.row.measured.tpr_at_fpr.get(rate)) is None else read(found)

    yield Field(key, title, "number", found(lambda r: r.tpr), key)
    yield Field(f"{key}_low", f"{title}, low", "number", found(lambda r: r.ci and r.ci[0]), f"{key}_low")
    yield Field(f"{key}_high", f"{title}, high", "number", found(lambda r: r.ci and r.ci[1]), f"{key}_high")
    yield Field(f"{key}_false_positives", f"false positives, {title}", "number", found(lambda r: r.false_positives))
