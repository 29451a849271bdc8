"""Doing one job on a worker, whoever called: attempts recorded before the start, errors caught into a status."""

import contextlib
import ctypes
import errno
import os
import time
import traceback
from collections.abc import Callable
from typing import Any

from bench import attempts
from bench.stages import stage_module
from bench.store import Corrupt, InfrastructureError, Ref, Store
from bench.workbench import Runtime, Workbench


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


def open_workbench(order: dict[str, Any], device: str) -> Workbench:
    """The workbench of a worker process, from the order that travelled with its jobs."""
    keep_memory()
    return Workbench(Store(order["store"]), Runtime(**order["runtime"]), device, order["revision"])


def run_job(
    job: dict[str, Any], run: str, bench: Workbench, report: Callable[[dict[str, Any]], None] = lambda _: None
) -> dict[str, Any]:
    """Do one job; never raises for what the job does.

    Args:
        job: name, stage, title and payload.
        run: the driver's run, under which attempts are recorded.
        bench: inputs and models of this worker.
        report: gets figures while the job runs (loss curves, share done).

    Returns:
        ``name``, ``state`` (done | failed | quarantined | corrupt | infrastructure), ``seconds`` and ``error``.
    """
    started, store, name = time.monotonic(), bench.store, job["name"]
    status: dict[str, Any] = {"name": name, "state": "done", "error": "", "seconds": 0.0, "damaged": None}
    key = None
    try:
        if _already_there(store, job["payload"]):
            return status
        # Ray restarts a dead actor and repeats its task without end; the count of tries is what ends it.
        if len(attempts.failures(store, name)) >= attempts.MAX_ATTEMPTS:
            return {**status, "state": "quarantined", "error": attempts.reason(attempts.failures(store, name))}
        key = attempts.begin(store, name, job["title"], run)
        stage_module(job["stage"]).make(job["payload"], bench, report)
        if not _already_there(store, job["payload"]):
            raise RuntimeError(f"{job['title']} ended without an error and without its slices")
        attempts.end(store, key, "done")
    except Corrupt as error:
        status |= {"state": "corrupt", "error": str(error), "damaged": [error.manifest.key, error.part.key]}
        if key:
            attempts.end(store, key, "interrupted", str(error))
    except Exception as error:  # noqa: BLE001 - whatever a job does, its siblings go on
        # A full disk is nobody's fault but the disk's: such a try does not count.
        innocent = is_infrastructure(error)
        text = f"{type(error).__name__}: {error}" if innocent else traceback.format_exc(limit=12)
        status |= {"state": "infrastructure" if innocent else "failed", "error": text}
        if key:
            with contextlib.suppress(InfrastructureError):  # the store is what failed: its log cannot take the news
                attempts.end(store, key, "interrupted" if innocent else "failed", text)
    status["seconds"] = time.monotonic() - started
    return status


def is_infrastructure(error: BaseException) -> bool:
    """Whether disk or network failed, here or further down (libraries wrap what the disk said)."""
    while error is not None:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
        if isinstance(error, InfrastructureError) or full or "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return False


def _already_there(store: Store, payload: dict[str, Any]) -> bool:
    """Whether this job's slices are all there (made now, or by another run); completes their manifests."""
    refs = [Ref.from_json(ref) for ref in payload["refs"]]
    if all(payload["number"] in store.slices_done(ref) for ref in refs):
        for ref in refs:
            store.commit(ref)
        return True
    return False
