"""Every form of adapter against its definition: Yeh et al. 2024 (LyCORIS), Liu et al. 2024 (DoRA)."""

import json
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ldm import write
from peft import LoraConfig
from safetensors.torch import save_file
from test_lora import TARGETS, drawn, save_peft

from lmia.api import load
from lmia.models.headers import weight_shapes
from lmia.models.load import load_model
from lmia.resolve import resolve_model
from lmia.specs import RequestError

LINEAR = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
CONV = "down_blocks.1.resnets.0.conv1"
SPELLED = {
    "kohya": lambda name: "lora_unet_" + name.replace(".", "_"),
    "comfy": lambda name: "diffusion_model." + ORIGINAL[name],
    "original": lambda name: "lora_unet_" + ORIGINAL[name].replace(".", "_"),
    "diffusers": lambda name: "unet." + name,
}
ORIGINAL = {
    LINEAR: "input_blocks.3.1.transformer_blocks.0.attn1.to_q",
    CONV: "input_blocks.3.0.in_layers.2",
}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + len(shape) + sum(shape))) * 0.3


def low_rank(weight, r=2):
    """LoRA and LoCon: s U D."""
    down, up = draw(r, *weight.shape[1:]), draw(weight.shape[0], r, *[1] * (weight.ndim - 2))
    delta = torch.einsum("or,ri...->oi...", up.flatten(1), down)
    return {"lora_down.weight": down, "lora_up.weight": up}, delta, r


def tucker(weight, r=2):
    """LoCon with a core."""
    down, up = draw(r, weight.shape[1], 1, 1), draw(weight.shape[0], r, 1, 1)
    core = draw(r, r, *weight.shape[2:])
    delta = torch.einsum("or,rskl,si->oikl", up[:, :, 0, 0], core, down[:, :, 0, 0])
    return {"lora_down.weight": down, "lora_up.weight": up, "lora_mid.weight": core}, delta, r


def hadamard(weight, r=2):
    out, inner = weight.shape[0], weight[0].numel()
    one, two = [(draw(out, r, seed=n), draw(r, inner, seed=n)) for n in (1, 2)]
    delta = ((one[0] @ one[1]) * (two[0] @ two[1])).reshape(weight.shape)
    return {"hada_w1_a": one[0], "hada_w1_b": one[1], "hada_w2_a": two[0], "hada_w2_b": two[1]}, delta, r


def hadamard_tucker(weight, r=2):
    tensors, deltas = {}, []
    for n in (1, 2):
        core, a, b = (
            draw(r, r, *weight.shape[2:], seed=n),
            draw(r, weight.shape[0], seed=n),
            draw(r, weight.shape[1], seed=n),
        )
        tensors |= {f"hada_t{n}": core, f"hada_w{n}_a": a, f"hada_w{n}_b": b}
        deltas.append(torch.einsum("ijkl,ip,jr->prkl", core, a, b))
    return tensors, deltas[0] * deltas[1], r


def kronecker(weight, r=2):
    one = draw(2, 4)
    a, b = draw(weight.shape[0] // 2, r), draw(r, weight[0].numel() // 4)
    two = (a @ b).reshape(weight.shape[0] // 2, weight.shape[1] // 4, *weight.shape[2:])
    blocks = torch.einsum("ab,cd...->acbd...", one, two)  # entry by entry: W[ac, bd] = K1[a, b] K2[c, d]
    return {"lokr_w1": one, "lokr_w2_a": a, "lokr_w2_b": b}, blocks.reshape(weight.shape), r


def kronecker_whole(weight):
    tensors, delta, _ = kronecker(weight)
    two = (tensors.pop("lokr_w2_a") @ tensors.pop("lokr_w2_b")).reshape(-1, weight.shape[1] // 4, *weight.shape[2:])
    return {**tensors, "lokr_w2": two}, delta, None


def difference(weight):
    delta = draw(*weight.shape)
    return {"diff": delta}, delta, None


FORMS = [low_rank, hadamard, kronecker, kronecker_whole, difference]


def weight_of(model, name):
    return model.unet.get_submodule(name).weight.detach()


def found(folder, tensors, to):
    return load(write(to / "a.safetensors", tensors), base=folder, device="cpu")


@pytest.mark.parametrize("spelled", SPELLED)
@pytest.mark.parametrize("form", [*FORMS, tucker, hadamard_tucker])
def test_each_form_is_its_definition(folder, model, tmp_path, form, spelled):
    tensors, expected = {}, {}
    for name in (CONV,) if "tucker" in form.__name__ else (LINEAR, CONV):
        weight = weight_of(model, name)
        values, delta, rank = form(weight)
        if spelled in ("comfy", "diffusers"):
            values = {
                key.replace("lora_down", "lora_A").replace("lora_up", "lora_B"): value for key, value in values.items()
            }
        tensors |= {f"{SPELLED[spelled](name)}.{key}": value for key, value in values.items()}
        if spelled == "diffusers" and form is low_rank:  # this one's scale is peft's matter
            rank = None
        else:
            tensors[f"{SPELLED[spelled](name)}.alpha"] = torch.tensor(3.0)
        expected[name] = weight + delta * (1 if rank is None else 3 / rank)
    tuned = found(folder, tensors, tmp_path)
    for name, value in expected.items():
        assert torch.allclose(weight_of(tuned, name), value, atol=1e-6)
    same = set(dict(tuned.unet.named_parameters())) - {f"{name}.weight" for name in expected}
    assert all(torch.equal(tuned.unet.get_parameter(one), model.unet.get_parameter(one)) for one in same)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("form", FORMS[:4])
def test_dora_over_each(folder, model, tmp_path, form, axis):
    tensors, expected = {}, {}
    for name in (LINEAR, CONV):
        weight = weight_of(model, name)
        values, delta, _ = form(weight)
        shape = [1] * weight.ndim
        shape[axis] = weight.shape[axis]
        magnitude = draw(*shape).abs() + 1
        changed = weight + delta
        norm = changed.transpose(0, axis).flatten(1).norm(dim=1).reshape(shape)
        expected[name] = magnitude * changed / norm
        tensors |= {f"{SPELLED['kohya'](name)}.{key}": v for key, v in {**values, "dora_scale": magnitude}.items()}
    tuned = found(folder, tensors, tmp_path)
    for name, value in expected.items():
        assert torch.allclose(weight_of(tuned, name), value, atol=1e-5)


def test_cloneofsimo(folder, model, tmp_path):
    """Layers by number, in the order that diffusers 0.10 and transformers 4.25 had them."""
    tensors, expected, at = {}, {}, 0
    for block in (
        "down_blocks.1.attentions.0",
        "up_blocks.0.attentions.0",
        "up_blocks.0.attentions.1",
        "mid_block.attentions.0",
    ):
        for layer in (
            *(f"attn1.{one}" for one in ("to_q", "to_k", "to_v", "to_out.0")),
            "ff.net.0.proj",
            *(f"attn2.{one}" for one in ("to_q", "to_k", "to_v", "to_out.0")),
        ):
            name = f"{block}.transformer_blocks.0.{layer}"
            weight = weight_of(model, name)
            up, down = draw(weight.shape[0], 1, seed=at), draw(1, weight.shape[1], seed=at)
            tensors |= {f"unet:{at}:up": up, f"unet:{at}:down": down}
            expected[name], at = weight + up @ down, at + 1
    file = tmp_path / "a.safetensors"
    said = {"unet": json.dumps(["CrossAttention", "Attention", "GEGLU"])}
    save_file(tensors, file, metadata=said)
    tuned = load(file, base=folder, device="cpu")
    assert all(torch.allclose(weight_of(tuned, name), value, atol=1e-6) for name, value in expected.items())
    tensors.pop("unet:3:up")
    save_file(tensors, file, metadata=said)
    with pytest.raises(RequestError, match=r"a.safetensors': unet:3 has no up"):
        load(file, base=folder, device="cpu")


def test_peft_folders_of_both_parts(folder, model, tmp_path):
    for part, targets in (("unet", TARGETS), ("text_encoder", ["q_proj"])):
        (tmp_path / "a" / part).mkdir(parents=True)
        state, told = drawn(getattr(model, part), LoraConfig(r=2, target_modules=targets))
        save_peft(tmp_path / "a" / part, state, told)
    tuned = load(tmp_path / "a", base=folder, device="cpu")
    layer = "encoder.layers.0.self_attn.q_proj"
    state = {k.removeprefix("base_model.model."): v for k, v in state.items()}
    delta = state[f"{layer}.lora_B.weight"] @ state[f"{layer}.lora_A.weight"] * 4
    before = model.text_encoder.get_submodule(layer).weight
    assert torch.allclose(tuned.text_encoder.get_submodule(layer).weight, before + delta, atol=1e-6)
    assert not torch.equal(weight_of(tuned, LINEAR), weight_of(model, LINEAR))


@pytest.mark.parametrize("vectors", [1, 3])
@pytest.mark.parametrize("key", ["emb_params", "<zorg>"])
def test_textual_inversion(folder, model, tmp_path, key, vectors):
    values = draw(vectors, 16)
    file = write(tmp_path / "zorgstyle.safetensors", {key: values})
    word = "zorgstyle" if key == "emb_params" else key
    tuned = load(file, base=folder, device="cpu")
    assert torch.equal(tuned.condition(["a photo of a man"]), model.condition(["a photo of a man"]))
    assert not torch.equal(tuned.condition([f"a {word} man"]), model.condition([f"a {word} man"]))
    ids = [tuned.tokenizer.convert_tokens_to_ids(w) for w in [word] + [f"{word}_{n}" for n in range(1, vectors)]]
    assert torch.equal(tuned.text_encoder.get_input_embeddings().weight[ids], values)
    with pytest.raises(RequestError, match=r"zorgstyle.*vectors of 8 numbers; .*has 16"):
        load(write(file, {key: draw(vectors, 8)}), base=folder, device="cpu")


def test_nan_is_refused(folder, tmp_path):
    tensors = {
        f"unet.{LINEAR}.lora_A.weight": torch.full((2, 16), float("nan")),
        f"unet.{LINEAR}.lora_B.weight": draw(16, 2),
    }
    with pytest.raises(RequestError, match=r"a.safetensors'.*NaN"):
        found(folder, tensors, tmp_path)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_never_a_part_of_an_adapter(model, tmp_path, data):
    """Renamed, dropped and added keys: refused with the file's name, or nothing was left out."""
    from lmia.models.lora import merge_adapter
    from lmia.models.lowrank import LAYER_FILE

    form = data.draw(st.sampled_from(FORMS[1:4]))
    values, *_ = form(weight_of(model, LINEAR))
    tensors = {f"{SPELLED['kohya'](LINEAR)}.{key}": value for key, value in values.items()}
    key = data.draw(st.sampled_from(sorted(tensors)))
    fault = data.draw(st.sampled_from(["rename", "drop", "add", "shape"]))
    text = data.draw(st.text("abcxyz_.019", min_size=1, max_size=12))
    if fault == "rename":
        tensors[text + key] = tensors.pop(key)
    elif fault == "drop":
        tensors.pop(key)
    elif fault == "add":
        tensors[key + text] = torch.ones(2, 2)
    else:
        tensors[key] = torch.ones(5, 7)
    shutil.rmtree(tmp_path / "lora", ignore_errors=True)
    write(tmp_path / "lora" / LAYER_FILE, tensors)
    before = weight_of(model, LINEAR).clone()
    with pytest.raises(RequestError, match=LAYER_FILE):
        merge_adapter(tmp_path / "lora", {"unet": model.unet, "text_encoder": model.text_encoder})
    assert torch.equal(weight_of(model, LINEAR), before)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "is a Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"PK\x03\x04data", "is a pickle under another name"),
        ((20).to_bytes(8, "little") + b'{"a":', "is cut off"),
        (b"torn", "is not a safetensors file"),
    ],
)
def test_files_that_are_no_weights(folder, tmp_path, content, match):
    file = tmp_path / "m.safetensors"
    file.write_bytes(content)
    with pytest.raises(RequestError, match=rf"model = .*m.safetensors {match}"):
        resolve_model(str(file))
    copy = shutil.copytree(folder, tmp_path / "whole")
    (copy / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(content)
    with pytest.raises(RequestError, match=match):
        resolve_model(str(copy))


def test_trainers_checkpoints(folder, model, other, tmp_path):
    step = tmp_path / "checkpoint-500"
    shutil.copytree(other / "unet", step / "unet")
    (step / "optimizer.bin").write_bytes(b"\x80\x02.")
    given_model = resolve_model(str(step))
    assert given_model.form == "checkpoint" and given_model.needs_base
    tuned = load(step, base=folder, device="cpu")
    assert torch.equal(weight_of(tuned, LINEAR), weight_of(load_model([other]), LINEAR))
    assert torch.equal(
        tuned.vae.state_dict()["decoder.conv_in.weight"], model.vae.state_dict()["decoder.conv_in.weight"]
    )
    alone = load(step / "unet", base=folder, device="cpu")
    assert torch.equal(weight_of(alone, LINEAR), weight_of(tuned, LINEAR))
    with pytest.raises(RequestError, match=r"a training's folder; name one of checkpoint-500"):
        resolve_model(str(tmp_path))
    shutil.rmtree(step / "unet")
    resolve_model.cache_clear()
    with pytest.raises(RequestError, match="state of a training only"):
        resolve_model(str(step))


@pytest.mark.parametrize("variant", ["bf16", "non_ema"])
def test_variants(folder, model, tmp_path, variant):
    copy = shutil.copytree(folder, tmp_path / "v")
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name(f"diffusion_pytorch_model.{variant}.safetensors"))
    assert torch.equal(weight_of(load(copy, device="cpu"), LINEAR), weight_of(model, LINEAR))


def test_whole_models_that_lack_something(folder, tmp_path):
    from safetensors.torch import load_file

    copy = shutil.copytree(folder, tmp_path / "v")
    file, config = copy / "unet" / "diffusion_pytorch_model.safetensors", copy / "unet" / "config.json"
    tensors, told = load_file(file), json.loads(config.read_text())
    write(file, {name: value for name, value in tensors.items() if name != "conv_in.bias"})
    with pytest.raises(RequestError, match=r"unet.*conv_in.bias"):
        load(copy, device="cpu")
    config.write_text(json.dumps({**told, "in_channels": 9}))
    resolve_model.cache_clear()
    with pytest.raises(RequestError, match=r"9 input channels .an inpainting model"):
        load(copy, device="cpu")
    config.unlink()
    resolve_model.cache_clear()
    with pytest.raises(RequestError, match=r"unet/config.json"):
        load(copy, device="cpu")
    assert weight_shapes(file, "x")["conv_in.weight"] == (8, 4, 3, 3)
