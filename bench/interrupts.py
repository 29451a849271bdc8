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


_asked: list[str] = []


def check() -> None:
    """Raise again what a library may have swallowed: an exception that comes in the middle of its callbacks is lost."""
    if _asked and threading.current_thread() is threading.main_thread():
        raise Interrupted(_asked[0])


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Raise Interrupted in the main thread when the first such signal comes; those that follow change nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        _asked.append(signal.Signals(number).name)
        for one in SIGNALS:
            signal.signal(one, signal.SIG_IGN)
        raise Interrupted(_asked[0])

    _asked.clear()
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGINT)}
    for number, handler in before.items():
        if handler in (signal.SIG_DFL, signal.default_int_handler):  # `nohup` ignores SIGHUP, and so it stays
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
    except SystemExit as error:  # how Ray's handler takes it
        if error.code != signal.SIGTERM:
            raise
        raise Interrupted("SIGTERM") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
