"""The harness of lmia: grid, plan, store, engine, tracking and leaderboard. Holds no science."""

import sys
from types import ModuleType
from typing import TYPE_CHECKING

from bench.api import Run, audit, leaderboard, run
from bench.store import InfrastructureError

if TYPE_CHECKING:
    from bench.leaderboard.row import Row

__all__ = ["InfrastructureError", "Row", "Run", "audit", "leaderboard", "run"]


class _Bench(ModuleType):
    """Keeps the functions `audit` and `leaderboard` when the packages of these names are imported.

    An import sets a package's module on its parent. `from bench.audit import ...` finds the package all the same.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in ("audit", "leaderboard") and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


def __getattr__(name: str) -> object:
    if name == "Row":  # brings in scipy, which planning and `lmia --help` do without
        from bench.leaderboard.row import Row

        return Row
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


sys.modules[__name__].__class__ = _Bench
