"""Difference calibration: the same score on the public base model is taken off, so that what is easy anyway cancels.

Paper: Watson, Guo, Cormode, Sablayrolles: On the Importance of Difficulty Calibration in Membership Inference Attacks
    (ICLR 2022); Carlini et al.: Membership Inference Attacks From First Principles (2022).
Equation: score(x) = s(x; target) - s(x; base), s = any attack's oriented score (a logit or a margin, never a
    probability), with the same noises for both.
Access: that of the wrapped attack, and the base model.
Sign: higher = member, as the wrapped attack's.
Deviations: none. Attacks that do not ask the target while scoring cannot be wrapped: their difference would be 0.
"""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, model_validator

from lmia.attacks import ATTACKS, Access, Attack, Learned, Progress, silent
from lmia.attacks.components import Component

if TYPE_CHECKING:
    from lmia.data.pictures import Pictures


class CalibratedSpec(Component):
    """Which attack is calibrated."""

    attack: str = Field("loss", description="name of the wrapped attack")

    @model_validator(mode="after")
    def _asks_the_target(self) -> "CalibratedSpec":
        attack, inner = self.unwrap()
        if attack is Calibrated:
            raise ValueError("calibrated cannot wrap itself")
        if "model" not in attack.requires(inner):
            raise ValueError(f"{self.attack!r} does not ask the target while scoring: nothing to calibrate")
        return self


@ATTACKS.register("calibrated")
class Calibrated(Attack):
    """A score minus the same score on the base model."""

    version = 1
    Spec = CalibratedSpec
    access = "eps"
    needs = frozenset({"model", "base", "captions", "shadow", "encoder"})
    learns = True
    paper = "Watson et al., ICLR 2022"

    @classmethod
    def access_for(cls, spec: CalibratedSpec) -> Access:
        """The wrapped attack's."""
        attack, inner = spec.unwrap()
        return attack.access_for(inner)

    @classmethod
    def requires(cls, spec: CalibratedSpec) -> frozenset[str]:
        """What the wrapped attack requires, and the base."""
        attack, inner = spec.unwrap()
        return attack.requires(inner) | {"base"}

    @classmethod
    def fits(cls, spec: CalibratedSpec) -> bool:
        """Only when the wrapped attack does."""
        attack, inner = spec.unwrap()
        return attack.fits(inner)

    @classmethod
    def evaluations(cls, spec: CalibratedSpec) -> dict[Hashable, int]:
        """The wrapped attack's, on the target and on the base."""
        attack, inner = spec.unwrap()
        on_target = attack.evaluations(inner)
        return on_target | {("base", name): count for name, count in on_target.items()}

    @classmethod
    def check(cls, spec: CalibratedSpec, captions: Mapping[str, str | None]) -> None:
        """The wrapped attack's check."""
        attack, inner = spec.unwrap()
        attack.check(inner, captions)

    @classmethod
    def fit(
        cls,
        spec: CalibratedSpec,
        inputs: Mapping[str, Any],
        *,
        device: str = "cpu",
        partial: Path | None = None,
        on_progress: Progress = silent,
    ) -> Learned:
        """What the wrapped attack learns; nothing if it does not."""
        attack, inner = spec.unwrap()
        return attack.fit(inner, inputs, device=device, partial=partial, on_progress=on_progress) or {}

    @classmethod
    def prepare(cls, spec: CalibratedSpec, learned: Learned | None, *, base: Any, device: str) -> Any:
        """(wrapped attack, its spec, what it prepared)."""
        attack, inner = spec.unwrap()
        return attack, inner, attack.prepare(inner, learned, base=base, device=device)

    @classmethod
    def score_batch(
        cls, spec: CalibratedSpec, query: "Pictures", *, prepared: Any, probe: Any, base: Any, device: str
    ) -> np.ndarray:
        """s(x; target) - s(x; base)."""
        attack, inner, inside = prepared
        on = [
            attack.score_batch(inner, query, prepared=inside, probe=model, base=base, device=device)
            for model in (probe, base)
        ]
        return on[0] - on[1]
