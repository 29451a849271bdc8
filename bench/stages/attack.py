"""What attacks learn from pictures, as safetensors."""

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

    from lmia.attacks import ATTACKS

    ref = Ref.from_json(payload["refs"][0])
    method = ATTACKS.get(ref.method)
    spec = method.Spec(**ref.spec["attack"])
    inputs: dict[str, Any] = {}
    for name, i in ref.inputs.items():
        inputs[name] = bench.model(i, "float32") if name == "base" else bench.pictures(i)
    with ticking() as clock, bench.partial(ref.address) as partial:
        learned = method.fit(spec, inputs, device=bench.device, partial=partial, on_progress=report)
    data = save({name: tensor.cpu().contiguous() for name, tensor in learned.items()})
    cost = {"passes": float(payload["passes"]), **clock()}
    bench.store.put_slice(ref, 0, {"learned.safetensors": data}, numerics=bench.numerics(), cost=cost)
