"""What shadow-trained attacks share: measure on shadow targets, learn from it, judge the same measurement."""

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lmia.attacks import Attack, FitInputs, FitRun, Learned, Need, ScoreInputs, Scorer, Shadow
from lmia.models.probe import Probe
from lmia.specs import RequestError

if TYPE_CHECKING:
    from lmia.models.denoiser import Denoiser


class Labelled(NamedTuple):
    """What an attack measured on shadow targets, with the truth.

    Attributes:
        values: float64 [N, ...], one row a picture.
        labels: int64 [N], 1 = member of its shadow target.
        keys: one unique name per row.
    """

    values: np.ndarray
    labels: np.ndarray
    keys: list[str]


class ShadowTrained(Attack):
    """An attack that learns from what it measures on shadow targets, and judges what it measures on the target."""

    @property
    def needs(self) -> frozenset[Need]:
        """The target and shadow targets."""
        return frozenset({"model", "shadow"})

    @property
    def measurement(self) -> Hashable:
        """What is measured, all that decides its values included."""
        raise NotImplementedError

    def measure(self, target: Probe) -> np.ndarray:
        """The measurement of the target's pictures: float64 [N, ...]."""
        raise NotImplementedError

    def learn(self, data: Labelled, run: FitRun) -> Learned:
        """What is learned from the measurements."""
        raise NotImplementedError

    def decision(self, learned: Learned, device: str) -> Callable[[np.ndarray], np.ndarray]:
        """From measurements [N, ...] to scores [N]."""
        raise NotImplementedError

    def measuring(self, base: "Denoiser | None", device: str) -> Scorer:
        """`measure` with what it takes beside the Probe, made ready once."""
        return self.measure

    def fit(self, inputs: FitInputs, run: FitRun) -> Learned:
        """Measures on shadow targets (once a Shadow, for all attacks with the same measurement) and learns from it."""
        shadows = self.need(inputs.shadows, "shadow")
        return self.learn(on_shadows(shadows, self.measurement, self.measuring(inputs.base, run.device)), run)

    def scorer(self, inputs: ScoreInputs) -> Scorer:
        """The decision on the measurement."""
        measure = self.measuring(inputs.base, inputs.device)
        decide = self.decision(inputs.learned, inputs.device)
        return lambda target: decide(measure(target))


def on_shadows(shadows: Sequence[Shadow], name: Hashable, measure: Scorer, *, chunk: int = 64) -> Labelled:
    """Applies `measure` to all pictures of all shadow targets, in steps of `chunk` pictures.

    Args:
        shadows: the shadow targets.
        name: what is measured, all that decides its values included; measured once a Shadow.
        measure: from a Probe to one row a picture.
        chunk: pictures per step, a matter of memory.
    """
    values, labels, keys = [], [], []
    for number, shadow in enumerate(shadows):
        if name not in shadow.measured:
            model = shadow.load()
            shadow.measured[name] = np.concatenate(
                [
                    measure(Probe(model, part, noise_seed=shadow.noise_seed, meter=shadow.meter))
                    for pictures in (shadow.members, shadow.nonmembers)
                    for part in pictures.chunks(chunk)
                ]
            )
        values.append(shadow.measured[name])
        for label, pictures in ((1, shadow.members), (0, shadow.nonmembers)):
            labels += [label] * len(pictures)
            keys += [f"{number}/{label}/{record}" for record in pictures.ids]
    if len(set(labels)) < 2:
        raise RequestError("shadow targets need both members and non-members")
    return Labelled(np.concatenate(values), np.array(labels), keys)
