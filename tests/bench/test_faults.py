"""Who is stopped, who is dead, who is at it already; and an end, with the right exit status, whatever is killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import attempts, cli, interrupts, leases
from bench.driver import LOOK_S
from bench.engine import worker
from bench.engine.worker import run_job
from bench.events import JobDone, Wave
from bench.jobs import JobStatus
from bench.plan.graph import survey
from bench.progress import Progress
from bench.store import InfrastructureError, Store
from bench.workbench import Runtime, Workbench
from lmia.specs import RequestError
from tests.bench import fakes
from tests.bench.conftest import ROOT
from tests.bench.fakes import total
from tests.bench.fault_world import goal
from tests.bench.test_driver import driver, value_of
from tests.bench.test_progress import job as planned


def order(store, artifact):
    from bench.driver import plan_jobs

    state = survey([artifact], store)
    (one,) = plan_jobs(state.missing, store, state.refs, fakes.STAGES)
    return one


# ---- attempts


def test_what_a_dead_driver_left_running_does_not_count(tmp_path):
    store, row = Store(tmp_path), total(value=1.0)
    name = order(store, row).name
    for n in range(9):
        attempts.begin(store, name, "row", f"killed-{n}")
    assert attempts.failures(store, name) == []
    assert not driver(store).make([row]).failed


def test_a_worker_that_died_alone_counts_and_one_that_died_with_its_node_does_not(tmp_path, monkeypatch):
    store = Store(tmp_path)
    monkeypatch.setattr(worker, "living_nodes", lambda: {"here"})
    attempts.begin(store, "job", "title", "run", "here")
    attempts.begin(store, "job", "title", "run", "lost")
    attempts.begin(store, "job", "title", "another run", "here")
    worker.judge(store, "job", "run")
    states = [(one.raylet, one.run, one.state) for one in attempts.of(store, "job")]
    assert states == [("here", "run", "failed"), ("lost", "run", "interrupted"), ("here", "another run", "running")]
    assert "without a word" in attempts.reason(attempts.failures(store, "job"))


def test_attempts_are_in_order_and_their_seconds_right_however_the_clock_jumps(tmp_path, monkeypatch):
    store, jumps = Store(tmp_path), iter([9e9, 1.0, 5e9, 2.0, 3e9, 3.0])
    monkeypatch.setattr(attempts.time, "time", lambda: next(jumps))
    for n in range(3):
        begun = attempts.begin(store, "job", f"try {n}", "run")
        attempts.end(store, begun, "failed", "no")
    assert [one.title for one in attempts.of(store, "job")] == ["try 0", "try 1", "try 2"]
    assert all(0 <= one.seconds < 60 for one in attempts.of(store, "job"))
    assert "--retry tries again" in attempts.reason(attempts.failures(store, "job"))


# ---- leases


def other_machine(store, run, beat=0):
    store.write_json(f"runs/{run}.json", asdict(leases.Lease(run, "elsewhere", "boot/pid:[1]/1/1", beat)))


def test_a_run_of_this_machine_lives_as_long_as_its_process(tmp_path):
    store = Store(tmp_path)
    with leases.held(store, "mine"):
        assert leases.may_live(store, "mine")
        assert leases.Watch(store).settled() == {"mine"}
        dead = replace(leases.read(store, "mine"), run="dead", process=leases.read(store, "mine").process + "1")
        store.write_json("runs/dead.json", asdict(dead))
        assert not leases.may_live(store, "dead")
        assert leases.Watch(store).living() == {"mine"}
        assert store.names("runs") == ["mine.json"]
    assert store.names("runs") == []


@given(st.lists(st.tuples(st.booleans(), st.floats(0.1, 60)), max_size=12))
def test_a_run_elsewhere_is_dead_only_when_it_was_silent_on_the_watchers_own_clock(steps):
    import tempfile

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        now, store, beat, silent = 0.0, Store(folder), 0, 0.0
        patch.setattr(leases.time, "monotonic", lambda: now)
        other_machine(store, "far")
        watch = leases.Watch(store)
        assert watch.living() == {"far"}
        for beats, passed in steps:
            now, silent = now + passed, silent + passed
            if beats:
                beat, silent = beat + 1, 0.0
                other_machine(store, "far", beat)
            lives = watch.living() == {"far"}
            assert lives == (silent <= leases.SILENT_S)
            if not lives:
                break


def test_a_job_that_another_run_is_at_is_left_to_it_and_taken_when_that_run_is_dead(tmp_path, monkeypatch):
    store, row = Store(tmp_path), total(value=1.0)
    job = order(store, row)
    with leases.held(store, "other"):
        attempts.begin(store, job.name, job.title, "other")
        assert run_job(job, "mine", Workbench(store, Runtime())).state == "elsewhere"
        said, looks = [], []

        def look(seconds):
            looks.extend([1] if seconds == LOOK_S else [])
            if len(looks) == 2:  # the other run ends without having made it
                store.remove("runs/other.json")

        monkeypatch.setattr("bench.driver.time.sleep", look)
        outcome = driver(store, observer=said.append).make([row])
    assert outcome.made == 1 and len(looks) == 2
    assert any("another run on this store is at" in getattr(event, "text", "") for event in said)


def test_status_tells_running_interrupted_and_given_up_apart(tmp_path, capsys):
    store = Store(tmp_path)
    with leases.held(store, "live"):
        attempts.begin(store, "a", "job a", "live")
        attempts.begin(store, "b", "job b", "dead")
        for _ in range(3):
            attempts.end(store, attempts.begin(store, "c", "job c", "dead"), "failed", "ValueError: no")
        assert cli.main(["status", "--store", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "running on" in told and "interrupted on" in told
    lines = {line.split(":")[0].split()[0]: line for line in told.splitlines()}
    assert "job a" in lines["running"] and "job b" in lines["interrupted"]
    assert "job c" in lines["given"] and "--retry" in lines["given"]


# ---- exit statuses


def test_what_nobody_foresaw_is_70_in_one_line_with_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("bench.listings.presets", lambda: {}["no\nsuch"])
    assert cli.main(["presets"]) == 70
    (line,) = capsys.readouterr().err.splitlines()
    (file,) = tmp_path.glob("lmia-error-*.txt")
    assert str(file) in line and "please report" in line and "KeyError" in line
    assert "Traceback" in file.read_text() and file.stat().st_mode & 0o077 == 0


def test_a_disk_that_is_full_anywhere_is_3(monkeypatch, capsys):
    def full():
        try:
            raise OSError(28, "No space left on device", "/some/report.html")
        except OSError as error:
            raise ValueError("could not write the report") from error

    monkeypatch.setattr("bench.listings.presets", full)
    assert cli.main(["presets"]) == 3
    assert "Traceback" not in capsys.readouterr().err


def test_a_mistake_in_the_request_that_a_job_finds_is_2_and_no_attempt(tmp_path, monkeypatch):
    store, row, calls = Store(tmp_path), total(value=1.0), []

    def refuse(spec, name):
        calls.append(name)
        raise RequestError("data.root: no pictures")

    monkeypatch.setattr(fakes, "note", refuse)
    assert cli.ended(lambda: driver(store).make([row]).made) == 2
    assert len(calls) == 1
    (job,) = store.names("attempts")
    assert attempts.failures(store, job) == []


def test_a_full_disk_names_the_folder_that_is_full(tmp_path, monkeypatch):
    store = Store(tmp_path)
    job = order(store, total(value=1.0))

    def full(payload, bench, report):
        raise RuntimeError("SafetensorError: IoError: No space left on device")

    usage = worker.shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(worker.shutil, "disk_usage", lambda place: usage)
    status = run_job(replace(job, stage=replace(job.stage, make=full)), "run", Workbench(store, Runtime()))
    assert status.state == "infrastructure" and str(tmp_path) in status.error
    assert attempts.failures(store, job.name) == []


@pytest.mark.parametrize("number", [signal.SIGINT, *interrupts.SIGNALS], ids=lambda number: number.name)
def test_a_signal_from_outside_is_an_interruption(number):
    code = (
        "import sys, time\nfrom bench import cli, interrupts\n"
        "def wait():\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "with interrupts.heard():\n    sys.exit(cli.ended(wait))\n"
    )
    run = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout.readline() == b"ready\n"
    run.send_signal(number)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 3 and b"interrupted" in said and b"Traceback" not in said


def test_a_signal_that_a_library_swallowed_is_raised_again():
    with interrupts.heard():
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt, match="SIGINT"):
            interrupts.check()
    with interrupts.heard():
        interrupts.check()


def test_a_signal_that_the_library_itself_takes_is_an_interruption_too():
    with pytest.raises(interrupts.Interrupted, match="SIGTERM"), interrupts.kept():
        sys.exit(signal.SIGTERM)


# ---- progress


@given(st.lists(st.tuples(st.sampled_from(["model", "scores", "row"]), st.integers(0, 3), st.booleans()), max_size=8))
def test_progress_takes_whatever_other_runs_did_meanwhile(events):
    progress = Progress(Runtime(), cores=2, tell=lambda _: None)
    for kind, number, is_wave in events:
        jobs = [planned(kind, n, 10.0 * n) for n in range(number)]
        if is_wave:
            progress(Wave(jobs, jobs))
        else:
            one = planned(kind, number, 1.0)
            progress(JobDone(one, JobStatus(one.name, "elsewhere" if number else "done", seconds=1.0)))
        assert progress.seconds_left() >= 0


# ---- kills


def start(store, kind):
    command = [sys.executable, "-m", "tests.bench.fault_world", str(store), kind, "4"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def child(run, word):
    for process in psutil.Process(run.pid).children(recursive=True):
        if word in " ".join(process.cmdline()):
            return process
    raise AssertionError(f"no {word}")


@pytest.mark.ray
@pytest.mark.parametrize(("kind", "victim"), [("tune", "/raylet/raylet"), ("data", "gcs_server"), ("tune", "driver")])
def test_whatever_dies_the_run_ends_with_3_and_the_next_one_makes_what_is_left(tmp_path, kind, victim):
    store = tmp_path / "store"
    run = start(store, kind)
    deadline = time.monotonic() + 120
    while not any(store.glob("attempts/*/*.json")) and time.monotonic() < deadline:
        assert run.poll() is None, run.communicate()
        time.sleep(0.1)
    if victim == "driver":
        run.send_signal(signal.SIGTERM)
    else:
        child(run, victim).kill()
    _, said = run.communicate(timeout=240)
    assert run.returncode == 3, said
    assert b"the same command goes on" in said
    assert Store(store).names("runs") == []
    begun = len(list(Path(f"{store}.notes").iterdir()))
    second = start(store, kind)
    _, said = second.communicate(timeout=240)
    assert second.returncode == 0, said
    row = goal(kind, 4, f"{store}.notes")
    assert value_of(Store(store), row) == [6.0]
    done = [json.loads(path.read_text()) for path in store.glob("attempts/*/[!.]*.json")]
    names = [one["job"] for one in done if one["state"] == "done"]
    assert len(names) == len(set(names)) and not [one for one in done if one["state"] == "failed"]
    assert len(list(Path(f"{store}.notes").iterdir())) <= begun + 5


@pytest.mark.ray
def test_two_runs_at_once_share_the_work(tmp_path):
    store = tmp_path / "store"
    runs = [start(store, "data") for _ in range(2)]
    for run in runs:
        _, said = run.communicate(timeout=240)
        assert run.returncode == 0, said
    done = [json.loads(path.read_text()) for path in store.glob("attempts/*/[!.]*.json")]
    assert not [one for one in done if one["state"] in ("failed", "running")]
    assert value_of(Store(store), goal("data", 4, f"{store}.notes")) == [6.0]


def test_infrastructure_is_what_the_disk_says():
    from bench.store import is_infrastructure

    assert is_infrastructure(InfrastructureError("x")) and not is_infrastructure(ValueError("x"))
