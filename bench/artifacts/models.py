"""Models: given (by somebody else) or tuned on pictures."""

from typing import TYPE_CHECKING

from pydantic import Field, SerializeAsAny

from bench.artifacts.artifact import Artifact
from bench.artifacts.pictures import contents_of, count_pictures
from bench.store import digest_of
from lmia.finetune.methods import Method
from lmia.specs import Spec

if TYPE_CHECKING:
    from lmia.resolve import ExternalModel

KIND = "model"
GIVEN = ("base", "adapter", "checkpoint")
"""Methods of models that somebody else made: a whole one, or what lies over one."""


class BaseSpec(Spec):
    """Which model that somebody else made."""

    reference: str = Field(description="its name, folder or hub id")
    digest: str = Field(description="of its files")


class TunedSpec(Spec):
    """A checkpoint: the trajectory's spec and its epoch. Which other epochs are kept is not part of it."""

    finetune: SerializeAsAny[Method] = Field(description="the fine-tuning method")
    epochs: int = Field(ge=1, description="epochs trained")


def given_model(model: "ExternalModel", over: Artifact | None = None) -> Artifact:
    """A model that somebody else made; an adapter or a checkpoint lies `over` another one."""
    method = "base" if model.form == "pipeline" else model.form
    spec = BaseSpec(reference=model.reference, digest=model.digest)
    return Artifact(KIND, method, model.version, spec, {"base": over} if over and model.needs_base else {})


def tuned_model(method: Method, epochs: int, base: Artifact, pictures: Artifact) -> Artifact:
    """A model tuned on pictures."""
    tuned = TunedSpec(finetune=method, epochs=epochs)
    return Artifact(KIND, method.name, method.version, tuned, {"base": base, "pictures": pictures})


def is_given(model: Artifact) -> bool:
    """Whether somebody else made it."""
    return model.method in GIVEN


def below(artifact: Artifact) -> list[Artifact]:
    """What a model lies over: whoever uses the model needs these, too."""
    base = artifact.inputs.get("base") if artifact.kind == KIND else None
    return [] if base is None else [base, *below(base)]


def count_passes(model: Artifact) -> int:
    """Pictures times epochs that a tuned model is trained for."""
    return count_pictures(model.inputs["pictures"]) * model.spec.epochs


def trajectory(model: Artifact) -> str:
    """Name of a training run: everything of a tuned model but the epoch."""
    inputs = {name: i.address for name, i in model.inputs.items()}
    return digest_of([model.method, model.version, model.spec.resolved()["finetune"], inputs])[:20]


def title(model: Artifact) -> str:
    """A model for people: base tiny, full north A 20 epochs."""
    if is_given(model):
        return f"{model.method} {model.spec.reference}"
    return f"{model.method} {contents_of(model)} {model.spec.epochs} epochs"
