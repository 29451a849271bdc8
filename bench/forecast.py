"""What a run would make, what of it is shared, and what is there already; makes nothing."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bench.artifacts.artifact import Artifact, walk
from bench.driver import plan_jobs
from bench.plan.graph import survey
from bench.stages import STAGES
from bench.stages.scores import ScoringPayload
from bench.store import Store


@dataclass(frozen=True)
class KindForecast:
    """One kind of artifact.

    Attributes:
        kind: pictures, model, attack, scores or row.
        naive: how many a script per row would make.
        unique: how many are asked for, each once.
        there: how many are there.
        jobs: jobs that make the missing ones.
        naive_work: work of a script per row, in picture passes.
        work: work that is left.
    """

    kind: str
    naive: int
    unique: int
    there: int
    jobs: int
    naive_work: float
    work: float


@dataclass(frozen=True)
class Forecast:
    """What rows need.

    Attributes:
        kinds: a line per kind of artifact.
        evaluations_asked: U-Net evaluations of all scoring from scratch, each attack alone.
        evaluations_shared: what the attacks' common passes spend.
    """

    kinds: tuple[KindForecast, ...]
    evaluations_asked: int
    evaluations_shared: int


def forecast(rows: Sequence[Artifact], store: Store) -> Forecast:
    """What the rows need and what of it is on the store."""
    unique = list(walk(rows))
    state = survey(rows, store)
    todo = plan_jobs(state.missing, None)
    scratch = todo if len(state.missing) == len(unique) else plan_jobs(unique, None)
    scoring = [job.payload for job in scratch if isinstance(job.payload, ScoringPayload)]
    naive: Counter[str] = Counter()
    naive_work: dict[str, float] = defaultdict(float)
    for row in rows:
        own = list(walk([row]))
        naive.update(artifact.kind for artifact in own)
        for job in plan_jobs(own, None):
            naive_work[job.stage.kind] += job.work
    kinds = []
    for kind in STAGES:
        mine = [artifact for artifact in unique if artifact.kind == kind]
        jobs = [job for job in todo if job.stage.kind == kind]
        kinds.append(
            KindForecast(
                kind=kind,
                naive=naive[kind],
                unique=len(mine),
                there=sum(artifact.address in state.done for artifact in mine),
                jobs=len(jobs),
                naive_work=naive_work[kind],
                work=sum(job.work for job in jobs),
            )
        )
    return Forecast(tuple(kinds), sum(one.nfe_asked for one in scoring), sum(one.nfe_shared for one in scoring))
