"""Content-addressed artifacts on a local folder or any fsspec address (s3://...), without locks.

Layout under the root::

    manifests/KIND-ADDRESS.SPEC.INPUTS.DIGEST.json   written last: no manifest, no artifact
    parts/KIND-ADDRESS/JOB-SHA256.suffix             immutable, named by their content
    parts/KIND-ADDRESS/JOB.INPUTS.receipt.json       one per finished slice: what it wrote
    partial/NAME/...                                 progress of training jobs, local to whoever trains
    attempts/JOB/...                                 who tried what, written before the try
    campaigns/NAME.json                              which cells a preset asked for

The manifest's file name carries short digests of the resolved spec, of the inputs' contents and of the
artifact's own content. So planning lists one flat prefix and gets nothing: it sees from the names alone what
exists, what is stale (an input was remade with other bits) and what may not be reused (a default changed
without a version bump). Parts are immutable and content-named, so two runs on one store write the same names
and are correct without locks.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

SHORT = 12  # hex digits of a digest in a manifest's name: staleness, not security


class InfrastructureError(RuntimeError):
    """Disk, network or cluster failed: not a mistake in the request. Exit status 3."""


class Corrupt(RuntimeError):
    """A stored part is missing or its bytes are not those that its name promises."""

    def __init__(self, message: str, manifest: "Manifest", part: "Part"):
        super().__init__(message)
        self.manifest = manifest
        self.part = part


class SpecChanged(RuntimeError):
    """An artifact lies at this address but was made from another resolved spec."""


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Part:
    """One immutable file of an artifact: `name` inside the artifact, `key` in the store."""

    name: str
    key: str
    sha256: str
    size: int


@dataclass(frozen=True)
class InputRef:
    """An input as a worker needs it: where its manifest lies and the short digest of its content."""

    address: str
    digest: str
    manifest: str


@dataclass(frozen=True)
class Ref:
    """An artifact that is to be made: everything that a worker needs to know of it, as plain values."""

    kind: str
    address: str
    method: str
    version: int
    spec: dict[str, Any]
    inputs: dict[str, InputRef]
    num_slices: int = 1

    @property
    def spec_digest(self) -> str:
        """Digest of method, version and resolved spec."""
        return digest_of([self.method, self.version, self.spec])[:SHORT]

    @property
    def inputs_digest(self) -> str:
        """Digest of the inputs' contents."""
        return inputs_digest({name: ref.digest for name, ref in self.inputs.items()})

    @property
    def folder(self) -> str:
        """Prefix of the artifact's parts."""
        return f"parts/{self.kind}-{self.address}"


def inputs_digest(digests: Mapping[str, str]) -> str:
    """Short digest of the (short digests of the) contents of all inputs, by name."""
    return digest_of(dict(digests))[:SHORT]


@dataclass(frozen=True)
class Manifest:
    """What an artifact is: its spec, its inputs' contents, its parts and the figures of its making."""

    kind: str
    address: str
    method: str
    version: int
    spec: dict[str, Any]
    inputs: dict[str, dict[str, str]]
    parts: tuple[Part, ...]
    digest: str
    facts: dict[str, Any] = field(default_factory=dict)
    slices: tuple[dict[str, Any], ...] = ()
    key: str = ""

    @property
    def numerics(self) -> list[str]:
        """The numerics classes of the machines that made the parts."""
        return sorted({s["numerics"] for s in self.slices if s.get("numerics")})

    def total(self, figure: str) -> float:
        """Sum of a cost figure over the slices."""
        return float(sum(s.get("cost", {}).get(figure) or 0 for s in self.slices))


@dataclass(frozen=True)
class Entry:
    """What a manifest's file name says."""

    kind: str
    address: str
    spec: str
    inputs: str
    digest: str
    key: str


_NAME = re.compile(r"([a-z]+)-([0-9a-f]+)\.([0-9a-f]+)\.([0-9a-f]+)\.([0-9a-f]+)\.json")


@contextlib.contextmanager
def infrastructure(doing: str, *, absence: bool = True) -> Iterator[None]:
    """Turn what the disk or the network says into an InfrastructureError that names what was being done.

    Args:
        doing: what, for people.
        absence: FileNotFoundError is an answer (as when reading) and passes; otherwise it is a failure too.
    """
    try:
        yield
    except (InfrastructureError, Corrupt, ValueError, TypeError):
        raise
    except Exception as error:  # clients of object stores raise what they like when there is no network
        if absence and isinstance(error, FileNotFoundError):
            raise
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise InfrastructureError(f"{doing}: {error}{' (the disk is full)' if full else ''}") from error


class Store:
    """Artifacts under one root; every write is whole or not there."""

    def __init__(self, uri: str | Path):
        self.uri = str(uri) if "://" in str(uri) else str(Path(uri).expanduser().absolute())
        # Other machines write too: a listing from a minute ago must not say what is there.
        self.fs, self.root = fsspec.core.url_to_fs(self.uri, use_listings_cache=False)
        self.local = "file" in ((self.fs.protocol,) if isinstance(self.fs.protocol, str) else self.fs.protocol)

    # ---- bytes

    def path(self, key: str) -> str:
        """Full path of a key on the store's file system."""
        return f"{self.root.rstrip('/')}/{key}"

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
                with temporary.open("wb") as handle:
                    handle.write(data)
                    handle.flush()
                    os.fsync(handle.fileno())
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)

    def read(self, key: str) -> bytes:
        """The bytes of a key; FileNotFoundError when there is none."""
        with infrastructure(f"cannot read {key} from the store {self.uri}"):
            return self.fs.cat_file(self.path(key))

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
            try:
                found = self.fs.ls(self.path(prefix), detail=False)
            except (FileNotFoundError, NotADirectoryError):
                return []
        names = (PurePosixPath(str(name)).name for name in found)
        return sorted(name for name in names if not name.startswith("."))

    def under(self, prefix: str) -> list[str]:
        """All keys under a prefix at any depth, sorted."""
        with infrastructure(f"cannot list {prefix} in the store {self.uri}"):
            start = len(self.path(""))
            return sorted(str(name)[start:] for name in self.fs.find(self.path(prefix)))

    def remove(self, key: str) -> None:
        """Remove a key if it is there."""
        with contextlib.suppress(FileNotFoundError), infrastructure(f"cannot remove {key}"):
            self.fs.rm_file(self.path(key))

    def read_json(self, key: str) -> Any:
        """A key's JSON value."""
        return json.loads(self.read(key))

    def write_json(self, key: str, value: Any) -> None:
        """Write a JSON value whole; NaN is refused."""
        self.write(key, json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode())

    # ---- artifacts

    def index(self) -> dict[str, list[Entry]]:
        """All manifests by address, from one listing. More than one: an artifact was remade with other bits."""
        found: dict[str, list[Entry]] = {}
        for name in self.names("manifests"):
            match = _NAME.fullmatch(name)
            if match:
                kind, address, spec, inputs, digest = match.groups()
                entry = Entry(kind, address, spec, inputs, digest, key=f"manifests/{name}")
                found.setdefault(entry.address, []).append(entry)
        return found

    def manifest(self, key: str) -> Manifest:
        """The manifest at a key."""
        return _manifest(key, self.read_json(key))

    def put_slice(
        self,
        ref: Ref,
        number: int,
        files: Mapping[str, bytes | Path],
        *,
        facts: Mapping[str, Any] | None = None,
        numerics: str = "",
        cost: Mapping[str, float] | None = None,
    ) -> None:
        """Write the files of one slice of an artifact, then its receipt. Facts must be equal for all slices."""
        name = slice_name(number, ref.num_slices)
        parts = []
        for file, content in sorted(files.items()):
            data = content if isinstance(content, bytes) else content.read_bytes()
            sha = hashlib.sha256(data).hexdigest()
            key = f"{ref.folder}/{name}-{sha}{PurePosixPath(file).suffix}"
            if not self._holds(key, len(data), sha):
                self.write(key, data)
            parts.append(asdict(Part(name=file, key=key, sha256=sha, size=len(data))))
        receipt = {
            "slice": name,
            "parts": parts,
            "facts": dict(facts or {}),
            "numerics": numerics,
            "cost": dict(cost or {}),
            "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "node": socket.gethostname(),
        }
        self.write_json(f"{ref.folder}/{name}.{ref.spec_digest}.{ref.inputs_digest}.receipt.json", receipt)

    def _holds(self, key: str, size: int, sha: str) -> bool:
        """Whether a part with these very bytes is there already (a corrupted one is written anew)."""
        try:
            return self.size(key) == size and hashlib.sha256(self.read(key)).hexdigest() == sha
        except FileNotFoundError:
            return False

    def slices_done(self, ref: Ref) -> set[int]:
        """Numbers of the slices that have a receipt for this spec and these inputs."""
        ending = f".{ref.spec_digest}.{ref.inputs_digest}.receipt.json"
        return {
            int(name.split("of")[0])
            for name in self.names(ref.folder)
            if name.endswith(ending) and name.split(".")[0].endswith(f"of{ref.num_slices:05d}")
        }

    def commit(self, ref: Ref) -> Manifest | None:
        """Write the manifest if every slice is there; None otherwise. Any worker may be the last one."""
        if len(self.slices_done(ref)) < ref.num_slices:
            return None
        ending = f".{ref.spec_digest}.{ref.inputs_digest}.receipt.json"
        receipts = [
            self.read_json(f"{ref.folder}/{slice_name(n, ref.num_slices)}{ending}") for n in range(ref.num_slices)
        ]
        parts = [part for receipt in receipts for part in receipt["parts"]]
        digest = digest_of([[part["name"], part["sha256"]] for part in parts])
        value = {
            "kind": ref.kind,
            "address": ref.address,
            "method": ref.method,
            "version": ref.version,
            "spec": ref.spec,
            "inputs": {name: {"address": i.address, "digest": i.digest} for name, i in ref.inputs.items()},
            "parts": parts,
            "digest": digest,
            "facts": receipts[0]["facts"],
            "slices": [{k: r[k] for k in ("slice", "numerics", "cost", "made_at", "node")} for r in receipts],
        }
        key = manifest_key(ref.kind, ref.address, ref.spec_digest, ref.inputs_digest, digest)
        self.write_json(key, value)
        for name in self.names("manifests"):
            if name.startswith(f"{ref.kind}-{ref.address}.") and f"manifests/{name}" != key:
                self.remove(f"manifests/{name}")
        return _manifest(key, value)

    def verify(self, manifest: Manifest, *, content: bool) -> list[Part]:
        """Parts that are missing, of another size or (if `content`) of other bytes than their names say."""
        bad = []
        for part in manifest.parts:
            try:
                sound = self.size(part.key) == part.size and (
                    not content or hashlib.sha256(self.read(part.key)).hexdigest() == part.sha256
                )
            except FileNotFoundError:
                sound = False
            if not sound:
                bad.append(part)
        return bad

    def discard(self, manifest: Manifest, bad: list[Part]) -> None:
        """Forget an artifact whose parts are damaged: its manifest, the bad parts and their slices' receipts."""
        self.remove(manifest.key)
        folder = f"parts/{manifest.kind}-{manifest.address}"
        for part in bad:
            self.remove(part.key)
            damaged = PurePosixPath(part.key).name.split("-")[0]
            for name in self.names(folder):
                if name.startswith(f"{damaged}.") and name.endswith(".receipt.json"):
                    self.remove(f"{folder}/{name}")

    def part(self, manifest: Manifest, name: str) -> bytes:
        """The verified bytes of a part, by its name inside the artifact."""
        found = next((part for part in manifest.parts if part.name == name), None)
        if found is None:
            raise KeyError(f"{manifest.kind} {manifest.address} has no part {name!r}")
        return self.part_bytes(manifest, found)

    def part_bytes(self, manifest: Manifest, part: Part) -> bytes:
        """The verified bytes of a part; Corrupt when they are not what its name says."""
        try:
            data = self.read(part.key)
        except FileNotFoundError:
            raise Corrupt(f"{part.key} is missing", manifest, part) from None
        if hashlib.sha256(data).hexdigest() != part.sha256:
            raise Corrupt(f"{part.key} does not hold the bytes that its name promises", manifest, part)
        return data


def _manifest(key: str, value: dict[str, Any]) -> Manifest:
    parts = tuple(Part(**part) for part in value["parts"])
    return Manifest(**{**value, "parts": parts, "slices": tuple(value["slices"]), "key": key})


def slice_name(number: int, of: int) -> str:
    """Name of a slice, the same for every run: its job's name in the store."""
    return f"{number:05d}of{of:05d}"


def manifest_key(kind: str, address: str, spec: str, inputs: str, digest: str) -> str:
    """Where a manifest lies."""
    return f"manifests/{kind}-{address}.{spec}.{inputs}.{digest[:SHORT]}.json"


class Cache:
    """A bounded folder on this node's disk holding whole artifacts as plain folders, each fetched once per node.

    Least recently used artifacts go first when the bound is passed; one that was used within the last hour stays.
    """

    def __init__(self, folder: Path | None = None, max_bytes: int = 64 << 30):
        default = Path(os.environ.get("LMIA_CACHE") or Path(tempfile.gettempdir()) / f"lmia-cache-{os.getuid()}")
        self.folder = folder or default
        self.max_bytes = max_bytes

    def fetch(self, store: Store, manifest: Manifest) -> Path:
        """A local folder with the artifact's parts under their names, verified while copying."""
        place = self.folder / f"{manifest.kind}-{manifest.address}-{manifest.digest[:SHORT]}"
        if not place.is_dir():
            with infrastructure(f"cannot fill the cache {self.folder}"):
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                temporary = Path(tempfile.mkdtemp(dir=self.folder, prefix=".filling-"))
                try:
                    for part in manifest.parts:
                        target = temporary / part.name
                        target.parent.mkdir(parents=True, exist_ok=True)
                        target.write_bytes(store.part_bytes(manifest, part))
                    with contextlib.suppress(OSError):  # another worker of this node was faster
                        temporary.rename(place)
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
                self._bound()
        os.utime(place)
        return place

    def _bound(self) -> None:
        places = [p for p in self.folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
        sizes = {p: sum(f.stat().st_size for f in p.rglob("*") if f.is_file()) for p in places}
        used = sum(sizes.values())
        for place in sorted(places, key=lambda p: p.stat().st_mtime):
            if used <= self.max_bytes or time.time() - place.stat().st_mtime < 3600:
                return
            shutil.rmtree(place, ignore_errors=True)
            used -= sizes[place]
