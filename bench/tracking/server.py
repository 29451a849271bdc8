"""MLflow's user interface on a store's database, on this machine only."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import FrameType
from urllib.parse import quote

from bench.tracking.database import ENVIRONMENT, Database, database_uri, file_of, files_of, is_database, redacted
from bench.tracking.sync import VIEW, experiment_name
from lmia.specs import RequestError

# MLflow opens its pages for language models, which are empty here, unless the address asks for these.
_PAGES = "workflowType=machine_learning"


def ui_command(store: str | Path, port: int = 5000, tracking_uri: str | None = None) -> list[str]:
    """The command that serves MLflow's UI on a store's database, on 127.0.0.1 only.

    Raises:
        RequestError: tracking goes to a server, which has a UI of its own; or nothing was tracked yet.
    """
    uri = database_uri(store, tracking_uri)
    if uri.startswith(("http://", "https://")):
        raise RequestError(f"tracking goes to the server {redacted(uri)}: open it there (MLFLOW_TRACKING_URI is set)")
    file = file_of(uri)
    if file is not None and not file.is_file():
        raise RequestError(
            f"no MLflow database at {file} yet: `lmia run PRESET` makes it, `lmia leaderboard PRESET --rebuild-mlflow` "
            "makes it anew"
        )
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    if file is not None:
        # Run in the file's folder (`ui_folder`), so that no character of its path can be mistaken for a URI's.
        return [*command, "--backend-store-uri", f"sqlite:///{quote(file.name)}", "--artifacts-destination", "./mlruns"]
    # A database's address holds a password: it goes by the environment (`ui_environment`), not the list of processes.
    return [*command, *(["--artifacts-destination", "./mlruns"] if is_database(uri) else [])]


def ui_folder(store: str | Path, tracking_uri: str | None = None) -> Path:
    """Where `ui_command` must run: the folder that holds mlruns."""
    return files_of(database_uri(store, tracking_uri)).parent


def ui_url(campaign: str | None, store: str | Path, port: int = 5000) -> str:
    """The UI's address of a campaign's runs as a leaderboard (see `VIEW`); of all experiments where it has none."""
    base = f"http://127.0.0.1:{port}/#/experiments"
    if campaign is not None:
        found = Database(store).client.get_experiment_by_name(experiment_name(campaign))
        if found is not None:
            return f"{base}/{found.experiment_id}/runs?{_PAGES}&viewStateShareKey={VIEW}"
    return f"{base}?{_PAGES}"


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
    folder = ui_folder(store, tracking_uri)
    folder.mkdir(parents=True, exist_ok=True)
    server = subprocess.Popen(command, cwd=folder, env=ui_environment(store, tracking_uri))
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


def ui_environment(store: str | Path | None = None, tracking_uri: str | None = None) -> dict[str, str]:
    """The environment of the UI's server: no reports to anybody, no job queue; where its database is."""
    found = {**ENVIRONMENT, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ}
    uri = database_uri(store, tracking_uri) if store is not None else ""
    if uri and file_of(uri) is None:
        found["MLFLOW_BACKEND_STORE_URI"] = uri
    return found


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
