import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lmia.data.pictures import Pictures
from lmia.finetune import train as module
from lmia.finetune.methods import METHODS
from lmia.finetune.train import FineTuneSpec, finetune
from lmia.models.load import load_model
from lmia.specs import RequestError

WEIGHTS = {"full": "unet/diffusion_pytorch_model.safetensors", "lora": "lora/adapter_model.safetensors"}


def spec_of(method, **fields):
    settings = {"lr": 1e-3, "batch_size": 3, "warmup_steps": 2, "weights": "float32", **fields}
    return METHODS.get(method).Spec(**settings)


def run(folder, pictures, method, to, epochs=(1, 3), **options):
    spec = options.pop("spec", None) or spec_of(method)
    return finetune([folder], pictures, method, spec, epochs=list(epochs), out=lambda e: to / str(e), **options)


def weights(to, epoch, method):
    return load_file(to / str(epoch) / WEIGHTS[method])


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Stop(Exception):
    pass


@pytest.mark.parametrize("method", METHODS.names())
def test_checkpoints_are_overlays(folder, pictures, tmp_path, method):
    figures = run(folder, pictures, method, tmp_path)
    assert list(figures) == [1, 3]
    assert [figures[epoch]["step"] for epoch in (1, 3)] == [3, 9]
    assert figures[1]["train_loss"] > 0
    assert not same(weights(tmp_path, 1, method), weights(tmp_path, 3, method))
    assert not list(tmp_path.rglob("*.bin")) and not list(tmp_path.glob("*.writing"))

    base, tuned = load_model([folder]), load_model([folder, tmp_path / "3"])
    z, text = torch.ones(1, 4, 8, 8), base.condition(["a man"])
    before = base.unet(z, 5, text, return_dict=False)[0]
    after = tuned.unet(z, 5, text, return_dict=False)[0]
    assert (before - after).abs().max() > 1e-5
    # an overlay of an overlay: full replaces, adapters add up
    both = load_model([folder, tmp_path / "3", tmp_path / "3"]).unet(z, 5, text, return_dict=False)[0]
    assert torch.equal(both, after) == (method == "full")


@pytest.mark.parametrize("method", METHODS.names())
def test_an_interrupted_run_continues_bit_by_bit(folder, pictures, tmp_path, method, monkeypatch):
    whole = run(folder, pictures, method, tmp_path / "whole")

    steps = []
    step_on = module._Run.step_on

    def stopping(self, batch):
        if len(steps) == 5:  # in the middle of the second epoch
            raise Stop
        steps.append(0)
        step_on(self, batch)

    options = {"partial": tmp_path / "partial", "save_every_s": 0.0}
    monkeypatch.setattr(module._Run, "step_on", stopping)
    with pytest.raises(Stop):
        run(folder, pictures, method, tmp_path / "parts", **options)
    counted = []

    def counting(self, batch):
        counted.append(0)
        step_on(self, batch)

    monkeypatch.setattr(module._Run, "step_on", counting)
    parts = run(folder, pictures, method, tmp_path / "parts", **options)
    assert len(counted) == 4
    for epoch in (1, 3):
        assert same(weights(tmp_path / "whole", epoch, method), weights(tmp_path / "parts", epoch, method))
        assert whole[epoch]["train_loss"] == parts[epoch]["train_loss"]

    # the folder of the checkpoints may be gone, as when a job starts again elsewhere
    counted.clear()
    run(folder, pictures, method, tmp_path / "elsewhere", **options)
    assert not counted and same(weights(tmp_path / "elsewhere", 1, method), weights(tmp_path / "whole", 1, method))

    # asked again for a later epoch, the run goes on; for the same ones, nothing is trained
    counted.clear()
    run(folder, pictures, method, tmp_path / "parts", **options)
    assert not counted
    run(folder, pictures, method, tmp_path / "parts", epochs=(1, 3, 4), **options)
    assert len(counted) == 3
    run(folder, pictures, method, tmp_path / "long", epochs=(4,))
    assert same(weights(tmp_path / "long", 4, method), weights(tmp_path / "parts", 4, method))


def test_progress_of_another_run_is_not_continued(folder, pictures, tmp_path):
    options = {"partial": tmp_path / "partial"}
    run(folder, pictures, "full", tmp_path / "a", epochs=(1,), **options)
    run(folder, pictures.take([0, 1, 2, 3]), "full", tmp_path / "b", epochs=(1,), **options)
    run(folder, pictures.take([0, 1, 2, 3]), "full", tmp_path / "c", epochs=(1,))
    assert same(weights(tmp_path / "b", 1, "full"), weights(tmp_path / "c", 1, "full"))
    (tmp_path / "partial" / "progress.safetensors").write_bytes(b"torn")
    run(folder, pictures.take([0, 1, 2, 3]), "full", tmp_path / "d", epochs=(1,), **options)
    assert same(weights(tmp_path / "d", 1, "full"), weights(tmp_path / "c", 1, "full"))


def test_a_missing_checkpoint_is_made_again(folder, pictures, tmp_path):
    run(folder, pictures, "full", tmp_path / "a", epochs=(2,), partial=tmp_path / "partial")
    run(folder, pictures, "full", tmp_path / "b", epochs=(1, 2), partial=tmp_path / "partial")
    assert same(weights(tmp_path / "a", 2, "full"), weights(tmp_path / "b", 2, "full"))
    assert (tmp_path / "b" / "1" / WEIGHTS["full"]).is_file()


def test_order_of_pictures_does_not_matter_seed_does(folder, pictures, tmp_path):
    run(folder, pictures, "full", tmp_path / "a", epochs=(1,))
    run(folder, pictures.take([6, 2, 4, 0, 1, 5, 3]), "full", tmp_path / "b", epochs=(1,))
    run(folder, pictures, "full", tmp_path / "c", epochs=(1,), spec=spec_of("full", seed=1))
    assert same(weights(tmp_path / "a", 1, "full"), weights(tmp_path / "b", 1, "full"))
    assert not same(weights(tmp_path / "a", 1, "full"), weights(tmp_path / "c", 1, "full"))


def test_it_learns(folder, pictures, tmp_path):
    spec = spec_of("full", lr=3e-3, flip=False)
    figures = run(folder, pictures, "full", tmp_path, epochs=(1, 30), spec=spec)
    assert figures[30]["train_loss"] < 0.8 * figures[1]["train_loss"]


def test_lora_leaves_the_base_alone_and_starts_from_it(folder, pictures, tmp_path):
    spec = spec_of("lora", rank=2)
    model = load_model([folder])
    trained = METHODS.get("lora").prepare(model, spec)
    assert trained and all("lora" in name for name in trained)
    z, text = torch.ones(1, 4, 8, 8), model.condition(["a"])
    untouched = load_model([folder]).unet(z, 5, text, return_dict=False)[0]
    assert torch.allclose(model.unet(z, 5, text, return_dict=False)[0], untouched, atol=1e-6)
    before = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    run(folder, pictures, "lora", tmp_path, epochs=(1,), spec=spec)
    assert same(before, load_file(folder / "unet" / "diffusion_pytorch_model.safetensors"))
    merged = load_model([folder, tmp_path / "1"])
    assert not any("lora" in name for name, _ in merged.unet.named_parameters())


@pytest.mark.parametrize(
    "fields", [{"dtype": "bfloat16"}, {"caption": "class"}, {"caption_dropout": 0.5}, {"size": 64}]
)
def test_other_settings_run(folder, pictures, tmp_path, fields):
    figures = run(folder, pictures, "full", tmp_path, epochs=(1,), spec=spec_of("full", **fields))
    assert np.isfinite(figures[1]["train_loss"])


def test_gradient_checkpointing_changes_nothing(folder, pictures, tmp_path):
    run(folder, pictures, "full", tmp_path / "a", epochs=(1,))
    run(folder, pictures, "full", tmp_path / "b", epochs=(1,), gradient_checkpointing=True)
    one, other = weights(tmp_path / "a", 1, "full"), weights(tmp_path / "b", 1, "full")
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


def test_bad_requests(folder, pictures, tmp_path):
    with pytest.raises(RequestError, match="epochs"):
        run(folder, pictures, "full", tmp_path, epochs=())
    with pytest.raises(RequestError, match="none to fine-tune on"):
        run(folder, Pictures.concat([]), "full", tmp_path)
    bare = Pictures.of(["x"], np.zeros((1, 32, 32, 3), np.uint8))
    with pytest.raises(RequestError, match="'x' has no caption"):
        run(folder, bare, "full", tmp_path)
    with pytest.raises(RequestError, match="unknown fine-tuning method 'ful'; did you mean 'full'"):
        run(folder, pictures, "ful", tmp_path, spec=FineTuneSpec())


def test_progress_is_reported(folder, pictures, tmp_path):
    reports = []
    run(folder, pictures, "full", tmp_path, epochs=(2,), report_every_s=0.0, on_progress=reports.append)
    assert len(reports) == 6 and reports[-1]["steps"] == 6
    assert set(reports[0]) == {"epoch", "epochs", "step", "steps", "loss", "pictures_per_second"}
