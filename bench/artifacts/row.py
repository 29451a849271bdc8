"""Rows: the question that a row answers, and the artifacts that it is answered from.

An artifact's inputs are a flat mapping, name to artifact; a row has dozens. `RowInputs` is what they mean; `flatten`
and `unflatten` are the only places that know the names.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Generic, TypeVar, cast

from pydantic import Field

from bench.artifacts.artifact import Artifact
from bench.axes import Axes
from bench.benchmark import Evidence, Role
from lmia.metrics.judge import Estimand
from lmia.specs import Spec

T = TypeVar("T")  # an Artifact when planning, an InputRef on a worker

NOBODY, SAME_SOURCE, ANOTHER_SOURCE = "none", "same source", "another source"
# Whose pictures the negatives of a learned attack are made of; the base model's own (`base`) need nobody's.
_NEGATIVES_FROM = {"shadow": ANOTHER_SOURCE, "real": ANOTHER_SOURCE, "mix": ANOTHER_SOURCE, "part_c": SAME_SOURCE}


class RowSpec(Spec):
    """The question, as far as it is not in the inputs."""

    version: ClassVar[int] = 2
    """Of the estimates and of the row's schema; raised when either changes."""

    axes: Axes
    estimand: Estimand
    role: Role
    flags: tuple[str, ...] = ()
    evidence: Evidence = "synthetic"
    absent: dict[str, str] = Field(default_factory=dict, description="controls that have no meaning here, and why")
    access: str = "none"
    shadow: str = Field(NOBODY, description="whose pictures the attacker needs beside the target (`people_needed`)")


def people_needed(aux: object, *, shadow_target: bool) -> str:
    """Whose pictures an attacker must have beside the target: nobody's, of the same or of another source.

    Args:
        aux: what the attack model's negatives are (the axis); None where it has none.
        shadow_target: the attack trains a shadow target, for which it needs people like the target's.
    """
    return SAME_SOURCE if shadow_target else _NEGATIVES_FROM.get(str(aux), NOBODY)


@dataclass(frozen=True)
class ScoredInputs(Generic[T]):
    """A set of query pictures and what a model's attack says of them.

    Attributes:
        scores: the attack's scores of the pictures, on the target.
        query: the pictures; None where they are generated, so that nobody is on them.
        base: the scores with the base model in the target's place; None where that was not asked for.
    """

    scores: T
    query: T | None = None
    base: T | None = None


@dataclass(frozen=True)
class TargetInputs(Generic[T]):
    """What is known of one target.

    Attributes:
        seen: members: pictures (or people) that the target was trained on, or pictures that it drew.
        unseen: unseen people of the same source; None for generated pictures.
        other: pictures of another source, or of the auxiliary set; None where the question has none.
        model: the target, which tells whom it was trained on; None for generated pictures.
        trained_loss: scores of the attack "loss" on trained photos, for the loss gap; None where not asked for.
        unseen_loss: the same on unseen people.
    """

    seen: ScoredInputs[T]
    unseen: ScoredInputs[T] | None = None
    other: ScoredInputs[T] | None = None
    model: T | None = None
    trained_loss: T | None = None
    unseen_loss: T | None = None

    def scored(self) -> list[ScoredInputs[T]]:
        """The query sets that there are."""
        return [one for one in (self.seen, self.unseen, self.other) if one is not None]


@dataclass(frozen=True)
class WorldInputs(Generic[T]):
    """One world: a target and its twin.

    Attributes:
        a: the target trained on half A.
        b: its twin, trained on half B.
        seed: of fine-tuning, generation and attack.
        condition: which marks the query pictures carry, where one world is judged on several.
    """

    a: TargetInputs[T]
    b: TargetInputs[T]
    seed: int = 0
    condition: int = 0

    @property
    def name(self) -> str:
        """Unique in a row."""
        return f"w{self.seed}m{self.condition}"


@dataclass(frozen=True)
class BlindInputs(Generic[T]):
    """Scores of a classifier that never saw a target.

    Attributes:
        halves: cross-fitted scores of both halves in one; or else
        a: of half A,
        b: of half B, and
        other: of the other source's pictures.
    """

    halves: T | None = None
    a: T | None = None
    b: T | None = None
    other: T | None = None


@dataclass(frozen=True)
class RowInputs(Generic[T]):
    """Everything that a row is made of.

    Attributes:
        worlds: in order of seed and condition.
        blind: the control that never saw a target; None where not asked for.
        sheet: pictures drawn by the first target, shown beside the row.
    """

    worlds: tuple[WorldInputs[T], ...]
    blind: BlindInputs[T] | None = None
    sheet: T | None = None


def row(spec: RowSpec, inputs: RowInputs[Artifact]) -> Artifact:
    """The row that answers a question."""
    return Artifact("row", "estimate", RowSpec.version, spec, flatten(inputs))


def flatten(inputs: RowInputs[T]) -> dict[str, T]:
    """The inputs by name; what is None has none. `unflatten` is the inverse."""
    found: dict[str, T] = {}
    for world in inputs.worlds:
        for target in ("a", "b"):
            found |= _named(getattr(world, target), f"{world.name}.{target}")
    if inputs.blind is not None:
        found |= _named(inputs.blind, "blind")
    if inputs.sheet is not None:
        found["sheet"] = inputs.sheet
    return found


def unflatten(flat: Mapping[str, T]) -> RowInputs[T]:
    """What the names mean.

    Raises:
        ValueError, TypeError: a name that `flatten` does not give.
    """
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *path, last = name.split(".")
        node = tree
        for step in path:
            node = node.setdefault(step, {})
        node[last] = value
    blind, sheet = tree.pop("blind", None), tree.pop("sheet", None)
    worlds = []
    for name, targets in tree.items():
        match = re.fullmatch(r"w(\d+)m(\d+)", name)
        if match is None or set(targets) != {"a", "b"}:
            raise ValueError(f"no input of a row: {name}")
        seed, condition = map(int, match.groups())
        worlds.append(WorldInputs(_target(targets["a"]), _target(targets["b"]), seed, condition))
    worlds.sort(key=lambda world: (world.seed, world.condition))
    return RowInputs(tuple(worlds), BlindInputs(**blind) if blind else None, sheet)


def _named(node: Any, name: str) -> Iterator[tuple[str, Any]]:
    for field in fields(node):
        value = getattr(node, field.name)
        if isinstance(value, ScoredInputs):
            yield from _named(value, f"{name}.{field.name}")
        elif value is not None:
            yield f"{name}.{field.name}", value


def _target(tree: dict[str, Any]) -> TargetInputs[Any]:
    sets = {name: ScoredInputs(**tree[name]) for name in ("seen", "unseen", "other") if name in tree}
    return TargetInputs(**cast(dict[str, Any], {**tree, **sets}))
