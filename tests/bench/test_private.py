"""A cluster that a run starts by itself: bound to the loopback, behind a token, without secrets in its files."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from lmia.scratch import PREFIX
from tests.bench.conftest import ROOT

pytestmark = pytest.mark.ray

SECRETS = {
    "AWS_ACCESS_KEY_ID": "planted-aws-id-4711",
    "AWS_SECRET_ACCESS_KEY": "planted-aws-secret-4711",
    "AWS_SESSION_TOKEN": "planted-aws-session-4711",
    "HF_TOKEN": "planted-hf-4711",
    "MLFLOW_TRACKING_PASSWORD": "planted-mlflow-4711",
}

HOLD = """
import json, sys, time
from pathlib import Path
import ray
from ray import tune
from bench.engine import tune as _  # what a run imports
from bench.engine.cluster import connected
from bench.workbench import Runtime

class Step(tune.Trainable):
    def step(self):
        return {"done": True}
    def save_checkpoint(self, folder): pass

with connected(Runtime(workers=1)):
    ray.get(ray.remote(lambda: 1).remote())
    tune.Tuner(Step, run_config=tune.RunConfig(storage_path=sys.argv[2], verbose=0)).fit()
    Path(sys.argv[1]).write_text(json.dumps(ray.get_runtime_context().gcs_address))
    time.sleep(300)
"""

INTRUDE = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
print(ray.get(ray.remote(lambda: "ran code").remote()))
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """(process, GCS address, its folder of temporary files) of a cluster that a run has started."""
    folder = Path(tempfile.mkdtemp(prefix="", dir="/tmp"))  # a short path: sockets of Ray lie below it
    (folder / "home").mkdir()
    said = folder / "address.json"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment |= SECRETS | {"HOME": str(folder / "home"), "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(said), str(folder / "tune")], env=environment, cwd=ROOT, start_new_session=True
    )
    deadline = time.monotonic() + 240
    while not said.exists() or not said.read_text():
        assert process.poll() is None and time.monotonic() < deadline, "the cluster did not come up"
        time.sleep(0.2)
    try:
        yield process, json.loads(said.read_text()), folder
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def test_every_socket_is_on_the_loopback(cluster):
    process, _, _ = cluster
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    listening = []
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):  # an idle worker may end meanwhile
            name, connections = one.name(), one.net_connections("inet")
            listening += [(name, c.laddr.ip) for c in connections if c.status == psutil.CONN_LISTEN]
    assert {"gcs_server", "raylet"} <= {name for name, _ in listening}, "the sockets of a whole cluster are looked at"
    assert {ip.removeprefix("::ffff:") for _, ip in listening} <= {"127.0.0.1", "::1"}, listening


@pytest.mark.parametrize("mode", ["disabled", "token"])
def test_nobody_runs_code_without_the_token(cluster, tmp_path, mode):
    _, address, _ = cluster
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": mode, "HOME": str(tmp_path), "RAY_gcs_rpc_server_connect_timeout_s": "2"}
    if mode == "token":
        environment["RAY_AUTH_TOKEN"] = "0" * 64
    try:
        run = subprocess.run(
            [sys.executable, "-c", INTRUDE, address],
            env=environment,
            capture_output=True,
            check=False,
            text=True,
            timeout=15,
        )
    except subprocess.TimeoutExpired as error:
        assert b"ran code" not in (error.stdout or b"")
    else:
        assert run.returncode != 0
        assert "ran code" not in run.stdout


def test_no_secret_in_any_file_and_folders_are_private(cluster):
    _, _, folder = cluster
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert any(path.suffix in {".log", ".out"} for path in files), "Ray's own logs are looked at"
    found = [
        (str(path), name) for path in files for name, value in SECRETS.items() if value.encode() in path.read_bytes()
    ]
    assert not found
    (private,) = folder.glob(f"{PREFIX}ray-*")
    assert private.stat().st_mode & 0o077 == 0
    assert (private / "token").stat().st_mode & 0o077 == 0
    token = (private / "token").read_bytes()
    assert [path for path in files if token in path.read_bytes()] == [private / "token"]
