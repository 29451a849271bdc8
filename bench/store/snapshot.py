"""A store as it was at one moment, by one listing for everybody who asks; small files of it from one object.

On a remote store each request costs a round trip. So what a wave asks (which artifacts are there, which slices are
done, how large parts are) is told from two listings, and what a campaign's readers need of many small files lies once
more in `rows/CAMPAIGN.json`. That object is a copy and never a second truth: it is used for a manifest that the
listing shows to be the very file that was copied, and for a part whose digest is the one in its name; everything else
is read from where it lies. Missing, damaged or outdated, it is made anew. A store on this disk needs none.
"""

import base64
import contextlib
import hashlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from bench.store.errors import Corrupt, Damaged, InfrastructureError
from bench.store.records import Entry, Manifest, Part, Ref, digest_of
from bench.store.store import Store, finished_slices

MAX_COPIED_BYTES = 64 << 20
"""Of the files in one object; what is more is read singly."""


class Copy(BaseModel):
    """A file of the store: which one it was when it was copied (empty for a part), and its bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    tag: str
    base64: str

    def data(self) -> bytes:
        """Its bytes."""
        return base64.b64decode(self.base64, validate=True)


class Copies(BaseModel):
    """Files by key."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    files: dict[str, Copy] = Field(default_factory=dict)


class Snapshot(Store):
    """A store at one moment; what is written goes to the store and is not seen here.

    Args:
        store: the store.
        copies: the campaign whose copies are used; empty: none.
    """

    def __init__(self, store: Store, copies: str = ""):
        self.__dict__.update(store.__dict__)
        self._store = store
        self._copies = self._read_copies(copies) if copies and not self.local else {}

    def _read_copies(self, campaign: str) -> dict[str, Copy]:
        try:
            return dict(self._store.read_record(copies_key(campaign), Copies).files)
        except (FileNotFoundError, Damaged):
            return {}

    # ---- what is there

    @cached_property
    def _manifests(self) -> dict[str, str]:
        """Tags of the files under manifests/, by key."""
        if self.local:
            return {f"manifests/{name}": "" for name in self._store.names("manifests")}
        return {key: _tag(info) for key, info in self._store.details("manifests").items()}

    @cached_property
    def _parts(self) -> dict[str, int | None]:
        """Sizes of the files under parts/, by key; of a remote store."""
        return {key: info.get("size") for key, info in self._store.details("parts").items()}

    @cached_property
    def _names(self) -> dict[str, set[str]]:
        """Names of parts and receipts by the artifact's folder; of a remote store."""
        found: dict[str, set[str]] = {}
        for key in self._parts:
            folder, _, name = key.rpartition("/")
            found.setdefault(folder, set()).add(name)
        return found

    @cached_property
    def _index(self) -> dict[str, list[Entry]]:
        found: dict[str, list[Entry]] = {}
        for key in sorted(self._manifests):
            entry = Entry.of(PurePosixPath(key).name)
            if entry and entry.key == key:
                found.setdefault(entry.address, []).append(entry)
        return found

    def index(self) -> dict[str, list[Entry]]:
        """All manifests by address."""
        return self._index

    def slices_done(self, ref: Ref) -> set[int]:
        """Numbers of the slices that have a receipt for this spec and these inputs."""
        if self.local:
            return self._store.slices_done(ref)
        return finished_slices(ref, self._names.get(ref.folder, set()))

    def verify(self, manifest: Manifest, *, content: bool) -> list[Part]:
        """Parts that are missing, of another size or (if `content`) of other bytes than their names say."""
        if content or self.local:
            return self._store.verify(manifest, content=content)
        return [part for part in manifest.parts if self._parts.get(part.key) != part.size]

    # ---- what it says

    def read(self, key: str, limit: int | None = None) -> bytes:
        """The bytes of a key, from its copy where that is known to be equal."""
        data = self._copied(key)
        if data is None or (limit is not None and len(data) > limit):
            return self._store.read(key, limit)
        return data

    def _copied(self, key: str) -> bytes | None:
        copy = self._copies.get(key)
        if copy is None:
            return None
        with contextlib.suppress(ValueError):
            data = copy.data()
            if key.startswith("parts/"):
                sha256 = PurePosixPath(key).stem.rpartition("-")[2]
                sound = hashlib.sha256(data).hexdigest() == sha256
            else:
                sound = bool(copy.tag) and self._manifests.get(key) == copy.tag
            if sound:
                return data
        del self._copies[key]
        return None

    def manifest(self, key: str) -> Manifest:
        """The manifest at a key; FileNotFoundError when there is none.

        Raises:
            Corrupt: it is damaged, or not the one that its name promises.
        """
        with contextlib.suppress(Corrupt):
            return super().manifest(key)
        self._copies.pop(key, None)  # where it was the copy that is damaged
        return super().manifest(key)

    # ---- the copies

    def write_copies(self, campaign: str, manifests: Iterable[str], parts: Iterable[Part]) -> None:
        """Keep these manifests and parts in one object, unless it holds them; nothing on a store on this disk."""
        if self.local:
            return
        files, size = {}, 0
        for key in [*dict.fromkeys(manifests), *dict.fromkeys(part.key for part in parts)]:
            tag = "" if key.startswith("parts/") else self._manifests.get(key, "")
            try:
                data = self.read(key, MAX_COPIED_BYTES)
            except (FileNotFoundError, ValueError):
                continue
            size += len(data)
            if size > MAX_COPIED_BYTES:
                break
            files[key] = Copy(tag=tag, base64=base64.b64encode(data).decode())
        if files != self._copies:
            with contextlib.suppress(InfrastructureError):  # the rows lie singly in the store
                self._store.write_json(copies_key(campaign), Copies(files=files).model_dump(mode="json"))


def copies_key(campaign: str) -> str:
    """Where a campaign's copies lie."""
    return f"rows/{campaign}.json"


def _tag(info: Mapping[str, Any]) -> str:
    """Which file it is that a listing shows: changes when it is written anew."""
    names = ("ETag", "etag", "LastModified", "last_modified", "updated", "created", "mtime")
    return digest_of([info.get("size"), *(str(info[name]) for name in names if info.get(name) is not None)])[:20]
