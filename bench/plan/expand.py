"""Cells to artifacts: which pictures, models, attacks and scores answer a question, and what controls it.

One world of a cell trains a target on half A of a source's people and its twin on half B. The attacker's own
material comes from part C of the same source or from part aux of the other institution, never from the halves.
Artifacts are shared by address, so this file may ask for the same thing as often as it likes.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from bench.artifacts.artifact import Artifact
from bench.artifacts.learned import learned, shadow_inputs
from bench.artifacts.models import given_model, tuned_model
from bench.artifacts.pictures import (
    SECOND_SET,
    GeneratedSpec,
    RealSpec,
    count_pictures,
    drawn_set,
    marked_set,
    mixed_set,
    real_set,
    source_of,
    taken_set,
)
from bench.artifacts.row import (
    BlindInputs,
    RowInputs,
    RowSpec,
    ScoredInputs,
    TargetInputs,
    WorldInputs,
    people_needed,
    row,
)
from bench.artifacts.scores import BlindCrossfitSpec, ScoresSpec, crossfitted, scores
from bench.benchmark import Data
from bench.cells import Cell
from lmia.attacks import ATTACKS, Attack
from lmia.data.captions import class_prompt
from lmia.data.parts import assign
from lmia.data.sources import SOURCES
from lmia.resolve import resolve_base
from lmia.specs import RequestError

HALVES = ("A", "B")


def rows_of(cells: Iterable[Cell], tell: Callable[[str], None] = lambda _: None) -> list[Artifact]:
    """For each cell the row that answers it, with everything that it is made of; `tell` hears what was left out."""
    known: dict[Hashable, Any] = {}
    return [_Question(cell, known, tell).row() for cell in cells]


@dataclass
class _Question:
    cell: Cell
    known: dict[Hashable, Any]  # what the data says, asked once for all cells
    tell: Callable[[str], None]
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def axes(self) -> Any:
        return self.cell.axes

    @property
    def settings(self) -> Any:
        return self.cell.settings

    @cached_property
    def data(self) -> Data:
        return self.settings.data_source()

    @cached_property
    def other(self) -> str:
        return self.settings.sources.other(self.axes.source)

    # ---- real pictures

    def once(self, key: Hashable, ask: Callable[[], Any]) -> Any:
        """What `ask` says, asked once for all cells."""
        if key not in self.known:
            self.known[key] = ask()
        return self.known[key]

    def part(self, source: str, part: str) -> list[str]:
        """The persons of a part, people known to the base model left out."""
        kind, spec = self.data
        people, seed, base = self.settings.people, self.settings.split_seed, resolve_base(self.axes.base)
        photos = self.settings.trained_photos + self.settings.held_photos

        def split() -> dict[str, list[str]]:
            known = base.known_identities(kind)
            names = [name for name in SOURCES.get(kind).identities(spec, source) if name not in known]
            enough = {name for name in names if SOURCES.get(kind).photos(spec, source, name) >= photos}
            if len(enough) < len(names):
                few = len(names) - len(enough)
                self.tell(f"source {source!r}: {few} people with fewer than {photos} photos are left out")
            prescribed = SOURCES.get(kind).parts(spec, source)
            if prescribed is not None:
                return {part: [name for name in those if name in enough] for part, those in prescribed.items()}
            names = [name for name in names if name in enough]
            try:
                return assign(names, people, seed)
            except RequestError as error:
                raise RequestError(f"source {source!r}: {error}") from None

        return self.once(("parts", kind, spec, source, tuple(sorted(people.items())), seed, base.reference), split)[
            part
        ]

    def real(self, source: str, part: str, *, held: bool = False, mark: str = "none", both: bool = False) -> Artifact:
        """Photos of a part of a source: those that are trained on, or (held) those that are held back."""
        kind, spec = self.data
        trained, kept = self.settings.trained_photos, self.settings.held_photos
        photos = range(trained, trained + kept) if held else range(trained + kept if both else trained)
        people = self.part(source, part)
        real = RealSpec(
            data=spec,
            digest=self.once(("digest", kind, spec, source), lambda: SOURCES.get(kind).digest(spec, source)),
            source=source,
            part=part,
            identities=tuple(people),
            photos=tuple(photos),
        )
        return self.marked(real_set(kind, real), mark)

    def need_captions(self, source: str, what: str) -> None:
        """Refuse, before any work, what needs captions that the data does not have."""
        kind, spec = self.data
        bare = self.once(("bare", kind, spec, source), lambda: SOURCES.get(kind).uncaptioned(spec, source))
        if bare:
            raise RequestError(
                f"{what} = 'caption': {len(bare)} pictures of {source!r} have no caption, such as {bare[0]!r}; "
                f"give them captions (a .txt beside each, or metadata.csv) or set {what} to 'class'"
            )

    def check_captions(self) -> None:
        """Refuse, before any work, captions that the cell's attack cannot use."""
        given, source = self.axes.captions, self.axes.source
        if given is None:
            return
        kind, data = self.data
        if given == "caption":
            sources = [source, *([self.elsewhere] if self.cell.estimand == "cross_source" else [])]
            texts = {name: text for s in sources for name, text in SOURCES.get(kind).captions(data, s).items()}
        else:
            texts = {f"any picture of {source!r}": class_prompt(source) if given == "class" else ""}
        try:
            self.attack(0).check(texts)
        except RequestError as error:
            raise RequestError(f"captions = {given!r}: {error}") from None

    def marked(self, pictures: Artifact, mark: str) -> Artifact:
        """The pictures with a watermark."""
        if mark == "none":
            return pictures
        return marked_set(pictures, mark, self.settings.mark(mark))

    # ---- models

    @cached_property
    def base(self) -> Artifact:
        return given_model(resolve_base(self.axes.base))

    def tuned(self, pictures: Artifact, world: int) -> Artifact:
        """A model tuned on pictures by the cell's method for the cell's epochs."""
        spec = self.settings.finetuning(self.axes.method, seed=world)
        if spec.caption == "caption":
            self.need_captions(source_of(pictures), "finetune.caption")
        return tuned_model(self.axes.method, spec, self.axes.epochs, self.base, pictures)

    def target(self, half: str, world: int) -> Artifact:
        """The target trained on a half, its pictures marked as the cell says."""
        return self.tuned(self.real(self.axes.source, half, mark=self.axes.target_mark), world)

    # ---- generated and auxiliary sets

    def generated(self, model: Artifact, source: str, seed: int, captioned: Artifact) -> Artifact:
        """A set of pictures drawn by a model under the cell's guidance, prompt and steps."""
        spec = GeneratedSpec(
            sample=self.settings.sampler(guidance=self.axes.guidance, steps=self.axes.steps, seed=seed),
            prompt=self.axes.prompt,
            source=source,
            count=self.settings.pictures,
        )
        if self.axes.prompt == "caption":
            self.need_captions(source_of(captioned), "prompt")
        return drawn_set(model, spec, self.settings.slice, captioned if self.axes.prompt == "caption" else None)

    def positives(self, half: str, world: int, again: int = 0) -> Artifact:
        """What the target draws."""
        model = self.target(half, world)
        return self.generated(model, self.axes.source, 2 * world + again, model.inputs["pictures"])

    def negatives(self, world: int, again: int = 0) -> Artifact:
        """The auxiliary set, drawn at the positives' own guidance, prompt kind and steps where it is drawn."""
        aux, seed = self.axes.aux, 2 * world + 1 + again
        if aux == "real":
            return self._take(self.real(self.other, "aux", both=True), self.settings.pictures)
        if aux == "shadow":
            real = self.real(self.other, "aux")
            return self.generated(self.tuned(real, world), self.other, seed, real)
        if aux == "part_c":
            real = self.real(self.axes.source, "C", mark=self.axes.target_mark)
            return self.generated(self.tuned(real, world), self.axes.source, seed, real)
        if aux == "base":
            return self.generated(self.base, self.axes.source, seed, self.real(self.axes.source, "C"))
        half = self.settings.pictures // 2
        shadow = self.real(self.other, "aux")
        drawn = self.generated(self.tuned(shadow, world), self.other, seed, shadow)
        real = self._take(self.real(self.other, "aux", both=True), half)
        return mixed_set(self._take(drawn, half), real)

    def _take(self, pictures: Artifact, count: int) -> Artifact:
        have = count_pictures(pictures)
        if isinstance(pictures.spec, RealSpec) and have < count:
            raise RequestError(
                f"aux = {self.axes.aux!r}: {count} real auxiliary pictures are needed, part aux of {self.other!r} has "
                f"{have}; raise people.aux or lower pictures"
            )
        return taken_set(pictures, count)

    # ---- attacks and scores

    def attack(self, world: int, name: str | None = None) -> Attack:
        """The cell's attack (or the one called `name`) under the benchmark's settings, seeded by the world."""
        name = name or str(self.axes.attack)
        seed = {"seed": world} if "seed" in ATTACKS.get(name).model_fields else {}
        return self.settings.attack(name, **seed)

    def learned(self, attack: Attack, inputs: dict[str, Artifact]) -> Artifact:
        """What an attack learns from pictures (and from the base model, where its encoder is the base's).

        On a shadow target it is given the same kind of captions as on the target.
        """
        if "base" in attack.needs:
            inputs = {**inputs, "base": self.base}
        captions = self.axes.captions if "shadow.model" in inputs and self.axes.captions != "caption" else None
        source = self.axes.source if captions == "class" else None
        return learned(attack, inputs, captions, source)

    def scores(self, attack: Attack, query: Artifact, *, model: Artifact | None, fitted: Artifact | None) -> Artifact:
        """One attack's scores of one set of pictures."""
        asked = "model" in attack.needs
        assert (model is not None or not asked) and (fitted is not None or not attack.learns)
        captions, prompt_source = None, None
        if asked:
            # A control that is not the cell's own attack (the loss gap) takes captions where there are any.
            captions = self.axes.captions if self.axes.attack == attack.name else self.settings.default.captions
            if captions == "caption":
                self.need_captions(source_of(query), "captions")
            prompt_source = self.axes.source if captions == "class" else None
        return scores(
            ScoresSpec(
                attack=attack,
                captions=captions,
                source=prompt_source,
                batch=self.settings.batch,
                dtype=self.settings.dtype,
            ),
            query,
            max(self.settings.slice, 256),
            model=model if asked else None,
            base=self.base if "base" in attack.needs else None,
            learned=fitted if attack.learns else None,
        )

    def fitted(self, world: int, draw: Callable[[], Artifact]) -> Artifact | None:
        """What the cell's attack learns: from what `draw` makes and negatives, or from a shadow target."""
        attack = self.attack(world)
        if not attack.learns:
            return None
        inputs: dict[str, Artifact] = {}
        if "positives" in attack.needs:
            inputs["positives"] = draw()
        if "negatives" in attack.needs:
            inputs["negatives"] = self.negatives(world)
        if "shadow" in attack.needs:
            # People of the same source whom neither twin knows: part C is trained on, part aux is not.
            members = self.real(self.axes.source, "C", mark=self.axes.target_mark)
            nonmembers = self.real(self.axes.source, "aux", mark=self.axes.target_mark)
            inputs |= shadow_inputs(self.tuned(members, world), members, nonmembers)
        return self.learned(attack, inputs)

    def scored(self, half: str, world: int, query: Artifact) -> Artifact:
        """The cell's attack against one target."""
        fitted = self.fitted(world, lambda: self.positives(half, world))
        return self.scores(self.attack(world), query, model=self.target(half, world), fitted=fitted)

    def scored_on_base(self, world: int, query: Artifact) -> Artifact | None:
        """The same attack with the base model in the target's place; None where that has no meaning."""
        if self.axes.aux == "base":
            self.absent["base_auc"] = "the negatives are the base model's own pictures"
        elif "base" not in self.settings.controls:
            self.absent["base_auc"] = "this benchmark does not ask for the base control here"
        elif self.axes.attack == "calibrated":
            self.absent["base_auc"] = "the attack subtracts the base model's score: on the base model it is 0"
        else:
            captioned = self.real(self.axes.source, "C")
            drawn = partial(self.generated, self.base, self.axes.source, 2 * world, captioned)
            return self.scores(self.attack(world), query, model=self.base, fitted=self.fitted(world, drawn))
        return None

    # ---- the row

    def row(self) -> Artifact:
        """The row, over every world and condition, with its controls."""
        self.check_captions()
        conditions = self._conditions()
        worlds = [
            self._world(world, number, *marks)
            for world in range(self.settings.worlds)
            for number, marks in enumerate(conditions)
        ]
        blind = self._blind(*conditions[0])
        sheet = self.positives("A", 0) if self.axes.guidance is not None else None
        attack = self.attack(0)
        spec = RowSpec(
            axes={k: v for k, v in self.axes.resolved().items() if v is not None},
            estimand=self.cell.estimand,
            role=self.cell.role,
            flags=self.cell.flags,
            evidence=self.settings.evidence,
            absent=self.absent,
            access=attack.access,
            shadow=people_needed(self.axes.aux, shadow_target="shadow" in attack.needs),
        )
        return row(spec, RowInputs(tuple(worlds), blind, sheet))

    def _conditions(self) -> list[tuple[str, str]]:
        """The marks on members and non-members under which a world is judged."""
        if self.axes.member_mark == "both":
            return [(self.axes.target_mark, self.axes.target_mark), ("none", "none")]
        return [(self.axes.member_mark, self.axes.nonmember_mark)]

    def _world(self, world: int, condition: int, member_mark: str, nonmember_mark: str) -> WorldInputs[Artifact]:
        if self.axes.query == "generated":
            if self.axes.aux is None or self.axes.prompt is None:
                raise RequestError(f"query = 'generated' needs an attack with negatives, not {self.axes.attack!r}")
            return WorldInputs(self._drawn("A", world), self._drawn("B", world), world, condition)
        marks = member_mark, nonmember_mark
        return WorldInputs(
            self._target("A", "B", world, *marks), self._target("B", "A", world, *marks), world, condition
        )

    def _drawn(self, half: str, world: int) -> TargetInputs[Artifact]:
        """A target that is asked to tell its own pictures from the auxiliary model's."""
        seen = self.scored(half, world, self.positives(half, world, SECOND_SET))
        return TargetInputs(ScoredInputs(seen), other=ScoredInputs(self.scored(half, world, self._other_set(world))))

    def _target(
        self, half: str, twin: str, world: int, member_mark: str, nonmember_mark: str
    ) -> TargetInputs[Artifact]:
        source, held = self.axes.source, self.axes.query == "member_person"
        seen = self.real(source, half, held=held, mark=member_mark)
        unseen, other = self.real(source, twin, held=held, mark=nonmember_mark), None
        if self.cell.estimand == "cross_source":
            # The members' stand-ins carry the members' mark: source_auc changes membership and nothing else.
            unseen = self.real(source, twin, mark=member_mark)
            other = self._scored(half, world, self._other_people(nonmember_mark))
        model = self.target(half, world)
        losses: list[Artifact | None] = [None, None]
        if "loss_gap" in self.settings.controls:
            losses = [
                self.scores(self.attack(world, "loss"), self.real(source, part), model=model, fitted=None)
                for part in (half, twin)
            ]
        return TargetInputs(
            self._scored(half, world, seen), self._scored(half, world, unseen), other, model, losses[0], losses[1]
        )

    def _scored(self, half: str, world: int, query: Artifact) -> ScoredInputs[Artifact]:
        # Both halves' pictures are among those of target A, so the base control needs no second pass for its twin.
        base = self.scored_on_base(world, query) if half == "A" else None
        return ScoredInputs(self.scored(half, world, query), query, base)

    @property
    def elsewhere(self) -> str:
        """The source of a cross-source query's non-members."""
        return self.settings.sources.wild if self.axes.query == "wild" else self.other

    def _other_people(self, mark: str) -> Artifact:
        return self.real(self.elsewhere, "query", mark=mark)

    def _other_set(self, world: int) -> Artifact:
        return self.negatives(world, SECOND_SET) if self.axes.aux != "real" else self.real(self.other, "query")

    def _blind(self, member_mark: str, nonmember_mark: str) -> BlindInputs[Artifact] | None:
        if "blind" not in self.settings.controls:
            self.absent["blind_auc"] = "this benchmark does not ask for the blind control here"
            return None
        if self.axes.query == "generated":
            self.absent["blind_auc"] = "no membership is asked for: the query pictures are generated"
            self.absent["base_auc"] = self.absent["blind_auc"]
            return None
        blind = self.attack(0, "blind")
        held = self.axes.query == "member_person"
        if self.cell.estimand != "cross_source":
            # For the halves of one source nobody else stands for a half: each person is scored from the others.
            members = self.real(self.axes.source, "A", held=held, mark=member_mark)
            nonmembers = self.real(self.axes.source, "B", held=held, mark=nonmember_mark)
            return BlindInputs(halves=crossfitted(BlindCrossfitSpec(blind=blind), members, nonmembers))
        positives = self.real(self.axes.source, "C", mark=member_mark)
        negatives = self.real(self.elsewhere, "aux", mark=nonmember_mark)
        fitted = learned(blind, {"positives": positives, "negatives": negatives})
        sets = [self.real(self.axes.source, half, mark=member_mark) for half in HALVES]
        sets.append(self._other_people(nonmember_mark))
        a, b, other = (self.scores(blind, query, model=None, fitted=fitted) for query in sets)
        return BlindInputs(a=a, b=b, other=other)
