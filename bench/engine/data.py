"""Generation and scoring jobs on Ray Data: one dataset row is one job, one row a block.

The pool of actors grows as nodes join. An actor writes its parts to the store and returns figures only: pictures
never travel through Ray.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext

from bench.engine.cluster import room
from bench.engine.worker import WorkerSettings, run_job, set_threads
from bench.jobs import JobOrder, JobStatus


class Actor:
    """One worker: keeps its models and inputs between jobs."""

    def __init__(self, settings: str):
        self.settings = WorkerSettings.from_json(settings)
        set_threads(self.settings.runtime.cpus_per_worker)
        self.bench = self.settings.open_workbench()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do the one job of a batch of one."""
        orders = [JobOrder.from_json(str(text)) for text in batch["job"]]
        return {"status": [run_job(order, self.settings.run, self.bench).to_json() for order in orders]}


def run_jobs(
    jobs: Sequence[JobOrder], settings: WorkerSettings, tell: Callable[[str], None] = lambda _: None
) -> Iterator[JobStatus]:
    """Run all jobs, yielding each one's status when it is done; `tell` hears what is being waited for."""
    runtime, device = settings.runtime, settings.device
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    context.enable_operator_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    worker = {"GPU": 1.0} if device == "cuda" else {"CPU": float(runtime.cpus_per_worker)}
    with room(runtime, worker, len(jobs), tell) as workers:
        dataset = ray.data.from_items([{"job": job.to_json()} for job in jobs], override_num_blocks=len(jobs))
        done = dataset.map_batches(
            Actor,
            fn_constructor_args=(settings.to_json(),),
            batch_size=1,
            # As many as fit from the start, since a pool that starts with one grows too slowly; more as nodes join.
            compute=ActorPoolStrategy(
                min_size=workers.now if workers.most == workers.now else 1,
                initial_size=workers.now,
                max_size=workers.most,
            ),
            num_cpus=worker.get("CPU", 0),
            num_gpus=worker.get("GPU", 0),
        )
        for row in done.iter_rows():
            yield JobStatus.from_json(row["status"])
