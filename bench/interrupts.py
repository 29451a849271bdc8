"""Being stopped from outside: every signal by which people and schedulers ask a process to end ends it in one way.

SIGINT is Ctrl-C; SIGTERM comes from `kill`, Kubernetes, SLURM's preemption and time limits, before their SIGKILL;
SIGHUP when the terminal goes; SIGUSR1 and SIGXCPU are what `sbatch --signal` and CPU limits warn with. All of them mean
the same here: write down that it was an interruption, and end with status 3. The same command goes on.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGXCPU") if hasattr(signal, name))


class Interrupted(KeyboardInterrupt):
    """A signal asks to end."""


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Raise Interrupted in the main thread when the first such signal comes; those that follow change nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        for one in SIGNALS:
            signal.signal(one, signal.SIG_IGN)
        raise Interrupted(signal.Signals(number).name)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is signal.SIG_DFL:  # `nohup` ignores SIGHUP, and so it stays
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Keep the handler of SIGTERM while a library installs one of its own."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
