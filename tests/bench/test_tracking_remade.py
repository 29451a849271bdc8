"""MLflow is a copy: remade where it lacks rows, moved with its store, and never the end of a run."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from threading import Thread

import pytest

sys.path.insert(0, str(Path(__file__).parent / "leaderboard"))
import fake_rows

from bench import campaign, cli, tracking
from bench.store import Store
from bench.tracking import CampaignTracker, Tracker, TrackingError, redacted
from bench.tracking.database import holds, sound


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A store's campaign of three cells, told without making them: finishing it writes MLflow."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    rows = fake_rows.quick()[:3]
    found = rows, fake_rows.attachments_for(rows), fake_rows.campaign()
    monkeypatch.setattr(campaign, "answers", lambda name, store: found)

    def finish(store=tmp_path, **how):
        said = []
        done = CampaignTracker("quick", [], Store(str(store)), said.append).finish(None, **how)
        return done, said

    return tmp_path, rows, finish


def damaged(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_runs(path):
    with sqlite3.connect(path) as base:
        base.execute("UPDATE runs SET lifecycle_stage = 'deleted'")


def no_numbers(path):
    with sqlite3.connect(path) as base:
        base.execute("DELETE FROM latest_metrics")
        base.execute("DELETE FROM tags WHERE key = 'lmia.rows'")


def no_files(path):
    for file in (path.parent / "mlruns").rglob("row.json"):
        file.unlink()


@pytest.mark.parametrize("harm", [Path.unlink, damaged, no_runs, no_numbers, no_files])
def test_what_mlflow_lacks_is_written_again(world, harm):
    store, rows, finish = world
    assert finish()[0].written == 3
    assert finish() == (None, [])  # nothing new: not even imported
    harm(store / "mlflow.db")
    done, said = finish()
    assert done is not None and said == []
    assert finish() == (None, [])
    again, _ = finish(anew=True)
    assert (again.written, again.skipped) == (0, 3)
    client = Tracker(store).database.client
    experiment = client.get_experiment_by_name("lmia/quick").experiment_id
    runs = client.search_runs([experiment], "tags.`lmia.kind` = 'cell'")
    assert sorted(run.data.tags["lmia.cell"] for run in runs) == sorted(row.cell for row in rows)
    assert all("auc" in run.data.metrics for run in runs)
    assert len(list((store / "mlruns").rglob("row.json"))) >= 3


def test_cells_written_twice_become_one(world):
    store, _, finish = world
    finish()
    client = Tracker(store).database.client
    experiment = client.get_experiment_by_name("lmia/quick").experiment_id
    (first, *_) = client.search_runs([experiment], "tags.`lmia.kind` = 'cell'")
    client.create_run(experiment, tags=dict(first.data.tags))
    finish()
    assert len(client.search_runs([experiment], "tags.`lmia.kind` = 'cell'")) == 3


def test_two_stores_of_one_process_do_not_mix(world):
    store, _, finish = world
    finish(store / "a")
    finish(store / "b")
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert (store / "a" / "mlflow.db").is_file() and (store / "b" / "mlflow.db").is_file()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_moved_store_of_any_name_serves_its_files(world):
    store, _, finish = world
    old, new = store / "a%20b c", store / "moved?x#y ü"
    assert finish(old)[0].written == 3
    old.rename(new)
    assert finish(new) == (None, [])
    assert finish(new, anew=True)[0].written == 0
    assert sorted(p.name for p in store.iterdir()) == [new.name]
    with sqlite3.connect(new / "mlflow.db") as base:
        (run,) = base.execute("SELECT run_uuid FROM tags WHERE key = 'lmia.kind' AND value = 'cell'").fetchone()
    port = free_port()
    server = subprocess.Popen(
        tracking.ui_command(new, port),
        cwd=tracking.ui_folder(new),
        env=tracking.ui_environment(new),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        url = f"http://127.0.0.1:{port}/get-artifact?path=row.json&run_uuid={run}"
        assert "cell" in json.load(fetched(url, server))
    finally:
        os.killpg(server.pid, 15)
        server.wait(60)


def fetched(url, server):
    import time

    for _ in range(600):
        assert server.poll() is None, "the server ended"
        try:
            return urllib.request.urlopen(url, timeout=60)
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read()[:500]) from None
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    raise AssertionError("the server did not come up")


class Broken:
    """A server that hangs, or ends what it is told."""

    def __init__(self, answer):
        self.socket, self.answer = socket.create_server(("127.0.0.1", 0)), answer
        self.port = self.socket.getsockname()[1]
        Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        kept = []
        while True:
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return
            peer.recv(65536)
            if self.answer is None:
                kept.append(peer)
            else:
                peer.sendall(self.answer)
                peer.close()


def http(status, body):
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


@pytest.mark.parametrize(
    "answer",
    [None, b"", http("500 No", "{}"), http("401 No", "who is s3cret-pass?"), http("200 OK", "[]"), b"HTTP/1.1 200 O"],
    ids=["hangs", "resets", "500", "401", "nonsense", "half"],
)
def test_a_broken_server_costs_a_line(world, monkeypatch, answer):
    _, _, finish = world
    server = Broken(answer)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:pw/4711@127.0.0.1:{server.port}")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret-pass")
    done, said = finish()
    server.socket.close()
    assert done is None and len(said) == 1 and "\n" not in said[0]
    assert "4711" not in said[0] and "s3cret" not in said[0]


def test_databases_that_cannot_be_used_cost_a_line(world, monkeypatch):
    store, _, finish = world
    finish()
    (store / "mlruns").rename(store / "elsewhere")  # so that there is something to write
    with sqlite3.connect(store / "mlflow.db") as base:
        base.execute("BEGIN EXCLUSIVE")
        done, said = finish()
        assert done is None and "locked" in said[0] and len(said) == 1
    for uri, why in (
        (f"postgresql://me:s3cret@127.0.0.1:{free_port()}/x", ""),
        ("postgresql+nodriver://me:s3cret@h/x", ""),
        ("nonsense://me:s3cret@h/x", ""),
        (f"sqlite:///{store / 'elsewhere'}", ""),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        done, said = finish()
        assert done is None and len(said) == 1 and why in said[0] and "s3cret" not in said[0]


def test_a_missing_driver_names_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(TrackingError, match=r"lmia\[postgresql\]"):
        Tracker(tmp_path, "postgresql+psycopg://me:s3cret@127.0.0.1:1/x")


def test_nothing_is_said_of_secrets(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0p/secret")
    assert redacted("http://u:p@ss/w@h/x and t0p/secret, t0p%2Fsecret") == "http://***@h/x and ***, ***"
    assert redacted("postgresql://h/x?password=abc&sslmode=no") == "postgresql://h/x?password=***&sslmode=no"


@pytest.mark.parametrize("port", ["70000", "0", "-1", "65536", "x"])
def test_a_port_that_is_none(port, tmp_path, capsys):
    assert cli.main(["ui", "--store", str(tmp_path), "--port", port]) == 2
    assert "--port" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, b"", b"no database at all" * 500])
def test_holds_nothing_where_nothing_is(tmp_path, content):
    path = tmp_path / "mlflow.db"
    if content is not None:
        path.write_bytes(content)
        assert not sound(path)
    assert not holds(path, "lmia/quick", "x", set())
