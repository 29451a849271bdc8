"""Models: bases taken over into the store, and targets tuned on pictures (several epochs of one run are one job)."""

import math
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from bench.artifacts.artifact import Artifact, Job
from bench.artifacts.models import GIVEN, BaseSpec, count_passes, is_given, trajectory
from bench.artifacts.pictures import contents_of
from bench.stages import Done, Report, job, ticking
from bench.store import Ref
from bench.workbench import Workbench

EXECUTOR = "tune"


def jobs(refs: list[tuple[Artifact, Ref]], done: Done) -> list[Job]:
    """One job per base and per trajectory."""
    found, trajectories = [], defaultdict(list)
    for artifact, ref in refs:
        if is_given(artifact):
            found.append(job(__name__, f"take over {artifact.spec.reference}", [ref], work=0, executor="driver"))
        else:
            trajectories[trajectory(artifact)].append((artifact, ref))
    for name, group in trajectories.items():
        group.sort(key=lambda pair: pair[0].spec.epochs)
        artifact, ref = group[-1]
        passes = count_passes(artifact)
        epochs = "/".join(str(a.spec.epochs) for a, _ in group)
        found.append(
            job(
                __name__,
                f"tune {artifact.method} on {contents_of(artifact)}, {epochs} epochs",
                [ref for _, ref in group],
                work=passes,
                order=(0, -passes),
                trajectory=name,
                passes=passes,
            )
        )
    return found


def make(payload: dict[str, Any], bench: Workbench, report: Report) -> None:
    """Take over a model, or tune and save every epoch asked for."""
    refs = [Ref.from_json(ref) for ref in payload["refs"]]
    if refs[0].method in GIVEN:
        _take_over(refs[0], bench)
    else:
        _tune(refs, payload, bench, report)


def _take_over(ref: Ref, bench: Workbench) -> None:
    from lmia.resolve import ExternalModel, overlay_files

    spec = BaseSpec(**ref.spec)
    given = ExternalModel(spec.reference, "pipeline" if ref.method == "base" else ref.method, spec.digest)  # type: ignore[arg-type]
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
