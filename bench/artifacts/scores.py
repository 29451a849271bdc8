"""Scores: one model x one attack x one set of pictures. Membership is not in them."""

from typing import Literal

from pydantic import Field

from bench.artifacts.artifact import Artifact, num_slices
from bench.artifacts.pictures import count_pictures
from bench.artifacts.pictures import title as title_of_pictures
from lmia.attacks import AnyAttack
from lmia.attacks.blind import Blind
from lmia.specs import Spec

KIND = "scores"
CROSSFIT = "blind_crossfit"


class ScoresSpec(Spec):
    """How a set of pictures is scored."""

    attack: AnyAttack
    captions: str | None = Field(None, description="captions that go with the pictures: caption, class or empty")
    source: str | None = Field(None, description="the source that class captions name")
    noise_seed: int = Field(0, ge=0, description="noises are the same for every model, condition and attack")
    batch: int = Field(16, ge=1, description="pictures per U-Net call")
    dtype: str = Field("float32", description="dtype of the model's weights and activations")


class BlindCrossfitSpec(Spec):
    """The blind control of two halves: each person is scored by a classifier fitted on the others."""

    blind: Blind
    see: Literal["pictures", "captions"] = Field("pictures", description="what the classifier looks at")


def scores(
    spec: ScoresSpec,
    query: Artifact,
    most: int,
    *,
    model: Artifact | None = None,
    base: Artifact | None = None,
    learned: Artifact | None = None,
) -> Artifact:
    """What an attack says of a set of pictures, at most `most` pictures a job.

    Args:
        spec: which attack and how it is asked.
        query: the pictures.
        most: pictures in a job.
        model: the target; None for an attack that sees pictures only.
        base: the model before tuning, where the attack uses it.
        learned: what the attack learned, where it learns.
    """
    given = {"query": query, "learned": learned, "base": base, "model": model}
    inputs = {role: artifact for role, artifact in given.items() if artifact is not None}
    attack = spec.attack
    return Artifact(KIND, attack.name, attack.version, spec, inputs, num_slices(count_pictures(query), most))


def crossfitted(spec: BlindCrossfitSpec, positives: Artifact, negatives: Artifact) -> Artifact:
    """Blind scores of two sets, each person's from a classifier that was fitted on the others."""
    sides = {"positives": positives, "negatives": negatives}
    return Artifact(KIND, CROSSFIT, spec.blind.version, spec, sides)


def scored_pictures(artifact: Artifact) -> Artifact:
    """The pictures that are scored (of two cross-fitted sets the first)."""
    return artifact.inputs.get("query") or artifact.inputs["positives"]


def count(artifact: Artifact) -> int:
    """Pictures that are scored (of two cross-fitted sets those of the first)."""
    return count_pictures(scored_pictures(artifact))


def title(artifact: Artifact) -> str:
    """Whose scores, for people."""
    return title_of_pictures(scored_pictures(artifact))
