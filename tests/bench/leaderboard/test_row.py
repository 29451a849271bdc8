import json

import fake_rows
import pytest

from bench.axes import AXES
from bench.leaderboard.row import Row, equal, join_reasons, reasons_of, why_null
from lmia.specs import RequestError


def test_fields_are_those_promised():
    row = fake_rows.quick()[0].to_dict()
    assert list(row) == [
        "schema_version",
        "cell",
        "axes",
        "estimand",
        "level",
        "role",
        "status",
        "flags",
        "reason",
        "measured",
        "cost",
        "provenance",
    ]
    assert list(row["measured"]) == [
        *["num_members", "num_nonmembers", "num_identities", "worlds", "auc", "auc_ci", "delta_auc", "delta_auc_ci"],
        *["mde", "source_auc", "source_auc_ci", "base_auc", "base_auc_ci", "blind_auc", "blind_auc_ci"],
        *["tpr_at_fpr", "set_p_value", "metrics"],
    ]
    assert list(row["axes"]) == list(AXES) and len(AXES) == 14
    assert list(row["cost"]) == ["nfe", "nfe_offline", "seconds", "peak_memory_mb"]
    assert list(row["provenance"]) == ["revision", "numerics", "scores", "evidence", "made_at"]


@pytest.mark.parametrize("row", fake_rows.quick(), ids=lambda row: row.cell)
def test_json_round_trip(row):
    assert Row.from_json(row.to_json()) == row
    assert Row.of(json.loads(row.to_json())) == row


def test_equality_ignores_cost_and_provenance_only():
    row = fake_rows.quick()[0]
    other = row.model_copy(update={"cost": row.cost.model_copy(update={"seconds": 99.0})})
    assert row != other and equal(row, other)
    measured = row.measured.model_copy(update={"auc": 0.9})
    assert not equal(row, row.model_copy(update={"measured": measured}))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"status": "fine"}, "status"),
        ({"surprise": 1}, "surprise"),
        ({"measured": {"auc": 1.5}}, "measured.auc"),
        ({"measured": {"acu": 0.5}}, "acu"),
        ({"measured": {"mde": float("nan")}}, "measured.mde"),
        ({"measured": {"metrics": {"fid": float("inf")}}}, "metrics.fid"),
        ({"status": "failed", "reason": None}, "needs a reason"),
        ({"schema_version": 2}, "schema_version"),
    ],
)
def test_mistakes_are_named(change, named):
    with pytest.raises(RequestError, match=named):
        Row.of(fake_rows.quick()[0].to_dict() | change)


def test_reasons_round_trip():
    reasons = {"": "the row: as a whole", "base_auc": "no base: none given"}
    row = fake_rows.one("c", fake_rows.HEADLINE, 0.6).model_copy(update={"reason": join_reasons(reasons)})
    assert reasons_of(row) == reasons
    with pytest.raises(RequestError, match="base_acu"):
        join_reasons({"base_acu": "a slip"})


def test_every_null_says_why():
    rows = fake_rows.quick()
    base = next(row for row in rows if row.axes.aux == "base" and row.estimand == "same_source")
    assert (
        why_null(base, "base_auc") == why_null(base, "base_auc_ci") == "the negatives are the base model's own pictures"
    )
    assert "another source" in why_null(base, "source_auc")
    failed = next(row for row in rows if row.status == "failed")
    assert "out of memory" in why_null(failed, "auc")
    cross = next(row for row in rows if row.estimand == "cross_source")
    assert "style" in why_null(cross, "delta_auc")
