"""A Stable Diffusion folder written back into the layout of the original code, the reverse of what lmia reads."""

import json

import torch
from safetensors.torch import load_file, save_file

UNET_RESNET = {
    "norm1.": "in_layers.0.",
    "conv1.": "in_layers.2.",
    "time_emb_proj.": "emb_layers.1.",
    "norm2.": "out_layers.0.",
    "conv2.": "out_layers.3.",
    "conv_shortcut.": "skip_connection.",
}
VAE_RESNET = {"conv_shortcut.": "nin_shortcut."}
VAE_ATTENTION = {"group_norm.": "norm.", "to_q.": "q.", "to_k.": "k.", "to_v.": "v.", "to_out.0.": "proj_out."}
OPEN_CLIP_LAYER = {
    "layer_norm1.": "ln_1.",
    "layer_norm2.": "ln_2.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
    "self_attn.out_proj.": "attn.out_proj.",
}


def weights_of(folder, part):
    """The weights of a component in diffusers' format."""
    (file,) = (folder / part).glob("*.safetensors")
    return load_file(file)


def config_of(folder, part):
    return json.loads((folder / part / "config.json").read_text())


def renamed(name, starts, inside=()):
    """`name` with its beginning replaced, and what follows it by the table that `inside` has for that beginning."""
    for old, new in starts.items():
        if name.startswith(old):
            rest = name.removeprefix(old)
            return new + next((renamed(rest, table) for part, table in dict(inside).items() if part in old), rest)
    return name


def unet_keys(folder):
    """Original U-Net weights."""
    config = config_of(folder, "unet")
    layers = config["layers_per_block"]
    starts = {
        "time_embedding.linear_1.": "time_embed.0.",
        "time_embedding.linear_2.": "time_embed.2.",
        "conv_in.": "input_blocks.0.0.",
        "conv_norm_out.": "out.0.",
        "conv_out.": "out.2.",
        "mid_block.resnets.0.": "middle_block.0.",
        "mid_block.attentions.0.": "middle_block.1.",
        "mid_block.resnets.1.": "middle_block.2.",
    }
    for block, kind in enumerate(config["up_block_types"]):
        first = block * (layers + 1)
        for n in range(layers + 1):
            starts[f"down_blocks.{block}.resnets.{n}."] = f"input_blocks.{first + n + 1}.0."
            starts[f"down_blocks.{block}.attentions.{n}."] = f"input_blocks.{first + n + 1}.1."
            starts[f"up_blocks.{block}.resnets.{n}."] = f"output_blocks.{first + n}.0."
            starts[f"up_blocks.{block}.attentions.{n}."] = f"output_blocks.{first + n}.1."
        starts[f"down_blocks.{block}.downsamplers.0.conv."] = f"input_blocks.{first + layers + 1}.0.op."
        at = 2 if "CrossAttn" in kind else 1
        starts[f"up_blocks.{block}.upsamplers.0."] = f"output_blocks.{first + layers}.{at}."
    return {
        f"model.diffusion_model.{renamed(name, starts, {'resnets': UNET_RESNET})}": value
        for name, value in weights_of(folder, "unet").items()
    }


def vae_keys(folder, *, rename_attention=True):
    """Original VAE weights; its attention keeps diffusers' names if asked to, as some converters leave them."""
    levels = len(config_of(folder, "vae")["block_out_channels"])
    starts = {}
    for side in ("encoder", "decoder"):
        starts[f"{side}.mid_block.attentions.0."] = f"{side}.mid.attn_1."
        starts[f"{side}.conv_norm_out."] = f"{side}.norm_out."
        for n in range(2):
            starts[f"{side}.mid_block.resnets.{n}."] = f"{side}.mid.block_{n + 1}."
    for level in range(levels):
        up = levels - 1 - level
        starts[f"encoder.down_blocks.{level}.downsamplers.0."] = f"encoder.down.{level}.downsample."
        starts[f"decoder.up_blocks.{level}.upsamplers.0."] = f"decoder.up.{up}.upsample."
        for n in range(4):
            starts[f"encoder.down_blocks.{level}.resnets.{n}."] = f"encoder.down.{level}.block.{n}."
            starts[f"decoder.up_blocks.{level}.resnets.{n}."] = f"decoder.up.{up}.block.{n}."
    inside = {"resnets": VAE_RESNET, "attentions": VAE_ATTENTION if rename_attention else {}}
    return {
        f"first_stage_model.{renamed(name, starts, inside)}": value[:, :, None, None]
        if rename_attention and "attentions" in name and value.ndim == 2
        else value
        for name, value in weights_of(folder, "vae").items()
    }


def text_keys(folder):
    """Original weights of CLIP's text encoder as Stable Diffusion 1 has it."""
    prefix = "cond_stage_model.transformer.text_model."
    state = weights_of(folder, "text_encoder")
    positions = torch.arange(len(state["embeddings.position_embedding.weight"]))[None]
    return {prefix + name: value for name, value in {**state, "embeddings.position_ids": positions}.items()}


def open_clip_keys(folder):
    """Original weights of OpenCLIP's text encoder as Stable Diffusion 2 has it."""
    starts = {
        "embeddings.token_embedding.": "token_embedding.",
        "embeddings.position_embedding.weight": "positional_embedding",
        "final_layer_norm.": "ln_final.",
    }
    state = weights_of(folder, "text_encoder")
    found = {}
    for layer in range(config_of(folder, "text_encoder")["num_hidden_layers"]):
        old, new = f"encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
        starts[old] = new
        for kind in ("weight", "bias"):
            parts = [state.pop(f"{old}self_attn.{one}_proj.{kind}") for one in "qkv"]
            found[f"{new}attn.in_proj_{kind}"] = torch.cat(parts)
    found |= {renamed(name, starts, {"layers": OPEN_CLIP_LAYER}): value for name, value in state.items()}
    found |= {"text_projection": torch.eye(len(found["ln_final.weight"])), "logit_scale": torch.ones(())}
    return {f"cond_stage_model.model.{name}": value for name, value in found.items()}


def write(file, tensors):
    """Writes weights to `file` and returns it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, file)
    return file
