"""MLflow's database or server: where it is, opened quietly, and the few things that both kinds of writers need."""

import contextlib
import hashlib
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lmia.specs import RequestError

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run
    from mlflow.tracking import MlflowClient

PAGE = 1000

# Asked for before the import: no reports to anybody, no progress bars, a server that is not there is noticed soon.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "GIT_PYTHON_REFRESH": "quiet",
}


class TrackingError(RuntimeError):
    """MLflow's database or server could not be used; the rows are not touched by that."""


def home_of(store: str | Path) -> Path:
    """The local folder that holds mlflow.db and mlruns for a store."""
    text = str(store)
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    if "://" not in text:
        return Path(text).expanduser().absolute()
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    parts = urlsplit(text)
    name = re.sub(r"[^\w.-]+", "-", f"{parts.hostname or ''}{parts.path}").strip("-")[-60:] or "store"
    return data / "lmia" / "mlflow" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def database_uri(store: str | Path, tracking_uri: str | None = None) -> str:
    """Where tracking goes: `tracking_uri`, else MLFLOW_TRACKING_URI, else the store's own SQLite file."""
    return tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home_of(store) / 'mlflow.db'}"


def redacted(uri: str) -> str:
    """A URI without user and password."""
    return re.sub(r"//[^/@]*@", "//***@", uri)


class Database:
    """An open MLflow database or server.

    Args:
        store: the store's URI or folder.
        tracking_uri: a server or database; None for MLFLOW_TRACKING_URI or the store's own SQLite file, which is
            created, all tables included, before this returns.

    Raises:
        TrackingError: the database or server cannot be used.
    """

    def __init__(self, store: str | Path, tracking_uri: str | None = None):
        self.store = str(store)
        self.uri = database_uri(store, tracking_uri)
        self.home = home_of(store)
        self._experiments: dict[str, str] = {}
        quiet()
        with self.errors("cannot open"):
            if self._file is not None:
                _create(self._file, self.home / "mlruns")
            import mlflow

            mlflow.set_tracking_uri(self.uri)
            self.client: MlflowClient = mlflow.MlflowClient(self.uri)
            if self._file is not None:
                self._commit_without_waiting()
            self.client.search_experiments(max_results=1)

    @property
    def _file(self) -> Path | None:
        """The SQLite file; None for a server or another database."""
        return Path(self.uri.removeprefix("sqlite:///")) if self.uri.startswith("sqlite:///") else None

    def experiment(self, name: str, tags: Mapping[str, str]) -> str:
        """Id of the experiment `name`, created or brought back from the bin if need be; `tags` are made to hold."""
        if name not in self._experiments:
            found = self.client.get_experiment_by_name(name)
            if found is not None and found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            if found is not None:
                for key, value in tags.items():
                    if found.tags.get(key) != value:
                        self.client.set_experiment_tag(found.experiment_id, key, value)
                self._experiments[name] = found.experiment_id
            else:
                # A server knows itself where its files belong.
                location = None if self._file is None else f"{(self.home / 'mlruns').as_uri()}/{short_hash(name)}"
                self._experiments[name] = self.client.create_experiment(name, location, tags=dict(tags))
        return self._experiments[name]

    def runs(self, experiment: str) -> dict[str, dict[str, "Run"]]:
        """All of an experiment's runs, by kind and key."""
        found: dict[str, dict[str, Run]] = {}
        token = None
        while True:
            page = self.client.search_runs([experiment], max_results=PAGE, page_token=token)
            for run in page:
                found.setdefault(tag(run, "lmia.kind"), {}).setdefault(tag(run, "lmia.key"), run)
            token = page.token
            if not token:
                return found

    def models(self, experiment: str) -> dict[str, str]:
        """Ids of an experiment's logged models by their address."""
        found, token = {}, None
        while True:
            page = self.client.search_logged_models([experiment], max_results=PAGE, page_token=token)
            for model in page:
                if address := (model.tags or {}).get("lmia.address"):
                    found[address] = str(model.model_id)
            token = page.token
            if not token:
                return found

    def write(
        self,
        run_id: str,
        metrics: Iterable["Metric"] = (),
        params: Iterable[tuple[str, str]] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Adds metrics, params and tags to a run, tags last."""
        from mlflow.entities import Param, RunTag

        rest = list(metrics)
        while len(rest) > PAGE:
            self.client.log_batch(run_id, metrics=rest[:PAGE])
            rest = rest[PAGE:]
        self.client.log_batch(
            run_id,
            metrics=rest,
            params=[Param(key[:250], value[:5000]) for key, value in params],
            tags=[RunTag(key, value[:5000]) for key, value in (tags or {}).items()],
        )

    def to_disk(self) -> None:
        """One fsync for a whole sync instead of a dozen for each cell (see `_commit_without_waiting`)."""
        if self._file is not None:
            handle = os.open(self._file, os.O_RDWR)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    @contextlib.contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        """Errors of MLflow, of its database and of the network as one TrackingError of one line, without passwords."""
        try:
            yield
        except (TrackingError, RequestError, ValueError, AssertionError):
            raise
        except Exception as error:
            kind = type(error).__module__.partition(".")[0]
            if not isinstance(error, OSError) and kind not in ("mlflow", "sqlalchemy", "requests", "alembic"):
                raise
            text = redacted(" ".join(str(error).split()))[:500]
            raise TrackingError(f"{doing} MLflow at {redacted(self.uri)}: {text}") from error

    def _commit_without_waiting(self) -> None:
        """Lets this client write to its SQLite file without waiting for the disk at every commit.

        A commit then takes .1 ms instead of 10 to 30. A killed process harms nothing; only a power cut in the middle
        of a sync could, and what is in this file is a copy: delete it and the next run writes it again.
        """
        from sqlalchemy import event

        engine = self.client._tracking_client.store.engine
        if not event.contains(engine, "connect", _synchronous_off):
            event.listen(engine, "connect", _synchronous_off)
            engine.dispose()  # connections opened before are closed


def _synchronous_off(connection: object, _: object) -> None:
    connection.execute("PRAGMA synchronous=OFF")  # type: ignore[attr-defined]


def _create(path: Path, files: Path) -> None:
    """Creates an SQLite database with all its tables under another name, then gives it its own.

    Processes that open a new database at the same time would create its tables twice and fail; a database that
    appears whole cannot be caught half-made.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    quiet()
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".mlflow-") as folder:
        fresh = Path(folder) / "mlflow.db"
        SqlAlchemyStore(f"sqlite:///{fresh}", files.as_uri()).engine.dispose()
        # Somebody else may have been faster: theirs is as good.
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)


def quiet() -> None:
    """Environment and loggers that keep MLflow from reporting and from chatting."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for logger in ("mlflow", "alembic", "sqlalchemy"):
        logging.getLogger(logger).setLevel(logging.ERROR)


def tag(run: "Run | None", name: str) -> str:
    """A run's tag; "" where there is no run or no such tag."""
    return "" if run is None else str(run.data.tags.get(name, ""))


def metric(
    key: str,
    value: float,
    timestamp: int,
    step: int = 0,
    *,
    model_id: str | None = None,
    dataset: str | None = None,
    digest: str | None = None,
) -> "Metric":
    """A point of a metric, tied to a logged model and a dataset if given; characters that MLflow refuses become _."""
    from mlflow.entities import Metric

    tied = {"dataset_name": dataset, "dataset_digest": digest[:36]} if dataset and digest else {}
    name = re.sub(r"[^\w\-. /]", "_", key)[:250]
    return Metric(name, float(value), timestamp, step, model_id=model_id, **tied)


def now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def short_hash(*parts: object) -> str:
    """16 hex digits of JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
