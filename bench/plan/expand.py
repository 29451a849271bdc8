"""Cells to rows: which scores answer a question, and which controls stand beside it.

One world of a cell trains a target on half A of a source's people and its twin on half B. Artifacts are shared by
address, so the parts of a plan (`people`, `sets`, `attacks`) may be asked for the same thing as often as one likes.
"""

from collections.abc import Callable, Iterable

from bench.artifacts.artifact import Artifact
from bench.artifacts.learned import learned
from bench.artifacts.pictures import SECOND_SET
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
from bench.artifacts.scores import BlindCrossfitSpec, crossfitted
from bench.cells import Cell
from bench.plan.attacks import Attacks
from bench.plan.people import Answers, People, share
from bench.plan.sets import Sets
from lmia.specs import RequestError

HALVES = ("A", "B")
Mark = str | None


def rows_of(cells: Iterable[Cell], tell: Callable[[str], None] = lambda _: None) -> list[Artifact]:
    """For each cell the row that answers it, with everything that it is made of; `tell` hears what was left out."""
    answers, cells = Answers(tell), list(cells)
    rows = [_Question(cell, answers).row() for cell in cells]
    return [_Question(cell, answers).row() for cell in cells] if share(answers) else rows


class _Question:
    """A cell's row."""

    def __init__(self, cell: Cell, answers: Answers):
        self.cell, self.axes, self.settings = cell, cell.axes, cell.settings
        self.people = People(cell, answers)
        self.sets = Sets(cell, self.people)
        self.attacks = Attacks(cell, self.people, self.sets)

    def row(self) -> Artifact:
        """The row, over every world and condition, with its controls."""
        self.attacks.check_captions()
        conditions = self._conditions()
        worlds = [
            self._world(world, number, *marks)
            for world in range(self.settings.worlds)
            for number, marks in enumerate(conditions)
        ]
        absent = self._absent()
        blind = self._blind(*conditions[0]) if "blind_auc" not in absent else None
        sheet = self.sets.positives("A", 0) if self.axes.guidance is not None else None
        attack = self.attacks.attack(0)
        spec = RowSpec(
            axes=self.axes,
            estimand=self.cell.estimand,
            role=self.cell.role,
            flags=self.cell.flags,
            evidence=self.settings.evidence(str(self.axes.base)),
            absent=absent,
            access=attack.access,
            shadow=people_needed(self.axes.aux, shadow_target="shadow" in attack.needs),
        )
        return row(spec, RowInputs(tuple(worlds), blind, sheet))

    def _conditions(self) -> list[tuple[Mark, Mark]]:
        """The marks on members and non-members under which a world is judged."""
        if self.axes.member_mark == "both":
            return [(self.axes.target_mark, self.axes.target_mark), ("none", "none")]
        return [(self.axes.member_mark, self.axes.nonmember_mark)]

    def _absent(self) -> dict[str, str]:
        """Controls that have no meaning here, and why."""
        found = {}
        if self.axes.query == "generated":
            found["blind_auc"] = found["base_auc"] = "no membership is asked for: the query pictures are generated"
        elif (why := self.attacks.why_not_on_base()) is not None:
            found["base_auc"] = why
        if "blind" not in self.settings.controls:
            found["blind_auc"] = "this benchmark does not ask for the blind control here"
        return found

    # ---- targets

    def _world(self, world: int, condition: int, *marks: Mark) -> WorldInputs[Artifact]:
        if self.axes.query == "generated":
            if self.axes.aux is None or self.axes.prompt is None:
                raise RequestError(f"query = 'generated' needs an attack with negatives, not {self.axes.attack!r}")
            return WorldInputs(self._drawn("A", world), self._drawn("B", world), world, condition)
        return WorldInputs(
            self._target("A", "B", world, *marks), self._target("B", "A", world, *marks), world, condition
        )

    def _drawn(self, half: str, world: int) -> TargetInputs[Artifact]:
        """A target that is asked to tell its own pictures from the auxiliary model's."""
        seen = self.attacks.scored(half, world, self.sets.positives(half, world, SECOND_SET))
        other = self.attacks.scored(half, world, self.sets.second_negatives(world))
        return TargetInputs(ScoredInputs(seen), other=ScoredInputs(other))

    def _target(
        self, half: str, twin: str, world: int, member_mark: Mark, nonmember_mark: Mark
    ) -> TargetInputs[Artifact]:
        people, held = self.people, self.axes.query == "member_person"
        seen = people.real(people.source, half, held=held, mark=member_mark)
        unseen, other = people.real(people.source, twin, held=held, mark=nonmember_mark), None
        if self.cell.estimand == "cross_source":
            # The members' stand-ins carry the members' mark: source_auc changes membership and nothing else.
            unseen = people.real(people.source, twin, mark=member_mark)
            other = self._scored(half, world, people.real(people.elsewhere, "query", mark=nonmember_mark))
        with_losses = "loss_gap" in self.settings.controls
        return TargetInputs(
            seen=self._scored(half, world, seen),
            unseen=self._scored(half, world, unseen),
            other=other,
            model=self.sets.target(half, world),
            trained_loss=self.attacks.losses(half, world, half) if with_losses else None,
            unseen_loss=self.attacks.losses(half, world, twin) if with_losses else None,
        )

    def _scored(self, half: str, world: int, query: Artifact) -> ScoredInputs[Artifact]:
        # Both halves' pictures are among those of target A, so the base control needs no second pass for its twin.
        base = self.attacks.scored_on_base(world, query) if half == "A" else None
        return ScoredInputs(self.attacks.scored(half, world, query), query, base)

    # ---- the control that never sees a target

    def _blind(self, member_mark: Mark, nonmember_mark: Mark) -> BlindInputs[Artifact]:
        people, blind = self.people, self.attacks.attack(0, "blind")
        held = self.axes.query == "member_person"
        if self.cell.estimand != "cross_source":
            # For the halves of one source nobody else stands for a half: each person is scored from the others.
            members = people.real(people.source, "A", held=held, mark=member_mark)
            nonmembers = people.real(people.source, "B", held=held, mark=nonmember_mark)
            return BlindInputs(halves=crossfitted(BlindCrossfitSpec(blind=blind), members, nonmembers))
        positives = people.real(people.source, "C", mark=member_mark)
        negatives = people.real(people.elsewhere, "aux", mark=nonmember_mark)
        fitted = learned(blind, {"positives": positives, "negatives": negatives})
        sets = [people.real(people.source, half, mark=member_mark) for half in HALVES]
        sets.append(people.real(people.elsewhere, "query", mark=nonmember_mark))
        a, b, other = (self.attacks.scores(blind, query, fitted=fitted) for query in sets)
        return BlindInputs(a=a, b=b, other=other)
