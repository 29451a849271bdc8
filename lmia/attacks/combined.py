"""The combiner: several attacks' scores in one, weighted by what they achieved on shadow people.

Paper: Dubinski, Kowalczuk, Boenisch, Dziedzic: CDI, Copyrighted Data Identification in Diffusion Models (CVPR 2025).
Equation: score(x) = w . standardised(s_1(x), .., s_A(x)) + b; w, b = ridge logistic regression on shadow targets.
Access: that of its components.
Sign: higher = member.
Deviations: one honest split by person instead of repeated ones: components that learn are fitted on one half of the
    shadow people, the regression on the other half (on all of them if no component learns). The set-level decision
    itself, a one-sided test of a suspected set's scores against a known-unseen set's, belongs to the metrics.
"""

from collections.abc import Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, model_validator

from lmia.attacks import ACCESS, ATTACKS, Access, Attack, Learned, Progress, Shadow, need, silent
from lmia.attacks.blind import decide, regress
from lmia.attacks.components import Component
from lmia.attacks.scoring import score_pass
from lmia.seeds import seed_of
from lmia.specs import Spec

if TYPE_CHECKING:
    from lmia.data.pictures import Pictures


def _default_components() -> tuple[Component, ...]:
    return tuple(Component(attack=name) for name in ("loss", "secmi", "pia", "pian", "sima", "pfami"))


class CombinedSpec(Spec):
    """Which attacks, and how strongly the regression is held back."""

    attacks: tuple[Component, ...] = Field(
        default_factory=_default_components, min_length=1, description="the attacks that are combined"
    )
    c: float = Field(1.0, gt=0, description="inverse of the ridge penalty, on standardised scores")
    seed: int = Field(0, ge=0, description="which shadow people fall into which half")

    @model_validator(mode="after")
    def _can_be_combined(self) -> "CombinedSpec":
        for component in self.attacks:
            attack, inner = component.unwrap()
            if attack is Combined:
                raise ValueError("combined cannot contain itself")
            if "model" not in attack.requires(inner):
                raise ValueError(f"{component.attack!r} does not ask the target while scoring: it cannot be combined")
        return self


@ATTACKS.register("combined")
class Combined(Attack):
    """Logistic regression on several attacks' scores."""

    version = 1
    Spec = CombinedSpec
    access = "eps"
    needs = frozenset({"model", "base", "captions", "shadow", "encoder"})
    learns = True
    paper = "Dubinski et al., CVPR 2025 (CDI)"

    @classmethod
    def access_for(cls, spec: CombinedSpec) -> Access:
        """The strongest of the components'."""
        parts = [component.unwrap() for component in spec.attacks]
        return max((attack.access_for(inner) for attack, inner in parts), key=ACCESS.index)

    @classmethod
    def requires(cls, spec: CombinedSpec) -> frozenset[str]:
        """What any component requires, and shadow targets."""
        parts = [component.unwrap() for component in spec.attacks]
        return frozenset({"model", "shadow"}).union(*(attack.requires(inner) for attack, inner in parts))

    @classmethod
    def evaluations(cls, spec: CombinedSpec) -> dict[Hashable, int]:
        """The components', what they share once."""
        parts = [component.unwrap() for component in spec.attacks]
        return {name: count for attack, inner in parts for name, count in attack.evaluations(inner).items()}

    @classmethod
    def check(cls, spec: CombinedSpec, captions: Mapping[str, str | None]) -> None:
        """The components' checks."""
        for attack, inner in (component.unwrap() for component in spec.attacks):
            attack.check(inner, captions)

    @classmethod
    def fit(
        cls,
        spec: CombinedSpec,
        inputs: Mapping[str, Any],
        *,
        device: str = "cpu",
        partial: Path | None = None,
        on_progress: Progress = silent,
    ) -> Learned:
        """What the components learn on one half, and the regression of the other half's scores."""
        import torch

        from lmia.models.probe import Probe

        (shadows,) = need(inputs, ("shadow",), cls.name)
        parts = [component.unwrap() for component in spec.attacks]
        learners = [attack.fits(inner) for attack, inner in parts]
        for_parts, for_weights = _halves(spec.seed, shadows) if any(learners) else ([], list(shadows))
        learned: list[Learned | None] = []
        for number, (attack, inner) in enumerate(parts):
            folder = None if partial is None else partial / str(number)
            given = {**inputs, "shadow": for_parts}
            learned.append(
                attack.fit(inner, given, device=device, partial=folder, on_progress=on_progress)
                if learners[number]
                else None
            )
        entries = [
            (f"{component.attack}:{number}", inner, learned[number])
            for number, (component, (_, inner)) in enumerate(zip(spec.attacks, parts, strict=True))
        ]
        base = inputs.get("base")
        x: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        for shadow in for_weights:
            probe = shadow.probe()
            reference = None if base is None else Probe(base, shadow.noise_seed)
            for label, pictures in ((1, shadow.members), (0, shadow.nonmembers)):
                scores = score_pass(entries, pictures, probe, base=reference, device=device)
                x[label].append(np.stack([scores[name] for name, _, _ in entries], axis=1))
        fitted = regress(spec.c, np.concatenate(x[1]), np.concatenate(x[0]))
        tensors = {name: torch.from_numpy(np.atleast_1d(value)) for name, value in fitted.items()}
        for number, state in enumerate(learned):
            tensors |= {f"{number}.{name}": tensor for name, tensor in (state or {}).items()}
        return tensors

    @classmethod
    def prepare(cls, spec: CombinedSpec, learned: Learned | None, *, base: Any, device: str) -> Any:
        """(components with what they prepared, regression)."""
        assert learned is not None
        parts = []
        for number, component in enumerate(spec.attacks):
            attack, inner = component.unwrap()
            prefix = f"{number}."
            own = {k[len(prefix) :]: v for k, v in learned.items() if k.startswith(prefix)}
            parts.append((attack, inner, attack.prepare(inner, own, base=base, device=device)))
        return parts, {name: learned[name].numpy() for name in ("mean", "scale", "weight", "bias")}

    @classmethod
    def score_batch(
        cls, spec: CombinedSpec, query: "Pictures", *, prepared: Any, probe: Any, base: Any, device: str
    ) -> np.ndarray:
        """The regression's decision value."""
        parts, fitted = prepared
        columns = [
            attack.score_batch(inner, query, prepared=inside, probe=probe, base=base, device=device)
            for attack, inner, inside in parts
        ]
        return decide(fitted, np.stack(columns, axis=1))


def _halves(seed: int, shadows: list[Shadow]) -> tuple[list[Shadow], list[Shadow]]:
    """The shadow targets with the people of either half."""
    halves: tuple[list[Shadow], list[Shadow]] = ([], [])
    for shadow in shadows:
        sides = [_split(seed, pictures) for pictures in (shadow.members, shadow.nonmembers)]
        for half in (0, 1):
            halves[half].append(replace(shadow, members=sides[0][half], nonmembers=sides[1][half], measured={}))
    return halves


def _split(seed: int, pictures: "Pictures") -> list["Pictures"]:
    """Pictures of every other person, in the order of a hash of (seed, person), and the rest."""
    people = [who or record for who, record in zip(pictures.identities, pictures.ids, strict=True)]
    dealt = sorted(set(people), key=lambda person: seed_of(seed, "half", person))
    half = {person: index % 2 for index, person in enumerate(dealt)}
    return [pictures.take([row for row, who in enumerate(people) if half[who] == k]) for k in (0, 1)]
