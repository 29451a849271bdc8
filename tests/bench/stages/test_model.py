"""Models: taken over, and tuned."""

import pytest
import torch

from .conftest import BASE, MEMBERS, Desk, target


def tensors(desk, artifact):
    model = desk.bench.model(desk.ref(artifact), "float32")
    return model.parts["unet"].state_dict()


def test_a_base_is_taken_over_whole(desk):
    desk.ref(BASE)
    manifest = desk.manifest(BASE)
    assert manifest.facts == {"trained_on": None}
    assert all(part.name.endswith((".safetensors", ".json", ".txt")) for part in manifest.parts)
    assert tensors(desk, BASE)


def test_epochs_of_one_run_are_one_job(desk, tmp_path):
    one, two = target(1), target(2)
    fresh = Desk(tmp_path)
    fresh.make(BASE, MEMBERS)
    (job,) = fresh.jobs(one, two)
    assert job.executor == "tune" and not job.stage.shares_gpu
    assert job.title.endswith("1/2 epochs") and job.work == 2 * 8
    fresh.do(job)
    for artifact in (one, two):
        assert fresh.manifest(artifact).facts["trained_on"] == sorted(fresh.pictures(MEMBERS).ids)
    assert not list((tmp_path / "store" / "partial").rglob("*.*")), "progress is gone when the run has ended"
    # The other way round: the last epoch alone ends at the same weights.
    desk.make(two)
    alone, kept = tensors(desk, two), tensors(fresh, two)
    assert all(torch.equal(alone[name], kept[name]) for name in alone)


def test_tuning_changes_the_model_and_another_run_is_another_trajectory(desk):
    before, after = tensors(desk, BASE), tensors(desk, target())
    assert any(not torch.equal(before[name], after[name]) for name in before)
    from bench.artifacts.models import trajectory

    assert trajectory(target(1)) == trajectory(target(2)) != target(1).address
    assert desk.manifest(target()).total("passes") == pytest.approx(8.0)
