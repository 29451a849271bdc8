"""What a person sees while a campaign runs: what is done, what is running and how long it will still take."""

import time
from collections import defaultdict
from collections.abc import Callable

from bench.events import Event, JobDone, JobNews, Notice, Wave
from bench.jobs import Job, JobStatus
from bench.workbench import Runtime

# Core-seconds per unit of work before anything was measured, on the embedded tiny model and a core without AVX-512.
# They count like a few jobs beside what is measured: a worker's first job is slow, since it imports torch.
PRIORS = {"model": 0.018, "pictures": 0.005, "attack": 0.026, "scores": 0.006, "row": 0.3, "pictures (driver)": 0.1}
PRIOR_JOBS = 2
STARTED_BY_RAY = ("model", "pictures", "attack", "scores")
START_S = 10.0
"""Seconds until new workers compute."""
STAGE_NAMES = {
    "pictures": "pictures",
    "model": "fine-tunes",
    "attack": "attack trainings",
    "scores": "scorings",
    "row": "rows",
    "pictures (driver)": "real sets",
    "model (driver)": "bases",
}
EVERY_S = 5.0


class Progress:
    """Turns the driver's events into lines; the time left comes from the work left and the rates seen so far."""

    def __init__(self, runtime: Runtime, cores: int, tell: Callable[[str], None]):
        self.tell = tell
        self.cores = max(1, min(cores, runtime.workers or cores))
        self.started = time.monotonic()
        self.total: dict[str, float] = {}
        self.jobs: dict[str, int] = {}
        self.finished: dict[str, int] = defaultdict(int)
        self.spent: dict[str, float] = defaultdict(float)
        self.worked: dict[str, float] = defaultdict(float)
        self.partial: dict[str, tuple[str, float, float]] = {}
        self.last = 0.0
        self.doing = ""

    def __call__(self, event: Event) -> None:
        """Take an event of the driver."""
        match event:
            case Wave():
                self._wave(event)
            case JobNews():
                self._news(event)
            case JobDone():
                self._done(event.job, event.status)
            case Notice():
                self.tell(f"  {event.text}")

    def _wave(self, wave: Wave) -> None:
        left: dict[str, float] = defaultdict(float)
        count: dict[str, int] = defaultdict(int)
        for job in wave.remaining:
            left[kind_of(job)] += job.work
            count[kind_of(job)] += 1
        for kind in {*left, *self.worked}:
            self.total[kind] = self.worked[kind] + left[kind]
            self.jobs[kind] = self.finished[kind] + count[kind]
        self.doing = ", ".join(sorted({STAGE_NAMES.get(kind_of(job), kind_of(job)) for job in wave.jobs}))
        self._say(force=len(wave.jobs) > 1 and wave.jobs[0].executor != "driver")

    def _news(self, news: JobNews) -> None:
        epochs = float(news.figures.get("epochs", 0))
        if epochs:
            share = float(news.figures.get("epoch", 0)) / epochs
            self.partial[news.job.name] = (kind_of(news.job), share, news.job.work)
        self._say()

    def _done(self, job: Job, status: JobStatus) -> None:
        kind = kind_of(job)
        self.partial.pop(job.name, None)
        if status.state == "done":
            self.finished[kind] += 1
            self.worked[kind] += job.work
            self.spent[kind] += status.seconds
        elif status.state != "elsewhere":
            word = {"quarantined": "given up", "corrupt": "found a damaged input of"}.get(status.state, "failed at")
            self.tell(f"  {word}: {job.title}: {status.last_line}")
        self._say()

    def seconds_left(self) -> float:
        """Work left at the rates seen so far, spread over the cores; the kinds that are still to start take a start."""
        left = 0.0
        for kind, total in self.total.items():
            done = self.worked[kind] + sum(s * w for k, s, w in self.partial.values() if k == kind)
            weight = total / max(1, self.jobs[kind]) * PRIOR_JOBS or 1.0  # no jobs: other runs did them all
            rate = (self.spent[kind] + PRIORS.get(kind, 0.1) * weight) / (self.worked[kind] + weight)
            cores = 1 if kind == "row" or "driver" in kind else self.cores
            left += max(0.0, total - done) * rate / cores
            if not done and kind in STARTED_BY_RAY:
                left += START_S
        return left

    def _say(self, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self.last < EVERY_S:
            return
        self.last = now
        parts = [f"{STAGE_NAMES[k]} {self.finished[k]}/{self.jobs[k]}" for k in STAGE_NAMES if self.jobs.get(k)]
        self.tell(
            f"[{clock(now - self.started)}, about {clock(self.seconds_left())} left] {', '.join(parts)}; "
            f"now: {self.doing}"
        )


def kind_of(job: Job) -> str:
    """What sort of work a job is: the artifact's kind, apart where the driver does it at once."""
    kind = job.stage.kind
    return f"{kind} (driver)" if job.executor == "driver" and kind != "row" else kind


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    whole = int(seconds + 0.5)
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"
