"""One set of pictures in a folder, as audits are given it: ``DIR/*.png``, ``DIR/PERSON/*.png``, or a metadata file."""

from dataclasses import replace

from pydantic import Field

from lmia.data.sources import SOURCES
from lmia.data.sources._shelf import (
    SUFFIXES,
    Entry,
    FolderSource,
    FolderSpec,
    by_metadata,
    folders,
    picture_files,
    with_captions,
)
from lmia.specs import RequestError


class ImageFolderSpec(FolderSpec):
    """A folder that is one set of pictures."""

    label: str = Field("pictures", min_length=1, description="what the set is called: its one source")
    caption: str | None = Field(None, description="the caption of pictures that have none of their own")


@SOURCES.register("imagefolder")
class ImageFolder(FolderSource):
    """A folder in the imagefolder convention, all of it one source.

    With ``metadata.csv`` or ``metadata.jsonl``: ``file_name``, and if wanted ``caption`` (or ``text``) and
    ``identity``. Without: a picture in a sub-folder belongs to the person of that name. In both a picture without a
    person is a person of its own, and a text file beside a picture is its caption if it has no other.
    """

    version = 1
    Spec = ImageFolderSpec

    @staticmethod
    def layout(spec: ImageFolderSpec) -> tuple[list[Entry], list[str]]:
        """Entries by metadata if there is such a file, else those in the folder and in its sub-folders."""
        root, label = spec.folder, spec.label
        entries, warnings = by_metadata(root, label, people=False) or ([], [])
        if not entries:
            entries = [Entry(path, path.name, label, path.name) for path in picture_files(root)]
            for person in folders(root):
                entries += [
                    Entry(path, f"{person.name}/{path.name}", label, person.name) for path in picture_files(person)
                ]
            deep = [p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and len(p.relative_to(root).parts) > 2]
            if deep:
                raise RequestError(
                    f"root = {spec.root!r}: {len(deep)} pictures lie deeper than DIR/PERSON/PICTURE, such as "
                    f"{str(deep[0].relative_to(root))!r}; list them in a metadata.csv or lay them out flat"
                )
        entries = [replace(entry, source=label, part=None) for entry in with_captions(entries)]
        return [entry if entry.caption else replace(entry, caption=spec.caption) for entry in entries], warnings
