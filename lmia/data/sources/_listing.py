"""Which picture files a folder holds and what lies beside them: captions, metadata, and what is none of these."""

import csv
import io
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from lmia.data.decoding import SUFFIXES
from lmia.specs import RequestError, UnknownName

COLUMNS = ("file_name", "identity", "source", "caption", "text", "part")
SPLITS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval"})
"""Folder names that data-set libraries use for a split, so that they are no persons."""
BESIDE = {
    *(".txt", ".caption", ".csv", ".jsonl", ".json", ".yaml", ".yml", ".toml", ".md", ".html", ".xml"),
    *(".npz", ".npy", ".safetensors", ".parquet", ".db"),
}
"""Endings of files that lie beside pictures without being any."""
REPEATS = re.compile(r"^\d+_(?=\S)")
"""What kohya's trainers put before a folder's name: how often its pictures are repeated."""

LEFT_BEHIND = frozenset({"@eadir", "__macosx", "#recycle", "#snapshot", "$recycle.bin", "__pycache__", "lost+found"})
"""Folders that network disks, archives and systems make beside one's own, in small letters."""


@dataclass(frozen=True)
class Entry:
    """One picture file and what is known about it.

    Attributes:
        path: where it is.
        name: relative to the root, with forward slashes.
        source: the source that it belongs to.
        identity: the person on it; its own name where nobody is named.
        caption: its caption.
        part: the part of a prescribed split.
        named: whether somebody said who is on it.
    """

    path: Path
    name: str
    source: str
    identity: str
    caption: str | None = None
    part: str | None = None
    named: bool = True


def spelled(name: str) -> str:
    """A name in one Unicode spelling (NFC), without space around it: file systems differ in theirs."""
    return unicodedata.normalize("NFC", name).strip()


def same_person(name: str) -> str:
    """A key under which spellings of one name are equal: case, width, and which space or underscore."""
    return re.sub(r"[\s_]+", " ", unicodedata.normalize("NFKC", name)).strip().casefold()


def is_hidden(name: str) -> bool:
    """Whether a file or folder is a program's own: hidden, or a folder that systems and archives leave behind."""
    return name.startswith(".") or name.casefold() in LEFT_BEHIND


def is_picture(path: Path) -> bool:
    """Whether a file's ending says that it is a picture; hidden files are none of ours."""
    return path.suffix.lower() in SUFFIXES and not is_hidden(path.name) and path.is_file()


def picture_files(folder: Path) -> list[Path]:
    """Picture files right in a folder, by name."""
    return sorted(path for path in folder.iterdir() if is_picture(path))


def folders(folder: Path) -> list[Path]:
    """Folders right in a folder, by name, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def visible(root: Path) -> Iterator[Path]:
    """All files below a folder, without hidden ones and what lies in hidden folders."""
    for path in root.rglob("*"):
        if path.is_file() and not any(map(is_hidden, path.relative_to(root).parts)):
            yield path


def not_read(root: Path, used: int) -> list[str]:
    """A warning that counts the files that are no pictures to us.

    Raises:
        RequestError: there are at least as many of them as pictures: most of what was given would be left out.
    """
    found = Counter(p.suffix.lower() or "no ending" for p in visible(root) if p.suffix.lower() not in SUFFIXES | BESIDE)
    if not found:
        return []
    kinds = ", ".join(f"{kind} ({count})" for kind, count in found.most_common(5))
    text = f"{found.total()} files are not read as pictures: {kinds}"
    if found.total() >= max(1, used):
        raise RequestError(
            f"root = {str(root)!r}: {text}, and only {used} are; convert them to PNG or take them out of the folder"
        )
    return [text]


def read_text(path: Path) -> str:
    """A text file in UTF-8, or in what its byte order mark says.

    Raises:
        RequestError: it is in another encoding; names the file and the byte.
    """
    data = path.read_bytes()
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise RequestError(
            f"{path}: not {encoding.removesuffix('-sig').upper()} (byte {error.start + 1}); save it as UTF-8"
        ) from None


def caption_beside(path: Path) -> str | None:
    """The caption in a text file of the same name beside a picture, `.txt` or (kohya) `.caption`."""
    found = {end: read_text(file).strip() for end in (".txt", ".caption") if (file := path.with_suffix(end)).is_file()}
    texts = {text for text in found.values() if text}
    if len(texts) > 1:
        raise RequestError(f"{path}: its .txt and its .caption say different things; keep one")
    return texts.pop() if texts else None


def with_captions(entries: list[Entry]) -> list[Entry]:
    """Entries that have no caption get the one from the text file beside them, if there is one."""
    return [entry if entry.caption else replace(entry, caption=caption_beside(entry.path)) for entry in entries]


def has_metadata(folder: Path) -> bool:
    """Whether a metadata file says what is in a folder."""
    return any((folder / f"metadata.{end}").is_file() for end in ("csv", "jsonl"))


def metadata_rows(root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of ``metadata.csv`` or ``metadata.jsonl``, each with where it stands."""
    table, lines = root / "metadata.csv", root / "metadata.jsonl"
    if table.is_file() and lines.is_file():
        raise RequestError(f"{root}: both metadata.csv and metadata.jsonl; keep one")
    if table.is_file():
        for number, row in enumerate(csv.DictReader(io.StringIO(read_text(table))), start=2):
            if None in row or None in row.values():
                raise RequestError(f"{table} line {number}: not as many fields as the header has")
            yield f"{table} line {number}", dict(row)
        return
    for number, line in enumerate(read_text(lines).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise RequestError(f"{lines} line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise RequestError(f"{lines} line {number}: not an object")
        yield f"{lines} line {number}", row


def by_metadata(root: Path, source: str, *, people: bool = True, below: str = "") -> tuple[list[Entry], list[str]]:
    """Entries as the metadata file of a folder lists them, and warnings.

    Args:
        root: the folder with the metadata file.
        source: the source of pictures whose row names none.
        people: whether each row must name its person; otherwise a picture without one is a person of its own.
        below: what entry names begin with, where the folder lies in another one.

    Raises:
        RequestError: a row is wrong, names no picture, or there is none.
    """
    entries: dict[str, Entry] = {}
    unused: set[str] = set()
    for where, row in metadata_rows(root):
        unused |= set(row) - set(COLUMNS)
        for column in ("file_name", "identity") if people or "identity" in row else ("file_name",):
            if column not in row:
                raise UnknownName(f"{where}: column", column, row)
            if isinstance(row[column], bool) or not isinstance(row[column], str | int) or not str(row[column]).strip():
                raise RequestError(f"{where}: {column} = {row[column]!r}: expected a name")
        name = PurePosixPath(str(row["file_name"]))
        if name.is_absolute() or ".." in name.parts:
            raise RequestError(f"{where}: file_name = {str(name)!r} leads out of the folder")
        path = root / name
        if not path.is_file():
            raise RequestError(f"{where}: file_name = {str(name)!r}: there is no such file")
        if str(name) in entries:
            raise RequestError(f"{where}: file_name = {str(name)!r} is listed twice")
        entries[str(name)] = Entry(
            path=path,
            name=below + str(name),
            source=_text(row, "source", where) or source,
            identity=spelled(str(row["identity"])) if "identity" in row else below + str(name),
            caption=_text(row, "caption", where) or _text(row, "text", where),
            part=_text(row, "part", where),
            named="identity" in row,
        )
    if not entries:
        raise RequestError(f"{root}: its metadata file lists no picture; fill it, or take it away")
    warnings = []
    if unused:
        warnings.append(f"columns of the metadata that are not used: {', '.join(sorted(map(str, unused)))}")
    on_disk = {p.relative_to(root).as_posix() for p in visible(root) if p.suffix.lower() in SUFFIXES}
    unlisted = sorted(on_disk - set(entries))
    if unlisted:
        warnings.append(f"{len(unlisted)} pictures are not in the metadata and are left out, e.g. {unlisted[0]!r}")
    return with_captions([entries[name] for name in sorted(entries)]), warnings


def _text(row: dict[str, Any], column: str, where: str) -> str | None:
    """What a row says in a column that holds a text or nothing."""
    value = row.get(column)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, str):
        kind = type(value).__name__
        raise RequestError(f"{where}: {column} = {value!r}: expected one text, got {kind}; keep one, or leave it empty")
    return value.strip() or None
