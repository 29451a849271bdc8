"""Whole artifacts as plain folders on this node's disk: private, bounded, and verified on use."""

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

from bench.store.errors import InfrastructureError, infrastructure
from bench.store.records import SHORT, Manifest
from bench.store.store import Store
from lmia.scratch import PREFIX, remove_left_behind, scratch

_Identity = tuple[int, int, int, str]
# What this process has verified, by path: a file that is still the same one (size, time of change, inode) is not read
# again. Of the process and not of a cache: the driver opens a cache for every wave.
_verified: dict[Path, _Identity] = {}


class Cache:
    """A bounded folder on this node's disk holding whole artifacts as plain folders, each fetched once per node.

    The folder belongs to this user alone, and what lies in it is verified all the same: each file's digest once per
    process, and again when the file has changed. What is damaged is fetched again. Least recently used artifacts go
    first when the bound is passed; one that was used within the last hour stays.
    """

    def __init__(self, folder: Path | None = None, max_bytes: int = 64 << 30):
        default = Path(os.environ.get("LMIA_CACHE") or Path(tempfile.gettempdir()) / f"lmia-cache-{os.getuid()}")
        self.folder = folder or default
        self.max_bytes = max_bytes
        self._is_ready = False

    def ready(self) -> Path:
        """The folder, made if it is not there, and without what processes that were killed left in it.

        Raises:
            InfrastructureError: it is not this user's alone, or cannot be made.
        """
        if not self._is_ready:
            with infrastructure(f"cannot use the cache {self.folder}", absence=False):
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._check_private()
                remove_left_behind(self.folder)
            self._is_ready = True
        return self.folder

    def _check_private(self) -> None:
        found = self.folder.lstat()
        what = None
        if not stat.S_ISDIR(found.st_mode):
            what = "is no folder"
        elif found.st_uid != os.getuid():
            what = f"belongs to user {found.st_uid} and not to you ({os.getuid()})"
        elif found.st_mode & 0o077:
            what = f"is open to other users (mode {stat.S_IMODE(found.st_mode):04o}): chmod 700 it"
        if what:
            raise InfrastructureError(
                f"the cache folder {self.folder} {what}; or name another one by LMIA_CACHE or --runtime cache=FOLDER"
            )

    def fetch(self, store: Store, manifest: Manifest) -> Path:
        """A local folder with the artifact's parts under their names, verified."""
        place = self.ready() / f"{manifest.kind}-{manifest.address}-{manifest.digest[:SHORT]}"
        with infrastructure(f"cannot fill the cache {self.folder}", absence=False):
            if not self._is_sound(place, manifest):
                self._fill(place, store, manifest)
                if not self._is_sound(place, manifest):
                    raise InfrastructureError(f"{place} does not hold what was just written to it")
                self._bound()
            os.utime(place)
        return place

    def _is_sound(self, place: Path, manifest: Manifest) -> bool:
        """Whether a folder holds the artifact's parts, their very bytes, and nothing else."""
        if not stat.S_ISDIR(_mode(place)):
            return False
        there = {str(path.relative_to(place)) for path in place.rglob("*") if not stat.S_ISDIR(_mode(path))}
        return there == {part.name for part in manifest.parts} and all(
            _holds(place / part.name, part.sha256) for part in manifest.parts
        )

    def _fill(self, place: Path, store: Store, manifest: Manifest) -> None:
        with self.scratch("fill") as folder:
            filled = folder / "filled"
            filled.mkdir()
            for part in manifest.parts:
                target = filled / part.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(store.part_bytes(manifest, part))
            if os.path.lexists(place) and not self._is_sound(place, manifest):
                with contextlib.suppress(OSError):  # another worker of this node found it damaged too
                    place.rename(folder / "damaged")
            with contextlib.suppress(OSError):  # another worker of this node was faster
                filled.rename(place)

    def scratch(self, what: str) -> contextlib.AbstractContextManager[Path]:
        """A temporary folder on the cache's disk; should this process be killed, the next one removes it."""
        return scratch(what, self.ready())

    def _bound(self) -> None:
        places = [
            p for p in self.folder.iterdir() if p.is_dir() and p.name != "partial" and not p.name.startswith(PREFIX)
        ]
        sizes = {p: sum(f.stat().st_size for f in p.rglob("*") if f.is_file()) for p in places}
        used = sum(sizes.values())
        for place in sorted(places, key=lambda p: p.stat().st_mtime):
            if used <= self.max_bytes or time.time() - place.stat().st_mtime < 3600:
                return
            shutil.rmtree(place, ignore_errors=True)
            used -= sizes[place]


def _mode(path: Path) -> int:
    """A file's type and mode, of a link its own; 0 if there is none."""
    try:
        return path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _holds(path: Path, sha256: str) -> bool:
    """Whether a regular file has this digest; it is read once per process, and again if it was changed."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        return False
    identity = (found.st_size, found.st_mtime_ns, found.st_ino, sha256)
    if _verified.get(path) != identity:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                return False
        _verified[path] = identity
    return True
