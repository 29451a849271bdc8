"""The row: the answer for one cell, as it is stored and as `lmia leaderboard --format json` prints it.

Field names are a promise to whoever reads the JSON and are never renamed. A number that could not be computed is
null; why stands in `reason`, written by `join_reasons` and read by `why_null`. NaN and infinities are refused.
Version 2 added `measured.estimates`; rows of version 1 are still read.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from bench.axes import Axes
from bench.benchmark import Evidence, Role
from lmia.metrics.estimates import Estimate, from_interval, missing
from lmia.metrics.judge import CROSS_SOURCE_ONLY, SAME_SOURCE_ONLY, Estimand
from lmia.specs import RequestError, explain

Level = Literal["picture", "identity", "set"]
Status = Literal["ok", "failed", "undersized", "waiting"]
"""`waiting`: asked for and not made yet; such rows are shown, never stored."""

Probability = Annotated[float, Field(ge=0, le=1)]
Interval = tuple[float, float]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Rate(_Part):
    """A true positive rate at a bounded false positive rate, with the count that it rests on."""

    tpr: Probability
    ci: Interval | None = None
    false_positives: float | None = Field(None, ge=0, description="a mean, hence a fraction, over several worlds")


class Uncertainty(_Part):
    """What an estimate's interval was computed from, so that limits at other levels and p-values can be."""

    se: float = Field(ge=0, description="standard error, linear scale")
    df: float | None = Field(None, gt=0, description="degrees of freedom of Student's t; null: the normal's")
    scale: Literal["logit", "delta", "linear"] = Field("linear", description="on which the interval is symmetric")
    centre: float | None = Field(None, description="of the interval on its scale; null: the value")
    spread: float | None = Field(None, ge=0, description="standard error on that scale; null: se")
    pairs: float | None = Field(None, gt=0, description="persons in the smaller class where exact limits count")

    @classmethod
    def of(cls, estimate: Estimate) -> "Uncertainty":
        """Of an estimate that has a standard error."""
        names = ("se", "scale", "centre", "spread", "pairs")
        df = None if math.isinf(estimate.df) else estimate.df
        return cls(df=df, **{name: getattr(estimate, name) for name in names})


class Measured(_Part):
    """The numbers of a row. AUCs are in [0, 1], Delta in [-.5, .5]; intervals are 95 %, (low, high)."""

    num_members: int | None = Field(None, ge=0)
    num_nonmembers: int | None = Field(None, ge=0)
    num_identities: int | None = Field(None, ge=0)
    worlds: int | None = Field(None, ge=0)
    auc: Probability | None = None
    auc_ci: Interval | None = None
    delta_auc: float | None = Field(None, ge=-1, le=1)
    delta_auc_ci: Interval | None = None
    mde: float | None = Field(None, ge=0, description="smallest Delta that this design would see with power .8")
    source_auc: Probability | None = None
    source_auc_ci: Interval | None = None
    base_auc: Probability | None = None
    base_auc_ci: Interval | None = None
    blind_auc: Probability | None = None
    blind_auc_ci: Interval | None = None
    tpr_at_fpr: dict[str, Rate | None] = Field(default_factory=dict)
    set_p_value: Probability | None = None
    metrics: dict[str, float | None] = Field(default_factory=dict)
    estimates: dict[str, Uncertainty] = Field(
        default_factory=dict, description="uncertainty of the estimates above, by name; none in rows of version 1"
    )

    def delta_estimate(self) -> Estimate:
        """Delta with its standard error; of a row of version 1 as a normal one with the lower arm of its interval."""
        delta, ci = self.delta_auc, self.delta_auc_ci
        if delta is None or ci is None or not ci[0] < delta:
            return missing("no Delta, or no interval below it")
        kept = self.estimates.get("delta_auc")
        if kept is None:  # what is asked is whether Delta > 0, so the lower arm counts
            return from_interval(delta, (ci[0], 2 * delta - ci[0]))
        shape = kept.model_dump() | {"df": math.inf if kept.df is None else kept.df}
        return Estimate(delta, ci[0], ci[1], method="as in the row", **shape)


class Cost(_Part):
    """What the row cost; not part of what a row says."""

    nfe: float | None = Field(None, ge=0, description="U-Net evaluations per scored picture")
    nfe_offline: float | None = Field(None, ge=0, description="U-Net evaluations before any picture is scored")
    seconds: float | None = Field(None, ge=0)
    peak_memory_mb: float | None = Field(None, ge=0)


class Provenance(_Part):
    """Where the row comes from; not part of what a row says."""

    revision: str | None = None
    numerics: JsonValue = None
    scores: list[str] = Field(default_factory=list)
    evidence: Evidence = "synthetic"
    made_at: str | None = None


class Row(_Part):
    """One cell's answer."""

    schema_version: Literal[1, 2] = 2
    cell: str = Field(min_length=1)
    axes: Axes
    estimand: Estimand
    level: Level = "picture"
    role: Role
    status: Status
    flags: list[str] = Field(default_factory=list)
    reason: str | None = None
    measured: Measured = Field(default_factory=Measured)
    cost: Cost = Field(default_factory=Cost)
    provenance: Provenance = Field(default_factory=Provenance)

    @model_validator(mode="after")
    def _says_why(self) -> "Row":
        if self.status != "ok" and not self.reason:
            raise ValueError(f"status {self.status!r} needs a reason")
        return self

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Row":
        """A row from plain JSON values; RequestError names the field that is wrong."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise explain(error, cls, f"row {data.get('cell', '?')}") from None

    @classmethod
    def from_json(cls, text: str | bytes) -> "Row":
        """A row from its JSON text."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise explain(error, cls, "row") from None

    def to_dict(self) -> dict[str, Any]:
        """The row as plain JSON values, every field present."""
        return self.model_dump(mode="json")

    def to_json(self, indent: int | None = None) -> str:
        """The row as JSON text, every field present."""
        return self.model_dump_json(indent=indent)

    @property
    def confounded(self) -> bool:
        """True if something else than membership differs between members and non-members."""
        return "confounded" in self.flags


def equal(a: Row, b: Row) -> bool:
    """True if two rows say the same: everything but cost and provenance is equal."""
    excluded = {"cost", "provenance"}
    return a.model_dump(exclude=excluded) == b.model_dump(exclude=excluded)


def join_reasons(reasons: Mapping[str, str]) -> str | None:
    """One `reason` from several: field of `measured` (or "" for the row as a whole) to why it is null.

    `join_reasons({"base_auc": "the negatives are the base model's own pictures"})` is
    "base_auc: the negatives are the base model's own pictures". Lines, so that a reason may hold any punctuation.
    """
    for name in reasons:
        if name and name not in Measured.model_fields:
            raise RequestError(f"reason for {name!r}: no such field in measured")
    lines = [f"{name}: {_one_line(why)}" if name else _one_line(why) for name, why in reasons.items()]
    return "\n".join(lines) or None


def reasons_of(row: Row) -> dict[str, str]:
    """The inverse of `join_reasons`: field (or "" for the row as a whole) to reason."""
    found: dict[str, str] = {}
    for line in (row.reason or "").splitlines():
        name, colon, why = line.partition(": ")
        if colon and name in Measured.model_fields:
            found[name] = why
        elif line.strip():
            found[""] = f"{found['']} {line.strip()}" if "" in found else line.strip()
    return found


_SAME_ONLY = {"delta_auc", "delta_auc_ci", "mde", "set_p_value"}


def why_null(row: Row, field: str) -> str:
    """Why `measured.<field>` is null, in words: the row's own reason, or what follows from its estimand."""
    reasons = reasons_of(row)
    plain = field.removesuffix("_ci")
    for name in (field, plain):
        if name in reasons:
            return reasons[name]
    if row.status != "ok":
        return reasons.get("", row.status)
    if plain == "source_auc" and row.estimand != "cross_source":
        return CROSS_SOURCE_ONLY
    if row.estimand == "cross_source" and field in _SAME_ONLY:
        return SAME_SOURCE_ONLY
    return reasons.get("", "not computed")


def _one_line(text: str) -> str:
    return " ".join(text.split())
