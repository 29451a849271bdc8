"""Attempts at jobs: recorded before they start, counted for quarantine. A log, never an artifact.

An attempt that ended without a word (its process was killed) counts like one that failed: a job that takes the
machine down with it must not be tried for ever. An attempt that the driver itself broke off does not count.
"""

import os
import socket
import time
import uuid
from dataclasses import asdict, dataclass, replace
from typing import Literal

from bench.store import Damaged, Store

MAX_ATTEMPTS = 3
AttemptState = Literal["running", "done", "failed", "interrupted", "damaged"]
"""`damaged`: what was noted cannot be read; such an attempt does not count."""


@dataclass(frozen=True)
class Attempt:
    """One try at a job."""

    job: str
    title: str
    state: AttemptState
    started_at: float
    node: str
    pid: int
    run: str
    error: str = ""
    seconds: float = 0.0


def begin(store: Store, job: str, title: str, run: str) -> str:
    """Record that a try starts now; returns the key to `end` it with."""
    key = f"attempts/{job}/{time.time_ns()}-{uuid.uuid4().hex[:6]}.json"
    attempt = Attempt(job, title, "running", time.time(), socket.gethostname(), os.getpid(), run)
    store.write_json(key, asdict(attempt))
    return key


def end(store: Store, key: str, state: AttemptState, error: str = "") -> None:
    """Record how a try ended."""
    attempt = _read(store, key)
    ended = replace(attempt, state=state, error=error, seconds=time.time() - attempt.started_at)
    store.write_json(key, asdict(ended))


def of(store: Store, job: str) -> list[Attempt]:
    """All tries at a job, oldest first."""
    return [_read(store, key) for key in _keys(store, job)]


def failures(store: Store, job: str) -> list[Attempt]:
    """The tries that count against a job."""
    return [attempt for attempt in of(store, job) if attempt.state in ("running", "failed")]


def interrupt(store: Store, job: str, run: str) -> None:
    """The driver of `run` stops: its tries that are still running do not count."""
    for key in _keys(store, job):
        attempt = _read(store, key)
        if attempt.run == run and attempt.state == "running":
            store.write_json(key, asdict(replace(attempt, state="interrupted")))


def reset(store: Store, job: str) -> None:
    """Forget all attempts at a job, so that it is tried again."""
    for key in _keys(store, job):
        store.remove(key)


def reason(attempts: list[Attempt]) -> str:
    """The last word of the tries at a job, in one line."""
    spoken = [attempt.error for attempt in attempts if attempt.error]
    last = spoken[-1].strip().splitlines()[-1] if spoken else "ended without a word (killed, or out of memory)"
    return f"{len(attempts)} attempts failed; the last: {last}"


def _keys(store: Store, job: str) -> list[str]:
    return [f"attempts/{job}/{name}" for name in store.names(f"attempts/{job}")]


def _read(store: Store, key: str) -> Attempt:
    try:
        return store.read_record(key, Attempt)
    except Damaged as error:
        return Attempt(key.split("/")[1], "", "damaged", time.time(), "", 0, "", str(error))
