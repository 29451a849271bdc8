"""Temporary folders that are private to the user and go away: when they are left, and after a kill at the next start.

A process holds a lock on each of its folders, which the system takes back however the process ends. So a folder whose
lock can be had was left behind, and whoever makes the next one removes it.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = f"lmia-scratch-{os.getuid()}-"
"""Names of these folders begin so; nothing else may."""

_swept: set[Path] = set()


@contextlib.contextmanager
def scratch(what: str, root: Path | None = None) -> Iterator[Path]:
    """A temporary folder of mode 0700.

    Args:
        what: part of its name, for people who look at what is there.
        root: an existing folder in which it lies; None: the system's temporary folder.
    """
    root = root or Path(tempfile.gettempdir())
    if root not in _swept:
        _swept.add(root)
        remove_left_behind(root)
    folder, lock = _locked_folder(what, root)
    owner = os.getpid()
    try:
        yield folder
    finally:
        if os.getpid() == owner:  # not at the end of a fork
            shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_left_behind(root: Path | None = None) -> None:
    """Remove this user's folders under a root whose processes were killed before they could."""
    for folder in (root or Path(tempfile.gettempdir())).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # a living process has the lock, or another sweep was faster
            number = _open(folder)
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(number).st_uid == os.getuid():
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(number)


def _locked_folder(what: str, root: Path) -> tuple[Path, int]:
    """A new folder, and the open file that holds this process's lock on it."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{what}-", dir=root))
        with contextlib.suppress(FileNotFoundError):
            number = _open(folder)
            with contextlib.suppress(OSError):  # without locks on this disk nothing is swept from it either
                fcntl.flock(number, fcntl.LOCK_EX)
            # A sweep may have come between the folder and its lock.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(number), folder.lstat()):
                    return folder, number
            os.close(number)


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
