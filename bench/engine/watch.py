"""An end for every wave: Ray waits for ever on a raylet, head or worker that is gone, and nobody tells whoever waits.

The driver takes what workers say from a thread that may hang, and looks itself, each second, whether there is still
somebody to wait for.
"""

import contextlib
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from bench import interrupts
from bench.store import InfrastructureError

T = TypeVar("T")

PROBE_S = 5.0
SILENT_S = 45.0
"""Below the 60 s after which Ray ends the process of a driver whose head is gone."""
LEAVE_S = 15.0
ESSENTIAL = ("raylet", "gcs_server")
WORKERS = ("MapWorker", "Trainable")
"""In the class names of Ray Data's and Tune's workers."""


def node_id() -> str:
    """Ray's name of this process's node; empty where Ray is not used."""
    ray = _ray()
    return ray.get_runtime_context().get_node_id() if ray else ""


def living_nodes() -> set[str]:
    """Ray's names of the cluster's nodes that live."""
    ray = _ray()
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]} if ray else set()


def _ray() -> Any:
    ray = sys.modules.get("ray")  # whoever has no Ray does not load it for this
    return ray if ray is not None and ray.is_initialized() else None


class Cluster:
    """Looks, in a thread of its own, whether the cluster under this driver can still do something.

    Args:
        patience_s: how long workers may be waited for; a while later, without any, nothing is going on.
    """

    def __init__(self, patience_s: float):
        self.patience_s = patience_s + SILENT_S
        self._stop = threading.Event()
        self._answered = self._worked = time.monotonic()
        self._lost_node = False
        self._mine = node_id()
        threading.Thread(target=self._probe, daemon=True).start()

    def heard(self) -> None:
        """A worker said something."""
        self._worked = time.monotonic()

    def trouble(self) -> str | None:
        """Why nothing can come any more; None while all is well."""
        now = time.monotonic()
        if dead := _dead_processes():
            return f"Ray's {' and '.join(dead)} on this machine died"
        if self._lost_node:
            return "the cluster has lost this machine (its raylet or its network)"
        if now - self._answered > SILENT_S:
            return f"the cluster's head (its GCS) has not answered for {SILENT_S:.0f} s"
        if now - self._worked > self.patience_s:
            return f"there has been no progress and no live worker for {self.patience_s:.0f} s"
        return None

    def stop(self) -> None:
        """Look no longer."""
        self._stop.set()

    def _probe(self) -> None:
        import ray
        from ray._private.state import actors

        job = ray.get_runtime_context().get_job_id()
        while not self._stop.wait(PROBE_S):
            with contextlib.suppress(Exception):  # no answer: that is what is being asked
                self._lost_node = self._mine not in living_nodes()
                self._answered = time.monotonic()
                if any(_is_worker(actor, job) for actor in actors().values()):
                    self.heard()


def _is_worker(actor: dict[str, Any], job: str) -> bool:
    mine = actor["JobID"] == job and actor["State"] == "ALIVE"
    return mine and any(word in actor["ActorClassName"] for word in WORKERS)


def _dead_processes() -> list[str]:
    """Processes of a cluster that this one started, without which nothing goes on."""
    from ray._private import worker

    node = worker._global_node
    return sorted(kind for kind, _ in node.dead_processes() if kind in ESSENTIAL) if node is not None else []


def watched(events: Iterable[T], cluster: Cluster) -> Iterator[T]:
    """What comes from `events`, which may hang.

    Raises:
        InfrastructureError: nothing can come any more.
    """
    taken: queue.Queue[tuple[T] | BaseException | None] = queue.Queue()

    def take() -> None:
        try:
            for event in events:
                taken.put((event,))
            taken.put(None)
        except BaseException as error:  # noqa: BLE001 - raised below, where somebody hears it
            taken.put(error)

    threading.Thread(target=take, daemon=True).start()
    while True:
        try:
            event = taken.get(timeout=1.0)
        except queue.Empty:
            event = ()  # type: ignore[assignment]
        interrupts.check()
        why = cluster.trouble()
        if why:
            raise InfrastructureError(f"{why}; the same command goes on from here")
        if event is None:
            return
        if isinstance(event, BaseException):
            raise event
        if event:
            cluster.heard()
            yield event[0]


def leave(shutdown: Callable[[], None]) -> None:
    """Leave the cluster, which may be broken: what does not end by itself in a while is ended."""
    from ray._private import auto_init_hook

    auto_init_hook.enable_auto_connect = False  # a thread that was left behind would start a cluster of its own
    thread = threading.Thread(target=shutdown, daemon=True)
    thread.start()
    thread.join(LEAVE_S)
    if thread.is_alive():
        kill_started()


def kill_started() -> None:
    """Kill the processes of a cluster that this process started."""
    from ray._private import worker

    node = worker._global_node
    living: list[tuple[str, Any]] = node.live_processes() if node is not None else []
    for _, process in living:
        with contextlib.suppress(OSError):
            process.kill()
