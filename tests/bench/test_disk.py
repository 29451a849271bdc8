"""A disk that runs full: exit 3, nothing half there, and the same command completes when there is room again."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import campaign
from bench.leaderboard.row import equal
from bench.store import Store
from tests.bench.conftest import ROOT, SMALL

# Where no disk may be mounted: every process of the run counts what the store holds before it trusts the disk.
COUNTING_DISK = """
import errno, os, pathlib
store, real = pathlib.Path(os.environ["SMALL_DISK"]), os.fsync
def fsync(fd):
    room = int((store.parent / "room").read_text())
    if str(store) in os.readlink(f"/proc/self/fd/{fd}"):
        used = 0
        for path in store.rglob("*"):
            try:
                used += path.stat().st_blocks * 512 if path.is_file() else 0
            except FileNotFoundError:
                pass
        if used > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    real(fd)
os.fsync = fsync
"""


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of few bytes, the call that changes how many, and what the environment must say."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def resize(size: int) -> None:
        nonlocal mounted
        (tmp_path / "room").write_text(str(size))
        how = ["mount", "-o", f"remount,size={size}", str(folder)]
        if not mounted:
            how = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        with contextlib.suppress(OSError):
            mounted = subprocess.run(how, capture_output=True, check=False).returncode == 0 or mounted

    resize(1 << 20)
    environment = {"SMALL_DISK": str(folder)}
    if not mounted:
        (tmp_path / "hook").mkdir()
        (tmp_path / "hook" / "sitecustomize.py").write_text(COUNTING_DISK)
        environment["PYTHONPATH"] = str(tmp_path / "hook")
    yield folder, resize, environment
    if mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def run(store: Path, environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "bench", "run", str(SMALL), "--store", str(store), "--no-track"]
    command += ["--runtime", "workers=2", "--runtime", f"cache={folder / 'cache'}"]
    environment = {**os.environ, **environment}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.run(
        command,
        env=environment,
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=900,
        start_new_session=True,
    )


@pytest.mark.ray
@pytest.mark.e2e
@pytest.mark.slow
def test_full_disk_then_room_again(small_disk, small_store, tmp_path):
    folder, resize, environment = small_disk
    used = sum(p.stat().st_blocks * 512 for p in small_store.rglob("*") if p.is_file())
    resize(used * 6 // 10)

    first = run(folder, environment, tmp_path)
    assert first.returncode == 3, first.stderr[-4000:]
    assert "disk is full" in first.stderr or "No space left" in first.stderr
    assert "Traceback" not in first.stderr
    assert not list(folder.rglob("*.tmp"))
    store = Store(folder)
    index = store.index()
    assert index, "the disk was filled before anything was made: the test says nothing"
    for entry in (entry for entries in index.values() for entry in entries):
        assert store.verify(store.manifest(entry.key), content=True) == []
    finished = {p: p.stat().st_mtime_ns for p in folder.glob("manifests/*")}

    resize(used * 4)
    second = run(folder, environment, tmp_path)
    assert second.returncode == 0, second.stderr[-4000:]
    assert all(p.stat().st_mtime_ns == t for p, t in finished.items()), "what was finished is not made again"
    here, there = (campaign.answers("small", Store(one))[0] for one in (folder, small_store))
    assert len(here) == len(there) == 3
    assert all(equal(a, b) for a, b in zip(here, there, strict=True))
