"""MLflow beside a campaign: what it shows is a copy of the rows, never their home. The only package that imports it.

Where it keeps things:

- a local store: SQLite in STORE/mlflow.db, pictures and pages in STORE/mlruns, named relative to it: a store may be
  moved, and what is missing or damaged of the two is written anew from the rows;
- a remote store (s3://...): SQLite needs a real file, so the same two lie on this machine, in
  ${XDG_DATA_HOME:-~/.local/share}/lmia/mlflow/NAME-HASH. Nothing is lost with them: rows live in the store, and the
  next run (or any other machine) writes them again;
- MLFLOW_TRACKING_URI: a server, which knows where files belong; or a database, whose files then lie beside its SQLite
  file or else in ${XDG_DATA_HOME:-~/.local/share}/lmia/mlflow.

`sync` says how a campaign is laid out in it, `live` has the curves of trainings at work, `server` the user interface,
`database` the connection. Only the driver writes. mlflow takes seconds to import, so it is imported inside functions.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from threading import Thread
from typing import TypeVar

from bench import campaign
from bench.artifacts.artifact import Artifact, walk
from bench.events import Event, JobNews, Wave
from bench.leaderboard.attachments import Attachments, ModelRef
from bench.leaderboard.rank import Campaign, join
from bench.leaderboard.row import Row
from bench.store import Store
from bench.tracking.database import Database, TrackingError, database_uri, file_of, holds, home_of, redacted
from bench.tracking.live import Trainings
from bench.tracking.server import ui, ui_command, ui_environment, ui_folder, ui_url
from bench.tracking.sync import LAYOUT, Synced, experiment_name, sync

__all__ = [
    "CampaignTracker",
    "Synced",
    "Tracker",
    "TrackingError",
    "database_uri",
    "home_of",
    "redacted",
    "ui",
    "ui_command",
    "ui_environment",
    "ui_folder",
    "ui_url",
]


OPEN_S = 120.0
SYNC_S = 600.0
"""How long MLflow is waited for; then the campaign goes on without it."""

T = TypeVar("T")


class Tracker:
    """MLflow for one store. Only the driver has one; arguments and errors are those of `Database`."""

    def __init__(self, store: str | Path, tracking_uri: str | None = None):
        self.database = Database(store, tracking_uri)
        self.trainings = Trainings(self.database)

    def sync(
        self,
        rows: Iterable[Row],
        attachments: Mapping[str, Attachments] | None = None,
        campaign: Campaign | None = None,
        *,
        models: Iterable[ModelRef] = (),
        html: str | Path | None = None,
        mark: str = "",
        anew: bool = False,
    ) -> Synced:
        """Writes what has changed of a campaign: its cells, models and leaderboard page. Doing it twice does nothing.

        Args:
            rows: the campaign's rows.
            attachments: what is shown beside them, by cell.
            campaign: what they belong to.
            models: targets and attack models.
            html: path of the leaderboard page.
            mark: what the campaign's own run says when all of it is written.
            anew: write files again, too.
        """
        board = join(rows, attachments, campaign)
        page = Path(html).read_bytes() if html is not None and Path(html).is_file() else b""
        with self.database.errors("cannot write to"):
            self.trainings.flush()
            return sync(self.database, board, list(models), page, mark, anew=anew)

    def live(
        self, model_name: str, step: int, metrics: Mapping[str, float], params: Mapping[str, str] | None = None
    ) -> None:
        """Adds a point to the curves of a training at work; points at steps already seen are left out.

        Args:
            model_name: what is trained; the same name continues the same curves.
            step: optimiser step, rising.
            metrics: such as {"loss": .1}; numbers that are not finite are left out.
            params: what it is trained with, written when its run is made.
        """
        with self.database.errors("cannot write to"):
            self.trainings.add(model_name, step, metrics, params or {})

    def flush(self) -> None:
        """Writes what `live` still holds back."""
        with self.database.errors("cannot write to"):
            self.trainings.flush()

    def close(self) -> None:
        """Writes what is held back and ends the training runs."""
        with self.database.errors("cannot write to"):
            self.trainings.close()


class CampaignTracker:
    """MLflow beside a campaign's run: the database before any fan-out, live curves during it, rows after it.

    When MLflow has the rows and nothing is trained, it is not even imported. Importing it and making its database takes
    long, so that happens beside the first wave; what trainings say until then waits. It runs in threads that hold
    nobody up: whatever becomes of it, the campaign goes on.

    Args:
        name: the campaign.
        asked: its cells with their rows.
        store: where they are made.
        tell: hears in one line when MLflow cannot be used; a tracking server that went away stops no campaign.
    """

    def __init__(self, name: str, asked: list[campaign.Question], store: Store, tell: Callable[[str], None]):
        self.name, self.asked, self.store, self.tell = name, asked, store, tell
        self._opening: Future[Tracker] | None = None
        self._waiting: list[tuple[str, int, dict[str, float], dict[str, str]]] = []
        self._lost = False

    def observe(self, event: Event) -> None:
        """Takes an event of the driver: opens MLflow when there is work, and draws loss curves while trainings run."""
        if self._lost:
            return
        try:
            self._observe(event)
        except Exception as error:  # noqa: BLE001 - a copy of the rows costs no campaign
            self._give_up(error)

    def finish(self, page: Path | None, *, anew: bool = False) -> Synced | None:
        """Writes rows, models and leaderboard page unless MLflow has them.

        Args:
            page: the leaderboard page.
            anew: look at each run and write each file, whatever MLflow's mark says.

        Returns:
            What was written; None where nothing had to be, or MLflow cannot be used.
        """
        rows, attachments, about = campaign.answers(self.name, self.store)
        if self._lost:
            return None
        try:
            done = None
            mark = f"{LAYOUT} {campaign.rows_digest(rows)}"
            if anew or not self._is_there(rows, mark):
                models = campaign.models(self.asked, self.store, self.name)
                tracker = self._opened()
                done = _beside(
                    lambda: tracker.sync(rows, attachments, about, models=models, html=page, mark=mark, anew=anew)
                ).result(SYNC_S)
            if self._opening is not None:
                _beside(self._opened().close).result(OPEN_S)
            return done
        except Exception as error:  # noqa: BLE001 - a copy of the rows costs no leaderboard
            self._give_up(error)
            return None

    def _is_there(self, rows: Iterable[Row], mark: str) -> bool:
        """Whether an SQLite file has it all; a server must be asked."""
        file = file_of(database_uri(self.store.uri))
        made = {row.cell for row in rows if row.status != "waiting"}
        return file is not None and holds(file, experiment_name(self.name), mark, made)

    def _observe(self, event: Event) -> None:
        if isinstance(event, Wave) and any(job.executor != "driver" for job in event.remaining):
            self._open()
        if isinstance(event, JobNews):
            job = event.job
            figures = {k: v for k, v in event.figures.items() if not isinstance(v, str)}
            self._waiting.append((job.title, int(figures.pop("step", 0)), figures, self._params(job.artifacts)))
        if self._opening is not None and self._opening.done():
            waiting, self._waiting = self._waiting, []
            for point in waiting:
                self._opened().live(*point)

    def _params(self, artifacts: tuple[str, ...]) -> dict[str, str]:
        """What a job trains with: the settings of the first artifact that it makes."""
        made = next((self._artifacts[address] for address in artifacts if address in self._artifacts), None)
        if made is None:
            return {}
        settings = {"trained": made.method, **campaign.flat(made.spec.resolved())}
        return {key: str(value) for key, value in settings.items() if value is not None}

    @cached_property
    def _artifacts(self) -> dict[str, Artifact]:
        return {artifact.address: artifact for artifact in walk(q.row for q in self.asked)}

    def _open(self) -> Future[Tracker]:
        if self._opening is None:
            self._opening = _beside(lambda: Tracker(self.store.uri))
        return self._opening

    def _opened(self) -> Tracker:
        return self._open().result(OPEN_S)

    def _give_up(self, error: Exception) -> None:
        if not self._lost:
            why = "it does not answer" if isinstance(error, TimeoutError) else redacted(str(error)) or repr(error)
            self.tell(f"MLflow: {why}; the leaderboard is complete without it, the same command writes to MLflow later")
        self._lost = True


def _beside(work: Callable[[], T]) -> Future[T]:
    """Does something in a thread that does not keep the process from ending."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
            future.set_exception(error)

    Thread(target=run, daemon=True, name="mlflow").start()
    return future
