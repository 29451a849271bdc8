"""Pictures: real, marked, mixed (made by the driver, which has the data) and generated (on Ray Data)."""

from typing import Any

import numpy as np

from bench.artifacts.artifact import Artifact, slice_of
from bench.artifacts.pictures import GeneratedSpec, count_pictures, title
from bench.jobs import Done, Job, Payload, Report, Stage, job, ticking
from bench.store import Ref
from bench.workbench import Workbench
from lmia.models.sample import count_evaluations


def jobs(refs: list[tuple[Artifact, Ref]], done: Done) -> list[Job]:
    """Generated sets in slices, ordered by model; everything else at once on the driver."""
    found = []
    for artifact, ref in refs:
        if artifact.method != "generated":
            count = count_pictures(artifact)
            found.append(
                job(
                    STAGE, f"{artifact.method} {title(artifact)}", Payload((ref,)), work=0.01 * count, executor="driver"
                )
            )
            continue
        finished = done(ref)
        for number in range(artifact.num_slices):
            if number in finished:
                continue
            count = len(slice_of(artifact.spec.count, artifact.num_slices, number))
            work = count * count_evaluations(artifact.spec.sample)
            model = artifact.inputs["model"].address
            what = f"draw {title(artifact)} {number + 1}/{artifact.num_slices}"
            found.append(
                job(STAGE, what, Payload((ref,), number), work=work, order=(1, model, artifact.address, number))
            )
    return found


def make(payload: Payload, bench: Workbench, report: Report) -> None:
    """Draw, mark, take or mix."""
    ref = payload.ref
    if ref.method == "generated":
        _generate(ref, payload.number, bench)
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
    drawn = {} if ref.spec.get("photo_seed") is None else {"seed": ref.spec["photo_seed"]}
    return kind.pictures(
        spec, ref.spec["source"], ref.spec["part"], list(ref.spec["identities"]), list(ref.spec["photos"]), **drawn
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


STAGE: Stage[Payload] = Stage("bench.stages.pictures:STAGE", "pictures", "data", Payload, jobs, make)
