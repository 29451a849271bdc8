"""One file per kind of artifact, all with the same few names.

A stage module has

- ``EXECUTOR``: who runs its jobs: ``driver`` (at once, in the driver), ``data`` (Ray Data) or ``tune`` (Ray Tune);
- ``jobs(refs, done)``: the jobs that make the given artifacts; ``done(ref)`` tells the slices that are there;
- ``make(payload, bench, report)``: do one job on a worker: read inputs through `bench`, put slices into its store.

Stages hold no science: they call lmia.
"""

import contextlib
import importlib
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from bench.artifacts.artifact import Job
from bench.store import Ref, digest_of

STAGES = {kind: f"bench.stages.{kind}" for kind in ("pictures", "model", "attack", "scores", "row")}

Report = Callable[[dict[str, Any]], None]
Done = Callable[[Ref], set[int]]


def stage_module(path: str) -> ModuleType:
    """The stage at a module path (tests bring stages of their own)."""
    return importlib.import_module(path)


def job(
    stage: str,
    title: str,
    refs: list[Ref],
    *,
    work: float,
    order: tuple = (),
    number: int = 0,
    executor: str | None = None,
    **extra: Any,
) -> Job:
    """A job that makes slice `number` of each of `refs`."""
    addresses = tuple(ref.address for ref in refs)
    return Job(
        name=digest_of([stage, sorted(addresses), number])[:16],
        stage=stage,
        executor=executor or stage_module(stage).EXECUTOR,
        title=title,
        payload={"refs": [ref.to_json() for ref in refs], "number": number, **extra},
        work=float(work),
        order=order,
        artifacts=addresses,
    )


@contextlib.contextmanager
def ticking() -> Iterator[Callable[[], dict[str, float]]]:
    """A clock for a job: seconds since it began and the process's peak memory."""
    import resource

    started = time.monotonic()

    def read() -> dict[str, float]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"seconds": time.monotonic() - started, "peak_memory_mb": round(peak, 1)}

    yield read
