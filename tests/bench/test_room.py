"""Room for workers: how many fit, what is told while there is none, and what an autoscaler is asked for."""

import pytest

from bench.engine import cluster as engine
from bench.workbench import Runtime


class Clock:
    """Time that goes on when somebody sleeps."""

    now = 100.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def test_waiting_is_told_at_once_and_every_ten_seconds(monkeypatch):
    monkeypatch.setattr(engine, "time", Clock())
    monkeypatch.setattr(engine, "_nodes", lambda: [{"CPU": 4.0}])
    monkeypatch.setattr(engine, "_free", lambda: [{"CPU": 4.0}])
    monkeypatch.setattr(engine, "_started", [])
    told = []
    with pytest.raises(engine.InfrastructureError, match="after 35 s no node has it"):
        engine._wait_for({"GPU": 1.0}, Runtime(wait_for_devices_s=35), told.append, free=True)
    assert len(told) == 4
    assert "a worker needs 1 GPU; the cluster has 1 node with 4 CPU (4 free) and 0 GPU (0 free)" in told[0]
    monkeypatch.setattr(engine, "_nodes", lambda: [{"GPU": 1.0}])
    with pytest.raises(engine.InfrastructureError, match="others use it"):
        engine._wait_for({"GPU": 1.0}, Runtime(wait_for_devices_s=1), told.append, free=True)


@pytest.mark.parametrize(
    "worker, how, option", [({"GPU": 1.0}, {"device": "cuda"}, "device=cuda"), ({"CPU": 9.0}, {}, "cpus_per_worker")]
)
def test_on_a_cluster_of_this_machine_what_is_missing_is_refused_at_once(monkeypatch, worker, how, option):
    monkeypatch.setattr(engine, "_started", [Runtime()])
    monkeypatch.setattr(engine, "_nodes", lambda: [{"CPU": 4.0}])
    monkeypatch.setattr(engine, "_free", lambda: [{"CPU": 4.0}])
    with pytest.raises(engine.RequestError, match=option), engine.room(Runtime(**how), worker, 2):
        pass


def test_workers_fit_on_single_nodes():
    assert engine._fit({"CPU": 2.0}, [{"CPU": 3.0}, {"CPU": 1.0}, {"CPU": 4.0}]) == 3
    assert engine._fit({"GPU": 0.1}, [{"GPU": 0.7}, {}]) == 7


def test_an_autoscaler_is_asked_as_long_as_the_wave_runs(monkeypatch):
    from ray.autoscaler import sdk

    asked = []
    monkeypatch.setattr(sdk, "request_resources", lambda bundles: asked.append(bundles))  # noqa: PLW0108 - called by keyword
    monkeypatch.setattr(engine, "ASK_EVERY_S", 0.05)
    monkeypatch.setattr(engine, "_started", [])
    monkeypatch.setattr(engine, "_nodes", lambda: [{"CPU": 1.0}])
    monkeypatch.setattr(engine, "_free", lambda: [{"CPU": 1.0}])
    with pytest.raises(KeyError), engine.room(Runtime(workers=3), {"CPU": 1.0}, 7) as there:
        assert there == engine.Room(now=1, most=3)
        while len(asked) < 2:  # repeated: Ray Data's own requests take its place
            pass
        raise KeyError
    assert asked[0] == asked[1] == [{"CPU": 1.0}] * 3
    assert asked[-1] == [], "taken back, also after an error"
    monkeypatch.setattr(engine, "_started", [Runtime()])
    asked.clear()
    with engine.room(Runtime(), {"CPU": 1.0}, 7) as there:
        assert there == engine.Room(now=1, most=1)
    assert asked == [], "a cluster of this machine alone is not asked"
