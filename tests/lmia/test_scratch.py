"""Temporary folders: private, gone when they are left, and gone at the next start after a kill."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lmia import scratch as module
from lmia.scratch import PREFIX, remove_left_behind, scratch

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
    import sys
    from pathlib import Path
    from lmia.scratch import scratch
    with scratch("test", Path(sys.argv[1])) as folder:
        (folder / "half").write_bytes(b"x")
        print(folder, flush=True)
        sys.stdin.read()
"""


def test_it_is_private_and_goes_when_it_is_left(tmp_path):
    with scratch("test", tmp_path) as folder:
        assert folder.parent == tmp_path and folder.name.startswith(f"{PREFIX}test-")
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "deep").mkdir()
        remove_left_behind(tmp_path)
        assert folder.is_dir(), "its process lives"
    assert list(tmp_path.iterdir()) == []


def test_folders_of_killed_processes_go_and_all_others_stay(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(HOLD), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed, living = (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    )
    left, held = (Path(process.stdout.readline().strip()) for process in (killed, living))
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    others = [tmp_path / "lmia-results", tmp_path / f"lmia-scratch-{os.getuid() + 1}-x"]
    for other in others:
        other.mkdir()
    target = tmp_path / "target"
    (target / "kept").mkdir(parents=True)
    link = tmp_path / f"{PREFIX}link"
    link.symlink_to(target)
    with scratch("next", tmp_path):
        assert [left.exists(), held.exists()] == [False, True]
    assert all(path.exists() for path in (*others, link, target / "kept"))
    living.communicate("")
    assert not held.exists()


def test_a_sweep_between_the_folder_and_its_lock_does_no_harm(tmp_path, monkeypatch):
    """The first folder is swept before it is locked, as another process may do it: there is a second one."""
    opened, real = [], module._open

    def swept(folder):
        number = real(folder)
        if not opened:
            shutil.rmtree(folder)
        opened.append(folder)
        return number

    module._swept.add(tmp_path)
    monkeypatch.setattr(module, "_open", swept)
    with scratch("test", tmp_path) as folder:
        assert opened[0] != folder == opened[1] and folder.is_dir()


def test_sweeps_and_folders_at_the_same_time(tmp_path):
    def work(_):
        with scratch("test", tmp_path) as folder:
            (folder / "mine").write_bytes(b"x")
            remove_left_behind(tmp_path)
            return (folder / "mine").read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(200))) == [b"x"] * 200
    assert list(tmp_path.iterdir()) == []
