import shutil
import subprocess
import sys

import pytest
import torch
from compare import PARTS, equal, outputs, overlay
from ldm import unet_keys, write

from lmia.models.files import LORA_WEIGHTS, files_of
from lmia.models.load import load_model
from lmia.resolve import ExternalModel, overlay_files, resolve_base, resolve_model
from lmia.specs import RequestError


def test_pipelines(folder, untouched, tmp_path, monkeypatch):
    given = resolve_model(str(folder))
    base = resolve_base(str(folder))
    assert given == ExternalModel(str(folder), "pipeline", base.digest)
    assert not given.needs_base
    assert overlay_files(given, None, tmp_path) == files_of(folder)
    assert equal(outputs(load_model([overlay(given, None, tmp_path)])), untouched) == PARTS

    assert resolve_model("tiny") == ExternalModel("tiny", "pipeline", resolve_base("tiny").digest)
    assert "unet/config.json" in overlay_files(resolve_model("random"), None, tmp_path)
    pinned = "owner/name@" + "a" * 40
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(folder))
    assert resolve_model(pinned) == ExternalModel(pinned, "pipeline", "a" * 40)


def test_resolving_needs_no_torch(folder, tmp_path):
    file = write(tmp_path / "model.safetensors", unet_keys(folder))
    code = (
        "import sys; from lmia.resolve import resolve_model\n"
        f"assert resolve_model({str(file)!r}).form == 'checkpoint'\n"
        f"assert resolve_model({str(folder)!r}).form == 'pipeline'\n"
        "assert not {'torch', 'diffusers', 'peft'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_picture_size_is_read_from_the_configuration(folder, model):
    assert resolve_base(str(folder)).native_size() == model.size == 32
    assert resolve_model("tiny").native_size() == 64


def test_people_that_a_base_knows():
    known = resolve_base("tiny").known_identities("population")
    assert len(known) > 3000
    assert not resolve_base("tiny").known_identities("folder") and not resolve_base("random").known_identities(
        "population"
    )


@pytest.mark.parametrize("end", [".bin", ".pt", ".pth", ".pkl", ".ckpt"])
def test_pickled_bases_are_refused(folder, tmp_path, end):
    copy = shutil.copytree(folder, tmp_path / "base")
    weights = copy / "text_encoder" / "model.safetensors"
    weights.rename(weights.with_suffix(end))
    with pytest.raises(RequestError, match=rf"base = '.*': model\{end} is a pickle"):
        resolve_base(str(copy))


def refused(reference, match):
    with pytest.raises(RequestError, match=match) as caught:
        resolve_model(str(reference))
    assert "model" in str(caught.value) and "base =" not in str(caught.value)


@pytest.mark.parametrize("end", ["ckpt", "bin", "pt", "pth", "pkl"])
def test_pickles_are_refused(tmp_path, end):
    file = tmp_path / f"model.{end}"
    file.write_bytes(b"\x80\x02.")
    refused(file, rf"model = '.*': model.{end} is a pickle, which can run code .*; convert it to safetensors")
    refused(tmp_path, rf"model.{end} is a pickle")


def test_pickles_in_folders_are_refused(folder, tmp_path):
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    refused(tmp_path / "peft", r"a peft adapter without adapter_model.safetensors")
    (tmp_path / "peft" / "adapter_model.bin").write_bytes(b"\x80\x02.")
    refused(tmp_path / "peft", r"adapter_model.bin is a pickle")
    copy = shutil.copytree(folder, tmp_path / "pipeline")
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    refused(copy, r"diffusion_pytorch_model.bin is a pickle")
    weights.with_suffix(".bin").unlink()
    refused(copy, r"unet/ holds no .safetensors weights")


def test_names_and_paths_that_are_not_there(tmp_path):
    refused("tinny", r"unknown model 'tinny'; did you mean 'tiny'.*allowed are")
    refused("owner/name", r"model = 'owner/name': no such folder, and a hub id must be pinned")
    refused(tmp_path / "nowhere", r"model = '.*nowhere': no such file or folder; allowed are a Stable Diffusion folder")
    refused("nowhere.safetensors", "no such file or folder")
    refused(tmp_path, r"a folder without weights that lmia knows: no unet, vae, text_encoder, tokenizer, scheduler")
    (tmp_path / "notes.txt").write_text("a")
    refused(tmp_path / "notes.txt", "not a .safetensors file; allowed are")
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    refused(tmp_path / "torn.safetensors", "torn.safetensors is not a safetensors file")


def test_adapters_that_say_too_little_or_too_much(tmp_path):
    file = write(tmp_path / "adapter_model.safetensors", {"base_model.model.to_q.lora_A.weight": torch.ones(2, 2)})
    refused(file, "a peft adapter without adapter_config.json")
    refused(tmp_path, "a peft adapter without adapter_config.json")
    refused(shutil.copyfile(file, tmp_path / "lora.safetensors"), "weights of a peft adapter; name a folder")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "XLORA"}')
    refused(tmp_path, r"peft_type = 'XLORA' in adapter_config.json; allowed are LORA, LOHA, LOKR")
    (tmp_path / "adapter_config.json").write_text("[]")
    refused(tmp_path, "adapter_config.json is not a JSON object")
    write(tmp_path / LORA_WEIGHTS, {"unet.to_q.lora_A.weight": torch.ones(2, 2)})
    refused(tmp_path, "two adapters")
    other = tmp_path / "several"
    for name in ("a", "b"):
        write(other / f"{name}.safetensors", {"unet.to_q.lora_A.weight": torch.ones(2, 2)})
    refused(other, r"several .safetensors files \(a.safetensors, b.safetensors\); name one of them")
    (other / "b.safetensors").unlink()
    assert resolve_model(str(other)).form == "adapter"


@pytest.mark.parametrize(
    ("key", "match"),
    [
        ("conditioner.embedders.0.transformer.text_model.final_layer_norm.bias", "Stable Diffusion XL, which is not"),
        ("model.diffusion_model.label_emb.0.0.weight", "Stable Diffusion XL"),
        ("add_embedding.linear_1.weight", "Stable Diffusion XL"),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", "Stable Diffusion XL"),
        ("base_model.model.add_embedding.linear_1.lora_A.weight", "name a folder"),
        ("model.diffusion_model.joint_blocks.0.x_block.mlp.fc1.weight", "Stable Diffusion 3"),
        ("model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale", "Flux"),
        ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", "Flux"),
        ("transformer.transformer_blocks.0.attn.to_q.lora_A.weight", "diffusion transformer"),
        ("control_model.time_embed.0.weight", "ControlNet"),
        ("lora_unet_mid_block_attentions_0_proj_in.oft_blocks", "LyCORIS"),
        ("first_stage_model.encoder.conv_in.weight", "a checkpoint without U-Net"),
        ("lora_unet_mid_block_attentions_0_proj_in.on_input", "LyCORIS"),
        ("768.0.linear.0.weight", "this is a hypernetwork, which is not supported"),
        ("some.weight", "neither an adapter nor a Stable Diffusion checkpoint; its weights are called some.weight"),
    ],
)
def test_other_models_are_refused_by_their_keys(tmp_path, key, match):
    refused(write(tmp_path / "m.safetensors", {key: torch.ones(2, 2)}), match)
