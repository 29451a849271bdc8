"""What the store's files say: manifests and receipts, read as untrusted input.

A file of a store may be damaged, or the store somebody else's. So nothing is taken from a record that does not
follow from the layout: a part's key is the only one that its name, content and slice can have, names inside an
artifact are plain and relative, and a manifest's spec, inputs and parts must have the digests that its own file
name carries. Beside its fields each record has a checksum (`seal`), so that no bit of it changes unnoticed.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from typing_extensions import TypedDict  # pydantic wants it before Python 3.12

SHORT = 12  # hex digits of a digest in a manifest's name: staleness, not security
SEAL = "check"
MAX_PART_BYTES = 1 << 40


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """The value with its checksum beside its fields."""
    return {**value, SEAL: digest_of(value)}


def unseal(value: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `seal`; what was written before there were checksums has none.

    Raises:
        ValueError: the value is not the one that was sealed.
    """
    fields = {name: item for name, item in value.items() if name != SEAL}
    if SEAL in value and value[SEAL] != digest_of(fields):
        raise ValueError("its checksum does not fit")
    return fields


def plain_name(name: str) -> str:
    """A relative path below a folder, as it is; refused when it could lead anywhere else.

    Raises:
        ValueError: it is absolute, has empty, `.` or `..` steps, control characters or backslashes, or is too long.
    """
    steps = name.split("/")
    if any(step in ("", ".", "..") or len(step.encode(errors="replace")) > 255 for step in steps) or len(name) > 1024:
        raise ValueError(f"{name[:80]!r} is no plain relative name")
    if not name.isprintable() or "\\" in name:
        raise ValueError(f"{name[:80]!r} has characters that no name has")
    return name


Name = Annotated[str, AfterValidator(plain_name)]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{1,64}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Kind = Annotated[str, Field(pattern=r"^[a-z]+$")]
SliceName = Annotated[str, Field(pattern=r"^[0-9]{5,}of[0-9]{5,}$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


R = TypeVar("R")


class Part(_Record):
    """One immutable file of an artifact: `name` inside the artifact, `key` in the store."""

    name: Name
    key: str
    sha256: Sha256
    size: int = Field(ge=0, le=MAX_PART_BYTES)


class Slice(_Record):
    """Who made a slice, and what it cost."""

    slice: SliceName
    numerics: str
    cost: dict[str, float | None]
    made_at: str
    node: str


class Receipt(Slice):
    """A finished slice: what it wrote."""

    parts: tuple[Part, ...]
    facts: dict[str, Any]

    def slice_only(self) -> Slice:
        """Without what it wrote."""
        return Slice(**{name: getattr(self, name) for name in Slice.model_fields})


class Input(TypedDict):
    """An artifact's input: its address and the short digest of its content."""

    address: Hex
    digest: Hex


class Manifest(_Record):
    """What an artifact is: its spec, its inputs' contents, its parts and the figures of its making.

    `key` is where it lies, which is no part of it.
    """

    kind: Kind
    address: Hex
    method: str
    version: int
    spec: dict[str, Any]
    inputs: dict[str, Input]
    parts: tuple[Part, ...]
    digest: Sha256
    facts: dict[str, Any] = Field(default_factory=dict)
    slices: tuple[Slice, ...] = ()
    key: str = Field("", exclude=True)

    @model_validator(mode="after")
    def _parts_lie_where_they_must(self) -> "Manifest":
        folder, slices = f"parts/{self.kind}-{self.address}", {one.slice for one in self.slices}
        for part in self.parts:
            check_part(part, folder, slices)
        if len({part.name for part in self.parts}) < len(self.parts):
            raise ValueError("two parts have one name")
        if self.digest != content_digest(self.parts):
            raise ValueError("its digest is not that of its parts")
        return self

    @property
    def numerics(self) -> list[str]:
        """The numerics classes of the machines that made the parts."""
        return sorted({s.numerics for s in self.slices if s.numerics})

    def total(self, figure: str) -> float:
        """Sum of a cost figure over the slices."""
        return float(sum(s.cost.get(figure) or 0 for s in self.slices))

    @property
    def own_key(self) -> str:
        """The key that its content gives it."""
        spec = digest_of([self.method, self.version, self.spec])[:SHORT]
        inputs = inputs_digest({name: one["digest"] for name, one in self.inputs.items()})
        return manifest_key(self.kind, self.address, spec, inputs, self.digest)


def check_part(part: Part, folder: str, slices: set[str]) -> None:
    """Whether a part's key is the one that its name, its content and one of the slices give it.

    Raises:
        ValueError: it is not.
    """
    name = part.key.removeprefix(f"{folder}/").partition("-")[0]
    if name not in slices or part.key != part_key(folder, name, part.sha256, part.name):
        raise ValueError(f"part {part.name!r} does not lie at {part.key[:120]!r}")


def parse(model: type[R], text: str | bytes) -> R:
    """A record (a pydantic model, a dataclass, a list of them) from its JSON text.

    Raises:
        ValueError: it is none; in one line.
    """
    try:
        return _adapter(model).validate_json(text)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None


@cache
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)


@dataclass(frozen=True)
class InputRef:
    """An input as a worker needs it: where its manifest lies and the short digest of its content."""

    address: str
    digest: str
    manifest: str


@dataclass(frozen=True)
class Ref:
    """An artifact that is to be made: everything that a worker needs to know of it, as plain values."""

    kind: str
    address: str
    method: str
    version: int
    spec: dict[str, Any]
    inputs: dict[str, InputRef]
    num_slices: int = 1

    @property
    def spec_digest(self) -> str:
        """Digest of method, version and resolved spec."""
        return digest_of([self.method, self.version, self.spec])[:SHORT]

    @property
    def inputs_digest(self) -> str:
        """Digest of the inputs' contents."""
        return inputs_digest({name: ref.digest for name, ref in self.inputs.items()})

    @property
    def folder(self) -> str:
        """Prefix of the artifact's parts."""
        return f"parts/{self.kind}-{self.address}"


@dataclass(frozen=True)
class Entry:
    """What a manifest's file name says."""

    kind: str
    address: str
    spec: str
    inputs: str
    digest: str
    key: str

    @classmethod
    def of(cls, name: str) -> "Entry | None":
        """What a file name under manifests/ says; None where it is no manifest's."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        kind, address, spec, inputs, digest = match.groups()
        return cls(kind, address, spec, inputs, digest, key=f"manifests/{name}")


_NAME = re.compile(r"([a-z]+)-([0-9a-f]+)\.([0-9a-f]+)\.([0-9a-f]+)\.([0-9a-f]+)\.json")


def inputs_digest(digests: Mapping[str, str]) -> str:
    """Short digest of the (short digests of the) contents of all inputs, by name."""
    return digest_of(dict(digests))[:SHORT]


def content_digest(parts: tuple[Part, ...] | list[Part]) -> str:
    """Digest of an artifact's content: of the names and digests of its parts."""
    return digest_of([[part.name, part.sha256] for part in parts])


def slice_name(number: int, of: int) -> str:
    """Name of a slice, the same for every run: its job's name in the store."""
    return f"{number:05d}of{of:05d}"


def part_key(folder: str, slice_name: str, sha256: str, name: str) -> str:
    """Where a part lies."""
    return f"{folder}/{slice_name}-{sha256}{PurePosixPath(name).suffix}"


def manifest_key(kind: str, address: str, spec: str, inputs: str, digest: str) -> str:
    """Where a manifest lies."""
    return f"manifests/{kind}-{address}.{spec}.{inputs}.{digest[:SHORT]}.json"
