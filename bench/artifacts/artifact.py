"""The graph's node: an artifact that somebody asked for, addressed by what it is and what it is made of."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bench.store import digest_of

ADDRESS_DIGITS = 20


@dataclass(frozen=True, eq=False)
class Artifact:
    """An immutable result, named by (kind, method, version, spec without defaults, addresses of inputs).

    Attributes:
        kind: pictures, model, attack (what an attack learned), scores or row.
        method: the registered method that makes it.
        version: the method's version.
        spec: what it is, without inputs.
        inputs: the artifacts that it is made of, by the role that they play.
        num_slices: how many jobs make it (part of what it is: a job's batch decides the rounding).
    """

    kind: str
    method: str
    version: int
    spec: Any  # a Spec; which one depends on kind and method
    inputs: Mapping[str, "Artifact"] = field(default_factory=dict)
    num_slices: int = 1

    @cached_property
    def address(self) -> str:
        """Hash of everything that makes this artifact what it is."""
        inputs = {name: artifact.address for name, artifact in self.inputs.items()}
        what = [self.kind, self.method, self.version, self.spec.identity(), inputs]
        if self.num_slices > 1:
            what.append(self.num_slices)
        return digest_of(what)[:ADDRESS_DIGITS]

    @cached_property
    def resolved(self) -> dict[str, Any]:
        """The spec with its defaults as plain values, worked out once: not to be changed."""
        return self.spec.resolved()

    def __hash__(self) -> int:
        return hash(self.address)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Artifact) and other.address == self.address

    def __repr__(self) -> str:
        return f"{self.kind}:{self.method}:{self.address}"


def walk(artifacts: Iterable[Artifact]) -> Iterator[Artifact]:
    """Every artifact of the graph once, inputs before what is made of them."""
    seen: set[str] = set()
    stack: list[tuple[Artifact, bool]] = [(artifact, False) for artifact in reversed(list(artifacts))]
    while stack:
        artifact, ready = stack.pop()
        if artifact.address in seen:
            continue
        if ready:
            seen.add(artifact.address)
            yield artifact
        else:
            stack.append((artifact, True))
            stack.extend((i, False) for i in artifact.inputs.values() if i.address not in seen)


def num_slices(count: int, most: int) -> int:
    """How many slices of at most `most` records hold `count` of them."""
    return -(-count // most)


def slice_of(count: int, slices: int, number: int) -> range:
    """The records of a slice: consecutive, as even as they can be."""
    bounds = [count * k // slices for k in range(slices + 1)]
    return range(bounds[number], bounds[number + 1])
