"""Attempts at jobs: recorded before they start, counted so that a job is given up. A log, never an artifact.

An attempt counts against its job when the worker said that it failed, or when the worker died alone, while its driver
and its node lived: a job that takes its process down with it must not be tried for ever. All others are
interruptions: the driver was stopped or killed, a node was lost, the disk was full. An attempt that still reads
`running` counts nothing; it runs if its run lives (`bench.leases`), and was interrupted if not.

No clock orders attempts: their keys are numbered.
"""

import os
import re
import socket
import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Literal

from bench.store import Damaged, Store

MAX_ATTEMPTS = 3
AttemptState = Literal["running", "done", "failed", "interrupted", "damaged"]
"""`damaged`: what was noted cannot be read; such an attempt does not count."""
DIED = "its process ended without a word (killed, or out of memory)"


@dataclass(frozen=True)
class Attempt:
    """One try at a job.

    Attributes:
        job: name of the job.
        title: of the job, for people.
        state: how it stands.
        started_at: by the clock of the node, for people.
        node: host name.
        pid: of the worker.
        run: that the attempt is a part of.
        error: what went wrong.
        seconds: how long it took.
        raylet: Ray's name of the node; empty where the driver did the job itself.
    """

    job: str
    title: str
    state: AttemptState
    started_at: float
    node: str
    pid: int
    run: str
    error: str = ""
    seconds: float = 0.0
    raylet: str = ""


@dataclass(frozen=True)
class Begun:
    """An attempt of this process, with where it is noted and its beginning on this process's clock."""

    key: str
    attempt: Attempt
    at: float


def begin(
    store: Store, job: str, title: str, run: str, raylet: str = "", *, tries: Iterable[str] | None = None
) -> Begun:
    """Record that a try starts now; `tries` are the keys of the earlier ones, if they are known."""
    names = store.names(f"attempts/{job}") if tries is None else [key.rpartition("/")[2] for key in tries]
    numbers = [int(match[0]) for match in map(re.compile(r"[0-9]{1,30}").match, names) if match]
    key = f"attempts/{job}/{max(numbers, default=0) + 1:06d}-{uuid.uuid4().hex[:6]}.json"
    attempt = Attempt(job, title, "running", time.time(), socket.gethostname(), os.getpid(), run, raylet=raylet)
    store.write_json(key, asdict(attempt))
    return Begun(key, attempt, time.monotonic())


def end(store: Store, begun: Begun, state: AttemptState, error: str = "") -> None:
    """Record how a try of this process ended."""
    ended = replace(begun.attempt, state=state, error=error, seconds=time.monotonic() - begun.at)
    store.write_json(begun.key, asdict(ended))


def close(store: Store, key: str, attempt: Attempt, state: AttemptState, error: str = "") -> None:
    """Record how somebody else's try ended, who cannot say it."""
    store.write_json(key, asdict(replace(attempt, state=state, error=error)))


def by_key(store: Store, job: str, before: str | None = None) -> dict[str, Attempt]:
    """All tries at a job by their keys, oldest first; or those whose keys sort `before` one."""
    found = {}
    for name in store.names(f"attempts/{job}"):
        key = f"attempts/{job}/{name}"
        if before is not None and key >= before:
            continue
        try:
            found[key] = _read(store, key)
        except FileNotFoundError:  # another run was told to try again
            continue
    return found


def of(store: Store, job: str) -> list[Attempt]:
    """All tries at a job, oldest first."""
    return list(by_key(store, job).values())


def failures(store: Store, job: str) -> list[Attempt]:
    """The tries that count against a job."""
    return failed(of(store, job))


def failed(tries: list[Attempt]) -> list[Attempt]:
    """Those that count against their job."""
    return [attempt for attempt in tries if attempt.state == "failed"]


def running(store: Store, job: str, run: str) -> dict[str, Attempt]:
    """Tries of a run that have not ended, by their keys."""
    return {k: a for k, a in by_key(store, job).items() if a.run == run and a.state == "running"}


def interrupt(store: Store, job: str, run: str, why: str = "") -> None:
    """The driver of `run` stops: its tries that are still running do not count."""
    for key, attempt in running(store, job, run).items():
        close(store, key, attempt, "interrupted", why)


def reset(store: Store, job: str) -> None:
    """Forget the attempts at a job, so that it is tried again; those stay that another run may be at."""
    for key, attempt in by_key(store, job).items():
        if attempt.state != "running":
            store.remove(key)


def reason(attempts: list[Attempt]) -> str:
    """The last word of the tries at a job, in one line; what may be done about it where it was given up."""
    spoken = [attempt.error for attempt in attempts if attempt.error]
    last = spoken[-1].strip().splitlines()[-1] if spoken else DIED
    told = f"{len(attempts)} attempts failed; the last: {last}"
    return f"{told} (given up: --retry tries again)" if len(attempts) >= MAX_ATTEMPTS else told


def _read(store: Store, key: str) -> Attempt:
    try:
        return store.read_record(key, Attempt)
    except Damaged as error:
        return Attempt(key.split("/")[1], "", "damaged", time.time(), "", 0, "", str(error))
