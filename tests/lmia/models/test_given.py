import copy
import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from ldm import open_clip_keys, text_keys, unet_keys, vae_keys, weights_of, write
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file

from lmia.embedded import embedded
from lmia.embedded.architecture import ArchitectureSpec
from lmia.embedded.testing import RANDOM, random_model
from lmia.models.families.sd import save_part
from lmia.models.files import files_of
from lmia.models.load import load_model
from lmia.models.lora import LORA_WEIGHTS
from lmia.resolve import ExternalModel, overlay_files, resolve_base, resolve_model
from lmia.specs import RequestError

TARGETS = ["to_k", "to_q", "to_v", "to_out.0"]
UNET_KEY = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
TEXT_KEY = "encoder.layers.0.self_attn.q_proj"


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    """A model of another seed: what is compared with `folder` can come from the given model only."""
    return random_model(tmp_path_factory.mktemp("models") / "other", seed=2)


@pytest.fixture(scope="session")
def untouched(model):
    """What the model in `folder` computes."""
    return outputs(model)


def overlay(given, base, to):
    """An overlay folder as the store would keep it."""
    for name, path in overlay_files(given, base, to / "scratch").items():
        target = to / "overlay" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return to / "overlay"


def outputs(model):
    """U-Net prediction, VAE encoding and text states, float32."""
    states = model.text_states(["a photo of a man", ""])
    z = torch.linspace(-2, 2, 2 * 4 * 8 * 8).reshape(2, 4, 8, 8)
    with torch.no_grad():
        noise = model.unet(z, 500, torch.linspace(-1, 1, states.numel()).reshape(states.shape), return_dict=False)[0]
    images = np.arange(2 * 32 * 32 * 3, dtype=np.uint32).reshape(2, 32, 32, 3).astype(np.uint8)
    return {"unet": noise, "vae": model.encode(images), "text_encoder": states}


def equal(one, two):
    return {part for part in one if torch.equal(one[part], two[part])}


def close(one, two):
    return {part for part in one if torch.allclose(one[part], two[part], rtol=0, atol=1e-6)}


PARTS = {"unet", "vae", "text_encoder"}


# ---------------------------------------------------------------------------------------------------- pipelines


def test_pipelines(folder, untouched, tmp_path):
    given = resolve_model(str(folder))
    base = resolve_base(str(folder))
    assert given == ExternalModel(str(folder), "pipeline", base.digest)
    assert not given.needs_base
    assert overlay_files(given, None, tmp_path) == files_of(folder)
    assert equal(outputs(load_model([overlay(given, None, tmp_path)])), untouched) == PARTS

    assert resolve_model("tiny") == ExternalModel("tiny", "pipeline", resolve_base("tiny").digest)
    assert "unet/config.json" in overlay_files(resolve_model("random"), None, tmp_path)
    pinned = "owner/name@" + "a" * 40
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


# -------------------------------------------------------------------------------------------------- checkpoints


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
    with_text = write(tmp_path / "text.safetensors", {**unet_keys(folder), **text_keys(folder)})
    for file, parts in ((plain, {"unet"}), (original, {"unet"}), (with_text, {"unet", "text_encoder"})):
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
        r"unet: conv_in.weight is \[8, 5, 3, 3\] in the checkpoint, \[8, 4, 3, 3\] in the base": {
            "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 5, 3, 3)
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


# ----------------------------------------------------------------------------------------------------- adapters


def drawn(module, config, seed=0):
    """An adapter with random weights: peft's names and tensors, and the configuration as peft would write it."""
    adapted = get_peft_model(copy.deepcopy(module), config)
    draw = torch.Generator().manual_seed(seed)
    state = {
        name: torch.randn(value.shape, generator=draw) * 0.3
        for name, value in get_peft_model_state_dict(adapted).items()
    }
    settings = {
        key: sorted(v) if isinstance(v, set) else v for key, v in adapted.peft_config["default"].to_dict().items()
    }
    return state, settings


def bare(state):
    return {name.removeprefix("base_model.model."): value for name, value in state.items()}


def save_peft(to, state, settings):
    write(to / "adapter_model.safetensors", state)
    (to / "adapter_config.json").write_text(json.dumps(settings, default=str))
    return to


def merged_by_hand(model, part, deltas):
    """The model with `deltas` {module name: (scale, down, up)} added to a component's weights."""
    model = dataclasses.replace(model, **{part: copy.deepcopy(getattr(model, part))})
    for name, (scale, down, up) in deltas.items():
        weight = getattr(model, part).get_submodule(name).weight
        weight.data += scale * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    return model


def is_plain(model):
    for module in (model.unet, model.text_encoder):
        assert not any("lora" in name or "base_layer" in name for name, _ in module.named_modules())
        assert not hasattr(module, "peft_config")
        assert not any(value.requires_grad for value in module.parameters())
    return True


def test_peft_folder(folder, model, untouched, tmp_path):
    state, settings = drawn(model.unet, LoraConfig(r=2, lora_alpha=6, target_modules=TARGETS))
    given = resolve_model(str(save_peft(tmp_path / "adapter", state, settings)))
    assert given.form == "adapter" and given.needs_base
    assert given.digest == resolve_model(str(tmp_path / "adapter" / "adapter_model.safetensors")).digest
    made = overlay(given, None, tmp_path)
    assert (made / "lora" / "adapter_model.safetensors").read_bytes() == (
        tmp_path / "adapter" / "adapter_model.safetensors"
    ).read_bytes()
    found = load_model([folder, made])
    state = bare(state)
    deltas = {
        name.removesuffix(".lora_A.weight"): (3, value, state[name.replace("lora_A", "lora_B")])
        for name, value in state.items()
        if "lora_A" in name
    }
    assert len(deltas) == 32 and is_plain(found)
    assert close(outputs(found), outputs(merged_by_hand(model, "unet", deltas))) == PARTS
    assert close(outputs(found), untouched) == PARTS - {"unet"}


@pytest.mark.parametrize("config", [LoHaConfig, LoKrConfig])
def test_other_adapters_of_peft(folder, model, untouched, tmp_path, config):
    state, settings = drawn(model.unet, config(r=2, target_modules=TARGETS))
    made = overlay(resolve_model(str(save_peft(tmp_path / "adapter", state, settings))), None, tmp_path)
    found = load_model([folder, made])
    assert is_plain(found) and close(outputs(found), untouched) == PARTS - {"unet"}


def test_diffusers_lora_is_the_peft_adapter(folder, model, untouched, tmp_path):
    config = {"r": 2, "lora_alpha": 6}
    unet, unet_settings = drawn(model.unet, LoraConfig(**config, target_modules=TARGETS))
    text, text_settings = drawn(model.text_encoder, LoraConfig(**config, target_modules=["q_proj", "out_proj", "fc1"]))
    peft = save_peft(tmp_path / "peft" / "lora", unet, unet_settings).parent
    # as the training scripts write it, and with the level that transformers took out and files keep
    text = {f"text_model.{name}": value for name, value in bare(text).items()}
    StableDiffusionPipeline.save_lora_weights(
        tmp_path / "diffusers",
        unet_lora_layers=bare(unet),
        text_encoder_lora_layers=text,
        unet_lora_adapter_metadata=unet_settings,
        text_encoder_lora_adapter_metadata=text_settings,
    )
    given = resolve_model(str(tmp_path / "diffusers"))
    renamed = shutil.copyfile(tmp_path / "diffusers" / LORA_WEIGHTS, tmp_path / "style.safetensors")
    assert resolve_model(str(renamed)) == dataclasses.replace(given, reference=str(renamed))
    made = overlay(resolve_model(str(renamed)), None, tmp_path)
    assert [path.name for path in (made / "lora").iterdir()] == [LORA_WEIGHTS]

    merged = load_model([folder, made])
    found = outputs(merged)
    assert is_plain(merged)
    assert equal(found, outputs(load_model([folder, peft]))) == {"unet", "vae"}
    assert close(found, untouched) == {"vae"}
    assert close(found, by_diffusers(model, folder, tmp_path / "diffusers")) == PARTS

    half = load_model([folder, made], dtype="bfloat16")
    assert is_plain(half) and half.unet.dtype == half.text_encoder.dtype == torch.bfloat16
    assert torch.allclose(half.text_states(["a photo of a man", ""]).float(), found["text_encoder"], atol=0.1)


def by_diffusers(model, folder, lora):
    """Outputs of the pipeline that diffusers itself makes of a LoRA."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    pipe.load_lora_weights(lora, weight_name=LORA_WEIGHTS)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    return outputs(dataclasses.replace(model, unet=pipe.unet, text_encoder=pipe.text_encoder))


def test_without_metadata_the_scale_is_one(folder, model, tmp_path):
    state, settings = drawn(model.unet, LoraConfig(r=2, lora_alpha=2, target_modules=TARGETS))
    StableDiffusionPipeline.save_lora_weights(tmp_path / "lora", unet_lora_layers=bare(state))
    peft = save_peft(tmp_path / "peft" / "lora", state, settings).parent
    found = outputs(load_model([folder, tmp_path]))
    assert equal(found, outputs(load_model([folder, peft]))) == PARTS
    assert close(found, by_diffusers(model, folder, tmp_path / "lora")) == PARTS


def kohya(part, modules, ranks, alphas):
    """A LoRA in kohya's layout, with the deltas that it stands for."""
    draw = torch.Generator().manual_seed(1)
    state, deltas = {}, {}
    prefix = "lora_unet" if part == "unet" else "lora_te_text_model"
    for (name, module), rank, alpha in zip(modules.items(), ranks, alphas, strict=True):
        out, inner, *kernel = module.weight.shape
        down = torch.randn(rank, inner, *kernel, generator=draw) * 0.3
        up = torch.randn(out, rank, *[1] * len(kernel), generator=draw) * 0.3
        key = f"{prefix}_{name.replace('.', '_')}"
        state |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
        if alpha is not None:
            state[f"{key}.alpha"] = torch.tensor(float(alpha))
        deltas[name] = (1 if alpha is None else alpha / rank, down, up)
    return state, deltas


def test_kohya_with_an_alpha_per_layer(folder, model, untouched, tmp_path):
    names = [
        UNET_KEY,
        UNET_KEY.replace("to_q", "to_out.0"),
        "down_blocks.1.resnets.0.conv1",
        "mid_block.resnets.1.time_emb_proj",
    ]
    names += ["down_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj", "mid_block.attentions.0.proj_in"]
    unet, deltas = kohya(
        "unet", {n: model.unet.get_submodule(n) for n in names}, (2, 4, 2, 3, 2, 2), (1, 4, 0.5, None, 2, 6)
    )
    names = [TEXT_KEY, TEXT_KEY.replace("q_proj", "out_proj"), "encoder.layers.0.mlp.fc2"]
    text, text_deltas = kohya(
        "text_encoder", {n: model.text_encoder.get_submodule(n) for n in names}, (2, 3, 1), (1, 6, 1)
    )
    file = write(tmp_path / "kohya.safetensors", {**unet, **text})
    given = resolve_model(str(file))
    assert given.form == "adapter"
    merged = load_model([folder, overlay(given, None, tmp_path)])
    assert is_plain(merged)
    by_hand = merged_by_hand(merged_by_hand(model, "unet", deltas), "text_encoder", text_deltas)
    assert close(outputs(merged), outputs(by_hand)) == PARTS
    assert close(outputs(merged), untouched) == {"vae"}


@pytest.mark.parametrize("alpha", [None, 1])
def test_kohya_with_one_alpha_is_as_diffusers_reads_it(folder, model, tmp_path, alpha):
    unet, _ = kohya("unet", {UNET_KEY: model.unet.get_submodule(UNET_KEY)}, (2,), (alpha,))
    names = [TEXT_KEY, TEXT_KEY.replace("q_proj", "out_proj")]
    text, _ = kohya("text", {n: model.text_encoder.get_submodule(n) for n in names}, (2, 2), (alpha, alpha))
    write(tmp_path / "lora" / LORA_WEIGHTS, {**unet, **text})
    assert close(outputs(load_model([folder, tmp_path])), by_diffusers(model, folder, tmp_path / "lora")) == PARTS


def test_attention_processors_without_prefix(folder, model, tmp_path):
    """The oldest layout of diffusers, which its pipelines now pass over with a warning."""
    down, up = torch.randn(2, 16), torch.randn(16, 2)
    key = UNET_KEY.replace("attn1.to_q", "attn1.processor.to_q_lora")
    write(tmp_path / "lora" / LORA_WEIGHTS, {f"{key}.down.weight": down, f"{key}.up.weight": up})
    by_hand = merged_by_hand(model, "unet", {UNET_KEY: (1, down, up)})
    assert close(outputs(load_model([folder, tmp_path])), outputs(by_hand)) == PARTS


@pytest.mark.parametrize("extra", [{"use_dora": True}, {"lora_bias": True}, {"use_rslora": True}])
def test_variants_of_lora(folder, model, untouched, tmp_path, extra):
    targets = ["to_out.0", "proj_in", "conv1"]
    state, settings = drawn(model.unet, LoraConfig(r=2, lora_alpha=4, target_modules=targets, **extra))
    peft = save_peft(tmp_path / "peft" / "lora", state, settings).parent
    StableDiffusionPipeline.save_lora_weights(
        tmp_path / "lora", unet_lora_layers=bare(state), unet_lora_adapter_metadata=settings
    )
    found = outputs(load_model([folder, tmp_path]))
    assert equal(found, outputs(load_model([folder, peft]))) == PARTS
    assert close(found, untouched) == PARTS - {"unet"}


def test_loading_leaves_the_random_state_alone(folder, model, tmp_path):
    state, _ = drawn(model.unet, LoraConfig(r=2, target_modules=TARGETS))
    StableDiffusionPipeline.save_lora_weights(tmp_path / "lora", unet_lora_layers=bare(state))
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    load_model([folder, tmp_path])
    assert torch.equal(torch.rand(1), expected)


def test_layers_over_an_adapter_replace_what_they_have(folder, model, other, tmp_path):
    unet, _ = drawn(model.unet, LoraConfig(r=2, target_modules=TARGETS))
    text, _ = drawn(model.text_encoder, LoraConfig(r=2, target_modules=["q_proj"]))
    StableDiffusionPipeline.save_lora_weights(
        tmp_path / "adapter" / "lora", unet_lora_layers=bare(unet), text_encoder_lora_layers=bare(text)
    )
    shutil.copytree(other / "unet", tmp_path / "full" / "unet")
    adapted = outputs(load_model([folder, tmp_path / "adapter"]))
    over = outputs(load_model([folder, tmp_path / "adapter", tmp_path / "full"]))
    assert equal(over, outputs(load_model([other]))) == {"unet"}
    assert equal(over, adapted) == {"vae", "text_encoder"}
    twice = outputs(load_model([folder, tmp_path / "adapter", tmp_path / "adapter"]))
    assert not {"unet", "text_encoder"} & close(twice, adapted)


# ----------------------------------------------------------------------------------------------------- refusals


def test_what_does_not_fit_is_refused(folder, model, tmp_path):
    def load(name, tensors):
        write(tmp_path / name / "lora" / LORA_WEIGHTS, tensors)
        return load_model([folder, tmp_path / name])

    def lora(key, inner=16, outer=16):
        return {f"{key}.lora_A.weight": torch.ones(2, inner), f"{key}.lora_B.weight": torch.ones(outer, 2)}

    with pytest.raises(RequestError, match=r"does not fit the model's unet: .*not found"):
        load("nowhere", lora("unet.down_blocks.7.attentions.0.to_q"))
    with pytest.raises(RequestError, match=r"does not fit the model's text_encoder: .*not found"):
        load("text", lora("text_encoder.encoder.layers.7.self_attn.q_proj"))
    with pytest.raises(RequestError, match=r"does not fit the model's unet: 2 weights are only in one of both"):
        load("partly", {**lora(f"unet.{UNET_KEY}"), **lora("unet.down_blocks.7.attentions.0.to_q")})
    with pytest.raises(RequestError, match=r"lora_A.weight is \[2, 320\], not \[2, 16\]"):
        load("size", lora(f"unet.{UNET_KEY}", inner=320, outer=320))
    with pytest.raises(RequestError, match=r"does not fit the model's unet: .*lora_A"):
        load("half", {f"unet.{UNET_KEY}.lora_B.weight": torch.ones(16, 2)})
    with pytest.raises(RequestError, match="a LoRA without weights"):
        load("empty", {})
    with pytest.raises(RequestError, match="belongs neither to a U-Net"):
        load("mixed", {**lora(f"unet.{UNET_KEY}"), **lora("prior.to_q")})
    with pytest.raises(RequestError, match="LoRA that diffusers cannot read"):
        load("kohya", {"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": torch.ones(2, 16)})
    with pytest.raises(RequestError, match=r"dora_scale is of a DoRA"):
        load("dora", {"lora_unet_mid_block_attentions_0_proj_in.dora_scale": torch.ones(2, 16)})

    state, settings = drawn(model.unet, LoraConfig(r=2, target_modules=TARGETS))
    elsewhere = {name.replace("blocks", "stages"): value for name, value in state.items()}
    save_peft(tmp_path / "peft" / "lora", elsewhere, settings)
    with pytest.raises(RequestError, match=r"adapter_model.safetensors does not fit the model's unet: 128 weights"):
        load_model([folder, tmp_path / "peft"])
    biased = LoraConfig(r=2, target_modules=["to_q"], lora_bias=True)
    save_peft(tmp_path / "bias" / "lora", *drawn(model.unet, biased))
    with pytest.raises(RequestError, match="the base layer has no bias"):
        load_model([folder, tmp_path / "bias"])
    save_peft(tmp_path / "names" / "lora", state, {**settings, "target_modules": ["q_proj"]})
    with pytest.raises(RequestError, match=r"does not fit the model's unet: .*q_proj"):
        load_model([folder, tmp_path / "names"])


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
        ("lora_unet_mid_block_attentions_0_proj_in.hada_w1_a", "LyCORIS"),
        ("lora_unet_mid_block_attentions_0_proj_in.lokr_w1", "LyCORIS"),
        ("lora_unet_mid_block_attentions_0_proj_in.oft_blocks", "LyCORIS"),
        ("first_stage_model.encoder.conv_in.weight", "a checkpoint without U-Net"),
        ("emb_params", "neither a LoRA nor a Stable Diffusion checkpoint; its weights are called emb_params"),
    ],
)
def test_other_models_are_refused_by_their_keys(tmp_path, key, match):
    refused(write(tmp_path / "m.safetensors", {key: torch.ones(2, 2)}), match)


def test_an_adapter_from_tiny_loads(tmp_path):
    state, _ = drawn(load_model([embedded("tiny")]).unet, LoraConfig(r=4, target_modules=TARGETS))
    StableDiffusionPipeline.save_lora_weights(tmp_path / "lora", unet_lora_layers=bare(state))
    assert is_plain(load_model([embedded("tiny"), tmp_path]))
    assert load_file(tmp_path / "lora" / LORA_WEIGHTS).keys() == {f"unet.{name}" for name in bare(state)}
