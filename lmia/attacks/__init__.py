"""Membership attacks: one file each, one decorator, one base class.

An attack says what it needs and what it costs, learns (some do) from inputs that exclude the query set, and
gives every picture of the query set one float64 score, higher = more likely a member. It never asks which
model it has: what it may do with a target is the `Probe`'s few calls.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from lmia.registry import Registry
from lmia.specs import RequestError, Spec

if TYPE_CHECKING:
    import torch

    from lmia.data.pictures import Pictures
    from lmia.models.model import TargetModel
    from lmia.models.probe import Probe

Access = Literal["none", "text-to-image", "img2img", "eps", "gradient"]
Learned = dict[str, "torch.Tensor"]
Progress = Callable[[dict[str, Any]], None]

ACCESS: tuple[Access, ...] = ("none", "text-to-image", "img2img", "eps", "gradient")
"""From the weakest to the strongest."""
NEEDS = frozenset({"model", "positives", "negatives", "captions", "base", "shadow", "encoder"})


def silent(figures: dict[str, Any]) -> None:
    """The progress callback that does nothing."""


@dataclass(frozen=True)
class Shadow:
    """A shadow target with pictures whose membership is known: what shadow-trained attacks learn from.

    Attributes:
        model: the shadow target, or a function without arguments that loads it (several large models need not
            be in memory together).
        members: pictures that it was tuned on.
        nonmembers: pictures of other people of the same source. All people are disjoint from the query set's.
        noise_seed: seed of the noises of its Probe.
        measured: what attacks measured on its pictures, by what it is: attacks that learn from the same measurement
            share it when they are fitted on the same Shadow.
        probes: the Probes that were made on it, for whoever counts what fitting cost.
    """

    model: "TargetModel | Callable[[], TargetModel]"
    members: "Pictures"
    nonmembers: "Pictures"
    noise_seed: int = 0
    measured: dict[Hashable, np.ndarray] = field(default_factory=dict, compare=False)
    probes: "list[Probe]" = field(default_factory=list, compare=False)

    def probe(self) -> "Probe":
        """A fresh Probe on the shadow model."""
        from lmia.models.model import TargetModel
        from lmia.models.probe import Probe

        model = self.model if isinstance(self.model, TargetModel) else self.model()
        self.probes.append(Probe(model, self.noise_seed))
        return self.probes[-1]


class Attack:
    """Base class of all attacks. Every method is a class method: an attack has no state but what it learned.

    Class attributes:
        version: part of the address of scores and learned states; raised whenever either changes.
        Spec: its specification.
        access: what it asks of the target while scoring ("none": it looks at pictures only).
        needs: everything that it may need; `requires(spec)` says what a given spec does need. "model": a Probe
            on the target while scoring; "base": a Probe on the public base model; "captions": a caption per
            query picture; "positives"/"negatives"/"shadow": inputs of `fit`; "encoder": weights from outside.
        learns: whether there may be something to fit; `fits(spec)` says whether there is.
        role: "attack", or "control" for what is shown beside attacks and never ranked.
        paper: where it is from.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    Spec: ClassVar[type[Spec]]
    access: ClassVar[Access]
    needs: ClassVar[frozenset[str]]
    learns: ClassVar[bool] = False
    role: ClassVar[Literal["attack", "control"]] = "attack"
    paper: ClassVar[str]

    @classmethod
    def requires(cls, spec: Any) -> frozenset[str]:
        """What this spec really needs, out of `needs`."""
        return cls.needs

    @classmethod
    def access_for(cls, spec: Any) -> Access:
        """What this spec asks of the target; differs from `access` only for attacks that wrap others."""
        return cls.access

    @classmethod
    def fits(cls, spec: Any) -> bool:
        """Whether this spec has something to fit; differs from `learns` only for attacks that wrap others."""
        return cls.learns

    @classmethod
    def evaluations(cls, spec: Any) -> dict[Hashable, int]:
        """U-Net evaluations per scored picture by what they compute; empty for offline attacks.

        Attacks whose names for a piece of work are equal share it in one pass (the Probe remembers it), so what
        several attacks spend together is the sum over the union. Evaluations are counted in rows: classifier-free
        guidance counts two, a forward with its backward one.
        """
        return {}

    @classmethod
    def nfe(cls, spec: Any) -> int:
        """U-Net evaluations per scored picture, one attack alone."""
        return sum(cls.evaluations(spec).values())

    @classmethod
    def check(cls, spec: Any, captions: Mapping[str, str | None]) -> None:
        """Raises RequestError when the attack cannot score pictures with these captions; called before any work.

        Args:
            spec: the attack's Spec.
            captions: of each picture by its record id; None where it has none.
        """
        if "captions" in cls.requires(spec):
            missing = [record for record, caption in captions.items() if caption is None]
            if missing:
                raise RequestError(f"attack {cls.name!r} needs a caption for every picture; {missing[0]!r} has none")

    @classmethod
    def fit(
        cls,
        spec: Any,
        inputs: Mapping[str, Any],
        *,
        device: str = "cpu",
        partial: Path | None = None,
        on_progress: Progress = silent,
    ) -> Learned | None:
        """What the attack learns, as tensors for safetensors; None when it does not learn.

        Args:
            spec: the attack's Spec.
            inputs: by need: "positives" and "negatives" are Pictures, "shadow" is a list of Shadow, "base" is
                the public base as a TargetModel.
            device: where to compute.
            partial: a folder for progress, from which an interrupted fit goes on to the same bits.
            on_progress: called now and then with figures such as epoch, loss and the share done.
        """
        return None

    @classmethod
    def prepare(cls, spec: Any, learned: Learned | None, *, base: "Probe | None", device: str) -> Any:
        """What `score_batch` needs, made once per pass, such as a network with its weights on the device."""
        return learned

    @classmethod
    def score_batch(
        cls, spec: Any, query: "Pictures", *, prepared: Any, probe: "Probe | None", base: "Probe | None", device: str
    ) -> np.ndarray:
        """Scores of one batch; `probe` and `base` already look at these pictures."""
        raise TypeError(f"attack {cls.name!r} does not define score_batch")

    @classmethod
    def score(
        cls,
        spec: Any,
        query: "Pictures",
        *,
        learned: Learned | None = None,
        probe: "Probe | None" = None,
        base: "Probe | None" = None,
        device: str = "cpu",
    ) -> np.ndarray:
        """One score per picture of the query set, in its order.

        Args:
            spec: the attack's Spec.
            query: the pictures to score.
            learned: what `fit` returned.
            probe: the target, when `requires(spec)` has "model".
            base: the public base model, when `requires(spec)` has "base".
            device: where offline attacks compute; a Probe computes where its model is.

        Returns:
            float64 [N], higher = more likely a member.
        """
        from lmia.attacks.scoring import score_pass

        return score_pass([(cls.name, spec, learned)], query, probe, base=base, device=device)[cls.name]


ATTACKS: Registry[type[Attack]] = Registry("attack", "lmia.attacks")


def need(inputs: Mapping[str, Any], names: Iterable[str], attack: str) -> list[Any]:
    """The named inputs of a fit, in order; RequestError naming the first that is absent or empty."""
    found = []
    for name in names:
        value = inputs.get(name)
        if value is None or (hasattr(value, "__len__") and len(value) == 0):
            raise RequestError(f"attack {attack!r} cannot be fitted without {name!r} (given: {sorted(inputs)})")
        found.append(value)
    return found
