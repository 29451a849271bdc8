"""Which people and which of their photos a cell's sets of real pictures hold.

The attacker's own material comes from part C of the target's source or from part aux of the other institution, never
from the halves A and B.
"""

from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from bench.artifacts.artifact import Artifact
from bench.artifacts.pictures import RealSpec, marked_set, real_set
from bench.benchmark import Data
from bench.cells import Cell
from lmia.data.captions import class_prompt
from lmia.data.parts import assign
from lmia.data.sources import SOURCES
from lmia.resolve import resolve_base
from lmia.specs import RequestError

T = TypeVar("T")


class Short(NamedTuple):
    """A source that has fewer people than all parts together.

    Attributes:
        source: its name.
        people: how many each part has.
        names: who is there.
        seed: of the split.
    """

    source: str
    people: dict[str, int]
    names: list[str]
    seed: int


class Answers:
    """What the data says, asked once for all cells; `tell` hears what was left out."""

    def __init__(self, tell: Callable[[str], None]):
        self.tell = tell
        self._known: dict[Hashable, Any] = {}
        self.asked: dict[Hashable, set[str]] = {}
        """Parts that cells ask of a source, by the source's key."""
        self.short: dict[Hashable, Short] = {}
        """Sources with fewer people than all parts together have."""

    def know(self, key: Hashable, answer: object) -> None:
        """Put an answer in the place of what was found."""
        self._known[key] = answer

    def once(self, key: Hashable, ask: Callable[[], T]) -> T:
        """The answer to `ask`, which `key` stands for."""
        if key not in self._known:
            self._known[key] = ask()
        return self._known[key]


def share(answers: Answers) -> bool:
    """Divides the people of sources that are too small for all parts among those that are asked of them.

    Returns:
        Whether there is such a source, so that rows have to be asked for again.

    Raises:
        RequestError: one is too small for that, too; says for every source what is needed and what is there.
    """
    lines, missing = [], False
    for key, (source, people, names, seed) in answers.short.items():
        wanted = {part: count for part, count in people.items() if part in answers.asked[key]}
        counts = ", ".join(f"{part} {count}" for part, count in wanted.items())
        lines.append(f"source {source!r}: {sum(wanted.values())} people are needed ({counts}), there are {len(names)}")
        missing |= sum(wanted.values()) > len(names)
        if sum(wanted.values()) <= len(names):
            answers.know(key, assign(names, wanted, seed))
    if missing:
        raise RequestError(f"people: {'; '.join(dict.fromkeys(lines))}; lower people.PART, or add people")
    again = bool(answers.short)
    answers.short.clear()
    return again


class People:
    """The real pictures of a cell."""

    def __init__(self, cell: Cell, answers: Answers):
        self.axes, self.settings, self.estimand = cell.axes, cell.settings, cell.estimand
        self.answers = answers

    @cached_property
    def data(self) -> Data:
        """Where the pictures come from."""
        return self.settings.data_source()

    @property
    def source(self) -> str:
        """The source of the target's people."""
        return str(self.axes.source)

    @cached_property
    def other(self) -> str:
        """The other institution."""
        return self.settings.sources.other(self.source)

    @property
    def elsewhere(self) -> str:
        """The source of a cross-source query's non-members."""
        return self.settings.sources.wild if self.axes.query == "wild" else self.other

    def real(
        self, source: str, part: str, *, held: bool = False, mark: str | None = None, both: bool = False
    ) -> Artifact:
        """Photos of a part of a source: those that are trained on, or (held) those that are held back, or both."""
        kind, spec = self.data
        trained, kept = self.settings.trained_photos, self.settings.held_photos
        photos = range(trained, trained + kept) if held else range(trained + kept if both else trained)
        real = RealSpec(
            data=spec,
            digest=self.answers.once(("digest", kind, spec, source), lambda: SOURCES.get(kind).digest(spec, source)),
            source=source,
            part=part,
            identities=tuple(self._part(source, part)),
            photos=tuple(photos),
            photo_seed=self.settings.split_seed if SOURCES.get(kind).draws_photos else None,
        )
        pictures = real_set(kind, real)
        return pictures if mark is None or mark == "none" else marked_set(pictures, mark, self.settings.mark(mark))

    def _part(self, source: str, part: str) -> list[str]:
        """The persons of a part, people known to the base model left out."""
        kind, spec = self.data
        people, seed, base = self.settings.people, self.settings.split_seed, resolve_base(str(self.axes.base))
        photos = self.settings.trained_photos + self.settings.held_photos

        def split() -> dict[str, list[str]]:
            known = base.known_identities(kind)
            names = [name for name in SOURCES.get(kind).identities(spec, source) if name not in known]
            enough = {name for name in names if SOURCES.get(kind).photos(spec, source, name) >= photos}
            if len(enough) < len(names):
                few = len(names) - len(enough)
                self.answers.tell(f"source {source!r}: {few} people with fewer than {photos} photos are left out")
            prescribed = SOURCES.get(kind).parts(spec, source)
            if prescribed is not None:
                return {part: [name for name in those if name in enough] for part, those in prescribed.items()}
            names = [name for name in names if name in enough]
            if len(names) < sum(people.values()):
                # Who is in which part is known when all cells have said which parts they ask for (`share`).
                self.answers.short[key] = Short(source, people, names, seed)
                return {part: [f"{part}-{at}" for at in range(count)] for part, count in people.items()}
            return assign(names, people, seed)

        key = ("parts", kind, spec, source, tuple(sorted(people.items())), seed, base.reference)
        if part not in people:
            raise RequestError(f"people.{part} is missing: cells ask for part {part} of source {source!r}")
        self.answers.asked.setdefault(key, set()).add(part)
        found = self.answers.once(key, split)
        if not found.get(part):
            there = ", ".join(f"{name} {len(those)}" for name, those in sorted(found.items())) or "nothing"
            raise RequestError(
                f"source {source!r}: its metadata splits people into {there}; nobody with {photos} photos is in part "
                f"{part!r}"
            )
        return found[part]

    def need_captions(self, source: str, what: str) -> None:
        """Refuse, before any work, what needs captions that the data does not have."""
        kind, spec = self.data
        bare = self.answers.once(("bare", kind, spec, source), lambda: SOURCES.get(kind).uncaptioned(spec, source))
        if bare:
            raise RequestError(
                f"{what} = 'caption': {len(bare)} pictures of {source!r} have no caption, such as {bare[0]!r}; "
                f"give them captions (a .txt beside each, or metadata.csv) or set {what} to 'class'"
            )

    def captions_given(self) -> dict[str, str | None]:
        """The captions that the cell's attack gets, by picture or by what they are for."""
        if self.axes.captions == "caption":
            kind, data = self.data
            sources = [self.source, *([self.elsewhere] if self.estimand == "cross_source" else [])]
            return {name: text for s in sources for name, text in SOURCES.get(kind).captions(data, s).items()}
        return {f"any picture of {self.source!r}": class_prompt(self.source) if self.axes.captions == "class" else ""}
