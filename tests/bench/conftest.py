"""What tests of the harness share: a small benchmark made once, and an S3."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = Path(__file__).with_name("small.yaml")


@pytest.fixture(scope="session")
def small_store(ray_cluster, tmp_path_factory):
    """A local store on which the small benchmark was run: what every other way of running it must equal."""
    from bench.cli import main

    store = tmp_path_factory.mktemp("small") / "store"
    assert main(["run", str(SMALL), "--store", str(store), "--no-track"]) == 0
    return store


@pytest.fixture(scope="session")
def s3():
    """An S3 on this machine's loopback: the address of an empty bucket, reached as the environment says."""
    import fsspec
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    fsspec.filesystem("s3").mkdir("lmia-tests")
    yield "s3://lmia-tests"
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
    server.stop()
