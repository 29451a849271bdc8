"""Generation and scoring jobs on Ray Data: one dataset row is one job, one row a block, a fixed pool of actors.

An actor writes its parts to the store and returns figures only. Pictures never travel through Ray.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext

from bench.engine.cluster import num_workers
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


def run_jobs(jobs: Sequence[JobOrder], settings: WorkerSettings) -> Iterator[JobStatus]:
    """Run all jobs, yielding each one's status when it is done."""
    runtime, device = settings.runtime, settings.device
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    context.enable_operator_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    dataset = ray.data.from_items([{"job": job.to_json()} for job in jobs], override_num_blocks=len(jobs))
    done = dataset.map_batches(
        Actor,
        fn_constructor_args=(settings.to_json(),),
        batch_size=1,
        compute=ActorPoolStrategy(size=num_workers(runtime, device, len(jobs))),
        num_cpus=runtime.cpus_per_worker if device == "cpu" else 0,
        num_gpus=1 if device == "cuda" else 0,
    )
    for row in done.iter_rows():
        yield JobStatus.from_json(row["status"])
