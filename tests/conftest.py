"""Fixtures shared by all tests."""

import os

import pytest
from hypothesis import HealthCheck, settings

# No timing assertions: how long an example takes tells of the machine, not of the code.
settings.register_profile("lmia", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lmia")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def ray_cluster():
    """One Ray cluster for the session."""
    from bench.engine.cluster import connected
    from bench.workbench import Runtime

    with connected(Runtime(workers=2)):
        yield
