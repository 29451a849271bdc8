"""Stages that do instant arithmetic instead of models: identity, waves, jobs, resume and kills in seconds.

A spec's `mishap` makes its job misbehave as many times as its number says, counted in files under `notes`.
"""

import json
import os
import signal
import time
from pathlib import Path

from bench.artifacts.artifact import Artifact
from bench.jobs import Payload, Stage, job
from lmia.specs import Spec


class FakeSpec(Spec):
    value: float = 0.0
    mishap: str = ""  # raise | kill | full
    mishaps: int = 0
    notes: str = ""
    pause_s: float = 0.0


def leaf(value: float, slices: int = 3, **more) -> Artifact:
    return Artifact("leaf", "constant", 1, FakeSpec(value=value, **more), num_slices=slices)


def training(*inputs: Artifact, **more) -> Artifact:
    return Artifact("training", "sum", 1, FakeSpec(**more), {f"i{n}": a for n, a in enumerate(inputs)})


def total(*inputs: Artifact, **more) -> Artifact:
    return Artifact("total", "sum", 1, FakeSpec(**more), {f"i{n}": a for n, a in enumerate(inputs)})


def jobs_of(stage, refs, done):
    return [
        job(stage, f"{artifact.kind} {artifact.spec.value:g} slice {n}", Payload((ref,), n), work=1)
        for artifact, ref in refs
        for n in range(artifact.num_slices)
        if n not in done(ref)
    ]


def make(payload, bench, report):
    ref, number = payload.ref, payload.number
    spec = FakeSpec(**ref.spec)
    note(spec, f"{ref.kind}-{ref.address}-{number}")
    time.sleep(spec.pause_s)
    value = spec.value + number
    for i in ref.inputs.values():
        manifest = bench.manifest(i)
        value += sum(json.loads(bench.store.part_bytes(manifest, part)) for part in manifest.parts)
    report({"loss": value})
    bench.store.put_slice(ref, number, {f"{number}.json": json.dumps(value).encode()})


def note(spec: FakeSpec, name: str) -> None:
    """Record that the job was begun, and misbehave while it is this one's turn."""
    if not spec.notes:
        return
    folder = Path(spec.notes)
    folder.mkdir(exist_ok=True, parents=True)
    begun = len(list(folder.glob(f"{name}.*")))
    (folder / f"{name}.{begun}.{os.getpid()}").touch()
    if begun < spec.mishaps:
        if spec.mishap == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError(f"planned mishap {begun}")


def fake(kind, executor):
    """A stage that a worker finds here under its kind in capitals."""
    stage = Stage(
        f"{__name__}:{kind.upper()}", kind, executor, Payload, lambda refs, done: jobs_of(stage, refs, done), make
    )
    return stage


LEAF, TRAINING, TOTAL = fake("leaf", "data"), fake("training", "tune"), fake("total", "driver")
STAGES = {stage.kind: stage for stage in (LEAF, TRAINING, TOTAL)}
