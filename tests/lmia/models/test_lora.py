import copy
import dataclasses
import json
import shutil

import pytest
import torch
from compare import PARTS, close, equal, outputs, overlay
from diffusers import StableDiffusionPipeline
from ldm import write
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file

from lmia.api import load
from lmia.embedded import embedded
from lmia.models.files import LORA_WEIGHTS
from lmia.models.load import load_model
from lmia.resolve import resolve_model
from lmia.specs import RequestError

TARGETS = ["to_k", "to_q", "to_v", "to_out.0"]
UNET_KEY = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
TEXT_KEY = "encoder.layers.0.self_attn.q_proj"


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


def test_loading_by_name_puts_an_adapter_over_its_base(folder, model, tmp_path):
    adapter = save_peft(tmp_path / "adapter", *drawn(model.unet, LoraConfig(r=2, target_modules=TARGETS)))
    made = overlay(resolve_model(str(adapter)), None, tmp_path)
    found = load(str(adapter), base=str(folder), device="cpu")
    assert equal(outputs(found), outputs(load_model([folder, made]))) == PARTS
    with pytest.raises(RequestError, match=r"model = .*adapter; name the model it belongs to"):
        load(str(adapter))
    whole = load(str(folder), device="cpu")
    assert equal(outputs(whole), outputs(model)) == PARTS and whole.layers == (str(folder),)


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
    assert torch.allclose(half.condition(["a photo of a man", ""]).float(), found["text_encoder"], atol=0.1)


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
    with pytest.raises(RequestError, match=r"a magnitude .DoRA. without the low-rank"):
        load("dora", {"lora_unet_mid_block_attentions_0_proj_in.dora_scale": torch.ones(2, 16)})

    state, settings = drawn(model.unet, LoraConfig(r=2, target_modules=TARGETS))
    elsewhere = {name.replace("blocks", "stages"): value for name, value in state.items()}
    save_peft(tmp_path / "peft" / "lora", elsewhere, settings)
    with pytest.raises(RequestError, match=r"adapter_model.safetensors' does not fit the model's unet: 128 weights"):
        load_model([folder, tmp_path / "peft"])
    biased = LoraConfig(r=2, target_modules=["to_q"], lora_bias=True)
    save_peft(tmp_path / "bias" / "lora", *drawn(model.unet, biased))
    with pytest.raises(RequestError, match="the base layer has no bias"):
        load_model([folder, tmp_path / "bias"])
    save_peft(tmp_path / "names" / "lora", state, {**settings, "target_modules": ["q_proj"]})
    with pytest.raises(RequestError, match=r"does not fit the model's unet: .*q_proj"):
        load_model([folder, tmp_path / "names"])


def test_an_adapter_from_tiny_loads(tmp_path):
    state, _ = drawn(load_model([embedded("tiny")]).unet, LoraConfig(r=4, target_modules=TARGETS))
    StableDiffusionPipeline.save_lora_weights(tmp_path / "lora", unet_lora_layers=bare(state))
    assert is_plain(load_model([embedded("tiny"), tmp_path]))
    assert load_file(tmp_path / "lora" / LORA_WEIGHTS).keys() == {f"unet.{name}" for name in bare(state)}
