"""The preset `tiny`, end to end: every kind of job, rows, renderings, tracking, the idle second run, failed cells."""

import json

import pytest

from bench import attempts, campaign
from bench.artifacts.artifact import walk
from bench.axes import AXES
from bench.cells import load
from bench.cli import main
from bench.driver import plan_jobs
from bench.leaderboard.row import Row
from bench.store import Store
from bench.workbench import mixed

pytestmark = [pytest.mark.ray, pytest.mark.e2e]


@pytest.fixture(scope="module")
def tiny(ray_cluster, tmp_path_factory):
    store = tmp_path_factory.mktemp("tiny") / "store"
    assert main(["run", "tiny", "--store", str(store)]) == 0
    return store


def rows_of(store, capsys):
    capsys.readouterr()
    assert main(["leaderboard", "tiny", "--store", str(store), "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_rows_are_those_of_the_design(tiny, capsys):
    rows = rows_of(tiny, capsys)
    asked = campaign.questions(load("tiny"))
    assert {row["cell"] for row in rows} == {q.row.address for q in asked}
    for row in rows:
        joined = {key: row.pop(key) for key in ("benchmark", "reported", "p_adjusted", "rank")}
        assert joined["benchmark"] == "tiny"
        parsed = Row.of(row)
        assert set(row["axes"]) == set(AXES)
        assert parsed.status in ("ok", "undersized")
        measured = parsed.measured
        if parsed.estimand in ("same_source", "person"):
            assert measured.delta_auc == pytest.approx(measured.auc - 0.5)
            assert measured.delta_auc_ci[0] <= measured.delta_auc <= measured.delta_auc_ci[1]
            assert 0 <= measured.set_p_value <= 1
        if parsed.estimand == "cross_source":
            assert measured.source_auc is not None
            assert measured.delta_auc is None
            assert "delta_auc" in parsed.reason
        assert measured.blind_auc is not None or "blind_auc" in parsed.reason
        assert measured.base_auc is not None or "base_auc" in parsed.reason
        assert (joined["rank"] is not None) == (parsed.role == "ranked" and parsed.status == "ok")
        if parsed.axes.member_mark != parsed.axes.nonmember_mark:
            assert "confounded" in parsed.flags
            assert joined["rank"] is None
        assert "mixed_numerics" not in parsed.flags


def test_scores_hang_on_one_model_one_attack_one_set(tiny):
    store = Store(str(tiny))
    manifests = [store.manifest(e[-1].key) for e in store.index().values() if e[-1].kind == "scores"]
    asked = [(m.method, json.dumps(m.spec, sort_keys=True), json.dumps(m.inputs, sort_keys=True)) for m in manifests]
    assert len(set(asked)) == len(asked)
    assert any(m.method == "loss" and m.total("nfe") > 0 for m in manifests)


def test_trajectory_was_one_job_for_two_epochs(tiny):
    store = Store(str(tiny))
    titles = {attempt.title for job in store.names("attempts") for attempt in attempts.of(store, job)}
    assert any("1/2 epochs" in title for title in titles)


def test_second_run_makes_nothing_and_starts_no_ray(tiny, capsys, monkeypatch):
    from bench.engine import cluster

    def refuse(runtime):
        raise AssertionError("Ray was started")

    monkeypatch.setattr(cluster, "connected", refuse)
    before = {p: p.stat().st_mtime_ns for p in tiny.glob("*/*") if p.parent.name in ("manifests", "attempts")}
    assert main(["run", "tiny", "--store", str(tiny)]) == 0
    assert "nothing was missing" in capsys.readouterr().err
    assert before == {p: p.stat().st_mtime_ns for p in tiny.glob("*/*") if p.parent.name in ("manifests", "attempts")}


@pytest.mark.parametrize("form", ["table", "json", "csv", "md", "latex", "html"])
def test_every_rendering(tiny, form, capsys):
    assert main(["leaderboard", "tiny", "--store", str(tiny), "--format", form]) == 0
    text = capsys.readouterr().out
    assert "generated set classifier" in text.replace("\\", "").replace("_", " ")  # Markdown escapes underscores
    assert "http://" not in text.replace("http://www.w3.org", "")


def test_mlflow_has_the_cells_and_the_models(tiny):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{tiny}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "lmia/tiny"]
    runs = client.search_runs([experiment.experiment_id], max_results=500)
    cells = [run for run in runs if run.data.tags.get("lmia.kind") == "cell"]
    assert len(cells) == len(campaign.questions(load("tiny")))
    assert all(run.data.tags.get("mlflow.parentRunId") for run in cells)


def test_status_tells_what_is_there(tiny, capsys):
    assert main(["status", "--store", str(tiny), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["campaigns"]["tiny"]["done"] == found["campaigns"]["tiny"]["rows"]
    assert not found["running"]
    assert not found["given_up"]


def test_a_cell_that_cannot_be_made_is_a_failed_row_and_exit_1(tiny, capsys):
    grid = "grid=[{name: good, axes: {attack: loss}}, {name: bad, axes: {attack: loss, epochs: 7}}]"
    benchmark = ["--set", "name=failing", "--set", grid]
    store = Store(str(tiny))
    bad = next(q for q in campaign.questions(load("tiny", benchmark[1::2])) if q.cell.axes.epochs == 7)
    tune = next(j for j in plan_jobs(walk([bad.row]), None) if "tune full on north A" in j.title)
    for _ in range(attempts.MAX_ATTEMPTS):  # as if it had taken its worker down with it, three times
        begun = attempts.begin(store, tune.name, tune.title, "an earlier run")
        attempts.end(store, begun, "failed", attempts.DIED)
    assert main(["run", "tiny", "--store", str(tiny), "--no-track", *benchmark]) == 1
    captured = capsys.readouterr()
    assert "tune full on north A, 7 epochs" in captured.err and "--retry tries again" in captured.err
    assert "failed" in captured.out
    rows, _, _ = campaign.answers("failing", store)
    assert sorted(row.status for row in rows) == ["failed", "ok"]
    assert all(row.measured.auc is None for row in rows if row.status == "failed")


def test_one_class_of_machine_is_not_mixed():
    one = ["cpu-x/torch-2/numpy-2", "cpu-x/torch-2/numpy-2/attention-sdpa"]
    assert not mixed(one)
    assert mixed([*one, "cpu-x/torch-2/numpy-2/attention-xformers"])
    assert mixed([*one, "gpu-y/torch-2/numpy-2"])
