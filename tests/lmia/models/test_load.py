import json
import shutil

import numpy as np
import pytest
import torch

from lmia.embedded.testing import random_model
from lmia.models.denoiser import to_uint8
from lmia.models.files import fetch_from_hub, resolve_layers
from lmia.models.load import load_model
from lmia.specs import RequestError, UnknownName


def test_sizes_come_from_the_configuration(model):
    assert (model.size, model.vae_scale, model.size_multiple, model.num_timesteps) == (32, 4, 8, 1000)
    assert model.latent_shape() == (4, 8, 8)
    assert model.latent_shape(64) == (4, 16, 16)
    assert list(model.parts) == ["vae", "unet", "text_encoder"]
    assert model.attention == "sdpa"
    assert not any(value.requires_grad for value in model.unet.parameters())


def test_equal_seeds_give_equal_files(folder, tmp_path):
    again = random_model(tmp_path / "again", seed=1)
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((folder / name).read_bytes() == (again / name).read_bytes() for name in names)
    other = random_model(tmp_path / "other", seed=2)
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert (folder / weights).read_bytes() != (other / weights).read_bytes()


def test_unseen_words_fall_into_pieces(model):
    ids = model.tokenizer(["a north headshot", "a south headshot", "a zürich headshot"]).input_ids
    assert len({tuple(row) for row in ids}) == 3
    assert max(max(row) for row in ids) < model.text_encoder.config.vocab_size
    assert model.condition(["a", ""]).shape == (2, 24, 16)


def powers(model):
    """Signal power by training step, from both sides of the schedule."""
    signal, noise = model.schedule(torch.arange(model.num_timesteps))
    assert torch.allclose(signal**2 + noise**2, torch.ones(()), atol=1e-6)
    return signal.flatten().double().numpy() ** 2


def test_schedule_is_the_models_own(model):
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    assert np.allclose(powers(model), np.cumprod(1 - betas), rtol=1e-4)


def test_schedule_follows_another_schedule(folder, tmp_path):
    copy = tmp_path / "linear"
    shutil.copytree(folder, copy)
    path = copy / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "beta_schedule": "linear"}))
    expected = np.cumprod(1 - np.linspace(0.00085, 0.012, 1000))
    assert np.allclose(powers(load_model([copy])), expected, rtol=1e-4)


def test_pixels_round_trip():
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    scaled = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    assert np.array_equal(to_uint8(scaled), images)


def test_pickle_is_refused_unless_allowed(folder, tmp_path):
    copy = tmp_path / "pickled"
    shutil.copytree(folder, copy)
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    from safetensors.torch import load_file

    torch.save(load_file(weights), weights.with_suffix(".bin"))
    assert load_model([copy]).pickled == ()  # safetensors beside it are what is read
    weights.unlink()
    with pytest.raises(RequestError, match=r"diffusion_pytorch_model\.bin is a pickle"):
        load_model([copy])
    assert load_model([copy], allow_pickle=True).pickled == ("unet",)


@pytest.mark.parametrize("name", ["unet", "vae", "tokenizer"])
def test_a_missing_part_is_named(folder, tmp_path, name):
    copy = tmp_path / "part"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / name)
    with pytest.raises(RequestError, match=f"no {name}/"):
        load_model([copy])


def test_no_weights_and_no_folder(folder, tmp_path):
    with pytest.raises(RequestError, match="no such folder"):
        load_model([tmp_path / "nowhere"])
    with pytest.raises(RequestError, match="at least a base"):
        load_model([])
    copy = tmp_path / "empty"
    shutil.copytree(folder, copy)
    (copy / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(RequestError, match="holds no weights"):
        load_model([copy])


def test_hub_ids_must_be_pinned(monkeypatch, folder):
    with pytest.raises(RequestError, match="pinned to a revision"):
        resolve_layers(["owner/name"])
    asked = {}

    def download(repo, revision, allow_patterns):
        asked.update(repo=repo, revision=revision, patterns=allow_patterns)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert resolve_layers(["owner/name@" + "a" * 40]) == [folder]
    assert asked["revision"] == "a" * 40
    assert not any(pattern.endswith((".bin", ".ckpt")) for pattern in asked["patterns"])
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: (_ for _ in ()).throw(OSError("off")))
    with pytest.raises(RequestError, match="could not be fetched"):
        fetch_from_hub("owner/name", "a" * 40)


def test_attention_asked_for_and_not_there(folder):
    with pytest.raises(RequestError, match=r"xformers.*cannot be used on device 'cpu'"):
        load_model([folder], attention="xformers")
    with pytest.raises(UnknownName, match="did you mean 'sdpa'"):
        load_model([folder], attention="spda")
    assert load_model([folder], attention="sdpa").attention == "sdpa"


def test_wrong_dtype_and_device(folder):
    with pytest.raises(RequestError, match="dtype = 'int8'"):
        load_model([folder], dtype="int8")
    if not torch.cuda.is_available():
        with pytest.raises(RequestError, match="no usable CUDA"):
            load_model([folder], device="cuda")


def test_half_precision_variant_alone_is_enough(folder, tmp_path):
    copy = tmp_path / "fp16"
    shutil.copytree(folder, copy)
    for name, stem in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        (copy / name / f"{stem}.safetensors").rename(copy / name / f"{stem}.fp16.safetensors")
    assert load_model([copy], dtype="bfloat16").unet.dtype == torch.bfloat16
