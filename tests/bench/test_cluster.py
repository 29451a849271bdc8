"""A job on a cluster whose nodes share nothing but the network says what a run on one machine says."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from bench import campaign
from bench.leaderboard.row import Row, equal
from bench.store import Store
from tests.bench.conftest import ROOT, SMALL

BIN = Path(sys.executable).parent
TOOLS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def own_disk() -> list[str]:
    """What to put before a command so that it has a /tmp of its own.

    Empty where the system does not allow it, and where this checkout or its Python lies in /tmp itself.
    """
    if any(Path("/tmp") in Path(place).resolve().parents for place in (ROOT, sys.prefix, sys.executable)):
        return []
    for how in (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"]):
        command = [*how, "sh", "-c", 'mount -t tmpfs none /tmp && exec "$@"', "sh"]
        with contextlib.suppress(OSError):
            if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
                return command
    return []


class Nodes:
    """Ray nodes on this machine, each with its own ports, working directory, HOME, temporary folder and cache."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.processes: list[subprocess.Popen] = []
        self.gcs, self.dashboard = free_ports(2)
        self.address = f"http://127.0.0.1:{self.dashboard}"
        self.before = own_disk()

    def start(self, name: str, *arguments: str) -> None:
        """Start a node and keep it as the leader of its own process group."""
        place = Path("/tmp" if self.before else self.folder) / name
        listen, grpc, agent, metrics = free_ports(4)
        command = [
            *self.before,
            *("sh", "-c", 'mkdir -p "$HOME" "$TMPDIR" && cd "$HOME" && exec "$@"', "sh"),
            *(str(BIN / "ray"), "start", "--block", "--disable-usage-stats"),
            *("--node-ip-address=127.0.0.1", f"--temp-dir={place}/ray", "--object-store-memory=100000000"),
            *(f"--dashboard-agent-listen-port={listen}", f"--dashboard-agent-grpc-port={grpc}"),
            *(f"--runtime-env-agent-port={agent}", f"--metrics-export-port={metrics}"),
            *arguments,
        ]
        kept = {k: v for k, v in os.environ.items() if k.startswith("AWS_")}
        environment = {
            **kept,
            "PATH": f"{BIN}:{TOOLS}",
            "HOME": str(place / "home"),
            "TMPDIR": str(place / "tmp"),
            "LMIA_CACHE": str(place / "cache"),
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "disabled",
            "RAY_raylet_start_wait_time_s": "180",
        }
        log = (self.folder / f"{name}.log").open("wb")
        self.processes.append(
            subprocess.Popen(
                command,
                cwd="/",
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        )

    def logs(self) -> str:
        return "\n".join(f"--- {p.name}\n{p.read_text(errors='replace')}" for p in self.folder.glob("*.log"))

    def wait(self, count: int, seconds: float = 300) -> None:
        """Until the head's dashboard answers and `count` nodes live."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert all(p.poll() is None for p in self.processes), f"a node ended\n{self.logs()}"
            with contextlib.suppress(OSError, ValueError, KeyError):
                with urllib.request.urlopen(f"{self.address}/nodes?view=summary", timeout=10) as answer:
                    nodes = json.load(answer)["data"]["summary"]
                if sum(node["raylet"].get("state") == "ALIVE" for node in nodes) == count:
                    return
            time.sleep(0.5)
        raise AssertionError(f"the cluster did not come up\n{self.logs()}")

    def submit(self, *arguments: str, runtime_env: Path) -> subprocess.CompletedProcess:
        """Run `python -m bench ...` as a job with this repository's code."""
        command = [str(BIN / "ray"), "job", "submit", "--address", self.address, "--runtime-env", str(runtime_env)]
        command += ["--working-dir", str(ROOT), "--", "python", "-m", "bench", *arguments]
        environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "HOME": str(self.folder)}
        environment.pop("RAY_ADDRESS", None)
        return subprocess.run(
            command, env=environment, cwd=self.folder, check=False, capture_output=True, text=True, timeout=900
        )

    def stop(self) -> None:
        """End what was started here and nothing else: everything that descends from the nodes' processes."""
        import psutil

        family = []
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                family += [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        psutil.wait_procs(family, timeout=15)
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        for process in self.processes:
            process.wait()


@pytest.fixture
def nodes(s3):
    """A head that only leads and two workers with one core each."""
    folder = Path(tempfile.mkdtemp(prefix="lmia-", dir="/tmp"))  # Ray's sockets need a short path
    cluster = Nodes(folder)
    try:
        leads = ("--head", f"--port={cluster.gcs}", f"--dashboard-port={cluster.dashboard}", "--num-cpus=0")
        cluster.start("head", *leads, f"--ray-client-server-port={free_ports(1)[0]}")
        cluster.wait(1)
        for name in ("one", "two"):
            cluster.start(name, f"--address=127.0.0.1:{cluster.gcs}", "--num-cpus=1")
        cluster.wait(3)
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.ray
@pytest.mark.e2e
@pytest.mark.slow
def test_job_on_a_cluster_gives_the_rows_of_a_local_run(nodes, s3, small_store, tmp_path, capsys):
    from bench.cli import main

    shipped = yaml.safe_load((ROOT / "cluster" / "runtime_env.yaml").read_text())
    shipped["env_vars"] = {**shipped.get("env_vars", {}), "LMIA_REVISION": "shipped with the job"}
    runtime_env = tmp_path / "runtime_env.yaml"
    runtime_env.write_text(yaml.safe_dump(shipped))
    store = f"{s3}/cluster"
    benchmark = str(SMALL.relative_to(ROOT))

    job = nodes.submit("run", benchmark, "--store", store, "--no-track", runtime_env=runtime_env)
    assert job.returncode == 0, job.stdout[-4000:] + job.stderr[-4000:] + nodes.logs()[-4000:]

    capsys.readouterr()
    assert main(["leaderboard", "small", "--store", store, "--format", "json"]) == 0
    shown = [{key: row[key] for key in Row.model_fields} for row in json.loads(capsys.readouterr().out)]
    far = {row.cell: row for row in map(Row.of, shown)}
    near = {row.cell: row for row in campaign.answers("small", Store(small_store))[0]}
    assert set(far) == set(near)
    assert all(equal(far[cell], near[cell]) for cell in near)
    assert {row.status for row in far.values()} == {"ok"}
    # the code that ran was the job's own, not whatever lies installed on the nodes
    assert {row.provenance.revision for row in far.values()} == {"shipped with the job"}
    assert Store(store).under("partial") == [], "progress is removed when its training ends"

    mistake = nodes.submit("run", "tinny", "--store", store, runtime_env=runtime_env)
    assert mistake.returncode == 1
    assert "did you mean 'tiny'?" in mistake.stdout
    assert "exit code 2" in mistake.stdout + mistake.stderr
