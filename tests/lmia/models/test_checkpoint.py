import json
import shutil

import pytest
import torch
from compare import PARTS, close, equal, outputs, overlay
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from ldm import open_clip_keys, text_keys, unet_keys, vae_keys, weights_of, write

from lmia.embedded import embedded
from lmia.embedded.architecture import ArchitectureSpec
from lmia.embedded.testing import RANDOM, random_model
from lmia.models.families.sd import save_part
from lmia.models.load import load_model
from lmia.resolve import overlay_files, resolve_model
from lmia.specs import RequestError


def test_original_layout(tmp_path):
    spec = RANDOM.model_copy(update={"layers": 2, "text_layers": 2})
    source = random_model(tmp_path / "source", seed=1, spec=spec)
    base = random_model(tmp_path / "base", seed=2, spec=spec)
    noise = {
        "alphas_cumprod": torch.ones(1000),
        "model_ema.decay": torch.ones(()),
        "first_stage_model.loss.logvar": torch.ones(()),
    }
    tensors = {**unet_keys(source), **vae_keys(source), **text_keys(source), **noise}
    given = resolve_model(str(write(tmp_path / "any name.safetensors", tensors)))
    assert given.form == "checkpoint" and given.needs_base and len(given.digest) == 20
    made = overlay(given, base, tmp_path)
    assert sorted(path.name for path in made.iterdir()) == ["text_encoder", "unet", "vae"]
    tuned = outputs(load_model([base, made]))
    assert equal(tuned, outputs(load_model([source]))) == PARTS
    assert not equal(tuned, outputs(load_model([base])))


def test_the_embedded_model_in_the_original_layout(tmp_path):
    source = embedded("tiny")
    base = random_model(tmp_path / "base", spec=ArchitectureSpec())
    tensors = {**unet_keys(source), **vae_keys(source), **text_keys(source)}
    made = overlay(resolve_model(str(write(tmp_path / "tiny.safetensors", tensors))), base, tmp_path)
    for part in PARTS:
        one, two = weights_of(made, part), weights_of(source, part)
        assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_only_what_the_checkpoint_has(folder, untouched, other, tmp_path):
    base = outputs(load_model([other]))
    plain = write(tmp_path / "plain.safetensors", weights_of(folder, "unet"))  # diffusers' names
    original = write(tmp_path / "original.safetensors", unet_keys(folder))
    renamed = {
        start: {start + k.removeprefix("model.diffusion_model."): v for k, v in unet_keys(folder).items()}
        for start in ("diffusion_model.", "")
    }
    comfy, bare = (write(tmp_path / f"{n}.safetensors", one) for n, one in enumerate(renamed.values()))
    with_text = write(tmp_path / "text.safetensors", {**unet_keys(folder), **text_keys(folder)})
    alone = [(file, {"unet"}) for file in (plain, original, comfy, bare)]
    for file, parts in (*alone, (with_text, {"unet", "text_encoder"})):
        made = overlay(resolve_model(str(file)), other, tmp_path / file.stem)
        found = outputs(load_model([other, made]))
        assert equal(found, untouched) == parts
        assert equal(found, base) == PARTS - parts


@pytest.mark.parametrize("rename", [True, False])
def test_vae_with_attention(folder, tmp_path, rename):
    folders = []
    for seed in (1, 2):
        copy = shutil.copytree(folder, tmp_path / str(seed))
        torch.manual_seed(seed)
        config = json.loads((copy / "vae" / "config.json").read_text())
        vae = AutoencoderKL.from_config({**config, "mid_block_add_attention": True})
        save_part(vae, copy / "vae", "float32")
        folders.append(copy)
    source, base = folders
    tensors = {**unet_keys(source), **vae_keys(source, rename_attention=rename)}
    assert ("first_stage_model.encoder.mid.attn_1.q.weight" in tensors) == rename
    made = overlay(resolve_model(str(write(tmp_path / "c.safetensors", tensors))), base, tmp_path)
    found, expected = load_model([base, made]), load_model([source])
    assert equal(outputs(found), outputs(expected)) == PARTS
    z = torch.ones(1, 4, 8, 8)
    assert torch.equal(found.decode(z), expected.decode(z))


def test_text_encoder_of_open_clip(tmp_path):
    spec = RANDOM.model_copy(update={"text_layers": 2})
    source, base = (random_model(tmp_path / name, seed, spec) for seed, name in enumerate(("source", "base")))
    tensors = {**unet_keys(source), **open_clip_keys(source)}
    made = overlay(resolve_model(str(write(tmp_path / "c.safetensors", tensors))), base, tmp_path)
    assert close(outputs(load_model([base, made])), outputs(load_model([source]))) == {"unet", "text_encoder"}


def test_text_encoder_without_its_middle_level_and_with_a_projection(folder, untouched, other, tmp_path):
    text = {name.replace("text_model.", ""): value for name, value in text_keys(folder).items()}
    text["cond_stage_model.transformer.text_projection.weight"] = torch.eye(16)
    file = write(tmp_path / "c.safetensors", {**unet_keys(folder), **text})
    made = overlay(resolve_model(str(file)), other, tmp_path)
    assert "text_encoder" in equal(outputs(load_model([other, made])), untouched)


def test_eight_bit_weights_are_widened(folder, other, tmp_path):
    tensors = {name: value.to(torch.float8_e4m3fn) for name, value in unet_keys(folder).items()}
    made = overlay(resolve_model(str(write(tmp_path / "c.safetensors", tensors))), other, tmp_path)
    assert {value.dtype for value in weights_of(made, "unet").values()} == {torch.float32}
    assert load_model([other, made]).unet.dtype == torch.float32


def test_a_base_of_another_architecture(folder, tmp_path):
    tensors = {**unet_keys(folder), **vae_keys(folder), **text_keys(folder)}
    given = resolve_model(str(write(tmp_path / "c.safetensors", tensors)))
    with pytest.raises(RequestError, match=r"base .*tiny' does not have the checkpoint's architecture: unet: .*in the"):
        overlay_files(given, embedded("tiny"), tmp_path)
    with pytest.raises(RequestError, match="is a checkpoint, which needs a base model"):
        overlay_files(given, None, tmp_path)

    faults = {
        r"unet: conv_in.weight is \[9, 4, 3, 3\] in the checkpoint, \[8, 4, 3, 3\] in the base": {
            "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(9, 4, 3, 3)
        },
        "unet: down_blocks.0.resnets.0.extra.weight is not in the base": {
            "model.diffusion_model.input_blocks.1.0.extra.weight": torch.zeros(1)
        },
        "unet: 1 weights of the checkpoint have no place": {"model.diffusion_model.extra.weight": torch.zeros(1)},
        "vae: encoder.mid_block.attentions.0.to_q.weight is not in the base": {
            "first_stage_model.encoder.mid.attn_1.q.weight": torch.zeros(16, 16, 1, 1)
        },
        "vae: 1 weights of the checkpoint have no place": {"first_stage_model.encoder.extra": torch.zeros(1)},
        "text_encoder: encoder.layers.1.layer_norm1.bias is not in the base": {
            "cond_stage_model.transformer.text_model.encoder.layers.1.layer_norm1.bias": torch.zeros(16)
        },
    }
    for number, (message, extra) in enumerate(faults.items()):
        given = resolve_model(str(write(tmp_path / f"{number}.safetensors", {**tensors, **extra})))
        with pytest.raises(RequestError, match=message):
            overlay_files(given, folder, tmp_path / "scratch")
    fewer = {name: value for name, value in tensors.items() if "conv_in.bias" not in name}
    given = resolve_model(str(write(tmp_path / "fewer.safetensors", fewer)))
    with pytest.raises(RequestError, match=r"vae: decoder.conv_in.bias is not in the checkpoint"):
        overlay_files(given, folder, tmp_path / "scratch")
