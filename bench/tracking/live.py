"""Loss curves of trainings while they run, in the experiment `lmia/trainings`."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.tracking.database import Database, metric, now, short_hash

if TYPE_CHECKING:
    from mlflow.entities import Metric

EXPERIMENT = "lmia/trainings"
FLUSH_S = 1.0


@dataclass
class _Training:
    run_id: str
    last_step: int
    pending: list["Metric"] = field(default_factory=list)
    flushed: float = 0.0


class Trainings:
    """The curves of one process's trainings; a training's name continues its run of earlier processes."""

    def __init__(self, database: Database):
        self.database = database
        self._trainings: dict[str, _Training] = {}

    def add(self, name: str, step: int, metrics: Mapping[str, float], params: Mapping[str, str]) -> None:
        """Adds a point at a step; see `Tracker.live`."""
        training = self._trainings.get(name) or self._open(name, params)
        if step <= training.last_step:
            return
        training.last_step = step
        at = now()
        training.pending += [
            metric(key, float(value), at, step) for key, value in metrics.items() if math.isfinite(value)
        ]
        if time.monotonic() - training.flushed > FLUSH_S:
            self._flush(training)

    def flush(self) -> None:
        """Writes what `add` still holds back."""
        for training in self._trainings.values():
            self._flush(training)

    def close(self) -> None:
        """Writes what is held back and ends the runs."""
        self.flush()
        for training in self._trainings.values():
            self.database.client.set_terminated(training.run_id)
        self._trainings.clear()

    def _open(self, name: str, params: Mapping[str, str]) -> _Training:
        client = self.database.client
        experiment = self.database.experiment(EXPERIMENT, {"mlflow.experimentKind": "custom_model_development"})
        key = short_hash(name)
        found = client.search_runs([experiment], f"tags.`lmia.key` = '{key}'", max_results=1)
        if found:
            run = found[0]
            last = -1
            for name_of_metric in run.data.metrics:
                history = client.get_metric_history(run.info.run_id, name_of_metric)
                last = max([last, *(point.step for point in history)])
            training = _Training(run.info.run_id, last)
        else:
            tags = {"mlflow.runName": name[:250], "lmia.kind": "training", "lmia.key": key}
            training = _Training(client.create_run(experiment, tags=tags).info.run_id, -1)
            self.database.write(training.run_id, params=params.items())
        self._trainings[name] = training
        return training

    def _flush(self, training: _Training) -> None:
        if training.pending:
            self.database.write(training.run_id, training.pending)
            training.pending = []
        training.flushed = time.monotonic()
