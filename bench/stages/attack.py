"""What attacks learn from pictures, as safetensors."""

from functools import partial
from typing import Any

from pydantic import SerializeAsAny

from bench.plan.artifact import Artifact, Job
from bench.stages import Done, Report, job, ticking
from bench.store import Ref
from bench.workbench import Workbench
from lmia.specs import Spec

EXECUTOR = "tune"
SHARES_GPU = True


class AttackSpec(Spec):
    """How the attack learns; from what is in the inputs."""

    attack: SerializeAsAny[Spec]


def jobs(refs: list[tuple[Artifact, Ref]], done: Done) -> list[Job]:
    """One job per attack."""
    from bench.plan.expand import count_pictures
    from bench.stages.pictures import drawn_by

    found = []
    for artifact, ref in refs:
        count = sum(count_pictures(i) for i in artifact.inputs.values() if i.kind == "pictures")
        spec = artifact.spec.attack
        passes = count * getattr(spec, "epochs", 1)
        side = getattr(spec, "size", 64)
        names = " against ".join(drawn_by(i) for n, i in artifact.inputs.items() if i.kind == "pictures")
        found.append(
            job(
                __name__,
                f"fit {artifact.method}: {names}",
                [ref],
                work=passes * (side / 64) ** 2,
                order=(2, -passes),
                passes=passes,
            )
        )
    return found


def make(payload: dict[str, Any], bench: Workbench, report: Report) -> None:
    """Fit the attack on its inputs."""
    from safetensors.torch import save

    from lmia.attacks import ATTACKS, Shadow

    ref = Ref.from_json(payload["refs"][0])
    method = ATTACKS.get(ref.method)
    spec = method.Spec(**ref.spec["attack"])
    inputs: dict[str, Any] = {}
    for name, i in ref.inputs.items():
        if name == "base":
            inputs[name] = bench.model(i, "float32")
        elif not name.startswith("shadow."):
            inputs[name] = bench.pictures(i)
    if "shadow.model" in ref.inputs:
        shadow = {name: ref.inputs[f"shadow.{name}"] for name in ("model", "members", "nonmembers")}
        members, nonmembers = (bench.pictures(shadow[name]) for name in ("members", "nonmembers"))
        inputs["shadow"] = [Shadow(partial(bench.model, shadow["model"], "float32"), members, nonmembers)]
    with ticking() as clock, bench.partial(ref.address) as progress:
        learned = method.fit(spec, inputs, device=bench.device, partial=progress, on_progress=report)
    assert learned is not None, f"{ref.method} has nothing to learn and needs no job"
    data = save({name: tensor.cpu().contiguous() for name, tensor in learned.items()})
    cost = {"passes": float(payload["passes"]), **clock()}
    bench.store.put_slice(ref, 0, {"learned.safetensors": data}, numerics=bench.numerics(), cost=cost)
