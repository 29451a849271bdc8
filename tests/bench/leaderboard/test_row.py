import json
import math
from pathlib import Path

import fake_rows
import numpy as np
import pytest

from bench.axes import AXES
from bench.leaderboard.row import Row, equal, join_reasons, reasons_of, why_null
from bench.stages.row import measured
from lmia.metrics.judge import Question, TargetScores, World, judge
from lmia.metrics.scores import ScoreSet
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
        *["tpr_at_fpr", "set_p_value", "metrics", "estimates"],
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
        ({"schema_version": 3}, "schema_version"),
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


RESULTS = Path(__file__).resolve().parents[3] / "results"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*/rows.json")), ids=lambda path: path.parent.name)
def test_rows_of_version_1_are_still_read(path):
    for published in json.loads(path.read_text(encoding="utf-8")):
        row = Row.of({name: value for name, value in published.items() if name in Row.model_fields})
        version = published["schema_version"]
        assert row.schema_version == version
        delta = row.measured.delta_estimate()
        if row.measured.delta_auc_ci and row.measured.delta_auc_ci[0] < row.measured.delta_auc:
            assert delta.value == row.measured.delta_auc and delta.low == row.measured.delta_auc_ci[0]
            assert version > 1 or math.isinf(delta.df)
        else:
            assert delta.value is None


def twins(num, seed, shift):
    random = np.random.default_rng(seed)
    ids, member = [f"p{n}" for n in range(num)], np.arange(num) < num // 2
    pair = [(m, random.normal(size=num) + shift * m) for m in (member, ~member)]
    return World([TargetScores(ScoreSet(ids, values, m)) for m, values in pair], seed)


@pytest.mark.parametrize(
    ("num", "worlds", "shift"), [(16, 1, 1.0), (60, 1, 0.5), (60, 3, 0.5), (24, 1, 3.0), (20, 1, 99)]
)
def test_an_estimate_is_read_back_as_it_was_judged(num, worlds, shift):
    """At every level the limit of the row is that of the judged estimate: same t, same scale, same exact pairs."""
    judged = judge(Question("same_source", [twins(num, seed, shift) for seed in range(worlds)]))
    data = fake_rows.one("c", fake_rows.HEADLINE, 0.6).to_dict() | {"measured": measured(judged).model_dump()}
    row = Row.from_json(Row.of(data | {"schema_version": 2}).to_json())
    delta, back = judged.estimates["delta_auc"], row.measured.delta_estimate()
    for alpha in (0.05, 0.025, 0.01, 0.05 / 97):
        assert back.lower_bound(alpha) == delta.lower_bound(alpha)
    assert back.interval == delta.interval and back.p_greater() == delta.p_greater()
    assert back.lower_bound(0.025) == pytest.approx(row.measured.delta_auc_ci[0], abs=1e-12)
    assert set(row.measured.estimates) == {"delta_auc", "auc"}
