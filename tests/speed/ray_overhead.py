"""Ray Data generation beside a bare loop on the same model, in one run: pictures per core-second.

    python tests/speed/ray_overhead.py [--model tiny] [--jobs 24] [--pictures 32] [--steps 12] [--workers 2]

The bare loop is as many processes with one thread each (and the workers' setting of malloc), calling
lmia.models.sample.generate and nothing else. Ray's
side does the real thing: the same calls, then PNG, Parquet, part, receipt and log in a store. Both are watched from
the parent: start-up ends when as many jobs are done as there are workers (each has loaded its model by then), what
comes after it is the steady state. The loop is run before and after Ray and averaged, against drift.

Wall-clock rates mean something on a machine without other work. CPU time, of the parent and everything below it
(raylet, GCS and agents too), is told beside them: it changes less when others compute.
"""

import argparse
import json
import multiprocessing
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

GOAL = 0.9


@dataclass
class Rate:
    """What one side did: pictures per wall-clock and per CPU second of a worker in the steady state."""

    start_s: float
    steady_s: float
    per_core_s: float
    per_cpu_s: float


class CpuSeconds:
    """CPU time of this process and all that descend from it, those too that have ended since they were last seen."""

    def __init__(self) -> None:
        self.seen: dict[tuple[int, float], float] = {}

    def __call__(self) -> float:
        """The sum until now."""
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            try:
                times = process.cpu_times()
                self.seen[process.pid, process.create_time()] = times.user + times.system
            except psutil.NoSuchProcess:
                continue
        return sum(self.seen.values())


def watch(done: Iterator, workers: int, pictures: int) -> Rate:
    """Follow finished jobs; the first `workers` of them are start-up."""
    begun, moments, cpu_seconds = time.monotonic(), [], CpuSeconds()
    for _ in done:
        moments.append((time.monotonic(), cpu_seconds()))
    (t0, c0), (t1, c1) = moments[workers - 1], moments[-1]
    drawn = (len(moments) - workers) * pictures
    return Rate(t0 - begun, t1 - t0, drawn / (t1 - t0) / workers, drawn / (c1 - c0))


def _draw(layers: list[str], spec: dict, prompt: str, args: argparse.Namespace, queues: tuple) -> None:
    import torch

    from bench.engine.worker import keep_memory
    from lmia.models.load import load_model
    from lmia.models.sample import SampleSpec, generate

    keep_memory()
    torch.set_num_threads(1)
    (jobs, done), pictures = queues, args.pictures
    sample = SampleSpec(**spec)
    model = load_model(layers, device=args.device, dtype=sample.dtype)
    while (number := jobs.get()) is not None:
        ids = [f"drawn/{n:06d}" for n in range(number * pictures, (number + 1) * pictures)]
        generate(model, ids, [prompt] * pictures, sample)
        done.put(number)


@contextmanager
def bare_loop(layers: list[str], spec: dict, prompt: str, args: argparse.Namespace) -> Iterator[Iterator[int]]:
    """Finished jobs of plain processes that draw and do nothing else."""
    context = multiprocessing.get_context("spawn")
    jobs, done = context.Queue(), context.Queue()
    for number in range(args.jobs):
        jobs.put(number)
    for _ in range(args.workers):
        jobs.put(None)
    arguments = (layers, spec, prompt, args, (jobs, done))
    processes = [context.Process(target=_draw, args=arguments) for _ in range(args.workers)]
    for process in processes:
        process.start()
    yield (done.get(timeout=1800) for _ in range(args.jobs))
    for process in processes:
        process.join()


def ray_data(store, model, spec: dict, args: argparse.Namespace) -> Iterator[dict]:
    """Finished jobs of Ray Data: the engine's own code on the stage's own jobs."""
    from bench.artifacts.pictures import GeneratedSpec, drawn_set
    from bench.engine import data
    from bench.engine.worker import WorkerSettings
    from bench.plan.graph import ref_of
    from bench.stages import pictures
    from bench.workbench import Runtime
    from lmia.models.sample import SampleSpec

    drawn = GeneratedSpec(sample=SampleSpec(**spec), prompt="class", source="north", count=args.jobs * args.pictures)
    artifact = drawn_set(model, drawn, args.pictures)
    (entry,) = store.index()[model.address]
    jobs = pictures.STAGE.jobs([(artifact, ref_of(artifact, {"model": entry}))], lambda _: set())
    runtime = Runtime(workers=args.workers, device=args.device)
    settings = WorkerSettings(store.uri, runtime, "speed", "", args.device)
    for status in data.run_jobs(jobs, settings):
        if status.state != "done":
            raise SystemExit(f"{status.name}: {status.state}: {status.error}")
        yield status


def machine(args: argparse.Namespace) -> str:
    """Where this runs."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "?")
    where = torch.cuda.get_device_name() if args.device == "cuda" else cpu
    return f"{where}, {os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="an embedded model, random, or a diffusers folder")
    parser.add_argument("--jobs", type=int, default=24)
    parser.add_argument("--pictures", type=int, default=32, help="in a job")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, help="JSON file of the figures")
    args = parser.parse_args()
    if args.jobs < 4 * args.workers:
        parser.error(f"--jobs {args.jobs}: at least four a worker, or there is no steady state")

    from bench.artifacts.models import given_model
    from bench.driver import Driver
    from bench.engine.cluster import connected
    from bench.store import Store
    from bench.workbench import Runtime
    from lmia.data.captions import prompts
    from lmia.resolve import resolve_base

    with tempfile.TemporaryDirectory(prefix="lmia-speed-") as folder:
        os.environ["LMIA_CACHE"] = f"{folder}/cache"
        store, base = Store(f"{folder}/store"), resolve_base(args.model)
        model = given_model(base)
        Driver(store, Runtime()).make([model])
        layers = [str(base.folder(Path(folder) / "base"))]
        spec = {"steps": args.steps, "guidance": 2.0, "sampler": "ddim", "batch": args.batch}
        prompt = prompts("class", "north", [], 1)[0]

        loads, loops = [os.getloadavg()[0]], []
        for turn in range(3):
            if turn == 1:
                begun = time.monotonic()
                with connected(Runtime(workers=args.workers)):
                    joined = time.monotonic() - begun
                    ray_rate = watch(ray_data(store, model, spec, args), args.workers, args.pictures)
            else:
                with bare_loop(layers, spec, prompt, args) as done:
                    loops.append(watch(done, args.workers, args.pictures))
            loads.append(os.getloadavg()[0])

    bare = {key: sum(getattr(loop, key) for loop in loops) / 2 for key in ("start_s", "per_core_s", "per_cpu_s")}
    figures = {
        "machine": machine(args),
        "load_averages": loads,
        "model": args.model,
        "workers": args.workers,
        "jobs": args.jobs,
        "pictures_per_job": args.pictures,
        "bare_loops": [loop.__dict__ for loop in loops],
        "ray": {**ray_rate.__dict__, "cluster_s": joined},
        "ratio": ray_rate.per_core_s / bare["per_core_s"],
        "ratio_cpu": ray_rate.per_cpu_s / bare["per_cpu_s"],
    }
    print(f"{figures['machine']}; load before, between and after: {', '.join(f'{x:.1f}' for x in loads)}")
    print(f"{args.model}: {args.jobs} jobs of {args.pictures} pictures, {args.steps} steps; {args.workers} workers")
    print(f"{'':10s}{'start-up s':>12s}{'pictures/core-s':>18s}{'pictures/CPU-s':>18s}")
    print(f"{'bare loop':10s}{bare['start_s']:12.1f}{bare['per_core_s']:18.3f}{bare['per_cpu_s']:18.3f}")
    print(
        f"{'Ray Data':10s}{joined + ray_rate.start_s:12.1f}{ray_rate.per_core_s:18.3f}{ray_rate.per_cpu_s:18.3f}"
        f"   (start-up: {joined:.1f} s of it Ray itself)"
    )
    print(f"{'ratio':22s}{figures['ratio']:18.3f}{figures['ratio_cpu']:18.3f}   goal: at least {GOAL}")
    if args.out:
        args.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
