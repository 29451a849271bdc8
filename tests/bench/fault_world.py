"""A campaign of instant arithmetic as a program, to be killed: `python -m tests.bench.fault_world STORE KIND [NUMBER]`.

KIND is `tune` or `data`: who runs its jobs. It ends as the command line does.
"""

import sys

from bench import cli, interrupts
from bench.store import Store
from tests.bench.fakes import leaf, total, training
from tests.bench.test_driver import driver


def goal(kind: str, number: int, notes: str = ""):
    how = {"pause_s": 1.5, "notes": notes}
    jobs = [training(value=float(n), **how) if kind == "tune" else leaf(float(n), 1, **how) for n in range(number)]
    return total(*jobs)


def main(store: str, kind: str, number: str = "6") -> int:
    def run() -> int:
        outcome = driver(Store(store)).make([goal(kind, int(number), f"{store}.notes")])
        print("made", outcome.made, flush=True)
        return 1 if outcome.failed else 0

    with interrupts.heard():
        return cli.ended(run)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
