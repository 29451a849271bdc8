"""Joining or starting a Ray cluster and finding out what its workers have."""

import contextlib
import logging
import os
import time
from collections.abc import Iterator

import ray

from bench.engine.private import keep_private
from bench.store import InfrastructureError
from bench.workbench import Runtime


@contextlib.contextmanager
def connected(runtime: Runtime) -> Iterator[None]:
    """A Ray connection for the time of a campaign; started here only if there is none to join."""
    if ray.is_initialized():
        yield
        return
    address = runtime.address or os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # a busy laptop starts slowly
            _start(runtime)
    except Exception as error:  # Ray raises bare Exceptions when a node does not come up
        raise InfrastructureError(f"cannot reach the Ray cluster at {address or 'this machine'}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _start(runtime: Runtime, tries: int = 2) -> None:
    """A cluster of this process; tried again because Ray gives its agents 15 s to come up, whatever else goes on."""
    for left in reversed(range(tries)):
        try:
            ray.init(
                num_cpus=runtime.workers and runtime.workers * runtime.cpus_per_worker,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **keep_private(),  # type: ignore[arg-type]
            )
        except Exception:  # Ray raises bare Exceptions when a node does not come up
            ray.shutdown()
            if not left:
                raise
        else:
            return


def device_of_workers(runtime: Runtime) -> str:
    """What the workers compute on: asked for, or what the *cluster* has. The driver's own devices do not count.

    Raises:
        InfrastructureError: the cluster did not get what was asked for within `wait_for_devices_s`.
    """
    if runtime.device == "cpu":
        return "cpu"
    if runtime.device == "auto":
        return "cuda" if ray.cluster_resources().get("GPU", 0) > 0 else "cpu"
    deadline = time.monotonic() + runtime.wait_for_devices_s
    while ray.cluster_resources().get("GPU", 0) <= 0:
        if time.monotonic() > deadline:
            raise InfrastructureError(
                f"device 'cuda' was asked for, but after {runtime.wait_for_devices_s:.0f} s no node of the cluster "
                f"offers a GPU; it has {_kinds(ray.cluster_resources())}"
            )
        time.sleep(1.0)
    return "cuda"


def num_workers(runtime: Runtime, device: str, num_jobs: int) -> int:
    """How many one-GPU (or one-core) workers the cluster can hold, at most one per job."""
    resources = ray.cluster_resources()
    room = int(resources.get("GPU", 0)) if device == "cuda" else int(resources.get("CPU", 1)) // runtime.cpus_per_worker
    if room < 1:
        raise InfrastructureError(
            f"a worker needs {runtime.cpus_per_worker} CPUs{' and a GPU' if device == 'cuda' else ''}; "
            f"the cluster has {_kinds(resources)}"
        )
    return max(1, min(room, runtime.workers or room, num_jobs))


def _kinds(resources: dict[str, float]) -> str:
    return ", ".join(f"{amount:g} {kind}" for kind, amount in sorted(resources.items()) if kind in ("CPU", "GPU"))
