"""Models: bases taken over into the store, and targets tuned on pictures (several epochs of one run are one job)."""

import dataclasses
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from bench.artifacts.artifact import Artifact
from bench.artifacts.models import GIVEN, BaseSpec, count_passes, is_given, trajectory
from bench.artifacts.pictures import contents_of
from bench.jobs import Done, Job, Payload, Report, Stage, job, ticking
from bench.store import Ref
from bench.workbench import Workbench


@dataclass(frozen=True)
class TuningPayload(Payload):
    """Checkpoints of one training run.

    Attributes:
        trajectory: name of the run, under which its progress is kept; empty for a model that is taken over.
    """

    trajectory: str = ""


def jobs(refs: list[tuple[Artifact, Ref]], done: Done) -> list[Job]:
    """One job per base and per trajectory."""
    found, trajectories = [], defaultdict(list)
    for artifact, ref in refs:
        if is_given(artifact):
            found.append(
                job(STAGE, f"take over {artifact.spec.reference}", TuningPayload((ref,)), work=0, executor="driver")
            )
        else:
            trajectories[trajectory(artifact)].append((artifact, ref))
    for name, group in trajectories.items():
        group.sort(key=lambda pair: pair[0].spec.epochs)
        artifact, ref = group[-1]
        passes = count_passes(artifact)
        epochs = "/".join(str(a.spec.epochs) for a, _ in group)
        found.append(
            job(
                STAGE,
                f"tune {artifact.method} on {contents_of(artifact)}, {epochs} epochs",
                TuningPayload(tuple(ref for _, ref in group), trajectory=name),
                work=passes,
                order=(0, -passes),
            )
        )
    return found


def make(payload: TuningPayload, bench: Workbench, report: Report) -> None:
    """Take over a model, or tune and save every epoch asked for."""
    if payload.ref.method in GIVEN:
        _take_over(payload.ref, bench)
    else:
        _tune(payload, bench, report)


def _take_over(ref: Ref, bench: Workbench) -> None:
    from lmia.resolve import ExternalModel, overlay_files

    spec = BaseSpec(**ref.spec)
    given = ExternalModel(spec.reference, "pipeline" if ref.method == "base" else ref.method, spec.digest)  # type: ignore[arg-type]
    base = bench.layers(ref.inputs["base"])[0] if "base" in ref.inputs else None
    with bench.cache.scratch("base") as scratch:
        bench.store.put_slice(ref, 0, overlay_files(given, base, scratch), facts={"trained_on": None})


def _tune(payload: TuningPayload, bench: Workbench, report: Report) -> None:
    from lmia.finetune.methods import METHODS
    from lmia.finetune.train import TuningRun, finetune

    ref = payload.ref
    method = METHODS.get(ref.method)(**ref.spec["finetune"])
    pictures = bench.pictures(ref.inputs["pictures"])
    by_epoch = {one.spec["epochs"]: one for one in payload.refs}
    with bench.cache.scratch("tuned") as scratch, ticking() as clock:
        with bench.partial(payload.trajectory) as partial:
            figures = finetune(
                bench.layers(ref.inputs["base"]),
                pictures,
                method,
                epochs=sorted(by_epoch),
                out=lambda epoch: scratch / str(epoch),
                run=TuningRun(
                    partial=partial, device=bench.device, attention=bench.runtime.attention, on_progress=report
                ),
            )
        for epoch, one in by_epoch.items():
            folder = scratch / str(epoch)
            files = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
            facts = {"trained_on": sorted(pictures.ids), "figures": plain(dataclasses.asdict(figures[epoch]))}
            cost = {"passes": float(len(pictures) * epoch), **clock()}
            bench.store.put_slice(one, 0, files, facts=facts, numerics=bench.numerics(), cost=cost)


def plain(figures: dict[str, Any]) -> dict[str, Any]:
    """Figures without what JSON cannot hold."""
    return {k: v for k, v in figures.items() if isinstance(v, str | int) or (isinstance(v, float) and math.isfinite(v))}


STAGE: Stage[TuningPayload] = Stage("bench.stages.model:STAGE", "model", "tune", TuningPayload, jobs, make)
