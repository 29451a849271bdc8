"""What `lmia evaluate` prints: the result of `lmia.evaluate` as aligned text."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmia.metrics.evaluation import Evaluation


def render(result: "Evaluation") -> str:
    """The result as aligned text with footnotes."""
    notes: list[str] = []
    parts = [_scores_table(result.groups, result.by, notes)]
    if result.over_seeds:
        parts.append("Over seeds\n" + _scores_table(result.over_seeds, result.by, notes))
    if result.comparisons:
        parts.append(_comparison_table(result.comparisons, notes))
    parts.append("\n".join(f"[{i + 1}] {note}" for i, note in enumerate(notes)))
    return "\n\n".join(part for part in parts if part)


def _scores_table(groups: list[dict[str, Any]], by: Sequence[str], notes: list[str]) -> str:
    columns = [c for c in by if any(c in g["group"] for g in groups)]
    over_seeds = any("num_seeds" in g for g in groups)
    header = [*columns, "members", "others", "AUC [95 %]"]
    header += ["seeds", "AUC seeds only"] if over_seeds else []
    fprs = list(groups[0]["tpr_at_fpr"])
    header += [f"TPR at FPR {float(fpr):.1%}" for fpr in fprs] + ["balanced acc.", "notes"]
    rows = []
    for g in groups:
        row = [str(g["group"].get(c, "")) for c in columns]
        row += [str(g["num_members"]), str(g["num_nonmembers"]), _with_interval(g["auc"], g["auc_ci"])]
        if over_seeds:
            row += [str(g.get("num_seeds", "")), _interval(g.get("auc_ci_seeds_only"))]
        for fpr in fprs:
            point = g["tpr_at_fpr"][fpr]
            row.append("-" if point is None else _with_interval(point["tpr"], point["ci"], 3))
        row += [_with_interval(g["balanced_accuracy"], g["balanced_accuracy_ci"], 3), _marks(g["warnings"], notes)]
        rows.append(row)
    return _aligned(header, rows)


def _comparison_table(comparisons: list[dict[str, Any]], notes: list[str]) -> str:
    columns = list(comparisons[0]["group"])
    header = [*columns, "against", "AUC", "AUC against", "difference [95 %]", "p", "notes"]
    rows = [
        [
            *(str(c["group"][column]) for column in columns),
            c["against"],
            _number(c["auc"]),
            _number(c["auc_against"]),
            _with_interval(c["difference"], c["difference_ci"]),
            "-" if c["p_value"] is None else f"{c['p_value']:.3g}",
            _marks(c["warnings"], notes),
        ]
        for c in comparisons
    ]
    return _aligned(header, rows)


def _aligned(header: list[str], rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _marks(warnings: list[str], notes: list[str]) -> str:
    for warning in warnings:
        if warning not in notes:
            notes.append(warning)
    return ",".join(str(number) for number in sorted(notes.index(warning) + 1 for warning in warnings))


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _interval(ci: Sequence[float] | None, digits: int = 4) -> str:
    return "" if ci is None else f"[{_number(ci[0], digits)}, {_number(ci[1], digits)}]"


def _with_interval(value: float | None, ci: Sequence[float] | None, digits: int = 4) -> str:
    return f"{_number(value, digits)} {_interval(ci, digits)}".rstrip()
