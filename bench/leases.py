"""Which runs live: a run keeps a lease on its store while it works, and says again and again that it is there.

No clocks are compared. On the machine of the run its process is looked up, which tells at once. From elsewhere a lease
lives as long as its counter goes on, seen on the watcher's own clock. What hangs on it is only what people are told
and whether a job is left to the run that is at it: attempts of dead runs count for nothing, and artifacts are right
whoever makes them.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from bench.store import Damaged, InfrastructureError, Store

BEAT_S = 5.0
SILENT_S = 30.0


@dataclass(frozen=True)
class Lease:
    """What a run says of itself.

    Attributes:
        run: its name.
        node: host name of its driver.
        process: the driver's process (boot of the machine, PID namespace, PID, start); empty where it has no such name.
        beat: goes up while the run lives.
    """

    run: str
    node: str
    process: str
    beat: int = 0


@contextlib.contextmanager
def held(store: Store, run: str) -> Iterator[None]:
    """Keep a lease for the time of a run."""
    key, stop = f"runs/{run}.json", threading.Event()
    lease = Lease(run, socket.gethostname(), _process(os.getpid()) or "")
    store.write_json(key, asdict(lease))

    def beat() -> None:
        count = 0
        while not stop.wait(BEAT_S):
            count += 1
            with contextlib.suppress(InfrastructureError):  # whoever cannot write it says it with the next one
                store.write_json(key, asdict(replace(lease, beat=count)))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=BEAT_S)  # not for ever: the store may hang
        with contextlib.suppress(InfrastructureError):
            store.remove(key)


def read(store: Store, run: str) -> Lease | None:
    """The lease of a run; None where it has none (it ended, or what it says cannot be read)."""
    try:
        return store.read_record(f"runs/{run}.json", Lease)
    except (FileNotFoundError, Damaged):
        return None


def may_live(store: Store, run: str) -> bool:
    """Whether a run has a lease and is not known to be dead: what can be said at once."""
    lease = read(store, run)
    return lease is not None and _is_alive(lease) is not False


class Watch:
    """Tells, over time, which of a store's runs live."""

    def __init__(self, store: Store):
        self.store = store
        self._seen: dict[str, tuple[int, float]] = {}
        self._heard: set[str] = set()

    def living(self, but: str = "") -> set[str]:
        """The runs (`but` one) that are not known to be dead now; leases of the dead are removed."""
        found = set()
        for run in self._names():
            lease = read(self.store, run) if run != but else None
            if lease is None:
                continue
            if self._lives(lease) is False:
                self.store.remove(f"runs/{run}.json")
            else:
                found.add(run)
        return found

    def settled(self) -> set[str]:
        """The runs that live, waiting (at most SILENT_S) until that is known of each; nothing is removed."""
        while True:
            leases = [lease for lease in (read(self.store, run) for run in self._names()) if lease]
            known = {lease.run: self._lives(lease) for lease in leases}
            if None not in known.values():
                return {run for run, lives in known.items() if lives}
            time.sleep(BEAT_S / 5)

    def _names(self) -> list[str]:
        return [name.removesuffix(".json") for name in self.store.names("runs") if name.endswith(".json")]

    def _lives(self, lease: Lease) -> bool | None:
        alive = _is_alive(lease)
        if alive is not None:
            return alive
        beat, since = self._seen.get(lease.run, (None, 0.0))
        now = time.monotonic()
        if beat != lease.beat:
            self._seen[lease.run] = (lease.beat, now)
            if beat is not None:
                self._heard.add(lease.run)
        elif now - since > SILENT_S:
            return False
        return True if lease.run in self._heard else None


def _is_alive(lease: Lease) -> bool | None:
    """Whether the process of a lease lives; None if it is not one of this machine's."""
    mine = _process(os.getpid())
    if not mine or not lease.process or lease.process.split("/")[:2] != mine.split("/")[:2]:
        return None
    pid = lease.process.split("/")[2]
    return pid.isdigit() and _process(int(pid)) == lease.process


def _process(pid: int) -> str | None:
    """A name that no other process has, of this or another machine; None if there is no such process."""
    try:
        # The name of the program is in parentheses and may hold anything.
        state, *fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if state in "ZX" else f"{_here()}/{pid}/{fields[18]}"  # the 22nd: its start in ticks since the boot
    except OSError:
        return None


@cache
def _here() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
