"""Under which names trainers write the layers of a U-Net and a text encoder: taken from the layers that are there."""

from collections.abc import Iterator
from typing import Any

UNET_STARTS = ("lora_unet_", "lycoris_unet_", "unet.", "diffusion_model.", "model.diffusion_model.")
TEXT_STARTS = ("lora_te_", "lora_te1_", "text_encoder.", "text_encoders.clip_l.transformer.")
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
"""Layers of a residual block in diffusers and in the original code."""


def spellings(part: str, module: Any) -> dict[str, str]:
    """Names of a part's layers that have weights, by every spelling that trainers use.

    diffusers' and peft's dotted names, kohya's with underscores, the original code's with either (ComfyUI writes these
    after `diffusion_model.`).

    Args:
        part: "unet" or "text_encoder".
        module: the part.
    """
    layers = [name for name, layer in module.named_modules() if getattr(layer, "weight", None) is not None]
    found: dict[str, str] = {}
    if part == "unet":
        original = dict(_original(module))
        for name in layers:
            old = _renamed(name, original)
            flat = [one.replace(".", "_") for one in (name, old)]
            found |= dict.fromkeys((name, f"unet.{name}", f"lora_unet_{flat[0]}", f"lora_unet_{flat[1]}"), name)
            found |= {
                f"{start}{one}": name for start in ("diffusion_model.", "model.diffusion_model.") for one in (old, name)
            }
            found[old] = name
    else:
        for name in layers:
            bare = name.removeprefix("text_model.")
            for one in (bare, f"text_model.{bare}"):
                flat_name = one.replace(".", "_")
                found |= dict.fromkeys((f"lora_te_{flat_name}", f"lora_te1_{flat_name}", f"text_encoder.{one}"), name)
                found[f"text_encoders.clip_l.transformer.{one}"] = name
    return found


def part_of(key: str) -> str:
    """The part that a weight of an adapter is for, by how its name begins."""
    return "text_encoder" if key.startswith(TEXT_STARTS) else "unet"


def _original(unet: Any) -> Iterator[tuple[str, str]]:
    """(diffusers' prefix, the original code's prefix) of the blocks of a U-Net."""
    yield from {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    }.items()
    at = 1
    for block, down in enumerate(unet.down_blocks):
        for n in range(len(down.resnets)):
            yield f"down_blocks.{block}.resnets.{n}", f"input_blocks.{at}.0"
            yield f"down_blocks.{block}.attentions.{n}", f"input_blocks.{at}.1"
            at += 1
        if down.downsamplers:
            yield f"down_blocks.{block}.downsamplers.0.conv", f"input_blocks.{at}.0.op"
            at += 1
    at = 0
    for block, up in enumerate(unet.up_blocks):
        attends = bool(getattr(up, "attentions", None))
        for n in range(len(up.resnets)):
            yield f"up_blocks.{block}.resnets.{n}", f"output_blocks.{at}.0"
            yield f"up_blocks.{block}.attentions.{n}", f"output_blocks.{at}.1"
            at += 1
        if up.upsamplers:
            yield f"up_blocks.{block}.upsamplers.0", f"output_blocks.{at - 1}.{2 if attends else 1}"


def _renamed(name: str, original: dict[str, str]) -> str:
    for new, old in original.items():
        if name == new or name.startswith(f"{new}."):
            rest = name[len(new) + 1 :]
            rest = RESNET.get(rest, rest) if ".resnets." in new else rest
            return f"{old}.{rest}" if rest else old
    return name
