"""Fixtures shared by all tests."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def ray_cluster():
    """One Ray cluster for the session."""
    from bench.engine.cluster import connected
    from bench.workbench import Runtime

    with connected(Runtime(workers=2)):
        yield
