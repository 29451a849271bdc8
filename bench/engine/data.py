"""Generation and scoring jobs on Ray Data: one dataset row is one job, one row a block, a fixed pool of actors.

An actor writes its parts to the store and returns figures only. Pictures never travel through Ray.
"""

import json
import logging
from collections.abc import Iterator
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext

from bench.engine.cluster import num_workers
from bench.engine.worker import open_workbench, run_job, set_threads


class Actor:
    """One worker: keeps its models and inputs between jobs."""

    def __init__(self, order: dict[str, Any], device: str):
        set_threads(order["runtime"]["cpus_per_worker"])
        self.order = order
        self.bench = open_workbench(order, device)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do the one job of a batch of one."""
        statuses = [run_job(json.loads(job), self.order["run"], self.bench) for job in batch["job"]]
        return {"status": [json.dumps(status) for status in statuses]}


def run_jobs(jobs: list[dict[str, Any]], order: dict[str, Any], device: str) -> Iterator[dict[str, Any]]:
    """Run all jobs, yielding each one's status when it is done."""
    from bench.workbench import Runtime

    runtime = Runtime(**order["runtime"])
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    context.enable_operator_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    dataset = ray.data.from_items([{"job": json.dumps(job)} for job in jobs], override_num_blocks=len(jobs))
    done = dataset.map_batches(
        Actor,
        fn_constructor_args=(order, device),
        batch_size=1,
        compute=ActorPoolStrategy(size=num_workers(runtime, device, len(jobs))),
        num_cpus=runtime.cpus_per_worker if device == "cpu" else 0,
        num_gpus=1 if device == "cuda" else 0,
    )
    for row in done.iter_rows():
        yield json.loads(row["status"])
