"""Doing one job on a worker, whoever called: attempts recorded before the start, errors caught into a status."""

import contextlib
import ctypes
import os
import shutil
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from bench import attempts, leases
from bench.engine.watch import living_nodes, node_id
from bench.jobs import Damaged, JobOrder, JobStatus, Payload, Report, State
from bench.store import Corrupt, InfrastructureError, Store, is_full, is_infrastructure
from bench.workbench import Runtime, Workbench
from lmia.specs import RequestError


def set_threads(count: int) -> None:
    """Give torch and OpenMP as many threads as the worker has CPUs: more on too few cores costs a factor of ten.

    The environment comes before the import: OpenMP reads it once and gives it to every thread that a job may run
    in, while `set_num_threads` is heard by the calling thread alone.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(count)
    import torch

    torch.set_num_threads(count)


def keep_memory() -> None:
    """Let glibc keep freed memory, up to 1 GiB, instead of giving it back after every training step.

    Getting it back costs a page fault per 4 KiB: 4,000 a step of a small U-Net, 5 % to 7 % of its time on a CPU
    (tests/speed/memory.py).
    Other C libraries have no mallopt, and go on as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_threshold, arena_max = -1, -3, -8  # malloc.h
        for option, value in ((trim_threshold, 1 << 30), (mmap_threshold, 32 << 20), (arena_max, 1)):
            mallopt(option, value)


@dataclass(frozen=True)
class WorkerSettings:
    """What every worker of a run has to know beside its jobs.

    Attributes:
        store: address of the store.
        runtime: how the campaign runs.
        run: name of the run, under which attempts are recorded.
        revision: of the code.
        device: what the workers compute on.
    """

    store: str
    runtime: Runtime
    run: str
    revision: str
    device: str

    def to_json(self) -> str:
        """As text, for Ray."""
        return TypeAdapter(WorkerSettings).dump_json(self).decode()

    @staticmethod
    def from_json(text: str) -> "WorkerSettings":
        """Inverse of `to_json`."""
        return TypeAdapter(WorkerSettings).validate_json(text)

    def open_workbench(self) -> Workbench:
        """The workbench of this worker process."""
        keep_memory()
        return Workbench(Store(self.store), self.runtime, self.device, self.revision)


def run_job(job: JobOrder, run: str, bench: Workbench, report: Report = lambda _: None) -> JobStatus:
    """Do one job; never raises for what the job does.

    Args:
        job: what to do.
        run: the driver's run, under which attempts are recorded.
        bench: inputs and models of this worker.
        report: gets figures while the job runs (loss curves, share done).
    """
    started, store, name = time.monotonic(), bench.store, job.name

    def ended(state: State, error: str = "", damaged: Damaged | None = None) -> JobStatus:
        return JobStatus(name, state, error, time.monotonic() - started, damaged)

    begun = None
    try:
        if _already_there(store, job.payload):
            return ended("done")
        judge(store, name, run)
        tries = attempts.by_key(store, name)
        if _is_elsewhere(store, run, tries):
            return ended("elsewhere")
        # Ray restarts a dead actor and repeats its task without end; the count of tries is what ends it.
        failed = attempts.failed(list(tries.values()))
        if len(failed) >= attempts.MAX_ATTEMPTS:
            return ended("quarantined", attempts.reason(failed))
        begun = attempts.begin(store, name, job.title, run, node_id(), tries=tries)
        # Whoever began in the same moment has been noted too by now; of several the first key goes on.
        before = attempts.by_key(store, name, before=begun.key)
        if _is_elsewhere(store, run, before):
            attempts.end(store, begun, "interrupted", "another run began it in the same moment")
            return ended("elsewhere")
        job.stage.make(job.payload, bench, report)
        if not _already_there(store, job.payload):
            raise RuntimeError(f"{job.title} ended without an error and without its slices")
        attempts.end(store, begun, "done")
    except Corrupt as error:
        if begun:
            attempts.end(store, begun, "interrupted", str(error))
        return ended("corrupt", str(error), Damaged(error.manifest, error.part))
    except RequestError as error:  # would be the same at each try; whoever asked has to change something
        if begun:
            attempts.end(store, begun, "interrupted", str(error))
        return ended("refused", str(error))
    except Exception as error:  # noqa: BLE001 - whatever a job does, its siblings go on
        # A full disk is not the job's fault: such a try does not count.
        infrastructure = is_infrastructure(error)
        text = f"{type(error).__name__}: {error}" if infrastructure else traceback.format_exc(limit=12)
        if is_full(error):
            text += f" (full: {', '.join(full_folders(store, bench.cache.folder)) or 'a disk'})"
        if begun:
            with contextlib.suppress(InfrastructureError):  # the store is what failed: its log cannot take the news
                attempts.end(store, begun, "interrupted" if infrastructure else "failed", text)
        return ended("infrastructure" if infrastructure else "failed", text)
    return ended("done")


def judge(store: Store, name: str, run: str) -> None:
    """Say of a run's tries at a job that have not ended, and whose worker is dead, how they ended.

    The worker died alone, and that counts against the job, unless its node was lost with it.
    """
    left = attempts.running(store, name, run)
    nodes = living_nodes() if left else set()
    for key, attempt in left.items():
        if attempt.raylet and attempt.raylet not in nodes:
            attempts.close(store, key, attempt, "interrupted", "its node was lost")
        else:
            attempts.close(store, key, attempt, "failed", attempts.DIED)


def _is_elsewhere(store: Store, run: str, tries: dict[str, attempts.Attempt]) -> bool:
    """Whether another run that may live is at this job."""
    others = {one.run for one in tries.values() if one.state == "running" and one.run != run}
    return any(leases.may_live(store, other) for other in others)


def full_folders(store: Store, *folders: Path) -> list[str]:
    """Of the folders that a job writes to, those with no room left: libraries that write do not always say where."""
    places = [Path(store.root)] if store.local else []
    found = []
    for place in dict.fromkeys([*places, *folders, Path(tempfile.gettempdir())]):
        with contextlib.suppress(OSError):
            if shutil.disk_usage(place).free < 1 << 20:
                found.append(str(place))
    return found


def _already_there(store: Store, payload: Payload) -> bool:
    """Whether this job's slices are all there (made now, or by another run); completes their manifests."""
    done = []
    for ref in payload.refs:
        done.append(store.slices_done(ref))
        if payload.number not in done[-1]:
            return False
    for ref, numbers in zip(payload.refs, done, strict=True):
        store.commit(ref, done=numbers)
    return True
