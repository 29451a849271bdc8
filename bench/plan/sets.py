"""Which models a cell tunes and what they draw: targets, shadow models and auxiliary sets."""

from functools import cached_property

from bench.artifacts.artifact import Artifact
from bench.artifacts.models import given_model, tuned_model
from bench.artifacts.pictures import (
    SECOND_SET,
    GeneratedSpec,
    count_pictures,
    drawn_set,
    mixed_set,
    source_of,
    taken_set,
)
from bench.cells import Cell
from bench.plan.people import People
from lmia.resolve import resolve_base
from lmia.specs import RequestError


class Sets:
    """The models of a cell and the pictures that they draw."""

    def __init__(self, cell: Cell, people: People):
        self.axes, self.settings = cell.axes, cell.settings
        self.people = people

    @cached_property
    def base(self) -> Artifact:
        """The model before tuning."""
        return given_model(resolve_base(str(self.axes.base)))

    def tuned(self, pictures: Artifact, world: int) -> Artifact:
        """A model tuned on pictures by the cell's method for the cell's epochs."""
        method, epochs = self.axes.method, self.axes.epochs
        assert method is not None and epochs is not None  # these axes apply to every attack
        tuning = self.settings.finetuning(method, seed=world)
        if tuning.caption == "caption":
            self.people.need_captions(source_of(pictures), "finetune.caption")
        return tuned_model(tuning, epochs, self.base, pictures)

    def target(self, half: str, world: int) -> Artifact:
        """The target trained on a half, its pictures marked as the cell says."""
        return self.tuned(self.people.real(self.people.source, half, mark=self.axes.target_mark), world)

    def drawn(self, model: Artifact, source: str, seed: int, captioned: Artifact) -> Artifact:
        """A set of pictures drawn by a model under the cell's guidance, prompt and steps."""
        spec = GeneratedSpec(
            sample=self.settings.sampler(guidance=self.axes.guidance, steps=self.axes.steps, seed=seed),
            prompt=self.axes.prompt,
            source=source,
            count=self.settings.pictures,
        )
        if self.axes.prompt == "caption":
            self.people.need_captions(source_of(captioned), "prompt")
        return drawn_set(model, spec, self.settings.slice, captioned if self.axes.prompt == "caption" else None)

    def positives(self, half: str, world: int, again: int = 0) -> Artifact:
        """What the target draws."""
        model = self.target(half, world)
        return self.drawn(model, self.people.source, 2 * world + again, model.inputs["pictures"])

    def positives_of_base(self, world: int) -> Artifact:
        """What the base model draws in the target's place."""
        return self.drawn(self.base, self.people.source, 2 * world, self.people.real(self.people.source, "C"))

    def negatives(self, world: int, again: int = 0) -> Artifact:
        """The auxiliary set, drawn at the positives' own guidance, prompt kind and steps where it is drawn."""
        people, aux, seed = self.people, self.axes.aux, 2 * world + 1 + again
        if aux == "real":
            return self._real_ones(self.settings.pictures)
        if aux == "part_c":
            real = people.real(people.source, "C", mark=self.axes.target_mark)
            return self.drawn(self.tuned(real, world), people.source, seed, real)
        if aux == "base":
            return self.drawn(self.base, people.source, seed, people.real(people.source, "C"))
        real = people.real(people.other, "aux")
        drawn = self.drawn(self.tuned(real, world), people.other, seed, real)
        if aux == "shadow":
            return drawn
        half = self.settings.pictures // 2
        return mixed_set(taken_set(drawn, half), self._real_ones(half))

    def second_negatives(self, world: int) -> Artifact:
        """Other pictures of the auxiliary model's, or other real ones."""
        if self.axes.aux == "real":
            return self.people.real(self.people.other, "query")
        return self.negatives(world, SECOND_SET)

    def _real_ones(self, count: int) -> Artifact:
        pictures = self.people.real(self.people.other, "aux", both=True)
        have = count_pictures(pictures)
        if have < count:
            raise RequestError(
                f"aux = {self.axes.aux!r}: {count} real auxiliary pictures are needed, part aux of "
                f"{self.people.other!r} has {have}; raise people.aux or lower pictures"
            )
        return taken_set(pictures, count)
