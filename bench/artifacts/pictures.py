"""Pictures: real, taken from a folder, marked, drawn by a model, or some of or both of others."""

from typing import ClassVar

from pydantic import Field, SerializeAsAny

from bench.artifacts.artifact import Artifact, num_slices
from lmia.data.marks import MARKS
from lmia.data.sources import SOURCES
from lmia.models.sample import SampleSpec
from lmia.specs import Spec

KIND = "pictures"
SECOND_SET = 1_000_003
"""Added to a seed where the same model must draw other pictures."""


class RealSpec(Spec):
    """Photos of named persons of a source. The method is the kind of data source."""

    data: SerializeAsAny[Spec] = Field(description="the data source's spec")
    digest: str = Field("", description="of the files that it depends on")
    source: str
    part: str
    identities: tuple[str, ...] = Field(min_length=1)
    photos: tuple[int, ...] = Field(min_length=1, description="which photos of each person")
    photo_seed: int | None = Field(None, description="of the order that photos are counted in; null: the source's own")


class FolderSetSpec(Spec):
    """All pictures of some persons of a folder, however many there are of each. The method is the kind of source."""

    data: SerializeAsAny[Spec] = Field(description="the folder's spec")
    digest: str = Field(description="of the files")
    source: str
    identities: tuple[str, ...] = Field(min_length=1)
    count: int = Field(ge=1, description="pictures, all persons together")


class GeneratedSpec(Spec):
    """A set drawn by a model. Record ids are numbers, so that two models draw from the same noises."""

    version: ClassVar[int] = 1

    sample: SampleSpec
    prompt: str = Field(description="class, generic, caption, or given: those in `prompts`")
    prompts: tuple[str, ...] = Field((), description="given prompts, used in turn")
    source: str = Field(description="the source that the class prompt names")
    count: int = Field(ge=1)


class TakeSpec(Spec):
    """The first pictures of an artifact, taken in an order that is drawn from their ids."""

    version: ClassVar[int] = 1

    count: int = Field(ge=1)


class MixSpec(Spec):
    """Two sets together."""

    version: ClassVar[int] = 1


def real_set(source_kind: str, spec: RealSpec | FolderSetSpec) -> Artifact:
    """Photos as a registered kind of data source has them."""
    return Artifact(KIND, source_kind, SOURCES.get(source_kind).version, spec)


def marked_set(pictures: Artifact, mark: str, spec: Spec) -> Artifact:
    """The pictures with a watermark."""
    return Artifact(KIND, mark, MARKS.get(mark).version, spec, {"pictures": pictures})


def drawn_set(model: Artifact, spec: GeneratedSpec, most: int, captioned: Artifact | None = None) -> Artifact:
    """A set that a model draws, at most `most` pictures a job; prompts of kind `caption` are those of `captioned`."""
    inputs = {"model": model} | ({"captions": captioned} if captioned else {})
    return _of_method("generated", spec, inputs, num_slices(spec.count, most))


def taken_set(pictures: Artifact, count: int) -> Artifact:
    """`count` of the pictures; the very artifact where it is known to hold no more."""
    if isinstance(pictures.spec, RealSpec) and count_pictures(pictures) == count:
        return pictures
    return _of_method("take", TakeSpec(count=count), {"pictures": pictures})


def mixed_set(first: Artifact, second: Artifact) -> Artifact:
    """Two sets together."""
    return _of_method("mix", MixSpec(), {"first": first, "second": second})


def _of_method(
    name: str, spec: GeneratedSpec | TakeSpec | MixSpec, inputs: dict[str, Artifact], slices: int = 1
) -> Artifact:
    return Artifact(KIND, name, spec.version, spec, inputs, slices)


def source_of(pictures: Artifact) -> str:
    """The source of real pictures, watermarked or not."""
    return source_of(pictures.inputs["pictures"]) if "pictures" in pictures.inputs else str(pictures.spec.source)


def count_pictures(pictures: Artifact) -> int:
    """How many pictures an artifact will hold, known before it is made."""
    spec = pictures.spec
    if isinstance(spec, RealSpec):
        return len(spec.identities) * len(spec.photos)
    if isinstance(spec, GeneratedSpec | TakeSpec | FolderSetSpec):
        return spec.count
    return sum(count_pictures(i) for i in pictures.inputs.values() if i.kind == KIND)


def contents_of(artifact: Artifact) -> str:
    """What pictures a set holds, or a model was tuned on, for people: north A, north A with visible, ..."""
    if artifact.kind == "model":
        return contents_of(artifact.inputs[KIND]) if KIND in artifact.inputs else str(artifact.spec.reference)
    if "pictures" in artifact.inputs:
        return f"{contents_of(artifact.inputs['pictures'])} with {artifact.method}"
    return f"{getattr(artifact.spec, 'source', '?')} {getattr(artifact.spec, 'part', '')}".strip()


def title(pictures: Artifact) -> str:
    """A set for people, with what made it: north A, gen(north A), base, ..."""
    if pictures.method == "generated":
        who = contents_of(pictures.inputs["model"])
        sample = pictures.spec.sample
        return f"gen({who}, s={sample.guidance:g}, {pictures.spec.prompt}, {sample.steps} steps)"
    if pictures.method == "mix":
        return " + ".join(title(i) for i in pictures.inputs.values())
    return contents_of(pictures)
