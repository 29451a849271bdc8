"""MLflow's database or server: where it is, opened quietly, and the few things that both kinds of writers need."""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from lmia.specs import RequestError

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run
    from mlflow.tracking import MlflowClient

PAGE = 1000
PROXIED = "mlflow-artifacts:/"

# Asked for before the import: no reports to anybody, no progress bars, a server that is not there is noticed soon.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "PGCONNECT_TIMEOUT": "10",
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
    own = quote(str(home_of(store) / "mlflow.db"))
    return tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{own}"


def file_of(uri: str) -> Path | None:
    """The SQLite file that a URI names; None for a server or another database."""
    return Path(unquote(uri.removeprefix("sqlite:///").partition("?")[0])) if uri.startswith("sqlite:///") else None


def is_database(uri: str) -> bool:
    """Whether a URI names a database that is written directly, without a server that knows where files belong."""
    return uri.startswith(("sqlite:", "postgres", "mysql", "mssql"))


def files_of(uri: str) -> Path:
    """The folder for files of a database without a server: beside its SQLite file, else in this user's data."""
    file = file_of(uri)
    return (home_of(redacted(uri)) if file is None else file.absolute().parent) / "mlruns"


def redacted(text: str) -> str:
    """A URI or message without users, passwords and tokens."""
    for name, value in os.environ.items():
        if len(value) >= 4 and re.search("PASSWORD|TOKEN|SECRET", name):
            text = text.replace(value, "***").replace(quote(value, safe=""), "***")
    text = re.sub(r"://[^\s\"'<>]*@", "://***@", text)
    return re.sub(r"(?i)((?:password|token|secret)[\w-]*=)[^&\s]+", r"\1***", text)


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
        self._locations: dict[str, str] = {}
        quiet()
        with self.errors("cannot open"):
            own = self._file is not None and self._file == self.home / "mlflow.db"
            if self._file is not None and self._file.exists() and not sound(self._file):
                if not own:
                    raise TrackingError(f"{self._file} is damaged, or no database of MLflow")
                put_aside(self._file)
            try:
                self._open()
            except Exception as error:
                # Of another MLflow's making. What is in the store's own file is a copy: it is written anew.
                if not own or "schema" not in str(error):
                    raise
                put_aside(self.home / "mlflow.db")
                self._open()

    def _open(self) -> None:
        if self._file is not None:
            _create(self._file)
            if self._file == self.home / "mlflow.db":
                _make_movable(self._file)
        elif is_database(self.uri):
            _reach(self.uri)
        import mlflow

        # Never mlflow.set_tracking_uri: it sets MLFLOW_TRACKING_URI, and the next store would be tracked in this one's.
        self.client: MlflowClient = mlflow.MlflowClient(self._address())
        if self._file is not None:
            self._commit_without_waiting()
        self.client.search_experiments(max_results=1)

    def _address(self) -> str:
        """The URI as MLflow takes it: it has no way to say % or ? in a path, but takes a link."""
        if self._file is None or not set(str(self._file.absolute())) & set("%?"):
            return self.uri if self._file is None else f"sqlite:///{self._file}"
        self._link = tempfile.TemporaryDirectory(prefix="lmia-mlflow-", ignore_cleanup_errors=True)
        (Path(self._link.name) / "home").symlink_to(self._file.absolute().parent)
        return f"sqlite:///{self._link.name}/home/{quote(self._file.name)}"

    @property
    def _file(self) -> Path | None:
        return file_of(self.uri)

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
                # A server knows itself where its files belong. Those of a database are named relative to the folder
                # that `lmia ui` serves, so that both may be moved.
                location = f"{PROXIED}{short_hash(name)}" if is_database(self.uri) else None
                self._experiments[name] = self.client.create_experiment(name, location, tags=dict(tags))
        return self._experiments[name]

    def add_files(self, run_id: str, folder: Path, experiment: str) -> None:
        """Adds the files of a folder to a run."""
        location = self._locations.get(experiment) or self.client.get_experiment(experiment).artifact_location
        self._locations[experiment] = location
        if is_database(self.uri) and location.startswith(PROXIED):
            place = files_of(self.uri) / location.removeprefix(PROXIED) / run_id / "artifacts"
            shutil.copytree(folder, place, dirs_exist_ok=True)
        else:
            self.client.log_artifacts(run_id, str(folder))

    def has_file(self, run_id: str, name: str, experiment: str) -> bool:
        """Whether a run's file is there; True for a server, which is believed."""
        location = self._locations.get(experiment) or self.client.get_experiment(experiment).artifact_location
        self._locations[experiment] = location
        if not is_database(self.uri) or not location.startswith(PROXIED):
            return True
        return (files_of(self.uri) / location.removeprefix(PROXIED) / run_id / "artifacts" / name).is_file()

    def runs(self, experiment: str) -> dict[str, dict[str, "Run"]]:
        """All of an experiment's runs, by kind and key."""
        found: dict[str, dict[str, Run]] = {}
        token = None
        while True:
            page = self.client.search_runs([experiment], max_results=PAGE, page_token=token)
            for run in page:
                same = found.setdefault(tag(run, "lmia.kind"), {})
                kept = same.setdefault(tag(run, "lmia.key"), run)
                if kept is not run and tag(run, "lmia.kind"):
                    # Two runs of lmia wrote it at the same time; every one of them would keep the same.
                    first, second = sorted((kept, run), key=lambda one: (one.info.start_time, one.info.run_id))
                    same[tag(run, "lmia.key")] = first
                    self.client.delete_run(second.info.run_id)
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
        except (TrackingError, RequestError):
            raise
        except Exception as error:  # noqa: BLE001 - MLflow passes on whatever its databases and networks raise
            text = redacted(" ".join(str(error).split()))[:500] or type(error).__name__
            if isinstance(error, ModuleNotFoundError):
                extra = "; pip install 'lmia[postgresql]'" if self.uri.startswith("postgres") else ""
                text = f"the driver {error.name} is not installed{extra}"
            raise TrackingError(f"{doing} MLflow at {redacted(self.uri)}: {text}") from None

    def _commit_without_waiting(self) -> None:
        """Lets this client write to its SQLite file without waiting for the disk at every commit.

        A commit then takes .1 ms instead of 10 to 30. A killed process harms nothing; only a power cut in the middle
        of a sync could, and what is in this file is a copy: delete it and the next run writes it again.
        """
        from sqlalchemy import event

        engine = self.client._tracking_client.store.engine
        if not event.contains(engine, "connect", _synchronous_off):
            event.listen(engine, "connect", _synchronous_off)
        # MLflow keeps an engine for each path: connections opened before may be to a file that has been removed.
        engine.dispose()


def _synchronous_off(connection: object, _: object) -> None:
    connection.execute("PRAGMA synchronous=OFF")  # type: ignore[attr-defined]


def _create(path: Path) -> None:
    """Creates an SQLite database with all its tables under another name, then gives it its own.

    Processes that open a new database at the same time would create its tables twice and fail; a database that
    appears whole cannot be caught half-made.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    quiet()
    with tempfile.TemporaryDirectory(prefix="lmia-mlflow-") as folder:
        fresh = Path(folder) / "mlflow.db"
        SqlAlchemyStore(f"sqlite:///{fresh}", PROXIED).engine.dispose()
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".mlflow-") as beside:
            near = Path(shutil.copyfile(fresh, Path(beside) / "mlflow.db"))
            # Somebody else may have been faster: theirs is as good.
            with contextlib.suppress(FileExistsError):
                os.link(near, path)


def _make_movable(path: Path) -> None:
    """Names files relative to the database where they were named by their place, as lmia once did."""
    with contextlib.closing(sqlite3.connect(path, timeout=5)) as base, base:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            old = f"{column} LIKE 'file:%/mlruns/%' AND {column} NOT LIKE 'file:%/mlruns/%/mlruns/%'"
            if base.execute(f"SELECT 1 FROM {table} WHERE {old} LIMIT 1").fetchone():
                relative = f"'{PROXIED}' || substr({column}, instr({column}, '/mlruns/') + 8)"
                base.execute(f"UPDATE {table} SET {column} = {relative} WHERE {old}")


def _reach(uri: str) -> None:
    """Connects once: MLflow itself would try for minutes."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    try:
        with engine.connect():
            pass
    finally:
        engine.dispose()


def _reading(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=5)


def sound(path: Path) -> bool:
    """Whether an SQLite file is whole and MLflow's; a file that is locked or unreadable is not thereby damaged.

    Raises:
        sqlite3.OperationalError: it cannot be read now.
    """
    try:
        with contextlib.closing(_reading(path)) as base:
            whole = base.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
            tables = {name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            return whole and {"alembic_version", "experiments", "runs", "tags", "params", "latest_metrics"} <= tables
    except sqlite3.OperationalError as error:
        if "malformed" in str(error):
            return False
        raise
    except sqlite3.DatabaseError:
        return False


def put_aside(path: Path) -> None:
    """Renames a database that cannot be used; a journal left beside it would be played into the next one."""
    path.replace(path.with_name(f"{path.name}.damaged"))
    for ending in ("-journal", "-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)


def holds(path: Path, experiment: str, mark: str, cells: set[str]) -> bool:
    """Whether an SQLite file has a campaign's runs and their files, as its mark says; without importing MLflow.

    Args:
        path: the file.
        experiment: its name.
        mark: what the campaign's own run must say in its tag lmia.rows.
        cells: keys of the runs that must be there.
    """
    try:
        if not path.is_file() or not sound(path):
            return False
        with contextlib.closing(_reading(path)) as base:
            found = base.execute(
                "SELECT r.run_uuid, r.artifact_uri, t.key, t.value FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid "
                "JOIN experiments e ON e.experiment_id = r.experiment_id "
                "WHERE e.name = ? AND e.lifecycle_stage = 'active' AND r.lifecycle_stage = 'active' "
                "AND t.key IN ('lmia.kind', 'lmia.key', 'lmia.rows', 'lmia.digest')",
                (experiment,),
            ).fetchall()
    except sqlite3.Error:
        return False
    runs: dict[str, dict[str, str]] = {}
    for run_id, files, key, value in found:
        runs.setdefault(run_id, {"files": files})[key] = value
    made = [run for run in runs.values() if run.get("lmia.kind") == "cell" and run.get("lmia.digest")]
    there = {
        run["lmia.key"]
        for run in made
        if (path.parent / "mlruns" / run["files"].removeprefix(PROXIED) / "row.json").is_file()
    }
    marks = [run.get("lmia.rows") for run in runs.values() if run.get("lmia.kind") == "campaign"]
    return marks == [mark] and cells <= there and len(made) == len({run["lmia.key"] for run in made})


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
