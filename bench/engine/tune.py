"""Training jobs of a wave as one Ray Tune experiment. Tune schedules and reports; the store is the memory."""

import json
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ray import tune
from ray.tune import CheckpointConfig, FailureConfig, RunConfig, TuneConfig
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial

from bench.engine.cluster import room
from bench.engine.worker import WorkerSettings, run_job, set_threads
from bench.jobs import Figures, JobOrder, JobStatus, News
from lmia.scratch import scratch

# Tune hands these to each trial in its runtime environment, which Ray writes into its logs. Workers have them from the
# node that they run on.
class_cache.ENV_VARS_TO_PROPAGATE = {v for v in class_cache.ENV_VARS_TO_PROPAGATE if not v.startswith("AWS_")}


class Training(tune.Trainable):
    """One worker that does one training job after another (`reuse_actors`: torch is imported once).

    The job runs in a thread of its own so that each `step` can report what it has seen since the last one:
    live loss curves, without the job knowing of Tune.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Open the workbench once, then take the job."""
        self.settings = WorkerSettings.from_json(config["settings"])
        set_threads(self.settings.runtime.cpus_per_worker)
        self.bench = self.settings.open_workbench()
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next job without a new process."""
        self._take(new_config)
        return True

    def _take(self, config: dict[str, Any]) -> None:
        self.job = JobOrder.from_json(config["job"])
        self.seen: queue.Queue[Figures] = queue.Queue()
        self.status: JobStatus | None = None
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        set_threads(self.settings.runtime.cpus_per_worker)
        self.status = run_job(self.job, self.settings.run, self.bench, self.seen.put)

    def step(self) -> dict[str, Any]:
        """Wait at most two seconds for news; the last step carries the status."""
        self.thread.join(timeout=2.0)
        news = []
        finished = not self.thread.is_alive()
        while not self.seen.empty():
            news.append(self.seen.get())
        result: dict[str, Any] = {"job_name": self.job.name, "news": json.dumps(news[-200:]), "done": finished}
        if finished and self.status is not None:
            result["status"] = self.status.to_json()
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: progress lies in the store."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: progress lies in the store."""


class _Listener(tune.Callback):
    """Hands what trials report to the driver's thread."""

    def __init__(self, events: "queue.Queue[News | JobStatus | None]"):
        self.events = events

    def __getstate__(self) -> dict:
        return {}  # Tune pickles its callbacks beside the experiment; the copy is never used

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: dict, **info: Any) -> None:
        for news in json.loads(result.get("news") or "[]"):
            self.events.put(News(result["job_name"], news))
        if result.get("status"):
            self.events.put(JobStatus.from_json(result["status"]))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        name = json.loads(trial.config["job"])["name"]
        self.events.put(JobStatus(name, "crashed", "the training process died"))


def run_jobs(
    jobs: Sequence[JobOrder], settings: WorkerSettings, gpus: float, tell: Callable[[str], None] = lambda _: None
) -> Iterator[News | JobStatus]:
    """Run all jobs on `gpus` GPUs each, yielding news while they train and each one's status when it is done.

    `tell` hears what is being waited for.
    """
    runtime, device = settings.runtime, settings.device
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new output draws a box even where it is told to be silent
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "16")
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    worker = {"GPU": gpus} if device == "cuda" else {"CPU": float(runtime.cpus_per_worker)}
    resources = {"cpu": worker.get("CPU", 0), "gpu": worker.get("GPU", 0)}
    events: queue.Queue[News | JobStatus | None] = queue.Queue()
    failure: list[BaseException] = []

    def fit(notes: str, workers: int) -> None:
        try:
            tuner = tune.Tuner(
                tune.with_resources(Training, resources),
                param_space={
                    "job": tune.grid_search([job.to_json() for job in jobs]),
                    "settings": settings.to_json(),
                },
                tune_config=TuneConfig(reuse_actors=True, max_concurrent_trials=workers),
                run_config=RunConfig(
                    name=settings.run,
                    storage_path=notes,
                    verbose=0,
                    callbacks=[_Listener(events)],
                    failure_config=FailureConfig(max_failures=0),
                    # Nothing is handed over at the end, so no worker ever looks for the driver's folder.
                    checkpoint_config=CheckpointConfig(checkpoint_at_end=False),
                ),
            )
            tuner.fit()
        except BaseException as error:  # noqa: BLE001 - handed to the driver's thread below
            failure.append(error)
        finally:
            events.put(None)

    # Tune insists on a folder for its own notes; they are of no use after the experiment.
    share = min(gpus, 1.0) if device == "cuda" else 1.0
    with scratch("tune") as folder, room(runtime, worker, len(jobs), tell, share=share) as there:
        # Trials above what fits now wait; they start as nodes join, and an autoscaler sees them.
        thread = threading.Thread(target=fit, args=(str(folder), there.most), daemon=True)
        thread.start()
        while (event := events.get()) is not None:
            yield event
        thread.join()
    if failure:
        raise failure[0]
