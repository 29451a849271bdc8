"""A cluster that cannot be reached is told in one line, at once, with what to do."""

import contextlib
import http.server
import socket
import threading

import pytest

from bench.engine.address import reachable
from bench.store import InfrastructureError
from lmia.specs import RequestError


@contextlib.contextmanager
def listening(kind):
    """The port of something on this machine that is no head of a Ray cluster."""
    if kind == "web":
        with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield server.server_port
            server.shutdown()
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield server.getsockname()[1]


@pytest.mark.parametrize(
    "address",
    [
        "ray://127.0.0.1:10001",
        "http://127.0.0.1:8265",
        "127.0.0.1",
        "127.0.0.1:0",
        "h:99999",
        "h:x",
        ":6379",
        "a b:1",
        "",
    ],
)
def test_what_is_no_address_is_a_mistake(address):
    with pytest.raises(RequestError, match="--address") as caught:
        reachable(address, "--address")
    assert address in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(InfrastructureError, match=f"RAY_ADDRESS 127.0.0.1:{port}: nothing listens there"):
        reachable(f"127.0.0.1:{port}", "RAY_ADDRESS")


@pytest.mark.parametrize("kind", ["web", "silent"])
def test_something_else_listens(kind, monkeypatch):
    monkeypatch.setattr("bench.engine.address.ANSWER_S", 1.0)
    with listening(kind) as port, pytest.raises(InfrastructureError, match="not the head of a Ray cluster"):
        reachable(f"127.0.0.1:{port}", "--address")


def test_no_such_host():
    with pytest.raises(InfrastructureError, match="no such host"):
        reachable("no-such-host.invalid:6379", "--address")


def test_a_name_server_that_is_silent(monkeypatch):
    monkeypatch.setattr("bench.engine.address.ANSWER_S", 0.1)
    monkeypatch.setattr("bench.engine.address._listens", lambda _: threading.Event().wait(60))
    with pytest.raises(InfrastructureError, match="nothing answered within"):
        reachable("10.0.0.1:6379", "--address")


def test_no_cluster_on_this_machine(monkeypatch):
    from ray._private import services

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(services, "find_gcs_addresses", set)
    monkeypatch.setattr(services, "find_bootstrap_address", lambda _: None)
    with pytest.raises(InfrastructureError, match="--address auto: found no Ray cluster"):
        reachable("auto", "--address")


def test_the_command_ends_before_anything_is_made(tmp_path, capsys, monkeypatch):
    from bench.cli import main

    monkeypatch.setattr("ray.is_initialized", lambda: False)  # other tests of this process may have a cluster
    arguments = ["run", "quick", "--store", str(tmp_path / "store"), "--no-track", "--address"]
    assert main([*arguments, "ray://127.0.0.1:1"]) == 2
    assert main([*arguments, "no-such-host.invalid:6379"]) == 3
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lmia: ")]
    assert len(lines) == 2
    assert "--address ray://127.0.0.1:1" in lines[0]
    assert "--address no-such-host.invalid:6379" in lines[1]
    assert not list((tmp_path / "store").glob("manifests/*")), "not even the sets of real pictures"
