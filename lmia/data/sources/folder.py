"""A local folder of pictures: ``ROOT/SOURCE/IDENTITY/*.png``, or any tree described by a metadata file."""

from pathlib import Path, PurePosixPath
from typing import Any

from lmia.data.sources import SOURCES
from lmia.data.sources._shelf import SUFFIXES, Entry, FolderSource, folders, metadata_rows, picture_files, with_captions
from lmia.specs import RequestError, UnknownName

_COLUMNS = ("file_name", "identity", "source", "caption", "text", "part")


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
    def layout(root: Path) -> tuple[list[Entry], list[str]]:
        """Entries by metadata if there is such a file, by folders otherwise."""
        rows = list(metadata_rows(root))
        if rows or (root / "metadata.csv").is_file() or (root / "metadata.jsonl").is_file():
            return _by_metadata(root, rows)
        return _by_folders(root)


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


def _by_metadata(root: Path, rows: list[tuple[str, dict[str, Any]]]) -> tuple[list[Entry], list[str]]:
    entries: dict[str, Entry] = {}
    unused: set[str] = set()
    for where, row in rows:
        unused |= set(row) - set(_COLUMNS)
        for column in ("file_name", "identity"):
            if column not in row:
                raise UnknownName(f"{where}: column", column, row)
            if not isinstance(row[column], str | int) or str(row[column]).strip() == "":
                raise RequestError(f"{where}: {column} = {row[column]!r}: expected a name")
        name = PurePosixPath(str(row["file_name"]))
        if name.is_absolute() or ".." in name.parts:
            raise RequestError(f"{where}: file_name = {str(name)!r} leads out of the folder")
        path = root / name
        if not path.is_file():
            raise RequestError(f"{where}: file_name = {str(name)!r}: there is no such file")
        if str(name) in entries:
            raise RequestError(f"{where}: file_name = {str(name)!r} is listed twice")
        text = row.get("caption") or row.get("text") or None
        entries[str(name)] = Entry(
            path=path,
            name=str(name),
            source=str(row.get("source") or root.resolve().name),
            identity=str(row["identity"]).strip(),
            caption=str(text) if text else None,
            part=str(row["part"]) if row.get("part") else None,
        )
    warnings = []
    if unused:
        warnings.append(f"columns of the metadata that are not used: {', '.join(sorted(map(str, unused)))}")
    on_disk = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.relative_to(root).parts)
    }
    unlisted = sorted(on_disk - set(entries))
    if unlisted:
        warnings.append(f"{len(unlisted)} pictures are not in the metadata and are left out, e.g. {unlisted[0]!r}")
    return with_captions([entries[name] for name in sorted(entries)]), warnings
