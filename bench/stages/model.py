"""Models: bases taken over into the store, and targets tuned on pictures (several epochs of one run are one job)."""

import math
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from pydantic import Field, SerializeAsAny

from bench.artifacts.artifact import Artifact, Job
from bench.stages import Done, Report, job, ticking
from bench.stages.pictures import count_pictures, title_of
from bench.store import Ref, digest_of
from bench.workbench import Workbench
from lmia.specs import Spec

EXECUTOR = "tune"
GIVEN = ("base", "adapter", "checkpoint")
"""Models that somebody else made, by the form in which they come; taken over by the driver."""


class BaseSpec(Spec):
    """Which model that somebody else made."""

    reference: str = Field(description="its name, folder or hub id")
    digest: str = Field(description="of its files")


class TunedSpec(Spec):
    """A checkpoint: the trajectory's spec and its epoch. Which other epochs are kept is not part of it."""

    finetune: SerializeAsAny[Spec] = Field(description="the fine-tuning method's spec")
    epochs: int = Field(ge=1, description="epochs trained")


def jobs(refs: list[tuple[Artifact, Ref]], done: Done) -> list[Job]:
    """One job per base and per trajectory."""
    found, trajectories = [], defaultdict(list)
    for artifact, ref in refs:
        if artifact.method in GIVEN:
            found.append(job(__name__, f"take over {artifact.spec.reference}", [ref], work=0, executor="driver"))
        else:
            trajectories[trajectory(artifact)].append((artifact, ref))
    for name, group in trajectories.items():
        group.sort(key=lambda pair: pair[0].spec.epochs)
        artifact, ref = group[-1]
        passes = count_pictures(artifact.inputs["pictures"]) * artifact.spec.epochs
        epochs = "/".join(str(a.spec.epochs) for a, _ in group)
        pictures = artifact.inputs["pictures"]
        where = title_of(pictures)
        found.append(
            job(
                __name__,
                f"tune {artifact.method} on {where}, {epochs} epochs",
                [ref for _, ref in group],
                work=passes,
                order=(0, -passes),
                trajectory=name,
                passes=passes,
            )
        )
    return found


def trajectory(artifact: Artifact) -> str:
    """Name of a training run: everything but the epoch."""
    inputs = {name: i.address for name, i in artifact.inputs.items()}
    return digest_of([artifact.method, artifact.version, artifact.spec.resolved()["finetune"], inputs])[:20]


def make(payload: dict[str, Any], bench: Workbench, report: Report) -> None:
    """Take over a model, or tune and save every epoch asked for."""
    refs = [Ref.from_json(ref) for ref in payload["refs"]]
    if refs[0].method in GIVEN:
        _take_over(refs[0], bench)
    else:
        _tune(refs, payload, bench, report)


def _take_over(ref: Ref, bench: Workbench) -> None:
    from lmia.models.given import Given, overlay_files

    spec = BaseSpec(**ref.spec)
    given = Given(spec.reference, "pipeline" if ref.method == "base" else ref.method, spec.digest)  # type: ignore[arg-type]
    base = bench.layers(ref.inputs["base"])[0] if "base" in ref.inputs else None
    with tempfile.TemporaryDirectory(prefix="lmia-base-") as scratch:
        bench.store.put_slice(ref, 0, overlay_files(given, base, Path(scratch)), facts={"trained_on": None})


def _tune(refs: list[Ref], payload: dict[str, Any], bench: Workbench, report: Report) -> None:
    from lmia.finetune.methods import METHODS
    from lmia.finetune.train import finetune

    ref = refs[0]
    spec = METHODS.get(ref.method).Spec(**ref.spec["finetune"])
    pictures = bench.pictures(ref.inputs["pictures"])
    by_epoch = {one.spec["epochs"]: one for one in refs}
    with tempfile.TemporaryDirectory(prefix="lmia-tune-") as scratch, ticking() as clock:
        with bench.partial(payload["trajectory"]) as partial:
            figures = finetune(
                bench.layers(ref.inputs["base"]),
                pictures,
                ref.method,
                spec,
                epochs=sorted(by_epoch),
                out=lambda epoch: Path(scratch) / str(epoch),
                partial=partial,
                device=bench.device,
                attention=bench.runtime.attention,
                on_progress=report,
            )
        for epoch, one in by_epoch.items():
            folder = Path(scratch) / str(epoch)
            files = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
            facts = {"trained_on": sorted(pictures.ids), "figures": plain(figures.get(epoch, {}))}
            cost = {"passes": float(len(pictures) * epoch), **clock()}
            bench.store.put_slice(one, 0, files, facts=facts, numerics=bench.numerics(), cost=cost)


def plain(figures: dict[str, Any]) -> dict[str, Any]:
    """Figures without what JSON cannot hold."""
    return {k: v for k, v in figures.items() if isinstance(v, str | int) or (isinstance(v, float) and math.isfinite(v))}
