"""Kills at random times over a campaign until it is done: `python -m tests.soak --kills 40 --seed 1 --out FOLDER`.

An undisturbed run comes first. Then the same command is run again and again on another store; at random times a random
one of its processes gets a random signal. A campaign that is done before the kills are spent is begun anew on another
store. The log says each kill and each end, the last line sums up: rows against the undisturbed run bit by bit; `lost`:
rows that are not there, `duplicated`: jobs done twice, `remade`: finished slices that were written again, `hung`: runs
that had no end, `wrong`: runs that ended otherwise than they should. Exit status 0 if all of these are 0.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from bench import campaign
from bench.leaderboard.row import equal
from bench.store import Store

ROOT = Path(__file__).resolve().parents[2]
BOUND_S = 240
VICTIMS = {
    "driver": None,
    "raylet": "/raylet/raylet",
    "gcs": "gcs_server",
    "agent": "ray::DashboardAgent|ray::RuntimeEnvAgent",
    "worker": "MapWorker|Trainable",
}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def start(command: list[str], log: Path) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=log.open("ab"), stderr=subprocess.STDOUT, start_new_session=True
    )


def victim(run: subprocess.Popen, name: str, chance: random.Random) -> psutil.Process | None:
    """A process of a run; None if it has none of this kind now."""
    with contextlib.suppress(psutil.NoSuchProcess):
        driver = psutil.Process(run.pid)
        if name == "driver":
            return driver
        found = []
        for child in sorted(driver.children(recursive=True), key=lambda child: child.pid):
            with contextlib.suppress(psutil.Error):
                line = " ".join(child.cmdline())
                if any(word in line for word in str(VICTIMS[name]).split("|")):
                    found.append(child)
        return chance.choice(found) if found else None
    return None


def receipts(store: Path) -> dict[str, int]:
    found = {}
    for path in store.glob("parts/*/*.receipt.json"):
        with contextlib.suppress(FileNotFoundError):
            found[str(path)] = path.stat().st_mtime_ns
    return found


def end(run: subprocess.Popen, bound: float) -> int | None:
    """A run's exit status, None if it hangs; whatever it leaves behind of its processes is ended."""
    family = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(run.pid).children(recursive=True)
    try:
        status = run.wait(timeout=bound)
    except subprocess.TimeoutExpired:
        status = None
        run.kill()
        run.wait()
    _, left = psutil.wait_procs(family, timeout=10)  # Ray's processes end after their driver
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    return status


def done_twice(store: Path) -> int:
    done: collections.Counter[str] = collections.Counter()
    for path in store.glob("attempts/*/[!.]*.json"):
        attempt = json.loads(path.read_text())
        done[attempt["job"]] += attempt["state"] == "done"
    return sum(count > 1 for count in done.values())


def soak(kills: int, seed: int, out: Path, command, rows, *, gap: tuple[float, float]) -> dict[str, int]:
    """Kill until `kills` are spent and the campaign is done.

    Args:
        kills: how many processes get a signal.
        seed: of who gets which one when.
        out: folder of stores, log and output.
        command: of a store: the command line of a run on it.
        rows: of a store: its answers, None for what is lost.
        gap: seconds between a run's start (or its last kill) and a kill, at least and at most.
    """
    chance, counts = random.Random(seed), collections.Counter()
    names = (
        "kills",
        "runs",
        "campaigns",
        "rows",
        "lost",
        "unequal",
        "duplicated",
        "remade",
        "hung",
        "wrong",
        "retried",
    )
    counts.update(dict.fromkeys(names, 0))
    out.mkdir(parents=True, exist_ok=True)
    output, log = out / "output.txt", (out / "log.txt").open("a")

    def tell(line: str) -> None:
        log.write(f"{line}\n")
        log.flush()

    calm = out / "calm"
    status = start(command(calm, False), output).wait()
    if status:
        raise SystemExit(f"the undisturbed run ended with {status}: see {output}")
    wanted, number, retry = rows(calm), 0, False
    while number == 0 or counts["kills"] < kills:
        store, status = out / f"store-{number}", None
        while status != 0:
            before = receipts(store)
            run, began, hit, fatal = start(command(store, retry), output), time.monotonic(), "", False
            counts["runs"] += 1
            while run.poll() is None and not fatal and counts["kills"] < kills:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    run.wait(timeout=chance.uniform(*gap))
                    break
                kind, number_of = chance.choice(sorted(VICTIMS)), chance.choice(SIGNALS)
                chosen = victim(run, kind, chance)
                if chosen is not None:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        chosen.send_signal(number_of)
                        counts["kills"] += 1
                        counts[f"{kind} {number_of.name}"] += 1
                        hit = f"{hit} {kind}:{number_of.name}"
                        tell(f"{time.monotonic() - began:6.1f} s {number_of.name} to {kind} {chosen.pid}")
                        # Ray's own processes take no notice of SIGINT: such a run goes on, and so do the kills.
                        gone, _ = psutil.wait_procs([chosen], timeout=0.0 if kind == "driver" else 3.0)
                        fatal = kind == "driver" or (kind != "worker" and bool(gone))
            last = time.monotonic()
            status = end(run, BOUND_S if counts["kills"] < kills or hit else 3600)
            counts["hung"] += status is None
            killed = "driver:SIGKILL" in hit and status == -signal.SIGKILL
            early = "driver:" in hit and status in (-signal.SIGTERM, -signal.SIGINT, 130, 1)  # before it could listen
            retry = status == 1 and not early
            counts["retried"] += retry
            if not (status in (0, 3) or killed or early or retry):
                counts["wrong"] += 1
            again = [path for path, at in receipts(store).items() if before.get(path, at) != at]
            counts["remade"] += len(again)
            tell(f"run {counts['runs']}: exit {status}, {time.monotonic() - last:.1f} s after;{hit or ' undisturbed'}")
        found = rows(store)
        counts["campaigns"] += 1
        counts["rows"] += len(wanted)
        counts["lost"] += sum(row is None for row in found)
        counts["unequal"] += sum(not equal_rows(a, b) for a, b in zip(found, wanted, strict=True))
        counts["duplicated"] += done_twice(store)
        number += 1
    summary = ", ".join(f"{name} {count}" for name, count in counts.items())
    tell(f"seed {seed}: {summary}")
    print(f"seed {seed}: {summary}")
    return dict(counts)


def equal_rows(a, b) -> bool:
    return a == b if a is None or b is None or not hasattr(a, "measured") else equal(a, b)


def main() -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` has it ignored, and children inherit that
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--gap", type=float, nargs=2, default=(2.0, 20.0), help="seconds between kills")
    how = parser.parse_args()

    def command(store: Path, retry: bool) -> list[str]:
        found = [sys.executable, "-m", "bench", "run", how.preset, "--store", str(store), "--no-track"]
        return [*found, "--runtime", f"cache={how.out / 'cache'}", *(["--retry"] if retry else [])]

    def rows(store: Path):
        name = campaign.named(how.preset, Store(store))
        return [row if row.status != "waiting" else None for row in campaign.answers(name, Store(store))[0]]

    counts = soak(how.kills, how.seed, how.out.resolve(), command, rows, gap=tuple(how.gap))
    return int(any(counts[name] for name in ("lost", "unequal", "duplicated", "remade", "hung", "wrong")))


if __name__ == "__main__":
    sys.exit(main())
