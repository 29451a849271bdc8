"""Simulated scores whose true AUC and TPR are known, in the designs that the benchmark uses. Used by script and test.

Scores are normal with unit variance: a member's mean is shifted, a person's photos share sqrt(icc) of a draw, a
picture's own part is half common to all worlds and half new in each; a world adds its own shift to members.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from lmia.metrics.scores import ScoreSet

COMMON = 0.5  # share of a picture's own variance that all worlds see
WORLD_SHIFT = 0.1  # standard deviation between worlds of the members' shift


@dataclass(frozen=True)
class Design:
    """One way to sample: pictures per class, photos a person, correlation within a person, true AUC."""

    num: int
    photos: int
    icc: float
    auc: float

    @property
    def persons(self) -> list[str]:
        return [f"{i // self.photos}" for i in range(2 * self.num)]

    @property
    def shift(self) -> float:
        """Members' mean such that the mean AUC over worlds is `auc`."""
        return float(special.ndtri(self.auc) * np.sqrt(2 + WORLD_SHIFT**2))


@dataclass(frozen=True)
class Draw:
    """A sample of several worlds: target's and twin's scores, and each world's own true AUC (mean of the twins)."""

    targets: list[ScoreSet]
    twins: list[ScoreSet]
    target_auc: np.ndarray
    delta: np.ndarray


def draw(design: Design, num_worlds: int, rng: np.random.Generator, *, twins: bool = True) -> Draw:
    """Scores of `num_worlds` worlds on the same people."""
    total = 2 * design.num
    ids = [str(i) for i in range(total)]
    persons = design.persons if design.photos > 1 else None
    in_a = np.arange(total) < design.num
    within = np.repeat(rng.normal(size=total // design.photos), design.photos) * np.sqrt(design.icc)
    common = rng.normal(size=total)
    shifts = design.shift + WORLD_SHIFT * rng.normal(size=(num_worlds, 2))

    def scores(shift: float, member: np.ndarray) -> ScoreSet:
        own = np.sqrt(COMMON) * common + np.sqrt(1 - COMMON) * rng.normal(size=total)
        return ScoreSet(ids, within + np.sqrt(1 - design.icc) * own + shift * member, member, persons)

    aucs = special.ndtr(shifts / np.sqrt(2))
    return Draw(
        [scores(shift, in_a) for shift in shifts[:, 0]],
        [scores(shift, ~in_a) for shift in shifts[:, 1]] if twins else [],
        aucs[:, 0],
        aucs.mean(axis=1) - 0.5,
    )


def true_tpr(shift: float, fpr: float) -> float:
    """TPR where the population's FPR is `fpr`."""
    return float(special.ndtr(shift + special.ndtri(fpr)))
