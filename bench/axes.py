"""The axes of the grid, each declared once: rows, tables, page, filters and documentation derive from here.

A new axis is one field of `Axes` (and what the plan makes of its value). Null: the axis does not apply to the attack.
"""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from lmia.attacks import ATTACKS
from lmia.data.marks import MARKS
from lmia.finetune.methods import METHODS
from lmia.specs import Spec

AUX = ("shadow", "part_c", "real", "base", "mix")
PROMPTS = ("class", "generic", "caption")
CAPTIONS = ("caption", "class", "empty")
QUERIES = ("same_source", "member_person", "other_source", "wild", "generated")

Scalar = str | int | float | None
BelongsTo = Literal["target", "attack", "query"]


class Sources(Spec):
    """Which source of the data plays which part."""

    institutions: tuple[str, str] = Field(("north", "south"), description="two sources seen in fine-tuning only")
    wild: str = Field("wild", description="pictures of anybody, for the query class `wild`")

    @model_validator(mode="after")
    def _three(self) -> "Sources":
        first, second = self.institutions
        if first == second:
            raise ValueError(f"sources.institutions = [{first}, {second}]: two different sources are needed")
        if self.wild in self.institutions:
            raise ValueError(
                f"sources.wild = {self.wild!r}: it is one of sources.institutions, and would be told from itself"
            )
        return self

    def other(self, source: str) -> str:
        """The institution that is not `source`."""
        first, second = self.institutions
        return second if source == first else first


def _institutions(sources: Sources) -> tuple[str, ...]:
    """The benchmark's `sources.institutions`."""
    return sources.institutions


def _marks(sources: Sources) -> list[str]:
    """Every watermark."""
    return MARKS.names()


def _marks_or_both(sources: Sources) -> list[str]:
    """Every watermark, `both`."""
    return [*_marks(sources), "both"]


def _methods(sources: Sources) -> list[str]:
    """Every fine-tuning method."""
    return METHODS.names()


def _attacks(sources: Sources) -> list[str]:
    """Every attack (`lmia attacks`)."""
    return [name for name in ATTACKS.names() if ATTACKS.get(name).role == "attack"]


@dataclass(frozen=True)
class Axis:
    """What is known of an axis beside its name and type, which are those of the field of `Axes`.

    Attributes:
        title: for people, as in the head of a column.
        belongs_to: what a value says something about: the target, the attack that is tried on it, or the query.
        usual: the value where a benchmark says nothing.
        description: one line.
        values: what is allowed, or a function that says it, given the benchmark's sources, and whose docstring names
            it; None: whatever the field's type allows.
        needs: the axis applies to attacks that have one of these needs; empty: to every attack.
    """

    title: str
    belongs_to: BelongsTo
    usual: Scalar
    description: str
    values: tuple[str, ...] | Callable[[Sources], Iterable[str]] | None = None
    needs: frozenset[str] = frozenset()

    def allowed(self, sources: Sources) -> list[str] | None:
        """The values that may be asked for; None: whatever the field's type allows."""
        if self.values is None:
            return None
        return list(self.values(sources) if callable(self.values) else self.values)

    def applies(self, needs: Iterable[str]) -> bool:
        """Whether the axis means anything to an attack with these needs."""
        return not self.needs or bool(self.needs & set(needs))


_DRAWN = frozenset({"positives"})


class Axes(Spec):
    """One point of the grid. Null: the axis does not apply to the attack."""

    source: Annotated[
        str | None,
        Axis("source", "target", "north", "where the target's training people come from", _institutions),
    ] = None
    aux: Annotated[
        str | None,
        Axis("negatives", "attack", "shadow", "the attack model's negatives", AUX, frozenset({"negatives"})),
    ] = None
    target_mark: Annotated[
        str | None,
        Axis("target mark", "target", "none", "watermark on the target's training pictures", _marks),
    ] = None
    member_mark: Annotated[
        str | None,
        Axis(
            "members' mark",
            "target",
            "none",
            "watermark on queried members; 'both' averages over states",
            _marks_or_both,
        ),
    ] = None
    nonmember_mark: Annotated[
        str | None,
        Axis("non-members' mark", "target", "none", "watermark on queried non-members; likewise", _marks_or_both),
    ] = None
    guidance: Annotated[
        float | None,
        Field(ge=0, le=100),
        Axis("guidance", "attack", 7.5, "guidance scale, 0 unconditional, 1 conditional", needs=_DRAWN),
    ] = None
    prompt: Annotated[
        str | None,
        Axis("prompt", "attack", "class", "prompt of the generated sets", PROMPTS, _DRAWN),
    ] = None
    steps: Annotated[
        int | None,
        Field(ge=1, le=1000),
        Axis("inference steps", "attack", 100, "inference steps of the generated sets", needs=_DRAWN),
    ] = None
    epochs: Annotated[
        int | None,
        Field(ge=1),
        Axis("epochs", "target", 400, "fine-tuning epochs of the target"),
    ] = None
    method: Annotated[
        str | None,
        Axis("fine-tuning", "target", "full", "fine-tuning method of the target", _methods),
    ] = None
    attack: Annotated[
        str | None,
        Axis("attack", "attack", "generated_set_classifier", "the attack", _attacks),
    ] = None
    captions: Annotated[
        str | None,
        Axis(
            "captions",
            "attack",
            "caption",
            "captions that the attack is given with a query picture",
            CAPTIONS,
            frozenset({"captions", "model"}),
        ),
    ] = None
    query: Annotated[
        str | None,
        Axis("non-members", "query", "same_source", "query class of the non-members", QUERIES),
    ] = None
    base: Annotated[
        str | None,
        Axis("base model", "target", "tiny", "the model that was fine-tuned: an embedded one, a folder, a hub id"),
    ] = None

    @classmethod
    def usual(cls) -> "Axes":
        """The point at which every axis has its usual value."""
        return cls.model_validate({name: axis.usual for name, axis in AXES.items()})


AXES: dict[str, Axis] = {
    name: next(item for item in field.metadata if isinstance(item, Axis)) for name, field in Axes.model_fields.items()
}
"""Every axis by its name, in the order in which they are shown."""
TARGET_AXES = tuple(name for name, axis in AXES.items() if axis.belongs_to == "target")
"""Which say what an attack is tried on."""
ENTRANT_AXES = ("attack", *(name for name, axis in AXES.items() if axis.belongs_to == "attack" and name != "attack"))
"""Which say what attack it is: its name and what it is given."""


def over_usual(chosen: object) -> object:
    """Chosen values over the usual ones, for validation as `Axes`; what is no mapping is left to the validation."""
    return Axes.usual().model_dump() | chosen if isinstance(chosen, dict) else chosen


def idle_axes(needs: Iterable[str]) -> set[str]:
    """Names of the axes that mean nothing to an attack with these needs."""
    return {name for name, axis in AXES.items() if not axis.applies(needs)}


def as_markdown() -> str:
    """The axes as documentation: `python -m bench.axes > docs/axes.md`."""
    lines = [
        "# The axes of a benchmark",
        "",
        "Written by `python -m bench.axes` from the declarations in `bench/axes.py`. An axis that does not apply to an",
        "attack is null and does not multiply cells.",
        "",
        "| axis | shown as | says something about | values | usual | applies to attacks that need | |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, axis in AXES.items():
        # A registered method is no reason to rewrite this.
        known = axis.values
        told = str(known.__doc__).rstrip(".") if callable(known) else ", ".join(f"`{value}`" for value in known or ())
        needs = " or ".join(sorted(axis.needs)) or "anything"
        about = f"| `{name}` | {axis.title} | the {axis.belongs_to} | {told or 'any'} | `{axis.usual}` "
        lines.append(f"{about}| {needs} | {axis.description} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(as_markdown())
