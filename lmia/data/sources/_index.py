"""What the sources that read local folders share: finding pictures, reading each once, leaving out what must be."""

import functools
import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from lmia.data.decoding import SUFFIXES, count_frames, decode
from lmia.data.parts import near_duplicates, thumbnail
from lmia.data.pictures import Pictures
from lmia.data.sources import DataSource
from lmia.data.sources._listing import Entry, not_read, same_person
from lmia.seeds import seed_of
from lmia.specs import RequestError, Spec, UnknownName


class FolderSpec(Spec):
    """A local folder of pictures and what is made of them.

    A picture is turned upright, cut to the square in its middle and resized (bicubic) to `size`. The path says nothing
    about the content: whoever makes an address of this spec adds `DataSource.digest`.
    """

    root: str = Field(description="the folder")
    size: int = Field(512, ge=16, le=2048, description="side in pixels that pictures are cropped and resized to")
    skip_unreadable: bool = Field(False, description="leave out pictures that cannot be read instead of stopping")
    near_duplicates: Literal["refuse", "leave_out", "keep"] = Field(
        "refuse",
        description="what to do when two persons share (nearly) the same picture: stop, leave the later one out, or "
        "keep both (which breaks the split by person)",
    )

    @property
    def folder(self) -> Path:
        """The folder as a path."""
        return Path(self.root).expanduser()


@dataclass(frozen=True)
class FolderIndex:
    """All usable pictures of a folder: source -> identity -> entries in order of their names."""

    sources: dict[str, dict[str, list[Entry]]]
    hashes: dict[str, str]  # entry name -> sha256 of the file
    digests: dict[str, str]  # source -> sha256 over names, files, captions and parts of its usable pictures
    thumbnails: dict[str, np.ndarray]  # entry name -> what near-duplicates are found by
    warnings: list[str]


Layout = Callable[[Any], tuple[list[Entry], list[str]]]  # spec -> entries, warnings


@functools.lru_cache(maxsize=8)
def read_index(spec: FolderSpec, layout: Layout) -> FolderIndex:
    """Reads a folder; once in a process, because everything that follows must see the same pictures.

    Raises:
        RequestError: there is no such folder or no picture in it, a picture cannot be read, a person is in two parts,
            or two persons share nearly the same picture (the last three as far as the spec does not allow them).
    """
    if not spec.folder.is_dir():
        raise RequestError(f"root = {spec.root!r}: there is no such folder")
    entries, warnings = layout(spec)
    if not entries:
        known = ", ".join(sorted(SUFFIXES))
        raise RequestError(f"root = {spec.root!r}: no pictures in it (known are files ending in {known})")
    warnings += not_read(spec.folder, len(entries))
    _one_part_each(entries)
    _one_spelling_each(entries)
    readable, hashes, thumbnails, bad, several = [], {}, [], [], []
    copies: dict[tuple[str, str, str], Entry] = {}
    repeated = []
    for entry in entries:
        data = entry.path.read_bytes()
        try:
            image = decode(data, entry.name)
        except RequestError as error:
            bad.append(str(error))
            continue
        pixels = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
        first = copies.setdefault((entry.source, entry.identity, pixels), entry)
        if first is not entry and spec.near_duplicates != "keep":
            repeated.append(f"{entry.name} is {first.name}")
            continue
        if count_frames(data) > 1:
            several.append(entry.name)
        readable.append(entry)
        hashes[entry.name] = hashlib.sha256(data).hexdigest()
        thumbnails.append(thumbnail(square(image, 64)))
    if bad and not spec.skip_unreadable:
        more = f" (and {len(bad) - 1} more; skip_unreadable leaves them out)" if len(bad) > 1 else ""
        raise RequestError(f"root = {spec.root!r}: {bad[0]}{more}")
    if bad:
        warnings.append(f"{len(bad)} of {len(entries)} pictures left out, unreadable: {'; '.join(bad[:3])}")
    if repeated:
        warnings.append(f"{len(repeated)} pictures left out, the same person's same picture again: {repeated[0]}")
    if several:
        warnings.append(f"of {len(several)} files with several frames the first one is used, e.g. {several[0]!r}")
    if not readable:
        raise RequestError(f"root = {spec.root!r}: none of the {len(entries)} pictures can be read")
    _sources_apart(spec, readable, hashes)
    kept = _without_duplicates(spec, readable, np.stack(thumbnails), warnings)
    sources: dict[str, dict[str, list[Entry]]] = {}
    for entry in kept:
        sources.setdefault(entry.source, {}).setdefault(entry.identity, []).append(entry)
    digests = {source: _digest(people, hashes) for source, people in sources.items()}
    small = {entry.name: row for entry, row in zip(readable, thumbnails, strict=True)}
    return FolderIndex(sources, hashes, digests, small, warnings)


def _digest(people: dict[str, list[Entry]], hashes: dict[str, str]) -> str:
    listing = [
        [identity, entry.name, hashes[entry.name], entry.caption, entry.part]
        for identity, entries in people.items()
        for entry in entries
    ]
    return hashlib.sha256(json.dumps(listing, ensure_ascii=True).encode()).hexdigest()


def _one_part_each(entries: list[Entry]) -> None:
    parts: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        known = parts.setdefault((entry.source, entry.identity), entry)
        if known.part != entry.part:
            raise RequestError(
                f"person {entry.identity!r} of source {entry.source!r} is on two sides of the split: "
                f"part {known.part!r} ({known.name}) and part {entry.part!r} ({entry.name})"
            )


def _one_spelling_each(entries: list[Entry]) -> None:
    """A person under two spellings could come to lie on both sides of a split."""
    spellings: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        if entry.named:
            known = spellings.setdefault((entry.source, same_person(entry.identity)), entry)
            if known.identity != entry.identity:
                raise RequestError(
                    f"source {entry.source!r}: {known.identity!r} ({known.name}) and {entry.identity!r} ({entry.name}) "
                    "look like one person under two spellings; give them one, or names that differ by more"
                )


def _sources_apart(spec: FolderSpec, entries: list[Entry], hashes: dict[str, str]) -> None:
    """Refuses a source whose every picture another one holds, too: the same folder twice, or a copy of it."""
    held: dict[str, set[str]] = {}
    for entry in entries:
        held.setdefault(entry.source, set()).add(hashes[entry.name])
    for one, other in itertools.permutations(held, 2):
        if held[one] <= held[other]:
            raise RequestError(
                f"root = {spec.root!r}: every picture of source {one!r} is in source {other!r}, too: they are one "
                "source under two names; take one of them away"
            )


def _without_duplicates(
    spec: FolderSpec, entries: list[Entry], thumbnails: np.ndarray, warnings: list[str]
) -> list[Entry]:
    """People are split, so a picture that two persons share could come to lie on both sides of a split."""
    pairs = near_duplicates(thumbnails, [(entry.source, entry.identity) for entry in entries])
    if not pairs:
        return entries
    examples = "; ".join(f"{entries[row].name} and {entries[later].name}" for row, later, _ in pairs[:3])
    if spec.near_duplicates == "refuse":
        raise RequestError(
            f"root = {spec.root!r}: {len(pairs)} pairs of near-duplicates under different persons: {examples} "
            "(near_duplicates: leave_out drops the later one of each)"
        )
    if spec.near_duplicates == "keep":
        warnings.append(f"{len(pairs)} pairs of near-duplicates under different persons kept: {examples}")
        return entries
    dropped: set[int] = set()
    for row, later, _ in pairs:
        if row not in dropped:
            dropped.add(later)
    warnings.append(f"{len(dropped)} pictures left out, near-duplicates under different persons: {examples}")
    return [entry for at, entry in enumerate(entries) if at not in dropped]


def square(image: np.ndarray, size: int) -> np.ndarray:
    """The middle square of a picture at the given size (bicubic)."""
    high, wide = image.shape[:2]
    side = min(high, wide)
    top, left = (high - side) // 2, (wide - side) // 2
    middle = Image.fromarray(image[top : top + side, left : left + side])
    return np.asarray(middle.resize((size, size), Image.Resampling.BICUBIC))


def check_apart(indexes: dict[str, FolderIndex]) -> None:
    """Refuses a person or (nearly) the same picture in two of several folders, which are given by what to call them.

    Only persons that are named count: a picture that is a person of its own is recognised by what it shows.
    """
    entries = [
        (label, entry, index.thumbnails[entry.name])
        for label, index in indexes.items()
        for people in index.sources.values()
        for listed in people.values()
        for entry in listed
    ]
    seen: dict[str, tuple[str, Entry]] = {}
    for label, entry, _ in entries:
        if not entry.named:
            continue
        where, other = seen.setdefault(same_person(entry.identity), (label, entry))
        if where != label:
            raise RequestError(
                f"person {entry.identity!r} is both in {where} ({other.name}) and in {label} ({entry.name})"
            )
    pairs = near_duplicates(np.stack([row for *_, row in entries]), [label for label, *_ in entries])
    if pairs:
        (one, first, _), (two, second, _) = (entries[at] for at in pairs[0][:2])
        raise RequestError(
            f"{len(pairs)} pictures are (nearly) the same in two folders, such as {first.name} in {one} and "
            f"{second.name} in {two}: a picture cannot be on both sides"
        )


def _drawn(source: str, entries: list[Entry], seed: int | None) -> list[int]:
    """Places of a person's photos in the order that a seed draws; None leaves them as they are."""
    places = list(range(len(entries)))
    return places if seed is None else sorted(places, key=lambda at: seed_of("photo", seed, source, entries[at].name))


class FolderSource(DataSource):
    """A data source that reads a local folder; subclasses say how the folder is laid out."""

    Spec = FolderSpec
    draws_photos = True

    @staticmethod
    def layout(spec: Any) -> tuple[list[Entry], list[str]]:
        """The entries below the root and warnings about what is not used."""
        raise AssertionError("a folder source defines layout")

    @classmethod
    def index(cls, spec: FolderSpec) -> FolderIndex:
        """All that is known of the folder, read once in a process; see `read_index` for what is refused."""
        return read_index(spec, cls.layout)

    @classmethod
    def check(cls, spec: FolderSpec) -> list[str]:
        """Reads the folder, once in a process; see `read_index` for what is refused."""
        return list(cls.index(spec).warnings)

    @classmethod
    def sources(cls, spec: FolderSpec) -> list[str]:
        """The sources that there are in the folder."""
        return list(cls.index(spec).sources)

    @classmethod
    def digest(cls, spec: FolderSpec, source: str) -> str:
        """sha256 over names, files, captions and parts of the pictures of a source that are used."""
        cls._people(spec, source)
        return cls.index(spec).digests[source]

    @classmethod
    def identities(cls, spec: FolderSpec, source: str) -> list[str]:
        """All persons of a source, sorted by name."""
        return sorted(cls._people(spec, source))

    @classmethod
    def parts(cls, spec: FolderSpec, source: str) -> dict[str, list[str]] | None:
        """The split that the folder's metadata prescribes: part -> persons; None if it prescribes none."""
        parts: dict[str, list[str]] = {}
        for identity, entries in sorted(cls._people(spec, source).items()):
            if entries[0].part is not None:
                parts.setdefault(entries[0].part, []).append(identity)
        return parts or None

    @classmethod
    def captions(cls, spec: FolderSpec, source: str) -> dict[str, str | None]:
        """Captions by picture name."""
        return {entry.name: entry.caption for entries in cls._people(spec, source).values() for entry in entries}

    @classmethod
    def photos(cls, spec: FolderSpec, source: str, identity: str) -> int:
        """How many pictures there are of a person."""
        return len(cls._entries(spec, source, identity))

    @classmethod
    def pictures(
        cls,
        spec: FolderSpec,
        source: str,
        part: str,
        identities: list[str],
        photos: range | list[int],
        *,
        seed: int | None = None,
    ) -> Pictures:
        """The given pictures, squared; a number that a person lacks is an error.

        Args:
            spec: the folder.
            source: of the pictures.
            part: of the pictures.
            identities: whose pictures.
            photos: which of each person, by number.
            seed: of the order that numbers count in; None: the order of file names, in which photos of one kind often
                stand together (first the neutral, then the smiling ones). Ids name the place in file names' order.
        """
        ids, names, texts, images = [], [], [], []
        hashes = cls.index(spec).hashes
        for identity in identities:
            entries = cls._entries(spec, source, identity)
            order = _drawn(source, entries, seed)
            for number in photos:
                if not 0 <= number < len(entries):
                    raise RequestError(
                        f"photo {number} of {identity!r} ({source}) asked for, but there are only {len(entries)}"
                    )
                entry = entries[order[number]]
                data = entry.path.read_bytes()
                if hashlib.sha256(data).hexdigest() != hashes[entry.name]:
                    raise RequestError(f"picture {entry.name!r} has changed since the folder was read")
                ids.append(f"{source}/{identity}/{order[number]}")
                names.append(identity if entry.named else ids[-1])  # two folders may hold files of the same name
                texts.append(entry.caption)
                images.append(square(decode(data, entry.name), spec.size))
        stack = np.stack(images) if images else np.zeros((0, spec.size, spec.size, 3), np.uint8)
        count = len(ids)
        return Pictures.of(ids, stack, identity=names, source=[source] * count, part=[part] * count, caption=texts)

    @classmethod
    def _people(cls, spec: FolderSpec, source: str) -> dict[str, list[Entry]]:
        sources = cls.index(spec).sources
        if source not in sources:
            raise UnknownName(f"source in {spec.root!r}", source, sources)
        return sources[source]

    @classmethod
    def _entries(cls, spec: FolderSpec, source: str, identity: str) -> list[Entry]:
        people = cls._people(spec, source)
        if identity not in people:
            raise UnknownName(f"identity in source {source!r}", identity, people)
        return people[identity]
