"""A local folder of pictures: ``ROOT/SOURCE/IDENTITY/*.png``, or any tree described by a metadata file."""

from pathlib import Path

from lmia.data.sources import SOURCES
from lmia.data.sources._shelf import (
    Entry,
    FolderSource,
    FolderSpec,
    by_metadata,
    folders,
    picture_files,
    with_captions,
)
from lmia.specs import RequestError


@SOURCES.register("folder")
class Folder(FolderSource):
    """Folders of pictures in one of two layouts.

    Without metadata: ``ROOT/SOURCE/IDENTITY/PICTURE``. With ``ROOT/metadata.csv`` or ``ROOT/metadata.jsonl`` (the
    imagefolder convention) the columns are ``file_name`` and ``identity``, and if wanted ``source`` (else the root's
    own name), ``caption`` (or ``text``) and ``part`` (a split made beforehand). In both, a text file beside a picture
    is its caption if it has no other.
    """

    version = 1

    @staticmethod
    def layout(spec: FolderSpec) -> tuple[list[Entry], list[str]]:
        """Entries by metadata if there is such a file, by folders otherwise."""
        return by_metadata(spec.folder, spec.folder.resolve().name) or _by_folders(spec.folder)


def _by_folders(root: Path) -> tuple[list[Entry], list[str]]:
    entries, stray = [], [path.name for path in picture_files(root)]
    for source in folders(root):
        stray += [f"{source.name}/{path.name}" for path in picture_files(source)]
        for identity in folders(source):
            for path in picture_files(identity):
                name = f"{source.name}/{identity.name}/{path.name}"
                entries.append(Entry(path, name, source.name, identity.name))
    if stray:
        raise RequestError(
            f"root = {str(root)!r}: {len(stray)} pictures are not in a folder of a person, e.g. {stray[0]!r} "
            "(expected ROOT/SOURCE/IDENTITY/PICTURE, or a metadata.csv)"
        )
    return with_captions(entries), []
