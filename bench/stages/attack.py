"""What attacks learn, from pictures or from shadow targets, as safetensors."""

from collections import defaultdict
from dataclasses import dataclass
from functools import partial

from bench.artifacts import learned
from bench.artifacts.artifact import Artifact
from bench.jobs import Done, Job, Payload, Report, Stage, job, ticking
from bench.stages.scores import with_captions
from bench.store import Ref
from bench.workbench import Workbench
from lmia.attacks import FitInputs, FitRun, Shadow
from lmia.attacks.scoring import nfe_shared


@dataclass(frozen=True)
class FitPayload(Payload):
    """Attacks that learn together.

    Attributes:
        passes: picture passes that this costs.
    """

    passes: float = 0.0


def jobs(refs: list[tuple[Artifact, Ref]], done: Done) -> list[Job]:
    """One job per attack; attacks that learn from the same shadow target are one job and share its measurements."""
    groups: dict[tuple, list[tuple[Artifact, Ref]]] = defaultdict(list)
    for artifact, ref in refs:
        shadow = [i.address for name, i in artifact.inputs.items() if name.startswith("shadow.")]
        own = (*shadow, artifact.spec.captions, artifact.spec.source) if shadow else (artifact.address,)
        groups[own].append((artifact, ref))
    return [_job(group) for group in groups.values()]


def _job(group: list[tuple[Artifact, Ref]]) -> Job:
    first, _ = group[0]
    count = learned.count(first)
    spec = first.spec.attack
    passes, side = count * getattr(spec, "epochs", 1), getattr(spec, "size", 64)
    if "shadow.model" in first.inputs:  # what is measured costs more than what is made of it
        passes, side = count * nfe_shared(a.spec.attack for a, _ in group), 64
    title = f"fit {', '.join(sorted(a.method for a, _ in group))}: {learned.title(first)}"
    order = (2, -passes)
    payload = FitPayload(tuple(ref for _, ref in group), passes=passes)
    return job(STAGE, title, payload, work=passes * (side / 64) ** 2, order=order)


def make(payload: FitPayload, bench: Workbench, report: Report) -> None:
    """Fit the attacks on their inputs."""
    shadows = _shadows(payload.ref, bench)
    for ref in payload.refs:
        _fit(ref, shadows, payload.passes / len(payload.refs), bench, report)


def _shadows(ref: Ref, bench: Workbench) -> tuple[Shadow, ...]:
    if "shadow.model" not in ref.inputs:
        return ()
    members, nonmembers = (
        with_captions(bench.pictures(ref.inputs[f"shadow.{name}"]), ref.spec["captions"], ref.spec["source"])
        for name in ("members", "nonmembers")
    )
    return (Shadow(partial(bench.model, ref.inputs["shadow.model"], "float32"), members, nonmembers),)


def _fit(ref: Ref, shadows: tuple[Shadow, ...], passes: float, bench: Workbench, report: Report) -> None:
    from safetensors.torch import save

    attack = learned.AttackSpec(**ref.spec).attack
    sets = {name: bench.pictures(ref.inputs[name]) for name in ("positives", "negatives") if name in ref.inputs}
    base = bench.model(ref.inputs["base"], "float32") if "base" in ref.inputs else None
    inputs = FitInputs(**sets, shadows=shadows, base=base)
    before = _evaluations(shadows)
    with ticking() as clock, bench.partial(ref.address) as progress:
        tensors = attack.fit(inputs, FitRun(bench.device, progress, report))
    assert tensors, f"{ref.method} has nothing to learn and needs no job"
    data = save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
    pictures = sum(len(shadow.members) + len(shadow.nonmembers) for shadow in shadows)
    cost = {
        "passes": passes,
        "nfe": float(attack.nfe * pictures),  # of this attack alone; what is measured already costs nothing more
        "nfe_spent": float(_evaluations(shadows) - before),
        **clock(),
    }
    bench.store.put_slice(ref, 0, {"learned.safetensors": data}, numerics=bench.numerics(), cost=cost)


def _evaluations(shadows: tuple[Shadow, ...]) -> int:
    return sum(shadow.meter.evaluations for shadow in shadows)


STAGE: Stage[FitPayload] = Stage("bench.stages.attack:STAGE", "attack", "tune", FitPayload, jobs, make, shares_gpu=True)
