"""Content-addressed artifacts on a local folder or any fsspec address (s3://...), without locks.

Layout under the root::

    manifests/KIND-ADDRESS.SPEC.INPUTS.DIGEST.json   written last: no manifest, no artifact
    parts/KIND-ADDRESS/JOB-SHA256.suffix             immutable, named by their content
    parts/KIND-ADDRESS/JOB.INPUTS.receipt.json       one per finished slice: what it wrote
    partial/NAME/...                                 progress of training jobs, local to whoever trains
    attempts/JOB/...                                 who tried what, written before the try
    campaigns/NAME.json                              which cells a preset asked for
    rows/NAME.json                                   copies of a campaign's small files (remote stores only)

The manifest's file name carries short digests of the resolved spec, of the inputs' contents and of the
artifact's own content. So planning lists one flat prefix and gets nothing: it sees from the names alone what
exists, what is stale (an input was remade with other bits) and what may not be reused (a default changed
without a version bump). Parts are immutable and content-named, so two runs on one store write the same names
and are correct without locks. Each JSON file carries a checksum; all of them are read as untrusted input
(`bench.store.records`), and no key leads out of the root (`bench.store.files`).
"""

import hashlib
import re
import socket
import time
from collections.abc import Iterable, Mapping, Set
from pathlib import Path, PurePosixPath
from typing import Any

from bench.store.errors import Corrupt, Damaged
from bench.store.files import Files
from bench.store.records import (
    Entry,
    Manifest,
    Part,
    Receipt,
    Ref,
    check_part,
    content_digest,
    manifest_key,
    part_key,
    slice_name,
)

_RECEIPT_ENDING = ".receipt.json"
_REMEMBERED = 64


class Store(Files):
    """Artifacts under one root."""

    def __init__(self, uri: str | Path):
        super().__init__(uri)
        self._written: dict[str, Receipt] = {}  # on a remote store, by this process just now: not to be fetched again

    def index(self) -> dict[str, list[Entry]]:
        """All manifests by address, from one listing. More than one: an artifact was remade with other bits."""
        found: dict[str, list[Entry]] = {}
        for name in self.names("manifests"):
            entry = Entry.of(name)
            if entry:
                found.setdefault(entry.address, []).append(entry)
        return found

    def manifest(self, key: str) -> Manifest:
        """The manifest at a key; FileNotFoundError when there is none.

        Raises:
            Corrupt: it is damaged, or not the one that its name promises.
        """
        try:
            manifest = self.read_record(key, Manifest).model_copy(update={"key": key})
        except Damaged as error:
            raise Corrupt(key, "", error.why) from None
        if manifest.own_key != key:
            raise Corrupt(key, "", "its spec, inputs or parts are not those that its name promises")
        return manifest

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
            key = part_key(ref.folder, name, sha, file)
            part = Part(name=file, key=key, sha256=sha, size=len(data))
            if not (self.local and self._holds(part)):  # a put costs no more than a look
                self.write(key, data)
            parts.append(part)
        receipt = Receipt(
            slice=name,
            parts=tuple(parts),
            facts=dict(facts or {}),
            numerics=numerics,
            cost=dict(cost or {}),
            made_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            node=socket.gethostname(),
        )
        self.write_json(_receipt_key(ref, number), receipt.model_dump(mode="json"))
        if not self.local:
            self._written[_receipt_key(ref, number)] = receipt
            while len(self._written) > _REMEMBERED:
                del self._written[next(iter(self._written))]

    def _holds(self, part: Part) -> bool:
        """Whether these very bytes lie at the part's key."""
        try:
            return hashlib.sha256(self.read(part.key, part.size)).hexdigest() == part.sha256
        except (FileNotFoundError, ValueError):
            return False

    def slices_done(self, ref: Ref) -> set[int]:
        """Numbers of the slices that have a receipt for this spec and these inputs."""
        return finished_slices(ref, self.names(ref.folder))

    def commit(self, ref: Ref, *, content: bool = False, done: Set[int] | None = None) -> Manifest | None:
        """Write the manifest if every slice is there; None otherwise. Any worker may be the last one.

        Args:
            ref: the artifact.
            content: whether the parts' bytes are looked at, too.
            done: the slices that were there just now, if that is known.

        A receipt that is damaged, or whose parts are, is removed: its slice is not there.
        """
        if len(self.slices_done(ref) if done is None else done) < ref.num_slices:
            return None
        receipts = [self._receipt(ref, number, content) for number in range(ref.num_slices)]
        whole = [receipt for receipt in receipts if receipt]
        if len(whole) < len(receipts):
            return None
        parts = tuple(part for receipt in whole for part in receipt.parts)
        digest = content_digest(parts)
        key = manifest_key(ref.kind, ref.address, ref.spec_digest, ref.inputs_digest, digest)
        manifest = Manifest(
            kind=ref.kind,
            address=ref.address,
            method=ref.method,
            version=ref.version,
            spec=ref.spec,
            inputs={name: {"address": i.address, "digest": i.digest} for name, i in ref.inputs.items()},
            parts=parts,
            digest=digest,
            facts=whole[0].facts,
            slices=tuple(receipt.slice_only() for receipt in whole),
            key=key,
        )
        self.write_json(key, manifest.model_dump(mode="json"))
        for name in self.names("manifests"):
            if name.startswith(f"{ref.kind}-{ref.address}.") and f"manifests/{name}" != key:
                self.remove(f"manifests/{name}")
        return manifest

    def _receipt(self, ref: Ref, number: int, content: bool) -> Receipt | None:
        """The receipt of a finished slice; None, and it is removed, where it is damaged."""
        key = _receipt_key(ref, number)
        try:
            receipt = self._written.pop(key, None) or self.read_record(key, Receipt)
            if receipt.slice != slice_name(number, ref.num_slices):
                raise ValueError("it is another slice's")
            for part in receipt.parts:
                check_part(part, ref.folder, {receipt.slice})
                if content and not self._holds(part):
                    raise ValueError(f"{part.key} is damaged")
        except (Damaged, ValueError):
            self.remove(key)
            return None
        return receipt

    def verify(self, manifest: Manifest, *, content: bool) -> list[Part]:
        """Parts that are missing, of another size or (if `content`) of other bytes than their names say."""
        bad = []
        for part in manifest.parts:
            try:
                sound = self._holds(part) if content else self.size(part.key) == part.size
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
                if name.startswith(f"{damaged}.") and name.endswith(_RECEIPT_ENDING):
                    self.remove(f"{folder}/{name}")

    def discard_damaged(self, manifest: str, part: str = "") -> None:
        """Forget what was found damaged.

        Args:
            manifest: key of an artifact's manifest.
            part: key of its part that is damaged; empty: the manifest itself is.
        """
        try:
            found = self.manifest(manifest)
        except FileNotFoundError:
            return
        except Corrupt:
            self.remove(manifest)
            return
        self.discard(found, [one for one in found.parts if one.key == part])

    def part(self, manifest: Manifest, name: str) -> bytes:
        """The verified bytes of a part, by its name inside the artifact."""
        found = next((part for part in manifest.parts if part.name == name), None)
        if found is None:
            raise KeyError(f"{manifest.kind} {manifest.address} has no part {name!r}")
        return self.part_bytes(manifest, found)

    def part_bytes(self, manifest: Manifest, part: Part) -> bytes:
        """The verified bytes of a part.

        Raises:
            Corrupt: they are not what its name says.
        """
        try:
            data = self.read(part.key, part.size)
        except FileNotFoundError:
            raise Corrupt(manifest.key, part.key, "it is missing") from None
        except ValueError as error:
            raise Corrupt(manifest.key, part.key, str(error)) from None
        if hashlib.sha256(data).hexdigest() != part.sha256:
            raise Corrupt(manifest.key, part.key, "it does not hold the bytes that its name promises")
        return data


def finished_slices(ref: Ref, names: Iterable[str]) -> set[int]:
    """Numbers of the slices whose receipts for this spec and these inputs are among the names in its folder."""
    receipts = re.compile(
        rf"([0-9]{{5,}})of{ref.num_slices:05d}\.{ref.spec_digest}\.{ref.inputs_digest}{re.escape(_RECEIPT_ENDING)}"
    )
    found = {int(match[1]) for match in map(receipts.fullmatch, names) if match}
    return found & set(range(ref.num_slices))


def _receipt_key(ref: Ref, number: int) -> str:
    name = slice_name(number, ref.num_slices)
    return f"{ref.folder}/{name}.{ref.spec_digest}.{ref.inputs_digest}{_RECEIPT_ENDING}"
