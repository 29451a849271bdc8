"""Identity, waves, jobs, resume, mishaps and damage, with stages that do instant arithmetic."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from bench.driver import Driver, plan_jobs
from bench.events import JobNews
from bench.plan.graph import survey
from bench.store import InfrastructureError, SpecChanged, Store
from bench.workbench import Runtime
from tests.bench import fakes
from tests.bench.fakes import leaf, total, training

ROOT = Path(__file__).resolve().parents[2]


def value_of(store, artifact):
    (entry,) = store.index()[artifact.address]
    manifest = store.manifest(entry.key)
    return [json.loads(store.part_bytes(manifest, part)) for part in manifest.parts]


def driver(store, **more):
    return Driver(store, Runtime(workers=2), stages=fakes.STAGES, **more)


def all_files(store):
    return {str(p.relative_to(store.root)): p.stat().st_mtime_ns for p in Path(store.root).rglob("*") if p.is_file()}


def small_graph(**more):
    """Depth 4 through all three executors: leaf (Data) -> training (Tune) -> training -> total (driver)."""
    a, b = leaf(1.0, **more), leaf(10.0)
    deep = training(training(a), b)
    return [total(deep, a), total(b, value=5.0)]


def test_driver_only_graph_needs_no_ray(tmp_path):
    store = Store(tmp_path)
    rows = [total(total(value=1.0), total(value=2.0)), total(total(value=2.0))]
    outcome = driver(store).make(rows)
    assert not outcome.failed
    assert outcome.made == 4  # the shared leaf is made once
    assert value_of(store, rows[0]) == [3.0]
    before = all_files(store)
    assert driver(store).make(rows).made == 0
    assert all_files(store) == before


@pytest.mark.ray
def test_waves_through_all_executors_and_second_run_is_idle(tmp_path, ray_cluster):
    store, rows, events = Store(tmp_path), small_graph(), []
    outcome = driver(store, observer=events.append).make(rows)
    assert not outcome.failed
    assert value_of(store, rows[0]) == [(1 + 2 + 3) + (10 + 11 + 12) + (1 + 2 + 3)]
    assert value_of(store, rows[1]) == [38.0]
    assert any(isinstance(e, JobNews) and "loss" in e.figures for e in events)
    before = all_files(store)
    assert driver(store).make(rows).made == 0
    assert all_files(store) == before


@pytest.mark.ray
def test_failing_and_killed_jobs_are_retried_then_quarantined_by_name(tmp_path, ray_cluster):
    store, notes = Store(tmp_path / "s"), str(tmp_path / "notes")
    once = leaf(1.0, mishap="kill", mishaps=1, notes=notes)
    always = leaf(2.0, slices=1, mishap="kill", mishaps=99, notes=notes)
    raising = training(value=3.0, mishap="raise", mishaps=99, notes=notes)
    dying = training(value=4.0, mishap="kill", mishaps=1, notes=notes)
    rows = [total(once), total(always), total(raising), total(dying, value=0.5)]
    outcome = driver(store).make(rows)
    state = survey(rows, store)
    assert rows[0].address in state.done
    assert rows[3].address in state.done
    assert value_of(store, rows[0]) == [6.0]
    assert set(outcome.failed) == {always.address, rows[1].address, raising.address, rows[2].address}
    assert "leaf 2 slice 0" in outcome.failed[rows[1].address]
    assert "without a word" in outcome.failed[rows[1].address]
    assert "planned mishap" in outcome.failed[rows[2].address]
    begun = [p.name for p in Path(notes).iterdir()]
    assert sum(name.startswith(f"leaf-{always.address}") for name in begun) == 3
    again = driver(store).make(rows)  # quarantined: not tried again
    assert set(again.failed) == set(outcome.failed)
    assert len(list(Path(notes).iterdir())) == len(begun)


@pytest.mark.ray
def test_damaged_part_is_found_and_only_its_slice_remade(tmp_path, ray_cluster):
    store, notes = Store(tmp_path / "s"), tmp_path / "notes"
    rows = small_graph(notes=str(notes))
    driver(store).make(rows)
    before, begun = all_files(store), len(list(notes.iterdir()))
    part = next(Path(store.root).glob("parts/leaf-*/00001of00003-*"))
    good = part.read_bytes()
    part.write_bytes(b"garbage")
    outcome = driver(store).make(rows)
    assert outcome.repaired == [str(part.relative_to(store.root))]
    assert part.read_bytes() == good
    assert len(list(notes.iterdir())) <= begun + 1
    after = all_files(store)
    assert {k for k in before if k.startswith(("parts", "manifests"))} == {
        k for k in after if k.startswith(("parts", "manifests"))
    }


def test_remade_input_with_other_bits_makes_what_hangs_on_it_stale(tmp_path):
    store = Store(tmp_path)
    inner = total(value=1.0)
    outer = total(inner, value=1.0)
    driver(store).make([outer])
    (entry,) = store.index()[inner.address]
    ref = survey([], store, []).refs  # nothing asked for, nothing to make
    assert ref == {}
    from bench.plan.graph import ref_of

    store.put_slice(ref_of(inner, {}), 0, {"0.json": b"100.0"})
    store.commit(ref_of(inner, {}))
    assert store.index()[inner.address][0].digest != entry.digest
    assert [a.address for a in survey([outer], store).missing] == [outer.address]
    driver(store).make([outer])
    assert value_of(store, outer) == [101.0]


def test_changed_default_without_version_bump_is_refused(tmp_path, monkeypatch):
    store, artifact = Store(tmp_path), total(value=1.0)
    driver(store).make([artifact])
    field = fakes.FakeSpec.model_fields["pause_s"]
    monkeypatch.setattr(field, "default", 0.001)
    fakes.FakeSpec.model_rebuild(force=True)
    try:
        changed = total(value=1.0)
        assert changed.address == artifact.address
        with pytest.raises(SpecChanged, match="default changed"):
            driver(store).make([changed])
    finally:
        monkeypatch.undo()
        fakes.FakeSpec.model_rebuild(force=True)


def test_a_new_field_with_a_neutral_default_keeps_what_was_made(tmp_path, monkeypatch):
    store, artifact = Store(tmp_path), total(value=1.0)
    driver(store).make([artifact])

    class Grown(fakes.FakeSpec):
        further: int = 0

    monkeypatch.setattr(fakes, "FakeSpec", Grown)
    grown = total(value=1.0)
    assert grown.address == artifact.address and "further" in grown.spec.resolved()
    assert driver(store).make([grown]).made == 0


def test_full_disk_is_an_infrastructure_error_and_leaves_no_half_artifact(tmp_path, monkeypatch):
    store = Store(tmp_path)
    real = os.fsync

    def full(fd):
        if "parts" in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(28, "No space left on device")
        real(fd)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InfrastructureError, match="disk is full"):
        driver(store).make([total(value=1.0)])
    assert store.index() == {}
    assert not [p for p in tmp_path.rglob("*.tmp")]
    monkeypatch.setattr(os, "fsync", real)
    assert driver(store).make([total(value=1.0)]).made == 1


def test_work_of_unready_jobs_is_planned_too(tmp_path):
    rows = small_graph()
    state = survey(rows, Store(tmp_path))
    jobs = plan_jobs(state.missing, None, None, fakes.STAGES)
    assert len(jobs) == 3 + 3 + 2 + 2
    assert len({job.name for job in jobs}) == len(jobs)


@pytest.mark.ray
def test_killed_driver_resumes_without_remaking(tmp_path):
    """SIGKILL of the whole driver, then the same command again: nothing finished is made twice."""
    script = tmp_path / "campaign.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from tests.bench.test_driver import driver, leaf, total
        from bench.store import Store
        leaves = [leaf(float(n), slices=2, notes={str(tmp_path / "notes")!r}, pause_s=0.3) for n in range(6)]
        print(driver(Store({str(tmp_path / "s")!r})).make([total(*leaves)]).made, flush=True)
        """)
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(
        [sys.executable, str(script)], env=environment, start_new_session=True, stdout=subprocess.DEVNULL
    )
    receipts = lambda: list((tmp_path / "s").glob("parts/*/*.receipt.json"))  # noqa: E731
    deadline = time.monotonic() + 90
    while len(receipts()) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    finished = {p: p.stat().st_mtime_ns for p in receipts()}
    assert 4 <= len(finished) < 12
    second = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, check=True, timeout=180
    )
    # A worker that outlived its driver by a moment may have finished one more.
    assert 12 - len(finished) + 1 - 2 <= int(second.stdout.split()[-1]) <= 12 - len(finished) + 1
    assert all(p.stat().st_mtime_ns == t for p, t in finished.items())
