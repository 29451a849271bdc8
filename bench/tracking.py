"""MLflow beside a campaign: what it shows is a copy of the rows, never their home. The only file that imports mlflow.

Where it keeps things:

- a local store: SQLite in STORE/mlflow.db, pictures and pages in STORE/mlruns;
- a remote store (s3://...): SQLite needs a real file, so the same two lie on this machine, in
  ${XDG_DATA_HOME:-~/.local/share}/lmia/mlflow/NAME-HASH. Nothing is lost with them: rows live in the store, and the
  next run (or any other machine) writes them again;
- MLFLOW_TRACKING_URI: a server, or a database of one's own.

How it is laid out: one experiment a campaign, `lmia/NAME`; in it a parent run (tag lmia.kind = campaign) and a child
for each cell (lmia.kind = cell), found again by its address (lmia.cell) and reopened, never doubled. Axes are
params, numbers with their intervals metrics (a null is left out and its reason kept as tag null.FIELD). Targets and
attack models are external logged models: their store address, no weights. Loss curves of trainings at work are runs of
the experiment `lmia/trainings`. Only the driver writes.

mlflow takes seconds to import, so it is imported inside functions.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bench.leaderboard import words
from bench.leaderboard.rank import Board, Campaign, Entry, join
from bench.leaderboard.row import AXES, Measured, Row, why_null
from bench.leaderboard.side import ModelRef, Side
from lmia.specs import RequestError

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

    from bench.leaderboard.figures import RocPainter

LAYOUT = 1  # raised when what is written for a row changes, so that old runs are written again
FLUSH_S = 1.0
PAGE = 1000

# The runs of a campaign as MLflow's UI first shows them: the leaderboard. Anybody may choose another view there.
VIEW = "leaderboard"
_VIEW = {
    "searchFilter": "tags.section = 'ranked' and tags.current = 'yes'",
    "orderByKey": "metrics.`delta_bound`",
    "orderByAsc": False,
    "selectedColumns": [
        *[f"metrics.`{name}`" for name in ("delta_auc", "delta_auc_low", "delta_auc_high", "mde", "p_adjusted", "auc")],
        *[f"params.`{name}`" for name in ("attack", "aux", "guidance", "prompt", "steps", "epochs", "method")],
        "tags.`section`",
    ],
}

# Asked for before the import: no reports to anybody, no progress bars, a server that is not there is noticed soon.
_ENVIRONMENT = {
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


@dataclass(frozen=True)
class Synced:
    """What a sync did: cell runs written and skipped, models new, cells that no longer belong to the campaign."""

    written: int
    skipped: int
    models: int
    retired: int
    run_id: str


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


class Tracker:
    """MLflow for one store. Only the driver has one.

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
        _quiet()
        with self._plainly("cannot open"):
            if self.uri.startswith("sqlite:"):
                _unhurried(self.uri.removeprefix("sqlite:///"))
                _create_database(self.uri, self.home / "mlruns")
            import mlflow

            mlflow.set_tracking_uri(self.uri)
            self._client: MlflowClient = mlflow.MlflowClient(self.uri)
            self._client.search_experiments(max_results=1)
        self._experiments: dict[str, str] = {}
        self._trainings: dict[str, _Training] = {}
        self._roc: RocPainter | None = None

    # ---- rows

    def sync(
        self,
        rows: Iterable[Row],
        sides: Mapping[str, Side] | None = None,
        campaign: Campaign | None = None,
        *,
        models: Iterable[ModelRef] = (),
        html: str | Path | None = None,
    ) -> Synced:
        """Writes what has changed of a campaign: its cells, models and leaderboard page. Doing it twice does nothing.

        Args:
            rows: the campaign's rows.
            sides: side material by cell.
            campaign: what they belong to.
            models: targets and attack models.
            html: path of the leaderboard page.
        """
        self.flush()
        board = join(rows, sides, campaign)
        with self._plainly("cannot write to"):
            experiment = self._experiment(f"lmia/{board.campaign.name}")
            runs = self._runs(experiment)
            parent = self._parent(board, experiment, runs.get("campaign", {}))
            cells = runs.get("cell", {})
            ids = self._models(list(models), experiment, parent, runs.get("models", {}))
            fresh, known_models = len(ids.new), ids.by_address
            written = 0
            for entry in board.entries:
                if _digest(entry) != _tag(cells.get(entry.row.cell), "lmia.digest"):
                    self._cell(_Place(board, experiment, parent), entry, cells.get(entry.row.cell), known_models)
                    written += 1
            retired = self._retire(cells, {entry.row.cell for entry in board.entries})
            self._summary(board, parent, runs.get("campaign", {}), html)
            self._to_disk()
        return Synced(written, len(board.entries) - written, fresh, retired, parent)

    def _parent(self, board: Board, experiment: str, known: Mapping[str, Any]) -> str:
        name = board.campaign.name
        if name in known:
            return str(known[name].info.run_id)
        tags = {"mlflow.runName": f"campaign {name}", "lmia.kind": "campaign", "lmia.key": name}
        return str(self._client.create_run(experiment, tags=tags).info.run_id)

    def _summary(self, board: Board, run_id: str, known: Mapping[str, Any], html: str | Path | None) -> None:
        """The parent's own description, counts and page; skipped if nothing of it has changed."""
        page = Path(html).read_bytes() if html is not None and Path(html).is_file() else b""
        findings = words.findings(board)
        note = "\n\n".join(f"**{finding.title}.** {finding.text}" for finding in findings)
        counts = {
            "num_rows": len(board.entries),
            "num_ranked": len(board.section("ranked")),
            "num_failed": sum(entry.row.status == "failed" for entry in board.entries),
            "num_found": sum(e.p_adjusted is not None and e.p_adjusted < 0.05 for e in board.entries),
        }
        digest = _hash(LAYOUT, note, counts, hashlib.sha256(page).hexdigest())
        if _tag(known.get(board.campaign.name), "lmia.digest") == digest:
            return
        now = _now()
        if page:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "leaderboard.html"
                path.write_bytes(page)
                self._client.log_artifact(run_id, str(path))
        tags = {
            "mlflow.note.content": note,
            "lmia.digest": digest,
            "evidence": " ".join(board.evidence),
            "lmia.store": redacted(self.store),
            "lmia.title": board.campaign.title,
        }
        params = [] if board.campaign.name in known else [("benchmark", board.campaign.name)]
        self._batch(run_id, [_metric(key, value, now) for key, value in counts.items()], params, tags)
        self._client.set_terminated(run_id, "FAILED" if counts["num_failed"] else "FINISHED")

    def _cell(self, place: "_Place", entry: Entry, known: Any, models: Mapping[str, str]) -> None:
        row, now = entry.row, _now()
        numbers = _numbers(entry)
        params = [(axis, words.axis_text(value)) for axis in AXES if (value := getattr(row.axes, axis)) is not None]
        if known is not None and (set(known.data.metrics) - {"auc_world"} - set(numbers) or not _fits(known, params)):
            # Neither a metric nor a param can be taken back: what no longer holds must not stay on show.
            self._client.delete_run(known.info.run_id)
            known = None
        run_id = known.info.run_id if known is not None else self._new_cell(place, entry)
        worlds = [
            _metric(
                "auc_world",
                curve.auc,
                now,
                index,
                model_id=models[curve.target],
                dataset=str(row.axes.query),
                digest=curve.scores,
            )
            for index, curve in enumerate(entry.side.curves)
            if curve.auc is not None and curve.target is not None and curve.target in models
        ]
        metrics = [_metric(key, value, now) for key, value in numbers.items()]
        used = {a for c in entry.side.curves for a in (c.target, c.attack_model) if a is not None and a in models}
        if used and known is None:
            from mlflow.entities import LoggedModelInput

            self._client.log_inputs(run_id, models=[LoggedModelInput(models[address]) for address in sorted(used)])
        self._files(run_id, entry)
        # The digest comes last (tags are the end of a batch): a sync that was interrupted writes the cell again.
        tags = {**_cell_tags(entry), "lmia.digest": _digest(entry)}
        self._batch(run_id, [*metrics, *worlds], [] if known is not None else params, tags)
        self._client.set_terminated(run_id, "FAILED" if row.status == "failed" else "FINISHED")

    def _new_cell(self, place: "_Place", entry: Entry) -> str:
        tags = {
            "mlflow.runName": _run_name(place.board, entry),
            "mlflow.parentRunId": place.parent,
            "lmia.kind": "cell",
            "lmia.key": entry.row.cell,
            "lmia.cell": entry.row.cell,
            "lmia.campaign": place.board.campaign.name,
        }
        return str(self._client.create_run(place.experiment, tags=tags).info.run_id)

    def _files(self, run_id: str, entry: Entry) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "row.json").write_text(entry.row.to_json(indent=1), encoding="utf-8")
            if entry.side.curves:
                if self._roc is None:
                    from bench.leaderboard.figures import RocPainter

                    self._roc = RocPainter()
                (Path(folder) / "roc.png").write_bytes(self._roc.png(entry.side.curves))
            sheet = entry.side.sheet_bytes()
            if sheet is not None:
                (Path(folder) / "sheet.png").write_bytes(sheet)
            self._client.log_artifacts(run_id, folder)

    def _retire(self, known: Mapping[str, Any], cells: set[str]) -> int:
        """Cells that the campaign no longer asks for are marked, so that filters can leave them out."""
        gone = [run for cell, run in known.items() if cell not in cells and _tag(run, "current") != "no"]
        for run in gone:
            # Without the digest, a cell that comes back is written, and marked as current, again.
            self._batch(run.info.run_id, [], [], {"current": "no", "lmia.digest": ""})
        return len(gone)

    # ---- models

    def _models(
        self, models: list[ModelRef], experiment: str, parent: str, known_runs: Mapping[str, Any]
    ) -> "_ModelIds":
        if not models:
            return _ModelIds({}, [])
        by_address = {address: model_id for address, model_id in self._known_models(experiment)}
        new = [model for model in models if model.address not in by_address]
        if not new:
            return _ModelIds(by_address, [])
        import mlflow

        holder = known_runs.get("models")
        if holder is None:
            tags = {
                "mlflow.runName": "models",
                "mlflow.parentRunId": parent,
                "lmia.kind": "models",
                "lmia.key": "models",
            }
            holder = self._client.create_run(experiment, tags=tags)
        run_id, now, metrics = holder.info.run_id, _now(), []
        for model in new:
            logged = mlflow.create_external_model(
                name=re.sub(r"[/:.%\"']+", "-", model.name)[:200] or model.address,
                source_run_id=run_id,
                tags={"lmia.address": model.address, "lmia.uri": redacted(model.uri), "lmia.name": model.name[:5000]},
                params={str(k)[:250]: str(v)[:500] for k, v in model.params.items() if v is not None},
                model_type=model.kind,
                experiment_id=experiment,
            )
            by_address[model.address] = logged.model_id
            metrics += [
                _metric(_metric_name(key), value, now, model_id=logged.model_id)
                for key, value in model.metrics.items()
                if value is not None and math.isfinite(value)
            ]
        for start in range(0, len(metrics), PAGE):
            self._client.log_batch(run_id, metrics=metrics[start : start + PAGE])
        self._client.set_terminated(run_id)
        return _ModelIds(by_address, [model.address for model in new])

    def _known_models(self, experiment: str) -> Iterator[tuple[str, str]]:
        token = None
        while True:
            page = self._client.search_logged_models([experiment], max_results=PAGE, page_token=token)
            for model in page:
                if address := (model.tags or {}).get("lmia.address"):
                    yield address, model.model_id
            token = page.token
            if not token:
                return

    # ---- trainings at work

    def live(self, model_name: str, step: int, metrics: Mapping[str, float]) -> None:
        """Adds a point to the curves of a training at work; points at steps already seen are left out.

        Args:
            model_name: what is trained; the same name continues the same curves.
            step: optimiser step, rising.
            metrics: such as {"loss": .1}; numbers that are not finite are left out.
        """
        with self._plainly("cannot write to"):
            training = self._trainings.get(model_name) or self._training(model_name)
            if step <= training.last_step:
                return
            training.last_step = step
            now = _now()
            training.pending += [
                _metric(_metric_name(key), float(value), now, step)
                for key, value in metrics.items()
                if math.isfinite(value)
            ]
            if time.monotonic() - training.flushed > FLUSH_S:
                self._flush(training)

    def flush(self) -> None:
        """Writes what `live` still holds back."""
        with self._plainly("cannot write to"):
            for training in self._trainings.values():
                self._flush(training)

    def close(self) -> None:
        """Writes what is held back and ends the training runs."""
        self.flush()
        with self._plainly("cannot write to"):
            for training in self._trainings.values():
                self._client.set_terminated(training.run_id)
        self._trainings.clear()

    def _training(self, name: str) -> "_Training":
        experiment = self._experiment("lmia/trainings")
        key = _hash(name)
        found = self._client.search_runs([experiment], f"tags.`lmia.key` = '{key}'", max_results=1)
        if found:
            run = found[0]
            last = -1
            for metric in run.data.metrics:
                history = self._client.get_metric_history(run.info.run_id, metric)
                last = max([last, *(point.step for point in history)])
            training = _Training(run.info.run_id, last)
        else:
            tags = {"mlflow.runName": name[:250], "lmia.kind": "training", "lmia.key": key}
            training = _Training(self._client.create_run(experiment, tags=tags).info.run_id, -1)
        self._trainings[name] = training
        return training

    def _flush(self, training: "_Training") -> None:
        while training.pending:
            self._client.log_batch(training.run_id, metrics=training.pending[:PAGE])
            training.pending = training.pending[PAGE:]
        training.flushed = time.monotonic()

    # ---- MLflow's own

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            found = self._client.get_experiment_by_name(name)
            if found is not None and found.lifecycle_stage == "deleted":
                self._client.restore_experiment(found.experiment_id)
            if found is not None:
                self._experiments[name] = found.experiment_id
            else:
                # A server knows itself where its files belong.
                files = (self.home / "mlruns").as_uri() if self.uri.startswith("sqlite:") else None
                location = f"{files}/{_hash(name)}" if files else None
                tags = {
                    "mlflow.experimentKind": "custom_model_development",
                    "mlflow.experiment.primaryMetric.name": "delta_auc",
                    "mlflow.experiment.primaryMetric.greaterIsBetter": "True",
                    f"mlflow.sharedViewState.{VIEW}": json.dumps(_VIEW),
                }
                self._experiments[name] = self._client.create_experiment(name, location, tags=tags)
        return self._experiments[name]

    def _runs(self, experiment: str) -> dict[str, dict[str, Any]]:
        """All of an experiment's runs, by kind and key."""
        found: dict[str, dict[str, Any]] = {}
        token = None
        while True:
            page = self._client.search_runs([experiment], max_results=PAGE, page_token=token)
            for run in page:
                found.setdefault(_tag(run, "lmia.kind"), {}).setdefault(_tag(run, "lmia.key"), run)
            token = page.token
            if not token:
                return found

    def _batch(
        self, run_id: str, metrics: list["Metric"], params: Iterable[tuple[str, str]], tags: Mapping[str, str]
    ) -> None:
        from mlflow.entities import Param, RunTag

        self._client.log_batch(
            run_id,
            metrics=metrics,
            params=[Param(key, value) for key, value in params],
            tags=[RunTag(key, value[:5000]) for key, value in tags.items()],
        )

    def _to_disk(self) -> None:
        """One fsync for a whole sync instead of a dozen for each cell (see `_unhurried`)."""
        if self.uri.startswith("sqlite:///"):
            handle = os.open(self.uri.removeprefix("sqlite:///"), os.O_RDWR)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    @contextlib.contextmanager
    def _plainly(self, doing: str) -> Iterator[None]:
        """Errors of MLflow, of its database and of the network as one line, without passwords."""
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


@dataclass
class _Training:
    run_id: str
    last_step: int
    pending: list["Metric"]
    flushed: float

    def __init__(self, run_id: str, last_step: int):
        self.run_id, self.last_step, self.pending, self.flushed = run_id, last_step, [], 0.0


@dataclass(frozen=True)
class _Place:
    board: Board
    experiment: str
    parent: str


@dataclass(frozen=True)
class _ModelIds:
    by_address: dict[str, str]
    new: list[str]


# ---- the user interface


def ui_command(store: str | Path, port: int = 5000, tracking_uri: str | None = None) -> list[str]:
    """The command that serves MLflow's UI on a store's database, on 127.0.0.1 only.

    Raises:
        RequestError: tracking goes to a server, which has a UI of its own; or nothing was tracked yet.
    """
    uri = database_uri(store, tracking_uri)
    if uri.startswith(("http://", "https://")):
        raise RequestError(f"tracking goes to the server {redacted(uri)}: open it there (MLFLOW_TRACKING_URI is set)")
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise RequestError(f"no MLflow database at {uri.removeprefix('sqlite:///')} yet: `lmia run PRESET` makes it")
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    return [*command, "--port", str(port), "--workers", "1"]


def ui_url(campaign: str | None, store: str | Path, port: int = 5000) -> str:
    """The address of a campaign's runs in the UI as a leaderboard (see `VIEW`)."""
    base = f"http://127.0.0.1:{port}/#/experiments"
    if campaign is None:
        return base
    _quiet()
    import mlflow

    found = mlflow.MlflowClient(database_uri(store)).get_experiment_by_name(f"lmia/{campaign}")
    if found is None:
        return base
    return f"{base}/{found.experiment_id}/runs?viewStateShareKey={VIEW}"


def ui(store: str | Path, port: int = 5000, tracking_uri: str | None = None) -> int:
    """Serves MLflow's UI on 127.0.0.1 until it is interrupted; returns the exit status.

    Raises:
        RequestError: see `ui_command`; or the port is taken.
    """
    command = ui_command(store, port, tracking_uri)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise RequestError(f"port {port} of this machine is taken ({error.strerror}); choose another one") from None
    server = subprocess.Popen(command, env=ui_environment())
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        signal.signal(signal.SIGTERM, before)
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(10)


def ui_environment() -> dict[str, str]:
    """The environment of the UI's server: no reports to anybody, no job queue."""
    return {**_ENVIRONMENT, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ}


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


# ---- what a cell's run says


def _numbers(entry: Entry) -> dict[str, float]:
    """A row's numbers as metrics: NAME, NAME_low, NAME_high; nulls left out."""
    row, m = entry.row, entry.row.measured
    found: dict[str, float | None] = {}
    for field in Measured.model_fields:
        value = getattr(m, field)
        if field.endswith("_ci"):
            if value is not None:
                found |= {f"{field[:-3]}_low": value[0], f"{field[:-3]}_high": value[1]}
        elif field not in ("tpr_at_fpr", "metrics"):
            found[field] = value
    found["auc_minus_source_auc"] = words.left(row)[0]
    for rate, tpr in m.tpr_at_fpr.items():
        if tpr is not None:
            found[f"tpr_at_fpr_{rate}"] = tpr.tpr
            if tpr.ci is not None:
                found |= {f"tpr_at_fpr_{rate}_low": tpr.ci[0], f"tpr_at_fpr_{rate}_high": tpr.ci[1]}
    found |= {_metric_name(f"metrics/{name}"): value for name, value in m.metrics.items()}
    found |= {f"cost/{name}": value for name, value in row.cost.model_dump().items()}
    found |= {"rank": entry.rank, "p_value": entry.p_value, "p_adjusted": entry.p_adjusted, "delta_bound": entry.bound}
    found["reported_auc"] = entry.reported.auc if entry.reported else None
    return {name: float(value) for name, value in found.items() if value is not None}


def _cell_tags(entry: Entry) -> dict[str, str]:
    row = entry.row
    nulls = [f for f in Measured.model_fields if getattr(row.measured, f) is None and not f.endswith("_ci")]
    tags = {
        "current": "yes",
        "section": entry.section,
        "role": row.role,
        "status": row.status,
        "estimand": row.estimand,
        "level": row.level,
        "flags": " ".join(row.flags) or "none",
        "evidence": row.provenance.evidence,
        "reason": row.reason or "none",
        "mlflow.note.content": _note(entry),
        **{f"null.{field}": why_null(row, field) for field in nulls},
    }
    if entry.side.access:
        tags["access"] = entry.side.access
    if row.provenance.revision:
        tags["revision"] = row.provenance.revision
    if entry.reported is not None:
        tags["reported"] = entry.reported.source
    return tags


def _note(entry: Entry) -> str:
    m = entry.row.measured
    lines = []
    if entry.section == "cross":
        rest, ci = words.left(entry.row)
        lines.append(
            f"AUC **{words.with_interval(m.auc, m.auc_ci)}**, people never seen **"
            f"{words.with_interval(m.source_auc, m.source_auc_ci)}**: what is left is "
            f"**{words.with_interval(rest, ci, signed=True)}**."
        )
    elif m.delta_auc is not None:
        lines.append(
            f"Delta **{words.with_interval(m.delta_auc, m.delta_auc_ci, signed=True)}**, minimum detectable effect "
            f"{words.number(m.mde)}."
        )
    if entry.why_unranked:
        lines.append(f"Not ranked: {entry.why_unranked}.")
    return "\n\n".join([*lines, words.counts_text(entry.row)])


def _run_name(board: Board, entry: Entry) -> str:
    row = entry.row
    setting = words.setting(row, words.unusual_axes(board, row, words.usual(board)))
    return f"{setting or 'usual setting'}, {row.axes.attack}, {row.axes.query}"[:250]


def _digest(entry: Entry) -> str:
    """What a cell's run shows, so that what has not changed is not written again."""
    side = entry.side
    curves = [[c.world, list(c.fpr), list(c.tpr), c.auc, c.target, c.attack_model, c.scores] for c in side.curves]
    sheet = side.sheet_bytes()
    return _hash(
        LAYOUT,
        entry.row.to_dict(),
        _numbers(entry),
        _cell_tags(entry),
        curves,
        hashlib.sha256(sheet).hexdigest() if sheet is not None else None,
    )


def _fits(known: Any, params: list[tuple[str, str]]) -> bool:
    return dict(known.data.params) == dict(params)


def _tag(run: Any, name: str) -> str:
    return "" if run is None else str(run.data.tags.get(name, ""))


def _metric(
    key: str,
    value: float,
    timestamp: int,
    step: int = 0,
    *,
    model_id: str | None = None,
    dataset: str | None = None,
    digest: str | None = None,
) -> "Metric":
    from mlflow.entities import Metric

    tied = {"dataset_name": dataset, "dataset_digest": digest[:36]} if dataset and digest else {}
    return Metric(key, float(value), timestamp, step, model_id=model_id, **tied)


def _metric_name(name: str) -> str:
    return re.sub(r"[^\w\-. /]", "_", name)[:250]


def _now() -> int:
    return int(time.time() * 1000)


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


# ---- database and noise


def _quiet() -> None:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for logger in ("mlflow", "alembic", "sqlalchemy"):
        logging.getLogger(logger).setLevel(logging.ERROR)


_unhurried_paths: set[str] = set()


def _unhurried(path: str) -> None:
    """Lets this process write to an SQLite file of ours without waiting for the disk at every commit.

    A commit then takes .1 ms instead of 10 to 30. A killed process harms nothing; only a power cut in the middle of a
    sync could, and what is in this file is a copy: delete it and the next run writes it again.
    """
    import sqlite3

    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    if not _unhurried_paths:

        @event.listens_for(Engine, "connect")
        def _connected(connection: Any, _: Any) -> None:
            if isinstance(connection, sqlite3.Connection):
                files = {row[2] for row in connection.execute("PRAGMA database_list")}
                if files & _unhurried_paths:
                    connection.execute("PRAGMA synchronous=OFF")

    _unhurried_paths.add(os.path.realpath(path))


def _create_database(uri: str, files: Path) -> None:
    """Creates an SQLite database with all its tables under another name, then gives it its own.

    Processes that open a new database at the same time would create its tables twice and fail; a database that
    appears whole cannot be caught half-made.
    """
    path = Path(uri.removeprefix("sqlite:///"))
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    _quiet()
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".mlflow-") as folder:
        fresh = Path(folder) / "mlflow.db"
        _unhurried(str(fresh))
        SqlAlchemyStore(f"sqlite:///{fresh}", files.as_uri()).engine.dispose()
        # Somebody else may have been faster: theirs is as good.
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
