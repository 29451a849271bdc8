"""What attacks learn, from pictures or from shadow targets."""

from pydantic import Field

from bench.artifacts.artifact import Artifact
from bench.artifacts.pictures import count_pictures
from bench.artifacts.pictures import title as title_of_pictures
from lmia.attacks import AnyAttack, Attack
from lmia.specs import Spec

KIND = "attack"


class AttackSpec(Spec):
    """How the attack learns; from what is in the inputs."""

    attack: AnyAttack
    captions: str | None = Field(None, description="captions that go with the shadow pictures; null: their own")
    source: str | None = Field(None, description="the source that class captions name")


def shadow_inputs(model: Artifact, members: Artifact, nonmembers: Artifact) -> dict[str, Artifact]:
    """Inputs of an attack that learns from a shadow target."""
    return {"shadow.model": model, "shadow.members": members, "shadow.nonmembers": nonmembers}


def learned(
    attack: Attack, inputs: dict[str, Artifact], captions: str | None = None, source: str | None = None
) -> Artifact:
    """What an attack learns.

    Args:
        attack: which attack.
        inputs: `positives`, `negatives`, `base` and `shadow_inputs`, as far as the attack asks for them.
        captions: what the attack sees beside the shadow pictures.
        source: what class captions name.
    """
    spec = AttackSpec(attack=attack, captions=captions, source=source)
    return Artifact(KIND, attack.name, attack.version, spec, inputs)


def sets_of(artifact: Artifact) -> list[Artifact]:
    """The sets of pictures that it is learned from."""
    return [i for i in artifact.inputs.values() if i.kind == "pictures"]


def count(artifact: Artifact) -> int:
    """Pictures that it is learned from."""
    return sum(count_pictures(pictures) for pictures in sets_of(artifact))


def title(artifact: Artifact) -> str:
    """What was learned, for people: north A against south aux."""
    return " against ".join(title_of_pictures(pictures) for pictures in sets_of(artifact))
