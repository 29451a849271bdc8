"""A local folder of pictures: ``ROOT/SOURCE/IDENTITY/*.png``, or any tree described by a metadata file."""

from pathlib import Path

from lmia.data.sources import SOURCES
from lmia.data.sources._index import FolderSource, FolderSpec
from lmia.data.sources._listing import (
    Entry,
    by_metadata,
    folders,
    has_metadata,
    is_picture,
    picture_files,
    spelled,
    visible,
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

    version = 2

    @staticmethod
    def layout(spec: FolderSpec) -> tuple[list[Entry], list[str]]:
        """Entries by metadata if there is such a file, by folders otherwise."""
        if has_metadata(spec.folder):
            return by_metadata(spec.folder, spec.folder.resolve().name)
        return _by_folders(spec.folder)


def _by_folders(root: Path) -> tuple[list[Entry], list[str]]:
    entries: list[Entry] = []
    stray: list[str] = []
    for source in folders(root):
        for identity in folders(source):
            for path in picture_files(identity):
                name = f"{source.name}/{identity.name}/{path.name}"
                entries.append(Entry(path, name, spelled(source.name), spelled(identity.name)))
    taken = {entry.path for entry in entries}
    stray += sorted(str(p.relative_to(root)) for p in visible(root) if is_picture(p) and p not in taken)
    if stray:
        raise RequestError(
            f"root = {str(root)!r}: {len(stray)} pictures are not in a folder of a person, e.g. {stray[0]!r} "
            "(expected ROOT/SOURCE/IDENTITY/PICTURE, or a metadata.csv)"
        )
    return with_captions(entries), []
