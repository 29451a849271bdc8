"""Labeled Faces in the Wild, from a local copy: ``ROOT/Name_Surname/Name_Surname_0001.jpg``.

Huang, Ramesh, Berg and Learned-Miller, "Labeled Faces in the Wild", University of Massachusetts, 2007: 13,233
pictures of 5,749 people, 1,680 of them with two or more. Only a folder that is already there is read. The collection
is known to hold a few pictures under two names; ``near_duplicates: leave_out`` leaves the later ones out.
"""

import re

from lmia.data.sources import SOURCES
from lmia.data.sources._index import FolderSource, FolderSpec
from lmia.data.sources._listing import Entry, folders, picture_files, with_captions
from lmia.specs import RequestError


@SOURCES.register("lfw")
class Lfw(FolderSource):
    """The LFW folder; its only source is called ``lfw``."""

    version = 2

    @staticmethod
    def layout(spec: FolderSpec) -> tuple[list[Entry], list[str]]:
        """One folder a person; file names must be the folder's name and four digits."""
        root, entries = spec.folder, []
        for person in folders(root):
            for path in picture_files(person):
                if not re.fullmatch(rf"{re.escape(person.name)}_\d{{4}}", path.stem):
                    raise RequestError(
                        f"root = {str(root)!r}: {person.name}/{path.name} is not named as in LFW "
                        f"(expected {person.name}_0001.jpg); for other collections there is the source 'folder'"
                    )
                entries.append(Entry(path, f"{person.name}/{path.name}", "lfw", person.name))
        return with_captions(entries), []
