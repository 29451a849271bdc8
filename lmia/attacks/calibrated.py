"""Difference calibration: the same score on the public base model is taken off, so that what is easy anyway cancels.

Paper: Watson, Guo, Cormode, Sablayrolles: On the Importance of Difficulty Calibration in Membership Inference Attacks
    (ICLR 2022); Carlini et al.: Membership Inference Attacks From First Principles (2022).
Equation: score(x) = s(x; target) - s(x; base), s = any attack's oriented score (a logit or a margin, never a
    probability), with the same noises for both.
Access: that of the wrapped attack, and the base model.
Sign: higher = member, as the wrapped attack's.
Deviations: none. Attacks that do not ask the target while scoring cannot be wrapped: their difference would be 0.
"""

from collections.abc import Hashable

from pydantic import Field, field_validator

from lmia.attacks import AnyAttack, Attack, FitInputs, FitRun, Learned, Need, ScoreInputs, Scorer
from lmia.attacks.loss import Loss


class Calibrated(Attack, name="calibrated"):
    """A score minus the same score on the base model."""

    version = 1
    paper = "Watson et al., ICLR 2022"

    attack: AnyAttack = Field(Loss(), description="the wrapped attack: its name, or its kind and settings")

    @field_validator("attack")
    @classmethod
    def _asks_the_target(cls, attack: Attack) -> Attack:
        if isinstance(attack, Calibrated):
            raise ValueError("calibrated cannot wrap itself")
        if "model" not in attack.needs:
            raise ValueError(f"{attack.name!r} does not ask the target while scoring: nothing to calibrate")
        return attack

    @property
    def needs(self) -> frozenset[Need]:
        """What the wrapped attack needs, and the base."""
        return super().needs | {"base"}

    @property
    def learns(self) -> bool:
        """Only when the wrapped attack does."""
        return self.attack.learns

    @property
    def evaluations(self) -> dict[Hashable, int]:
        """The wrapped attack's, on the target and on the base."""
        on_target = self.attack.evaluations
        return on_target | {("base", name): count for name, count in on_target.items()}

    def fit(self, inputs: FitInputs, run: FitRun) -> Learned:
        """What the wrapped attack learns."""
        return self.attack.fit(inputs, run)

    def scorer(self, inputs: ScoreInputs) -> Scorer:
        """s(x; target) - s(x; base)."""
        score = self.attack.scorer(inputs)
        return lambda target: score(target) - score(target.base)
