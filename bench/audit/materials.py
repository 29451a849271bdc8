"""What an audit rests on, by SHA-256: the model, the base, and every picture of every set."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from bench.audit.record import File, Materials, ModelRecord, Picture, SetRecord
from bench.audit.request import Audit
from lmia.data.sources.imagefolder import ImageFolder
from lmia.resolve import given_files, resolve_model


def materials(audit: Audit, size: int) -> Materials:
    """Digests of everything that was given.

    Args:
        audit: the request, already checked.
        size: picture side in px, which the folders were read for.
    """
    return Materials(
        model=None if audit.model is None else model_record(audit.model),
        base=None if audit.base is None else model_record(audit.base),
        sets={label: _set(audit, label, root, size) for label, root in audit.all_folders.items()},
    )


def model_record(reference: str) -> ModelRecord:
    """A model's files and their digests."""
    found = resolve_model(reference)
    files = tuple(File(name=name, sha256=sha256(path)) for name, path in sorted(given_files(found).items()))
    total = None if not files else files[0].sha256 if len(files) == 1 else listing_sha256(files)
    return ModelRecord(reference=reference, form=found.form, sha256=total, files=files)


def _set(audit: Audit, label: str, root: str, size: int) -> SetRecord:
    spec = audit.spec_of(label, root, size)
    index = ImageFolder.index(spec)
    pictures = sorted(
        (
            Picture(name=e.name, sha256=index.hashes[e.name], person=who, caption=e.caption)
            for who, entries in index.sources[label].items()
            for e in entries
        ),
        key=lambda picture: picture.name,
    )
    used = {picture.name for picture in pictures}
    return SetRecord(
        folder=root,
        sha256=listing_sha256(pictures),
        num_people=len(index.sources[label]),
        pictures=tuple(pictures),
        left_out=tuple(sorted({entry.name for entry in ImageFolder.layout(spec)[0]} - used)),
    )


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listing_sha256(files: Iterable[File]) -> str:
    """SHA-256 of the lines that `sha256sum` writes for files, sorted by name."""
    lines = "".join(f"{file.sha256}  {file.name}\n" for file in sorted(files, key=lambda file: file.name))
    return hashlib.sha256(lines.encode()).hexdigest()


def sums(files: Mapping[str, bytes]) -> str:
    """The text of a SHA256SUMS file, for `sha256sum --check`."""
    return "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
