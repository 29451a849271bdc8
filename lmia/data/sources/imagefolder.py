"""One set of pictures in a folder, as audits are given it and as trainers and data-set libraries lay it out."""

from dataclasses import replace
from pathlib import Path

from pydantic import Field

from lmia.data.pictures import Pictures
from lmia.data.sources import SOURCES
from lmia.data.sources._index import FolderSource, FolderSpec
from lmia.data.sources._listing import (
    REPEATS,
    SPLITS,
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


class ImageFolderSpec(FolderSpec):
    """A folder that is one set of pictures."""

    label: str = Field("pictures", min_length=1, description="what the set is called: its one source")
    caption: str | None = Field(None, description="the caption of pictures that have none of their own")


@SOURCES.register("imagefolder")
class ImageFolder(FolderSource):
    """A folder in one of the usual layouts, all of it one source.

    - With ``metadata.csv`` or ``metadata.jsonl``: ``file_name``, and if wanted ``caption`` (or ``text``) and
      ``identity``.
    - Without: a picture in a sub-folder belongs to the person of that name.
    - A sub-folder named for a split (``train``, ``val``, ``test``) or with a metadata file of its own is such a folder
      again and names no person.
    - A sub-folder ``10_ohwx person`` (kohya) repeats the pictures of ``ohwx person``, which is the caption of those
      that have no other.

    In all of them a picture without a person is a person of its own, and a text file beside a picture (``.txt``,
    ``.caption``) is its caption if it has no other.
    """

    version = 2
    Spec = ImageFolderSpec

    @staticmethod
    def layout(spec: ImageFolderSpec) -> tuple[list[Entry], list[str]]:
        """Entries by metadata where there is such a file, else those in the folder and in its sub-folders."""
        entries, warnings = _below(spec.folder, "", spec.label)
        entries = [replace(entry, source=spec.label, part=None) for entry in with_captions(entries)]
        return [entry if entry.caption else replace(entry, caption=spec.caption) for entry in entries], warnings


def _below(root: Path, below: str, label: str) -> tuple[list[Entry], list[str]]:
    """Entries of a folder, whose names begin with `below`, and warnings."""
    if has_metadata(root):
        return by_metadata(root, label, people=False, below=below)
    entries = [Entry(p, below + p.name, label, below + p.name, named=False) for p in picture_files(root)]
    warnings: list[str] = []
    nested: list[Path] = []
    for folder in folders(root):
        if folder.name.casefold() in SPLITS or has_metadata(folder):
            nested.append(folder)
            if not has_metadata(folder):
                warnings.append(f"{below}{folder.name}/ is taken for a split, not for a person")
            more, said = _below(folder, f"{below}{folder.name}/", label)
            entries += more
            warnings += said
            continue
        person = spelled(REPEATS.sub("", folder.name))
        caption = None
        if person != spelled(folder.name):
            caption = person
            warnings.append(f"{below}{folder.name}/: taken for repeats of {person!r}, which captions what has no other")
        found = [Entry(path, f"{below}{folder.name}/{path.name}", label, person) for path in picture_files(folder)]
        entries += [replace(e, caption=e.caption or caption) for e in with_captions(found)]
    taken = {entry.path for entry in entries}
    deep = sorted(
        p for p in visible(root) if is_picture(p) and p not in taken and not any(n in p.parents for n in nested)
    )
    if deep:
        raise RequestError(
            f"{root}: {len(deep)} pictures lie deeper than DIR/PERSON/PICTURE, such as "
            f"{str(deep[0].relative_to(root))!r}; list them in a metadata.csv or lay them out flat"
        )
    return entries, warnings


def read_folder(root: str | Path, size: int, caption: str | None = None) -> Pictures:
    """All pictures of a folder.

    Args:
        root: ``DIR/*.png``, ``DIR/PERSON/*.png``, or with a metadata file; see `ImageFolder`.
        size: side in px; pictures are squared and resized.
        caption: of pictures that have none of their own.

    Raises:
        RequestError: no pictures, or one that cannot be read.
    """
    spec = ImageFolderSpec(root=str(Path(root).expanduser().absolute()), size=size, caption=caption)
    return ImageFolder.all_of(spec, spec.label, ImageFolder.identities(spec, spec.label))
