"""SIGKILL of a trial, an actor and the driver of a whole campaign, then the same command: nothing lost, equal rows."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bench import campaign
from bench.leaderboard.row import equal
from bench.store import Store
from tests.bench.conftest import ROOT, SMALL


def start(store: Path, log: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "bench", "run", str(SMALL), "--store", str(store), "--no-track"]
    command += ["--runtime", "workers=2", "--runtime", f"cache={store.parent / 'cache'}"]
    environment = dict(os.environ)
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=log.open("ab"), stderr=subprocess.STDOUT, start_new_session=True
    )


def attempts(store: Path) -> list[dict]:
    """The log of tries, oldest first."""
    found = []
    for path in sorted(store.glob("attempts/*/[!.]*.json"), key=lambda path: path.name):
        with contextlib.suppress(FileNotFoundError):
            found.append({"key": path, **json.loads(path.read_text())})
    return found


def kill(attempt: dict) -> bool:
    """SIGKILL the process of a try; whether it died in the middle of it."""
    os.kill(attempt["pid"], signal.SIGKILL)
    psutil.wait_procs([psutil.Process(attempt["pid"])] if psutil.pid_exists(attempt["pid"]) else [], timeout=30)
    return json.loads(attempt["key"].read_text())["state"] == "running"


def wait_and_kill(store: Path, run: subprocess.Popen, log: Path, ripe) -> dict:
    """Kill the first worker whose try is `ripe`, and go on until one has died in the middle of its work."""
    deadline, dead = time.monotonic() + 600, set()
    while time.monotonic() < deadline:
        assert run.poll() is None, f"the run ended before anything was killed\n{log.read_text()[-3000:]}"
        for attempt in attempts(store):
            if attempt["state"] == "running" and attempt["pid"] not in dead and ripe(attempt):
                dead.add(attempt["pid"])
                if kill(attempt):
                    return attempt
        time.sleep(0.01)
    raise AssertionError(f"nothing to kill\n{log.read_text()[-3000:]}")


@pytest.mark.ray
@pytest.mark.e2e
@pytest.mark.slow
def test_killed_trial_actor_and_driver_lose_nothing(small_store, tmp_path):
    store, log = tmp_path / "store", tmp_path / "log"
    first = start(store, log)
    try:
        # a training past its first checkpoint; a drawing after the first one, that is, with its model loaded
        trial = wait_and_kill(
            store, first, log, lambda a: "30/120" in a["title"] and any(store.glob("partial/*/epoch-30"))
        )
        actor = wait_and_kill(
            store, first, log, lambda a: a["title"].startswith("draw") and any(store.glob("parts/pictures-*/*of00002*"))
        )
        assert trial["pid"] != actor["pid"] != first.pid
        deadline = time.monotonic() + 600
        while not any(store.glob("manifests/scores-*")) and time.monotonic() < deadline:
            assert first.poll() is None, log.read_text()[-3000:]
            time.sleep(0.01)
    finally:
        family = psutil.Process(first.pid).children(recursive=True) if first.poll() is None else []
        first.kill()
        first.wait()
        _, left = psutil.wait_procs(family, timeout=10)  # Ray's own processes end with their driver
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=30)
    finished = {path: path.stat().st_mtime_ns for path in store.glob("parts/*/*.receipt.json")}
    assert trial["job"] in [a["job"] for a in attempts(store) if a["state"] == "done"], "the run went on without it"

    second = start(store, log)
    assert second.wait(timeout=900) == 0, log.read_text()[-4000:]
    assert {path: path.stat().st_mtime_ns for path in finished} == finished, "what was finished is not made again"
    done = [a["job"] for a in attempts(store) if a["state"] == "done"]
    assert len(done) == len(set(done)), "no job is done twice"
    assert not any(store.glob("partial/*"))
    here, there = (campaign.answers("small", Store(one))[0] for one in (store, small_store))
    assert len(here) == len(there) == 3
    assert all(equal(a, b) for a, b in zip(here, there, strict=True))
