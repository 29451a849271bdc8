"""Membership attacks: one file each, one class each, whose fields are the attack's settings.

An attack says what it needs and what it costs, learns (some do) from inputs that exclude the query set, and gives
every picture of the query set one float64 score, higher = more likely a member. It never asks which model it has:
what it may do with a target is the `Probe`'s few calls.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeVar

import numpy as np
from pydantic import (
    BeforeValidator,
    SerializationInfo,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from lmia.models.probe import Meter, Probe
from lmia.registry import Registry
from lmia.specs import RequestError, Spec, explain

if TYPE_CHECKING:
    import torch

    from lmia.data.pictures import Pictures
    from lmia.models.denoiser import Denoiser

T = TypeVar("T")
Access = Literal["none", "text-to-image", "img2img", "eps", "gradient"]
Need = Literal["model", "positives", "negatives", "captions", "base", "shadow", "encoder"]
Learned = dict[str, "torch.Tensor"]
Progress = Callable[[dict[str, float]], None]
Scorer = Callable[[Probe], np.ndarray]

ACCESS: tuple[Access, ...] = ("none", "text-to-image", "img2img", "eps", "gradient")
"""From the weakest to the strongest."""


def silent(figures: dict[str, float]) -> None:
    """The progress callback that does nothing."""


@dataclass(frozen=True)
class Shadow:
    """A shadow target with pictures whose membership is known: what shadow-trained attacks learn from.

    Attributes:
        model: the shadow target, or a function without arguments that loads it (several large models need not
            be in memory together).
        members: pictures that it was tuned on.
        nonmembers: pictures of other people of the same source. All people are disjoint from the query set's.
        noise_seed: seed of the noises of its Probes.
        measured: what attacks measured on its pictures, by what it is: attacks that learn from the same measurement
            share it when they are fitted on the same Shadow.
        meter: counts what fitting cost.
    """

    model: "Denoiser | Callable[[], Denoiser]"
    members: "Pictures"
    nonmembers: "Pictures"
    noise_seed: int = 0
    measured: dict[Hashable, np.ndarray] = field(default_factory=dict, compare=False)
    meter: Meter = field(default_factory=Meter, compare=False)

    def load(self) -> "Denoiser":
        """The shadow model."""
        from lmia.models.denoiser import Denoiser

        return self.model if isinstance(self.model, Denoiser) else self.model()


@dataclass(frozen=True)
class FitInputs:
    """What attacks learn from, as far as it is there.

    Attributes:
        positives: pictures that the target generated (or that stand for members).
        negatives: auxiliary pictures.
        shadows: shadow targets.
        base: the public base model.
    """

    positives: "Pictures | None" = None
    negatives: "Pictures | None" = None
    shadows: tuple[Shadow, ...] = ()
    base: "Denoiser | None" = None


@dataclass(frozen=True)
class FitRun:
    """How an attack is fitted; no matter of results.

    Attributes:
        device: where to compute.
        partial: a folder for progress, from which an interrupted fit goes on to the same bits.
        on_progress: called now and then with figures such as epoch, loss and the share done.
    """

    device: str = "cpu"
    partial: Path | None = None
    on_progress: Progress = silent


@dataclass(frozen=True)
class ScoreInputs:
    """What scoring takes beside the Probe.

    Attributes:
        learned: what `fit` returned.
        base: the public base model, for encoders that are its VAE.
        device: where offline attacks compute; a Probe computes where its model is.
    """

    learned: Learned = field(default_factory=dict)
    base: "Denoiser | None" = None
    device: str = "cpu"


class Attack(Spec):
    """Base class of all attacks: an attack is its settings, frozen.

    `class Sima(Attack, name="sima")` registers it. Attacks that learn define `fit` and `scorer`, the others `score`.
    Serialised, an attack says its `kind` and `version` beside its settings, and so do the attacks inside it: what is
    addressed by an attack moves when the version of any of them is raised.

    Class attributes:
        version: raised whenever scores or learned states change.
        paper: where it is from.
        role: "attack", or "control" for what is shown beside attacks and never ranked.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    paper: ClassVar[str]
    role: ClassVar[Literal["attack", "control"]] = "attack"

    def __init_subclass__(cls, *, name: str | None = None) -> None:
        super().__init_subclass__()
        if name is not None:
            ATTACKS.register(name)(cls)

    @property
    def access(self) -> Access:
        """What it asks of the target, "none": it looks at pictures only; the strongest of the attacks inside."""
        return max((part.access for part in self.parts), key=ACCESS.index, default="eps")

    @property
    def needs(self) -> frozenset[Need]:
        """Everything that it needs, the attacks inside included.

        "model": a Probe on the target while scoring; "base": the public base model; "captions": a caption per query
        picture; "positives"/"negatives"/"shadow": inputs of `fit`; "encoder": weights from outside.
        """
        return frozenset[Need]({"model"}).union(*(part.needs for part in self.parts))

    @property
    def parts(self) -> "tuple[Attack, ...]":
        """The attacks inside this one."""
        return tuple(part for _, value in self for part in (value if isinstance(value, tuple) else (value,))
                     if isinstance(part, Attack))  # fmt: skip

    @property
    def learns(self) -> bool:
        """Whether there is something to fit."""
        return type(self).fit is not Attack.fit

    @property
    def evaluations(self) -> dict[Hashable, int]:
        """U-Net evaluations per scored picture by what they compute; empty for offline attacks.

        The names are those under which the Probe remembers the work, so attacks whose names are equal share it, and
        what several attacks spend together is the sum over the union. Evaluations are counted in rows: classifier-free
        guidance counts two, a forward with its backward one.
        """
        return {}

    @property
    def nfe(self) -> int:
        """U-Net evaluations per scored picture, one attack alone."""
        return sum(self.evaluations.values())

    def check(self, captions: Mapping[str, str | None]) -> None:
        """Raises RequestError when it (or one inside) cannot score pictures with these captions; before any work.

        Args:
            captions: of each picture by its record id; None where it has none.
        """
        for part in self.parts:
            part.check(captions)
        if "captions" in self.needs:
            missing = [record for record, caption in captions.items() if caption is None]
            if missing:
                raise RequestError(f"attack {self.name!r} needs a caption for every picture; {missing[0]!r} has none")

    def fit(self, inputs: FitInputs, run: FitRun) -> Learned:
        """What the attack learns, as tensors for safetensors; nothing unless a subclass says so."""
        return {}

    def score(self, target: Probe) -> np.ndarray:
        """Scores of the target's pictures: float64 [N], higher = more likely a member."""
        raise TypeError(f"attack {self.name!r} scores with what it learned: scorer(inputs)(target)")

    def scorer(self, inputs: ScoreInputs) -> Scorer:
        """`score` with what the attack learned, made ready once for many Probes, such as a network on its device."""
        return self.score

    def need(self, value: T | None, what: Need) -> T:
        """An input of `fit`; RequestError naming it if it is absent or empty."""
        if value is None or (hasattr(value, "__len__") and len(value) == 0):
            raise RequestError(f"attack {self.name!r} cannot be fitted without {what!r}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _own_kind(cls, data: object) -> object:
        if not isinstance(data, Mapping):
            return data
        for key, own in (("kind", cls.name), ("version", cls.version)):
            if data.get(key, own) != own:
                raise ValueError(f"{key} {data[key]!r} is not that of {cls.name!r}, {own!r}")
        return {key: value for key, value in data.items() if key not in ("kind", "version")}

    @model_serializer(mode="wrap")
    def _with_kind(self, settings: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, object]:
        said = {"kind": self.name, "version": self.version, **settings(self)}
        for key, value in self:  # attacks inside are said even where they are the default: their versions count
            if isinstance(value, Attack):
                said[key] = value._said(info)
            elif isinstance(value, tuple) and any(isinstance(part, Attack) for part in value):
                said[key] = [part._said(info) for part in value]
        return said

    def _said(self, info: SerializationInfo) -> dict[str, object]:
        return self.model_dump(mode=info.mode, exclude_defaults=info.exclude_defaults)


ATTACKS: Registry[type[Attack]] = Registry("attack", "lmia.attacks")


def attack_from(name: str, settings: Mapping[str, object], where: str = "") -> Attack:
    """The attack called `name` with plain settings.

    Args:
        name: as registered.
        settings: values of its fields.
        where: what an error calls the settings.

    Raises:
        UnknownName: there is no such attack.
        RequestError: a setting is unknown or out of bounds.
    """
    method = ATTACKS.get(name)
    try:
        return method.model_validate(settings)
    except ValidationError as error:
        raise explain(error, method, where or f"attack {name!r}") from None


def _attack_of(value: object) -> object:
    """An attack from its name, or from its settings with its `kind`."""
    if isinstance(value, str):
        value = {"kind": value}
    if not isinstance(value, Mapping):
        return value
    if not isinstance(value.get("kind"), str):
        raise ValueError(f"the kind of the attack is missing (known: {', '.join(ATTACKS.names())})")
    return attack_from(value["kind"], value)


AnyAttack = Annotated[SerializeAsAny[Attack], BeforeValidator(_attack_of)]
"""A field that holds any registered attack; its `kind` tells which."""


def to_tensors(arrays: Mapping[str, np.ndarray | float]) -> Learned:
    """Fitted arrays as tensors of the same types; a number becomes one of one element."""
    import torch

    return {name: torch.from_numpy(np.atleast_1d(value)) for name, value in arrays.items()}


def to_arrays(learned: Learned) -> dict[str, np.ndarray]:
    """Tensors as arrays of the same types."""
    return {name: tensor.numpy() for name, tensor in learned.items()}
