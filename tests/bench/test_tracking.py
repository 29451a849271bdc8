import json
import math
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "leaderboard"))
import fake_rows

from bench import tracking
from bench.leaderboard.attachments import Attachments, Curve
from bench.leaderboard.row import Row
from bench.tracking import Tracker, TrackingError, home_of, redacted, ui, ui_command
from lmia.specs import RequestError


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def synced(tmp_path_factory):
    """A store with a campaign in MLflow: tracker, rows, attachments, what the first sync did."""
    kept = os.environ.pop("MLFLOW_TRACKING_URI", None)
    store = tmp_path_factory.mktemp("store")
    page = store / "quick.html"
    page.write_text("<!doctype html><title>board</title>", encoding="utf-8")
    rows = fake_rows.quick()
    attachments = fake_rows.attachments_for(rows)
    tracker = Tracker(store)
    done = tracker.sync(rows, attachments, fake_rows.campaign(), models=fake_rows.models(), html=page)
    yield tracker, rows, attachments, done, page
    tracker.close()
    if kept is not None:
        os.environ["MLFLOW_TRACKING_URI"] = kept


def search(tracker, campaign="quick", where="", order=()):
    experiment = tracker.database.client.get_experiment_by_name(f"lmia/{campaign}")
    return tracker.database.client.search_runs(
        [experiment.experiment_id], where, order_by=list(order), max_results=1000
    )


def cell_of(tracker, cell, campaign="quick"):
    (run,) = search(tracker, campaign, f"tags.`lmia.cell` = '{cell}'")
    return run


def file_of_run(tracker, run_id, name):
    uri = tracker.database.client.get_run(run_id).info.artifact_uri
    assert uri.startswith("mlflow-artifacts:/")  # relative to the folder that `lmia ui` serves
    return home_of(tracker.database.store) / "mlruns" / uri.removeprefix("mlflow-artifacts:/") / name


def test_everything_is_there_once(synced):
    tracker, rows, _, done, page = synced
    assert (done.written, done.skipped, done.models, done.retired) == (len(rows), 0, 2, 0)
    assert (home_of(tracker.database.store) / "mlflow.db").is_file()
    kinds = [run.data.tags["lmia.kind"] for run in search(tracker)]
    assert kinds.count("cell") == len(rows) and kinds.count("campaign") == kinds.count("models") == 1
    parent = tracker.database.client.get_run(done.run_id)
    assert "it is the style" in parent.data.tags["mlflow.note.content"] and parent.info.status == "FAILED"
    assert file_of_run(tracker, done.run_id, "leaderboard.html").read_bytes() == page.read_bytes()


def test_a_cell_s_run_says_what_its_row_says(synced):
    tracker, rows, _, done, _ = synced
    for row in rows[:6] + rows[-2:]:
        run = cell_of(tracker, row.cell)
        axes = {k: v for k, v in row.axes.model_dump().items() if v is not None}
        assert set(run.data.params) == set(axes) and run.data.params["attack"] == row.axes.attack
        assert run.data.tags["role"] == row.role and run.data.tags["status"] == row.status
        assert run.data.tags["mlflow.parentRunId"] == done.run_id
        assert all(math.isfinite(value) for value in run.data.metrics.values())
        for name in ("auc", "delta_auc", "mde", "source_auc", "set_p_value"):
            value = getattr(row.measured, name)
            assert run.data.metrics.get(name) == value
            assert (f"null.{name}" in run.data.tags) == (value is None)
        if row.measured.auc_ci is not None:
            assert (run.data.metrics["auc_low"], run.data.metrics["auc_high"]) == row.measured.auc_ci
        artifacts = {file.name for file in file_of_run(tracker, run.info.run_id, "").iterdir()}
        assert artifacts == ({"row.json"} if row.status == "failed" else {"row.json", "roc.png", "sheet.png"})
        assert run.info.status == ("FAILED" if row.status == "failed" else "FINISHED")


def test_runs_sort_and_filter_as_a_leaderboard(synced):
    tracker, rows, *_ = synced
    found = search(tracker, where="tags.section = 'ranked'", order=["metrics.delta_auc DESC"])
    deltas = [run.data.metrics["delta_auc"] for run in found]
    assert deltas == sorted(deltas, reverse=True) and len(deltas) == 15
    assert found[0].data.params["attack"] == "loss" and found[0].data.metrics["rank"] == 1
    some = search(tracker, where="params.aux = 'part_c' and tags.role = 'planted' and metrics.delta_auc > .2")
    assert len(some) == 1
    flagged = search(tracker, where="tags.flags = 'confounded'")
    assert {run.data.tags["lmia.cell"] for run in flagged} == {row.cell for row in rows if row.confounded}


def test_models_are_addresses_and_numbers_are_tied_to_them(synced):
    tracker, rows, *_ = synced
    experiment = tracker.database.client.get_experiment_by_name("lmia/quick").experiment_id
    models = {m.tags["lmia.address"]: m for m in tracker.database.client.search_logged_models([experiment])}
    assert set(models) == {"target-A", "target-B"}
    target = models["target-A"]
    assert target.tags["lmia.uri"] == "file:///store/models/target-A" and target.model_type == "target"
    values = {metric.key: metric for metric in target.metrics}
    assert values["train_loss"].value == 0.05 and "holdout_loss" not in values
    assert values["auc_world"].dataset_name in {"same_source", "other_source", "member_person"}
    inputs = cell_of(tracker, rows[0].cell).inputs.model_inputs or []
    full = tracker.database.client.get_run(cell_of(tracker, rows[0].cell).info.run_id).inputs.model_inputs or inputs
    assert {model.model_id for model in full} == {m.model_id for m in models.values()}


def test_doing_it_again_writes_nothing(synced):
    tracker, rows, attachments, done, page = synced
    before = {run.info.run_id: run.info.end_time for run in search(tracker)}
    again = tracker.sync(rows, attachments, fake_rows.campaign(), models=fake_rows.models(), html=page)
    assert (again.written, again.skipped, again.models, again.run_id) == (0, len(rows), 0, done.run_id)
    other = Tracker(tracker.database.store).sync(
        rows, attachments, fake_rows.campaign(), models=fake_rows.models(), html=page
    )
    assert other.written == 0
    assert {run.info.run_id: run.info.end_time for run in search(tracker)} == before


def test_changed_failed_and_retired_cells(synced):
    tracker, *_ = synced
    about = fake_rows.campaign("changing")
    axes = fake_rows.HEADLINE
    three = [fake_rows.one(cell, axes | {"epochs": i + 1}, 0.6) for i, cell in enumerate("abc")]
    tracker.sync(three, {}, about)
    first = {cell: cell_of(tracker, cell, "changing").info.run_id for cell in "abc"}

    better = fake_rows.one("a", axes | {"epochs": 1}, 0.7)
    failed = Row(cell="b", axes=three[1].axes, estimand="same_source", role="ranked", status="failed", reason="no disk")
    done = tracker.sync([better, failed], {}, about)
    assert (done.written, done.retired) == (2, 1)
    a, b, c = (cell_of(tracker, cell, "changing") for cell in "abc")
    assert a.info.run_id == first["a"] and a.data.metrics["auc"] == 0.7
    # A number that no longer holds is not left on show: the run is another one.
    assert b.info.run_id != first["b"] and "auc" not in b.data.metrics and b.data.tags["null.auc"] == "no disk"
    assert c.data.tags["current"] == "no"

    back = tracker.sync([better, three[1], three[2]], {}, about)
    assert back.retired == 0 and cell_of(tracker, "c", "changing").data.tags["current"] == "yes"
    assert len(search(tracker, "changing", "tags.`lmia.kind` = 'cell'")) == 3


def test_live_curves_continue_and_never_double(synced):
    tracker, *_ = synced
    for step in (0, 10, 20):
        tracker.live("full north A", step, {"loss": 1 / (step + 1), "lr": 1e-4, "bad": float("nan")})
    tracker.flush()
    other = Tracker(tracker.database.store)
    for step in (10, 20, 30):
        other.live("full north A", step, {"loss": 1 / (step + 1)})
    other.close()
    (run,) = search(tracker, "trainings", "tags.`mlflow.runName` = 'full north A'")
    points = tracker.database.client.get_metric_history(run.info.run_id, "loss")
    assert sorted(point.step for point in points) == [0, 10, 20, 30] and "bad" not in run.data.metrics


def test_odd_names_pass(synced):
    tracker, *_ = synced
    row = fake_rows.one("odd", fake_rows.HEADLINE | {"base": "it's; a 'base'"}, 0.6, metrics={"fid (10k)": 3.0})
    side = Attachments(curves=(Curve("A", [0, 1], [0, 1], 0.5, "t/x:1", None, "s"),))
    model = fake_rows.ModelRef("t/x:1", 'a/b: "c".5%', "target", "s3://key:secret@host/models/t", {"lr": 1e-5})
    tracker.sync([row], {"odd": side}, fake_rows.campaign("odd"), models=[model])
    assert cell_of(tracker, "odd", "odd").data.metrics["metrics/fid _10k_"] == 3.0
    experiment = tracker.database.client.get_experiment_by_name("lmia/odd").experiment_id
    (logged,) = tracker.database.client.search_logged_models([experiment])
    assert logged.tags["lmia.name"] == 'a/b: "c".5%' and "secret" not in str(logged.tags)


def test_new_databases_opened_at_once(tmp_path):
    code = "import sys; from bench.tracking import Tracker; Tracker(sys.argv[1])"
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE) for _ in range(2)]
    errors = [process.communicate(timeout=300)[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert errors == ["", ""]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mlflow.db"]


def test_the_ui_serves_the_same_over_rest(synced):
    tracker, *_ = synced
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ui_command(tracker.database.store, port)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    log = Path(tracker.database.store) / "ui.log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            command,
            cwd=tracking.ui_folder(tracker.database.store),
            env=tracking.ui_environment(),
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        experiment = tracker.database.client.get_experiment_by_name("lmia/quick").experiment_id
        asked = {
            "experiment_ids": [experiment],
            "filter": "tags.section = 'ranked'",
            "order_by": ["metrics.delta_auc DESC"],
            "max_results": 3,
        }
        found = post(f"http://127.0.0.1:{port}/api/2.0/mlflow/runs/search", asked, server)
        names = [{p["key"]: p["value"] for p in run["data"]["params"]}["attack"] for run in found["runs"]]
        assert names == ["loss", "generated_set_classifier", "generated_set_nearest"]
        with pytest.raises(RequestError, match="taken"):
            ui(tracker.database.store, port)
    finally:
        os.killpg(server.pid, 15)
        server.wait(60)


def post(url, value, server):
    """The answer to a POST, waiting for the server to be up."""
    request = urllib.request.Request(url, json.dumps(value).encode(), {"Content-Type": "application/json"})
    for _ in range(600):
        assert server.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.3)
    raise AssertionError("the server did not come up")


def test_only_this_engine_does_not_wait_for_the_disk(synced, tmp_path):
    from sqlalchemy import create_engine, event
    from sqlalchemy.engine import Engine

    def synchronous(engine):
        with engine.connect() as connection:
            return connection.exec_driver_sql("PRAGMA synchronous").scalar()

    tracker, *_ = synced
    engine = tracker.database.client._tracking_client.store.engine
    assert synchronous(engine) == 0
    # Another engine of this process, even on the same file, keeps SQLite's default (2, full).
    assert synchronous(create_engine(tracker.database.uri)) == synchronous(create_engine("sqlite://")) == 2
    assert not event.contains(Engine, "connect", tracking.database._synchronous_off)


def test_the_ui_opens_on_the_campaign_s_runs(synced):
    tracker, *_ = synced
    store = tracker.database.store
    experiment = tracker.database.client.get_experiment_by_name("lmia/quick")
    url = tracking.ui_url("quick", store, 5001)
    assert url.startswith(f"http://127.0.0.1:5001/#/experiments/{experiment.experiment_id}/runs?")
    # Without the first, MLflow shows its overview of language models, which has nothing to show.
    assert "workflowType=machine_learning" in url and "viewStateShareKey=leaderboard" in url
    view = json.loads(experiment.tags["mlflow.sharedViewState.leaderboard"])
    assert view["orderByKey"] in view["selectedColumns"]
    assert tracking.ui_url("none", store).endswith("/#/experiments?workflowType=machine_learning")


def test_a_training_says_what_it_trains_with(synced):
    tracker, *_ = synced
    tracker.live("lora south B", 1, {"loss": 0.5}, {"learning_rate": "0.0001", "trained": "lora"})
    tracker.flush()
    (run,) = search(tracker, "trainings", "params.trained = 'lora'")
    assert run.data.params == {"learning_rate": "0.0001", "trained": "lora"} and run.data.metrics == {"loss": 0.5}


def test_where_tracking_goes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    home = home_of("s3://bucket/some/store")
    assert home.parent == tmp_path / "lmia" / "mlflow" and home.name.startswith("bucket-some-store-")
    assert home != home_of("s3://bucket/other/store")
    assert home_of(tmp_path / "store") == home_of(f"file://{tmp_path}/store") == tmp_path / "store"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@host/mlflow")
    assert tracking.database_uri("x") == "https://me:secret@host/mlflow"
    assert redacted(tracking.database_uri("x")) == "https://***@host/mlflow"
    with pytest.raises(RequestError) as caught:
        ui_command("x")
    assert "secret" not in str(caught.value)


def test_nothing_to_show_yet(tmp_path):
    with pytest.raises(RequestError, match="lmia run"):
        ui_command(tmp_path)


def test_a_server_that_is_not_there_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError) as caught:
        Tracker(tmp_path, "http://me:secret@127.0.0.1:9")
    assert "127.0.0.1:9" in str(caught.value) and "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_no_reports_to_anybody(synced):
    from mlflow.telemetry.utils import is_telemetry_disabled

    assert is_telemetry_disabled()
    assert tracking.ui_environment()["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_new_axis_is_a_param_and_waiting_cells_have_no_run(synced, monkeypatch):
    from test_tables import DEFENCE, MoreAxes, waiting

    from bench import axes

    tracker, *_ = synced
    monkeypatch.setitem(axes.AXES, "defence", DEFENCE)
    rows = [
        row.model_copy(update={"axes": MoreAxes(**row.axes.model_dump(), defence="dp_sgd")})
        for row in (fake_rows.one("d", fake_rows.HEADLINE, 0.6), waiting("w"))
    ]
    done = tracker.sync(rows, {}, fake_rows.campaign("defended"))
    assert done.written == 1 and cell_of(tracker, "d", "defended").data.params["defence"] == "dp_sgd"
    parent = tracker.database.client.get_run(done.run_id)
    assert parent.data.metrics["num_waiting"] == 1 and parent.info.status == "FINISHED"
