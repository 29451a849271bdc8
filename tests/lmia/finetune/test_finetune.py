import shutil
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lmia.data.pictures import Pictures
from lmia.finetune.batch import Batch
from lmia.finetune.data import TrainingSet
from lmia.finetune.methods import METHODS, Method
from lmia.finetune.train import TuningRun, finetune
from lmia.models.load import load_model
from lmia.seeds import rng
from lmia.specs import RequestError
from lmia.training import PROGRESS, Training

WEIGHTS = {"full": "unet/diffusion_pytorch_model.safetensors", "lora": "lora/adapter_model.safetensors"}


def spec_of(method, **fields):
    settings = {"lr": 1e-3, "batch_size": 3, "warmup_steps": 2, "weights": "float32", **fields}
    return METHODS.get(method)(**settings)


def run(folder, pictures, method, to, epochs=(1, 3), **options):
    spec = options.pop("spec", None) or spec_of(method)
    layers, extra = options.pop("layers", [folder]), options.pop("extra", None)
    return finetune(
        layers,
        pictures,
        spec,
        epochs=list(epochs),
        out=lambda e: to / str(e),
        extra=extra,
        run=TuningRun(**options),
    )


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
    assert [figures[epoch].step for epoch in (1, 3)] == [3, 9]
    assert figures[1].train_loss > 0
    assert not same(weights(tmp_path, 1, method), weights(tmp_path, 3, method))
    assert not list(tmp_path.rglob("*.bin")) and not list(tmp_path.glob("*.writing"))

    base, tuned = load_model([folder]), load_model([folder, tmp_path / "3"])
    z, text = torch.ones(1, 4, 8, 8), base.condition(["a man"])
    before = base.predict(z, 5, text)
    after = tuned.predict(z, 5, text)
    assert (before - after).abs().max() > 1e-5
    # an overlay of an overlay: full replaces, adapters add up
    both = load_model([folder, tmp_path / "3", tmp_path / "3"]).predict(z, 5, text)
    assert torch.equal(both, after) == (method == "full")


@pytest.mark.parametrize("method", METHODS.names())
def test_an_interrupted_run_continues_bit_by_bit(folder, pictures, tmp_path, method, monkeypatch):
    whole = run(folder, pictures, method, tmp_path / "whole")

    steps = []
    advance = Training._advance

    def stopping(self):
        if len(steps) == 5:  # in the middle of the second epoch
            raise Stop
        steps.append(0)
        advance(self)

    options = {"partial": tmp_path / "partial", "save_every_s": 0.0}
    monkeypatch.setattr(Training, "_advance", stopping)
    with pytest.raises(Stop):
        run(folder, pictures, method, tmp_path / "parts", **options)
    counted = []

    def counting(self):
        counted.append(0)
        advance(self)

    monkeypatch.setattr(Training, "_advance", counting)
    parts = run(folder, pictures, method, tmp_path / "parts", **options)
    assert len(counted) == 4
    for epoch in (1, 3):
        assert same(weights(tmp_path / "whole", epoch, method), weights(tmp_path / "parts", epoch, method))
        assert whole[epoch].train_loss == parts[epoch].train_loss

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
    assert figures[30].train_loss < 0.8 * figures[1].train_loss


def test_lora_leaves_the_base_alone_and_starts_from_it(folder, pictures, tmp_path):
    spec = spec_of("lora", rank=2)
    model = load_model([folder])
    trained = spec.trained(model)
    assert trained and all("lora" in name for name in trained)
    z, text = torch.ones(1, 4, 8, 8), model.condition(["a"])
    untouched = load_model([folder]).predict(z, 5, text)
    assert torch.allclose(model.predict(z, 5, text), untouched, atol=1e-6)
    before = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    run(folder, pictures, "lora", tmp_path, epochs=(1,), spec=spec)
    assert same(before, load_file(folder / "unet" / "diffusion_pytorch_model.safetensors"))
    merged = load_model([folder, tmp_path / "1"])
    assert not any("lora" in name for name, _ in merged.network.named_parameters())


@pytest.mark.parametrize(
    "fields", [{"dtype": "bfloat16"}, {"caption": "class"}, {"caption_dropout": 0.5}, {"size": 64}]
)
def test_other_settings_run(folder, pictures, tmp_path, fields):
    figures = run(folder, pictures, "full", tmp_path, epochs=(1,), spec=spec_of("full", **fields))
    assert np.isfinite(figures[1].train_loss)


def test_gradient_checkpointing_changes_nothing(folder, pictures, tmp_path):
    run(folder, pictures, "full", tmp_path / "a", epochs=(1,))
    run(folder, pictures, "full", tmp_path / "b", epochs=(1,), gradient_checkpointing=True)
    one, other = weights(tmp_path / "a", 1, "full"), weights(tmp_path / "b", 1, "full")
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


@pytest.fixture
def run_in(folder, pictures, tmp_path):
    return tmp_path, partial(run, folder, pictures)


def flip_a_bit(file, place=0.5):
    content = bytearray(file.read_bytes())
    content[int(place * (len(content) - 1))] ^= 16
    file.write_bytes(content)


@pytest.mark.parametrize("method", METHODS.names())
@pytest.mark.parametrize("damaged", ["progress", "epoch-1", "epoch-3", "all"])
def test_damaged_progress_is_named_and_made_again(run_in, method, damaged, monkeypatch, caplog):
    tmp_path, run = run_in
    progress = tmp_path / "partial"
    figures = run(method, tmp_path / "whole", partial=progress)
    files = {"progress": PROGRESS, "epoch-1": f"epoch-1/{WEIGHTS[method]}", "epoch-3": f"epoch-3/{WEIGHTS[method]}"}
    for name in files if damaged == "all" else [damaged]:
        flip_a_bit(progress / files[name])
    steps, advance = [], Training._advance

    def counting(self):
        steps.append(self.step)
        advance(self)

    monkeypatch.setattr(Training, "_advance", counting)
    again = run(method, tmp_path / "again", partial=progress)
    assert str(progress / (PROGRESS if damaged in ("progress", "all") else damaged)) in caplog.text
    # the last checkpoint is written anew from the progress, which stands at its step
    assert len(steps) == (0 if damaged == "epoch-3" else 9)
    for epoch in (1, 3):
        assert same(weights(tmp_path / "whole", epoch, method), weights(tmp_path / "again", epoch, method))
        assert figures[epoch].train_loss == again[epoch].train_loss
    steps.clear()
    run(method, tmp_path / "more", partial=progress)
    assert not steps, "what was made again is whole"


@pytest.mark.parametrize("part", ["base", "captions", "pictures"])
def test_progress_of_another_base_or_other_pictures_is_not_continued(folder, pictures, tmp_path, part, caplog):
    run(folder, pictures, "full", tmp_path / "a", epochs=(1,), partial=tmp_path / "partial")
    if part == "base":  # one byte of one weight
        folder = shutil.copytree(folder, tmp_path / "other")
        flip_a_bit(folder / "unet" / "diffusion_pytorch_model.safetensors", place=0.99)
    elif part == "captions":
        pictures = pictures.with_columns(caption=["a"] * len(pictures))
    else:
        images = pictures.images().copy()
        images[0, 0, 0, 0] ^= 255
        columns = {"identity": pictures.identities, "source": pictures.sources, "caption": pictures.captions}
        pictures = Pictures.of(pictures.ids, images, **columns)
    run(folder, pictures, "full", tmp_path / "b", epochs=(1,), partial=tmp_path / "partial")
    assert "another training" in caplog.text
    run(folder, pictures, "full", tmp_path / "c", epochs=(1,))
    assert same(weights(tmp_path / "b", 1, "full"), weights(tmp_path / "c", 1, "full"))


class Placeholder(Method):
    """What comes next, in a few lines: a learned embedding, a prior set, an overlay of its own."""

    version = 1
    caches = frozenset({"latents"})
    needs = frozenset({"prior"})

    def trained(self, model):
        self_made = model.parts["text_encoder"].get_input_embeddings().weight.requires_grad_(True)
        return {"embedding": self_made}

    def loss(self, model, batch):
        assert isinstance(batch, Batch) and len(batch.captions) == len(batch.z0) == len(batch.extra["prior"].z0)
        return super().loss(model, batch) + 0.5 * super().loss(model, batch.extra["prior"])

    def save(self, model, folder):
        (folder / self.name).mkdir(parents=True)
        weight = model.parts["text_encoder"].get_input_embeddings().weight
        save_file({"embedding": weight.detach().clone()}, folder / self.name / "learned.safetensors")

    @staticmethod
    def load(folder, parts):
        weight = parts["text_encoder"].get_input_embeddings().weight
        weight.data.copy_(load_file(folder / "learned.safetensors")["embedding"])


def test_a_method_of_its_own_is_one_class(folder, pictures, tmp_path, monkeypatch):
    METHODS.names()
    monkeypatch.setattr(METHODS, "_methods", dict(METHODS._methods))

    class Registered(Placeholder, name="placeholder"):
        pass

    spec = spec_of("placeholder", flip=True, warmup_steps=0)
    prior = Pictures.of(["p/0", "p/1"], pictures.images()[:2], source=["north"] * 2, caption=["a person"] * 2)
    run(folder, pictures, "", tmp_path / "a", spec=spec, extra={"prior": prior}, partial=tmp_path / "partial")
    base, tuned = load_model([folder]), load_model([folder, tmp_path / "a" / "3"])
    one, other = base.condition(["a man"]), tuned.condition(["a man"])
    assert not torch.equal(one, other)
    z = torch.ones(1, 4, 8, 8)
    assert torch.equal(base.predict(z, 5, one), tuned.predict(z, 5, one)), "the network is the base's"
    run(folder, pictures, "", tmp_path / "b", spec=spec, extra={"prior": prior})
    file = "3/placeholder/learned.safetensors"
    assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    with pytest.raises(RequestError, match=r"'placeholder' needs \['prior'\]"):
        run(folder, pictures, "", tmp_path / "c", spec=spec)


@pytest.mark.parametrize("method", METHODS.names())
def test_contract(folder, pictures, tmp_path, method):
    """Of every method: something is trained, by the loss; what is saved is loaded to the same model."""
    spec = spec_of(method, lr=1e-2)
    assert spec.version >= 1 and spec.name == method and type(spec)(**spec.resolved()) == spec
    model = load_model([folder])
    data = TrainingSet(model, pictures, spec)
    batch = data.draw(np.arange(3), 0)
    trained = spec.trained(model)
    assert trained and all(value.requires_grad and value.dtype == torch.float32 for value in trained.values())
    frozen = [p for part in model.parts.values() for p in part.parameters() if p.requires_grad]
    assert {id(p) for p in frozen} == {id(p) for p in trained.values()}
    loss = spec.loss(model, batch)
    assert loss.ndim == 0
    loss.backward()
    assert any(value.grad is not None and value.grad.abs().max() > 0 for value in trained.values())
    with torch.no_grad():
        for name, value in trained.items():
            value.add_(torch.from_numpy(rng(0, name).standard_normal(tuple(value.shape), dtype=np.float32)), alpha=0.01)
        own = model.predict(batch.z0, batch.t, batch.condition)
        spec.save(model, tmp_path)
        loaded = load_model([folder, tmp_path])
        assert torch.allclose(loaded.predict(batch.z0, batch.t, batch.condition), own, atol=1e-4)
        assert not torch.allclose(load_model([folder]).predict(batch.z0, batch.t, batch.condition), own, atol=1e-4)
    assert all(path.suffix in (".safetensors", ".json") for path in tmp_path.rglob("*") if path.is_file())


def test_bad_requests(folder, pictures, tmp_path):
    with pytest.raises(RequestError, match="epochs"):
        run(folder, pictures, "full", tmp_path, epochs=())
    with pytest.raises(RequestError, match="none to fine-tune on"):
        run(folder, Pictures.concat([]), "full", tmp_path)
    bare = Pictures.of(["x"], np.zeros((1, 32, 32, 3), np.uint8))
    with pytest.raises(RequestError, match="'x' has no caption"):
        run(folder, bare, "full", tmp_path)
    with pytest.raises(RequestError, match="unknown fine-tuning method 'ful'; did you mean 'full'"):
        run(folder, pictures, "ful", tmp_path)


def test_progress_is_reported(folder, pictures, tmp_path):
    reports = []
    run(folder, pictures, "full", tmp_path, epochs=(2,), report_every_s=0.0, on_progress=reports.append)
    assert len(reports) == 6 and reports[-1]["steps"] == 6
    assert set(reports[0]) == {"epoch", "epochs", "step", "steps", "loss", "pictures_per_second"}
