"""Pictures: real, marked, mixed (made by the driver, which has the data) and generated (on Ray Data)."""

from typing import Any, ClassVar

import numpy as np
from pydantic import Field, SerializeAsAny

from bench.artifacts.artifact import Artifact, Job
from bench.stages import Done, Report, job, ticking
from bench.store import Ref
from bench.workbench import Workbench
from lmia.models.sample import SampleSpec, count_evaluations
from lmia.specs import Spec

EXECUTOR = "data"


class RealSpec(Spec):
    """Photos of named persons of a source. The method is the kind of data source."""

    data: SerializeAsAny[Spec] = Field(description="the data source's spec")
    digest: str = Field("", description="of the files that it depends on")
    source: str
    part: str
    identities: tuple[str, ...] = Field(min_length=1)
    photos: tuple[int, ...] = Field(min_length=1, description="which photos of each person")


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
    return sum(count_pictures(i) for name, i in pictures.inputs.items() if i.kind == "pictures")


def title_of(pictures: Artifact) -> str:
    """What pictures an artifact holds, or a model was tuned on, for people: north A, north A with visible, ..."""
    if pictures.kind == "model":
        return title_of(pictures.inputs["pictures"]) if "pictures" in pictures.inputs else str(pictures.spec.reference)
    if "pictures" in pictures.inputs:
        return f"{title_of(pictures.inputs['pictures'])} with {pictures.method}"
    return f"{getattr(pictures.spec, 'source', '?')} {getattr(pictures.spec, 'part', '')}".strip()


def drawn_by(pictures: Artifact) -> str:
    """What made a set, for people: north A, gen(north A), base, ..."""
    if pictures.method == "generated":
        who = title_of(pictures.inputs["model"])
        sample = pictures.spec.sample
        return f"gen({who}, s={sample.guidance:g}, {pictures.spec.prompt}, {sample.steps} steps)"
    if pictures.method == "mix":
        return " + ".join(drawn_by(i) for i in pictures.inputs.values())
    return title_of(pictures)


def jobs(refs: list[tuple[Artifact, Ref]], done: Done) -> list[Job]:
    """Generated sets in slices, ordered by model; everything else at once on the driver."""
    found = []
    for artifact, ref in refs:
        if artifact.method != "generated":
            count = count_pictures(artifact)
            found.append(
                job(__name__, f"{artifact.method} {drawn_by(artifact)}", [ref], work=0.01 * count, executor="driver")
            )
            continue
        finished = done(ref)
        for number in range(artifact.num_slices):
            if number in finished:
                continue
            count = len(slice_of(artifact.spec.count, artifact.num_slices, number))
            work = count * count_evaluations(artifact.spec.sample)
            model = artifact.inputs["model"].address
            title = f"draw {drawn_by(artifact)} {number + 1}/{artifact.num_slices}"
            found.append(
                job(__name__, title, [ref], work=work, order=(1, model, artifact.address, number), number=number)
            )
    return found


def slice_of(count: int, num_slices: int, number: int) -> range:
    """The records of a slice: consecutive, as even as they can be."""
    bounds = [count * k // num_slices for k in range(num_slices + 1)]
    return range(bounds[number], bounds[number + 1])


def make(payload: dict[str, Any], bench: Workbench, report: Report) -> None:
    """Draw, mark, take or mix."""
    ref = Ref.from_json(payload["refs"][0])
    if ref.method == "generated":
        _generate(ref, payload["number"], bench)
        return
    with ticking() as clock:
        pictures = _pictures(ref, bench)
    bench.store.put_slice(ref, 0, {"0.parquet": pictures.to_parquet()}, cost=clock())


def _pictures(ref: Ref, bench: Workbench) -> Any:
    from lmia.data.marks import MARKS
    from lmia.data.pictures import Pictures, encode_png
    from lmia.data.sources import SOURCES

    if ref.method == "take":
        return bench.pictures(ref.inputs["pictures"]).sample(ref.spec["count"])
    if ref.method == "mix":
        return Pictures.concat([bench.pictures(ref.inputs[name]) for name in ("first", "second")])
    if ref.method in MARKS.names():
        mark = MARKS.get(ref.method)
        pictures = bench.pictures(ref.inputs["pictures"])
        images = mark.embed(pictures.images(), mark.Spec(**ref.spec))
        return pictures.with_columns(image=[encode_png(image) for image in images])
    kind = SOURCES.get(ref.method)
    spec = kind.Spec(**ref.spec["data"])
    if "photos" not in ref.spec:
        return kind.all_of(spec, ref.spec["source"], list(ref.spec["identities"]))
    return kind.pictures(
        spec, ref.spec["source"], ref.spec["part"], list(ref.spec["identities"]), list(ref.spec["photos"])
    )


def _generate(ref: Ref, number: int, bench: Workbench) -> None:
    from lmia.data.captions import prompts as prompts_of
    from lmia.data.pictures import Pictures
    from lmia.models.sample import generate

    spec = GeneratedSpec(**ref.spec)
    records = slice_of(spec.count, ref.num_slices, number)
    captions = bench.pictures(ref.inputs["captions"]).captions if "captions" in ref.inputs else []
    if spec.prompt == "given":
        prompts = [spec.prompts[n % len(spec.prompts)] for n in range(spec.count)]
    else:
        prompts = prompts_of(spec.prompt, spec.source, captions, spec.count)
    prompts = [prompts[n] for n in records]
    ids = [f"drawn/{n:06d}" for n in records]
    model = bench.model(ref.inputs["model"], spec.sample.dtype)
    with ticking() as clock:
        images = generate(model, ids, prompts, spec.sample)
    pictures = Pictures.of(
        ids, np.asarray(images), source=[spec.source] * len(ids), prompt=prompts, seed=[spec.sample.seed] * len(ids)
    )
    cost = {"nfe": float(len(ids) * count_evaluations(spec.sample)), **clock()}
    bench.store.put_slice(
        ref,
        number,
        {f"{number:05d}.parquet": pictures.to_parquet()},
        numerics=bench.numerics(model.attention),
        cost=cost,
    )
