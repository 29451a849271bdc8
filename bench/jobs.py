"""What travels between the driver and its workers: a stage's jobs with their payloads, and what became of them."""

import contextlib
import importlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

from pydantic import TypeAdapter

from bench.artifacts.artifact import Artifact
from bench.store import Ref, digest_of
from bench.workbench import Workbench

Executor = Literal["driver", "data", "tune"]
"""Who runs a job: the driver at once, Ray Data, or Ray Tune."""
State = Literal["done", "failed", "refused", "elsewhere", "quarantined", "corrupt", "infrastructure", "crashed"]
"""How a job ended.

`refused`: a mistake in the request; `elsewhere`: another run is at it; `crashed`: its process died.
"""
Figures = Mapping[str, float | str]
"""What a job tells while it runs: loss, epoch, epochs, ..."""
Report = Callable[[Figures], None]
Done = Callable[[Ref], set[int]]
"""Numbers of the slices of an artifact that are there."""


@dataclass(frozen=True)
class Payload:
    """What a worker is to make; stages add what more they need to know.

    Attributes:
        refs: the artifacts, each one's slice `number`.
        number: of the slice.
    """

    refs: tuple[Ref, ...]
    number: int = 0

    @property
    def ref(self) -> Ref:
        """The first artifact."""
        return self.refs[0]


P = TypeVar("P", bound=Payload)


@dataclass(frozen=True)
class Stage(Generic[P]):
    """How artifacts of one kind are made. Stages hold no science: they call lmia.

    Attributes:
        name: `module:attribute` under which a worker finds this very object.
        kind: of the artifacts.
        executor: who runs its jobs, unless a job says otherwise.
        payload: class of its jobs' payloads.
        jobs: the jobs that make the given artifacts, without the slices that are there.
        make: do one job on a worker: read inputs through the workbench, put slices into its store.
        shares_gpu: whether several of its trainings fit on one GPU.
    """

    name: str
    kind: str
    executor: Executor
    payload: type[P]
    jobs: "Callable[[list[tuple[Artifact, Ref]], Done], list[Job]]"
    make: Callable[[P, Workbench, Report], None]
    shares_gpu: bool = False

    @cached_property
    def payloads(self) -> TypeAdapter[P]:
        """How payloads turn into plain values and back."""
        return TypeAdapter(self.payload)


def stage_named(name: str) -> Stage[Any]:
    """The stage at `module:attribute`."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


@dataclass(frozen=True)
class JobOrder:
    """A job as a worker gets it.

    Attributes:
        name: equal in every run that asks for the same work; attempts are counted under it.
        stage: how it is made.
        title: for people.
        payload: what is to be made.
    """

    name: str
    stage: Stage[Any]
    title: str
    payload: Payload

    def to_json(self) -> str:
        """As text, for Ray."""
        payload = self.stage.payloads.dump_python(self.payload, mode="json")
        value = {"name": self.name, "stage": self.stage.name, "title": self.title, "payload": payload}
        return json.dumps(value, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> "JobOrder":
        """Inverse of `to_json`."""
        value = json.loads(text)
        stage = stage_named(value["stage"])
        return JobOrder(value["name"], stage, value["title"], stage.payloads.validate_python(value["payload"]))


@dataclass(frozen=True)
class Job(JobOrder):
    """The unit of scheduling, retry and cost: makes one slice of one or more artifacts.

    Attributes:
        executor: who runs it.
        work: cost in picture passes through the model at work, to tell how much is left.
        order: jobs are run in this order (long ones first, those of one model together).
    """

    executor: Executor
    work: float
    order: tuple[Any, ...] = ()

    @property
    def artifacts(self) -> tuple[str, ...]:
        """Addresses of what the job makes."""
        return tuple(ref.address for ref in self.payload.refs)


def job(
    stage: Stage[P], title: str, payload: P, *, work: float, order: tuple = (), executor: Executor | None = None
) -> Job:
    """A job of a stage."""
    name = digest_of([stage.kind, sorted(ref.address for ref in payload.refs), payload.number])[:16]
    return Job(name, stage, title, payload, executor or stage.executor, float(work), order)


@dataclass(frozen=True)
class Damaged:
    """What is not what its name promises: a part, by its manifest's key and its own, or (no part) a manifest."""

    manifest: str
    part: str


@dataclass(frozen=True)
class JobStatus:
    """What became of a job.

    Attributes:
        name: of the job.
        state: how it ended.
        error: what went wrong; empty if nothing.
        seconds: that it took.
        damaged: the input that it found damaged, where that is why it ended.
    """

    name: str
    state: State
    error: str = ""
    seconds: float = 0.0
    damaged: Damaged | None = None

    @property
    def last_line(self) -> str:
        """The error in one line."""
        return (self.error.strip().splitlines() or [""])[-1]

    def to_json(self) -> str:
        """As text, for Ray."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "JobStatus":
        """Inverse of `to_json`."""
        return _STATUSES.validate_json(text)


_STATUSES = TypeAdapter(JobStatus)


@dataclass(frozen=True)
class News:
    """What a job, by its name, tells while it runs."""

    name: str
    figures: Figures


@contextlib.contextmanager
def ticking() -> Iterator[Callable[[], dict[str, float]]]:
    """A clock for a job: seconds since it began and the process's peak memory."""
    import resource

    started = time.monotonic()

    def read() -> dict[str, float]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"seconds": time.monotonic() - started, "peak_memory_mb": round(peak, 1)}

    yield read
