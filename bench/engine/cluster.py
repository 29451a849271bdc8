"""Joining or starting a Ray cluster, finding out what its workers have, and waiting or asking for what is missing."""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import ray

from bench.engine.address import HERE, reachable
from bench.engine.private import keep_private
from bench.engine.watch import leave
from bench.store import InfrastructureError
from bench.workbench import Runtime
from lmia.specs import RequestError

Tell = Callable[[str], None]
Resources = Mapping[str, float]
TELL_EVERY_S = 10.0
AT_ONCE_S = 2.0
"""Workers of the wave before this one may need so long to give their resources back; nobody is told of that."""
ASK_EVERY_S = 5.0
"""An autoscaler keeps only the last request that anybody made, Ray Data's own included; so ours is repeated."""

_started: list[Runtime] = []
"""How this process started the cluster it is connected to; empty where it joined one, which others may make larger."""


@contextlib.contextmanager
def connected(runtime: Runtime) -> Iterator[None]:
    """A Ray connection for the time of a campaign; started here only if there is none to join.

    Raises:
        RequestError: the address cannot be one of a cluster.
        InfrastructureError: no cluster answers there, or none could be started.
    """
    if ray.is_initialized():
        yield
        return
    asked, variable = runtime.address, os.environ.get("RAY_ADDRESS")
    address, option = (asked, "--address") if asked else (variable, "RAY_ADDRESS")
    if asked == "auto" and variable:  # as Ray itself does inside of a job
        address, option = variable, "RAY_ADDRESS"
    try:
        if address and address != HERE:
            ray.init(address=reachable(address, option), log_to_driver=False, logging_level=logging.ERROR)
        else:
            os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # a busy laptop starts slowly
            _start(runtime)
            _started.append(runtime)
    except (RequestError, InfrastructureError):
        raise
    except Exception as error:  # Ray raises bare Exceptions when a node does not come up
        where = f"{option} {address}" if address else "this machine"
        said = " ".join(str(error).split())
        raise InfrastructureError(f"{where}: Ray cannot be used: {said}") from error
    try:
        yield
    finally:
        _started.clear()
        leave(ray.shutdown)


def _start(runtime: Runtime, tries: int = 2) -> None:
    """A cluster of this process; tried again because Ray gives its agents 15 s to come up, whatever else goes on."""
    for left in reversed(range(tries)):
        try:
            ray.init(
                address=HERE,
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


def device_of_workers(runtime: Runtime, tell: Tell = lambda _: None) -> str:
    """What the workers compute on: asked for, or what the *cluster* has. The driver's own devices do not count.

    Args:
        runtime: how the campaign runs.
        tell: hears what is being waited for.

    Raises:
        RequestError: this machine, whose own cluster it is, has no GPU.
        InfrastructureError: the cluster did not get what was asked for within `wait_for_devices_s`.
    """
    if runtime.device == "cpu":
        return "cpu"
    if runtime.device == "auto":
        return "cuda" if ray.cluster_resources().get("GPU", 0) > 0 else "cpu"
    with asked_of_autoscaler({"GPU": 1}, 1):
        _wait_for({"GPU": 1}, runtime, tell, free=False)
    return "cuda"


@dataclass(frozen=True)
class Room:
    """For how many workers there is room in a wave.

    Attributes:
        now: workers that fit into what the cluster has, at most one per job; at least 1.
        most: workers that there may be when nodes join; `now` where the cluster cannot grow.
    """

    now: int
    most: int


@contextlib.contextmanager
def room(
    runtime: Runtime, worker: Resources, num_jobs: int, tell: Tell = lambda _: None, *, share: float = 1.0
) -> Iterator[Room]:
    """Room for the workers of a wave: waited for, and asked of an autoscaler as long as the wave runs.

    Args:
        runtime: how the campaign runs.
        worker: what one worker takes of a node: {"CPU": 1}, {"GPU": .25}.
        num_jobs: of the wave; more workers would have nothing to do.
        tell: hears what is being waited for, at once and every ten seconds.
        share: part of a slot that one worker takes: several trainings may share a GPU.

    Raises:
        RequestError: this machine, whose own cluster it is, is too small for one worker.
        InfrastructureError: there was no room for one worker within `wait_for_devices_s`.
    """
    wanted = min(num_jobs, int(runtime.workers / share) if runtime.workers else num_jobs)
    with asked_of_autoscaler(worker, wanted):
        _wait_for(worker, runtime, tell, free=True)
        fit = _fit(worker, _nodes())
        if runtime.workers and fit < wanted:
            tell(f"room for {fit} of {wanted} workers: {_need(worker)} each, {_has()}; more start when nodes join")
        now = max(1, min(fit, wanted))
        yield Room(now, now if _started else wanted)


@contextlib.contextmanager
def asked_of_autoscaler(worker: Resources, count: int) -> Iterator[None]:
    """Ask the cluster's autoscaler, if it has one, for room for so many workers; the request ends with the block.

    A cluster without one takes the request, and nothing comes of it.
    """
    if _started:
        yield
        return
    from ray.autoscaler.sdk import request_resources

    over = threading.Event()

    def ask() -> None:
        while True:
            with contextlib.suppress(Exception):  # the next time, or whoever waits for the cluster notices
                request_resources(bundles=[dict(worker)] * count)
            if over.wait(ASK_EVERY_S):
                return

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(ASK_EVERY_S)  # else a late request would come after the one that takes it back
        with contextlib.suppress(Exception):  # the cluster is gone, and the request with it
            request_resources(bundles=[])


def _wait_for(worker: Resources, runtime: Runtime, tell: Tell, *, free: bool) -> None:
    """Until one worker fits on a node; `free`: into what nobody else uses."""
    started, told, limit = time.monotonic(), 0.0, runtime.wait_for_devices_s
    while not _fit(worker, _free() if free else _nodes()):
        now, fits = time.monotonic(), _fit(worker, _nodes()) > 0
        if _started and not fits:
            raise RequestError(_too_small(worker, runtime))
        waited = now - started
        if waited > limit:
            why = "others use it" if fits else "no node has it"
            raise InfrastructureError(
                f"a worker needs {_need(worker)}, but after {limit:.0f} s {why}; {_has()} "
                "(--runtime wait_for_devices_s=SECONDS waits longer)"
            )
        if now - told >= TELL_EVERY_S and (not fits or waited >= AT_ONCE_S):
            what = "others to give resources back" if fits else "nodes"
            tell(f"waiting for {what}: a worker needs {_need(worker)}; {_has()}; at most {limit - waited:.0f} s more")
            told = now
        time.sleep(min(1.0, max(0.05, limit - waited)))


def _too_small(worker: Resources, runtime: Runtime) -> str:
    if "GPU" in worker:
        return (
            f"--runtime device={runtime.device}: Ray finds no GPU on this machine ({_has()}); use device=cpu or auto, "
            "or give the --address of a cluster that has GPUs"
        )
    return (
        f"--runtime cpus_per_worker={runtime.cpus_per_worker}: no worker fits on this machine ({_has()}); ask for fewer"
    )


def _nodes() -> list[Resources]:
    """All that each living node has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _free() -> list[Resources]:
    """What nobody uses, by node."""
    from ray._private.state import available_resources_per_node

    return list(available_resources_per_node().values())


def _fit(worker: Resources, nodes: list[Resources]) -> int:
    """How many workers fit, each on one node."""
    return sum(min(int(node.get(kind, 0) / amount + 1e-9) for kind, amount in worker.items()) for node in nodes)


def _need(worker: Resources) -> str:
    return " and ".join(f"{amount:g} {kind}" for kind, amount in worker.items())


def _has() -> str:
    nodes, free = _nodes(), _free()

    def total(of: list[Resources], kind: str) -> float:
        return sum(node.get(kind, 0) for node in of)

    parts = [f"{total(nodes, kind):g} {kind} ({total(free, kind):g} free)" for kind in ("CPU", "GPU")]
    return f"the cluster has {len(nodes)} node{'s' * (len(nodes) != 1)} with {' and '.join(parts)}"
