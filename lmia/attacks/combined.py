"""The combiner: several attacks' scores in one, weighted by what they achieved on shadow people.

Paper: Dubinski, Kowalczuk, Boenisch, Dziedzic: CDI, Copyrighted Data Identification in Diffusion Models (CVPR 2025).
Equation: score(x) = w . standardised(s_1(x), .., s_A(x)) + b; w, b = ridge logistic regression on shadow targets.
Access: that of its components.
Sign: higher = member.
Deviations: one honest split by person instead of repeated ones: components that learn are fitted on one half of the
    shadow people, the regression on the other half (on all of them if no component learns). The set-level decision
    itself, a one-sided test of a suspected set's scores against a known-unseen set's, belongs to the metrics.
"""

from collections.abc import Hashable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field, field_validator

from lmia.attacks import (
    AnyAttack,
    Attack,
    FitInputs,
    FitRun,
    Learned,
    Need,
    ScoreInputs,
    Scorer,
    Shadow,
    to_arrays,
    to_tensors,
)
from lmia.attacks.blind import decide, regress
from lmia.attacks.loss import Loss
from lmia.attacks.pfami import Pfami
from lmia.attacks.pia import Pia, Pian
from lmia.attacks.scoring import score_pass
from lmia.attacks.secmi import Secmi
from lmia.attacks.sima import Sima
from lmia.seeds import seed_of

if TYPE_CHECKING:
    from lmia.data.pictures import Pictures


class Combined(Attack, name="combined"):
    """Logistic regression on several attacks' scores."""

    version = 1
    paper = "Dubinski et al., CVPR 2025 (CDI)"

    attacks: tuple[AnyAttack, ...] = Field(
        (Loss(), Secmi(), Pia(), Pian(), Sima(), Pfami()),
        min_length=1,
        description="the attacks that are combined: names, or kinds and settings",
    )
    c: float = Field(1.0, gt=0, description="inverse of the ridge penalty, on standardised scores")
    seed: int = Field(0, ge=0, description="which shadow people fall into which half")

    @field_validator("attacks")
    @classmethod
    def _can_be_combined(cls, attacks: tuple[Attack, ...]) -> tuple[Attack, ...]:
        for attack in attacks:
            if isinstance(attack, Combined):
                raise ValueError("combined cannot contain itself")
            if "model" not in attack.needs:
                raise ValueError(f"{attack.name!r} does not ask the target while scoring: it cannot be combined")
        return attacks

    @property
    def needs(self) -> frozenset[Need]:
        """What any component needs, and shadow targets."""
        return super().needs | {"shadow"}

    @property
    def evaluations(self) -> dict[Hashable, int]:
        """The components', what they share once."""
        return {name: count for attack in self.attacks for name, count in attack.evaluations.items()}

    def fit(self, inputs: FitInputs, run: FitRun) -> Learned:
        """What the components learn on one half, and the regression of the other half's scores."""
        shadows = self.need(inputs.shadows, "shadow")
        learners = any(attack.learns for attack in self.attacks)
        for_parts, for_weights = _halves(self.seed, shadows) if learners else ((), shadows)
        learned: list[Learned] = []
        for number, attack in enumerate(self.attacks):
            folder = None if run.partial is None else run.partial / str(number)
            learned.append(attack.fit(replace(inputs, shadows=for_parts), replace(run, partial=folder)))
        entries = list(zip(self.attacks, learned, strict=True))
        x: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        for shadow in for_weights:
            model = shadow.load()
            for label, pictures in ((1, shadow.members), (0, shadow.nonmembers)):
                scored = score_pass(
                    entries, pictures, model, base=inputs.base, noise_seed=shadow.noise_seed, device=run.device
                )
                shadow.meter.evaluations += scored.evaluations
                x[label].append(np.stack(scored.scores, axis=1))
        tensors = to_tensors(regress(self.c, np.concatenate(x[1]), np.concatenate(x[0])))
        for number, state in enumerate(learned):
            tensors |= {f"{number}.{name}": tensor for name, tensor in state.items()}
        return tensors

    def scorer(self, inputs: ScoreInputs) -> Scorer:
        """The regression's decision value."""
        scorers = []
        for number, attack in enumerate(self.attacks):
            prefix = f"{number}."
            own = {k.removeprefix(prefix): v for k, v in inputs.learned.items() if k.startswith(prefix)}
            scorers.append(attack.scorer(replace(inputs, learned=own)))
        fitted = to_arrays({name: inputs.learned[name] for name in ("mean", "scale", "weight", "bias")})
        return lambda target: decide(fitted, np.stack([score(target) for score in scorers], axis=1))


def _halves(seed: int, shadows: tuple[Shadow, ...]) -> tuple[tuple[Shadow, ...], tuple[Shadow, ...]]:
    """The shadow targets with the people of either half."""
    halves: tuple[list[Shadow], list[Shadow]] = ([], [])
    for shadow in shadows:
        sides = [_split(seed, pictures) for pictures in (shadow.members, shadow.nonmembers)]
        for half in (0, 1):
            halves[half].append(replace(shadow, members=sides[0][half], nonmembers=sides[1][half], measured={}))
    return tuple(halves[0]), tuple(halves[1])


def _split(seed: int, pictures: "Pictures") -> list["Pictures"]:
    """Pictures of every other person, in the order of a hash of (seed, person), and the rest."""
    people = [who or record for who, record in zip(pictures.identities, pictures.ids, strict=True)]
    dealt = sorted(set(people), key=lambda person: seed_of(seed, "half", person))
    half = {person: index % 2 for index, person in enumerate(dealt)}
    return [pictures.take([row for row, who in enumerate(people) if half[who] == k]) for k in (0, 1)]
