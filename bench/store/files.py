"""Files below one root, on a local folder or any fsspec address; nothing outside of it is reached by any key."""

import contextlib
import json
import os
import stat
import uuid
from pathlib import Path, PurePosixPath
from typing import Any

from bench.store.address import open_files
from bench.store.errors import Damaged, InfrastructureError, infrastructure
from bench.store.records import R, parse, seal, unseal

MAX_JSON_BYTES = 256 << 20


class Files:
    """Bytes by key under one root; every write is whole or not there."""

    def __init__(self, uri: str | Path):
        self.uri, self.fs, self.root = open_files(uri)
        self.local = "file" in ((self.fs.protocol,) if isinstance(self.fs.protocol, str) else self.fs.protocol)
        self._real_root = os.path.realpath(self.root).rstrip("/") if self.local else ""

    def path(self, key: str) -> str:
        """Full path of a key on the store's file system.

        Raises:
            InfrastructureError: it would lead out of the store, by its steps or by a symbolic link.
        """
        if any(step in ("", ".", "..") for step in key.split("/")) or "\0" in key:
            raise InfrastructureError(f"{key[:120]!r} is no key of the store {self.uri}")
        full = f"{self.root.rstrip('/')}/{key}"
        if self.local and os.path.realpath(full) != f"{self._real_root}/{key}":
            raise InfrastructureError(
                f"{key} in the store {self.uri} lies behind a symbolic link; only the store's own folder may be one"
            )
        return full

    def folder(self, key: str) -> Path:
        """A folder of a local store, which is made when it is written to."""
        return Path(self.path(key))

    def write(self, key: str, data: bytes) -> None:
        """Write a key whole: on a disk by temporary name, fsync and rename; elsewhere by one put."""
        with infrastructure(f"cannot write {key} to the store {self.uri}", absence=False):
            if not self.local:
                self.fs.pipe_file(self.path(key), data)
                return
            target = Path(self.path(key))
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.parent / f".{target.name[:80]}.{uuid.uuid4().hex[:8]}.tmp"
            try:
                with temporary.open("xb") as handle:
                    handle.write(data)
                    handle.flush()
                    os.fsync(handle.fileno())
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)

    def read(self, key: str, limit: int | None = None) -> bytes:
        """The bytes of a key; FileNotFoundError when there is none, ValueError when they are more than `limit`."""
        with infrastructure(f"cannot read {key} from the store {self.uri}"):
            data = self._read_local(key, limit) if self.local else self._read_remote(key, limit)
        if limit is not None and len(data) > limit:
            raise ValueError(f"it has more than {limit} bytes")
        return data

    def _read_local(self, key: str, limit: int | None) -> bytes:
        # Not to wait for the writer of a pipe.
        with open(os.open(self.path(key), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise InfrastructureError(f"{key} in the store {self.uri} is no regular file")
            if limit is not None and found.st_size > limit:
                raise ValueError(f"it has {found.st_size} bytes, more than {limit}")
            return file.read()

    def _read_remote(self, key: str, limit: int | None) -> bytes:
        path = self.path(key)
        if limit is None:
            return self.fs.cat_file(path)
        try:
            return self.fs.cat_file(path, start=0, end=limit + 1)
        except FileNotFoundError:
            raise
        except Exception:  # of an empty object no range can be had
            if self.fs.size(path):
                raise
            return b""

    def exists(self, key: str) -> bool:
        """Whether there is such a key."""
        with infrastructure(f"cannot look into the store {self.uri}"):
            return self.fs.exists(self.path(key))

    def size(self, key: str) -> int:
        """Bytes of a key; FileNotFoundError when there is none."""
        with infrastructure(f"cannot look into the store {self.uri}"):
            return self.fs.size(self.path(key))

    def names(self, prefix: str) -> list[str]:
        """Names directly under a prefix, sorted; temporary files of writers that died are not among them."""
        with infrastructure(f"cannot list {prefix} in the store {self.uri}"):
            folder, slash, last = self.path(prefix).rpartition("/")
            if not self.local and slash and "/" in prefix:
                # `ls` looks twice where there is nothing.
                start = f"{folder}/{last}/".lstrip("/")
                keys = (str(key).lstrip("/") for key in self.fs.find(folder, prefix=f"{last}/"))
                names = {key.removeprefix(start).split("/")[0] for key in keys if key.startswith(start)}
                return sorted(name for name in names if not name.startswith("."))
            try:
                found = self.fs.ls(self.path(prefix), detail=False)
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(name for name in (PurePosixPath(str(one)).name for one in found) if not name.startswith("."))

    def details(self, prefix: str) -> dict[str, dict[str, Any]]:
        """What the file system tells of each file under a prefix at any depth, by key, from one listing."""
        with infrastructure(f"cannot list {prefix} in the store {self.uri}"):
            start = len(self.root.rstrip("/")) + 1
            return {str(name)[start:]: info for name, info in self.fs.find(self.path(prefix), detail=True).items()}

    def under(self, prefix: str) -> list[str]:
        """All keys under a prefix at any depth, sorted."""
        with infrastructure(f"cannot list {prefix} in the store {self.uri}"):
            start = len(self.root.rstrip("/")) + 1
            return sorted(str(name)[start:] for name in self.fs.find(self.path(prefix)))

    def remove(self, key: str) -> None:
        """Remove a key if it is there."""
        with contextlib.suppress(FileNotFoundError), infrastructure(f"cannot remove {key}"):
            self.fs.rm_file(self.path(key))

    def read_json(self, key: str) -> dict[str, Any]:
        """What `write_json` wrote; FileNotFoundError when there is none.

        Raises:
            Damaged: it is not what was written.
        """
        try:
            value = json.loads(self.read(key, MAX_JSON_BYTES))
            if not isinstance(value, dict):
                raise ValueError("it holds no JSON object")
            return unseal(value)
        except (ValueError, RecursionError) as error:
            raise Damaged(key, str(error) or type(error).__name__) from None

    def read_record(self, key: str, model: type[R]) -> R:
        """A record of a type; FileNotFoundError when there is none.

        Raises:
            Damaged: it is not what was written, or no such record.
        """
        try:
            return parse(model, json.dumps(self.read_json(key), allow_nan=False))
        except (ValueError, RecursionError) as error:
            raise Damaged(key, str(error)) from None

    def write_json(self, key: str, value: dict[str, Any]) -> None:
        """Write a JSON object whole, with its checksum; NaN is refused."""
        self.write(key, json.dumps(seal(value), indent=1, sort_keys=True, allow_nan=False).encode())
