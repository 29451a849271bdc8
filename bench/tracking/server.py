"""MLflow's user interface on a store's database, on this machine only."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import FrameType

from bench.tracking.database import ENVIRONMENT, database_uri, quiet, redacted
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
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise RequestError(f"no MLflow database at {uri.removeprefix('sqlite:///')} yet: `lmia run PRESET` makes it")
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    return [*command, "--port", str(port), "--workers", "1"]


def ui_url(campaign: str | None, store: str | Path, port: int = 5000) -> str:
    """The UI's address of a campaign's runs as a leaderboard (see `VIEW`); of all experiments where it has none."""
    base = f"http://127.0.0.1:{port}/#/experiments"
    if campaign is not None:
        quiet()
        import mlflow

        found = mlflow.MlflowClient(database_uri(store)).get_experiment_by_name(experiment_name(campaign))
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
    return {**ENVIRONMENT, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ}


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
