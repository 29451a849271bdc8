"""How a cell's attack is fitted and what it scores, on the target and on the base model in its place."""

from collections.abc import Callable

from bench.artifacts.artifact import Artifact
from bench.artifacts.learned import learned, shadow_inputs
from bench.artifacts.pictures import source_of
from bench.artifacts.scores import ScoresSpec, scores
from bench.cells import Cell
from bench.plan.people import People
from bench.plan.sets import Sets
from lmia.attacks import ATTACKS, Attack
from lmia.specs import RequestError

LEAST_SCORED = 256
"""Pictures in a scoring job, where the benchmark's slices are smaller: loading a model costs more than scoring few."""


class Attacks:
    """The attack of a cell and its controls."""

    def __init__(self, cell: Cell, people: People, sets: Sets):
        self.axes, self.settings = cell.axes, cell.settings
        self.people, self.sets = people, sets

    def attack(self, world: int, name: str | None = None) -> Attack:
        """The cell's attack (or the one called `name`) under the benchmark's settings, seeded by the world."""
        name = name or str(self.axes.attack)
        seeded = "seed" in ATTACKS.get(name).model_fields
        return self.settings.attack(name, seed=world) if seeded else self.settings.attack(name)

    def check_captions(self) -> None:
        """Refuse, before any work, captions that the cell's attack cannot use."""
        if self.axes.captions is None:
            return
        try:
            self.attack(0).check(self.people.captions_given())
        except RequestError as error:
            raise RequestError(f"captions = {self.axes.captions!r}: {error}") from None

    def scored(self, half: str, world: int, query: Artifact) -> Artifact:
        """The cell's attack against one target."""
        fitted = self._fitted(world, lambda: self.sets.positives(half, world))
        return self.scores(self.attack(world), query, model=self.sets.target(half, world), fitted=fitted)

    def scored_on_base(self, world: int, query: Artifact) -> Artifact | None:
        """The same attack with the base model in the target's place; None where that has no meaning."""
        if self.why_not_on_base() is not None:
            return None
        fitted = self._fitted(world, lambda: self.sets.positives_of_base(world))
        return self.scores(self.attack(world), query, model=self.sets.base, fitted=fitted)

    def why_not_on_base(self) -> str | None:
        """Why the base model is not attacked; None if it is."""
        if self.axes.aux == "base":
            return "the negatives are the base model's own pictures"
        if "base" not in self.settings.controls:
            return "this benchmark does not ask for the base control here"
        if self.axes.attack == "calibrated":
            return "the attack subtracts the base model's score: on the base model it is 0"
        return None

    def losses(self, half: str, world: int, part: str) -> Artifact:
        """The denoising losses of a part's trained photos on one target."""
        query = self.people.real(self.people.source, part)
        return self.scores(self.attack(world, "loss"), query, model=self.sets.target(half, world))

    def scores(
        self, attack: Attack, query: Artifact, *, model: Artifact | None = None, fitted: Artifact | None = None
    ) -> Artifact:
        """One attack's scores of one set of pictures."""
        asked = "model" in attack.needs
        assert (model is not None or not asked) and (fitted is not None or not attack.learns)
        captions, prompt_source = None, None
        if asked:
            # A control that is not the cell's own attack (the loss gap) takes captions where there are any.
            captions = self.axes.captions if self.axes.attack == attack.name else self.settings.default.captions
            if captions == "caption":
                self.people.need_captions(source_of(query), "captions")
            prompt_source = self.people.source if captions == "class" else None
        how = ScoresSpec(
            attack=attack,
            captions=captions,
            source=prompt_source,
            batch=self.settings.batch,
            dtype=self.settings.dtype,
        )
        return scores(
            how,
            query,
            max(self.settings.slice, LEAST_SCORED),
            model=model if asked else None,
            base=self.sets.base if "base" in attack.needs else None,
            learned=fitted if attack.learns else None,
        )

    def _fitted(self, world: int, draw: Callable[[], Artifact]) -> Artifact | None:
        """What the cell's attack learns: from what `draw` makes and negatives, or from a shadow target."""
        attack = self.attack(world)
        if not attack.learns:
            return None
        inputs: dict[str, Artifact] = {}
        if "positives" in attack.needs:
            inputs["positives"] = draw()
        if "negatives" in attack.needs:
            inputs["negatives"] = self.sets.negatives(world)
        captions = None
        if "shadow" in attack.needs:
            # People of the same source whom neither twin knows: part C is trained on, part aux is not.
            members, nonmembers = (
                self.people.real(self.people.source, part, mark=self.axes.target_mark) for part in ("C", "aux")
            )
            inputs |= shadow_inputs(self.sets.tuned(members, world), members, nonmembers)
            # The attack is given the same kind of captions as on the target; null: their own.
            captions = self.axes.captions if self.axes.captions != "caption" else None
        if "base" in attack.needs:  # its encoder is the base's
            inputs["base"] = self.sets.base
        return learned(attack, inputs, captions, self.people.source if captions == "class" else None)
