"""Checkpoints in one file: converted by diffusers' own rules into parts of a Stable Diffusion folder."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lmia.models.headers import weight_names
from lmia.specs import RequestError

if TYPE_CHECKING:
    from torch import Tensor

LDM_UNET, LDM_VAE, LDM_TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
"""What the names of the weights begin with in the original layout."""
UNET_PREFIXES = (LDM_UNET, "diffusion_model.", "")
"""What may stand before `input_blocks.`: the original code's, ComfyUI's, and that of a U-Net alone."""
DIFFUSERS_UNET_KEYS = {"conv_in.weight", "conv_out.weight", "time_embedding.linear_1.weight"}
"""Weights by which a U-Net alone in diffusers' layout is known."""
TEXT_KEYS_UNUSED = ("embeddings.position_ids", "text_projection.weight", "logit_scale")
"""Weights that some checkpoints have beside the text encoder's; a constant, and two that are CLIP's, not its."""


def convert(file: Path, base: Path, scratch: Path, reference: str) -> dict[str, Path]:
    """Writes a checkpoint's parts in diffusers' format, one after the other, with the base's configurations.

    Args:
        file: the checkpoint, in the original or in diffusers' layout.
        base: folder of the base model.
        scratch: where the converted weights are written.
        reference: what the person called the checkpoint, for messages.

    Returns:
        The files of an overlay by their path inside of it.

    Raises:
        RequestError: the base does not have the checkpoint's architecture.
    """
    keys = weight_names(file, reference)
    found: dict[str, Path] = {}
    for part, converter in {"unet": _unet, "vae": _vae, "text_encoder": _text_encoder}.items():
        config = base / part / "config.json"
        if not config.is_file():
            raise RequestError(f"base = {str(base)!r}: no {part}/config.json in it")
        converted = converter(file, keys, config)
        if converted is None:
            continue
        if fault := converted.misfit():
            raise RequestError(
                f"model = {reference!r}: the base {str(base)!r} does not have the checkpoint's architecture: "
                f"{part}: {fault}"
            )
        name = "model.safetensors" if part == "text_encoder" else "diffusion_pytorch_model.safetensors"
        _save(converted.weights, scratch / part / name)
        found |= {f"{part}/config.json": config, f"{part}/{name}": scratch / part / name}
    return found


class _Converted(NamedTuple):
    """A component of a checkpoint under diffusers' names."""

    weights: "dict[str, Tensor]"
    expected: "Mapping[str, Tensor]"
    """What the base's configuration asks for, on no device."""
    dropped: int = 0
    """How many weights the conversion left out."""

    def misfit(self) -> str:
        """The first difference from what is expected, empty if there is none."""
        for name in sorted({*self.expected, *self.weights}):
            if name not in self.weights:
                return f"{name} is not in the checkpoint"
            if name not in self.expected:
                return f"{name} is not in the base"
            shape, other = list(self.weights[name].shape), list(self.expected[name].shape)
            if shape != other:
                return f"{name} is {shape} in the checkpoint, {other} in the base"
        return f"{self.dropped} weights of the checkpoint have no place in the base" if self.dropped else ""


def _unet(file: Path, keys: Iterable[str], config: Path) -> _Converted:
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    module = _empty(UNet2DConditionModel, config)
    if DIFFUSERS_UNET_KEYS.issubset(keys):
        return _Converted(_read(file, keys), module.state_dict())
    keys = list(keys)
    start = next(one for one in UNET_PREFIXES if f"{one}input_blocks.0.0.weight" in keys)
    others = (LDM_VAE, LDM_TEXT, "text_encoders.", "vae.", "model_ema.")
    own = [key for key in keys if key.startswith(start) and (start or not key.startswith(others))]
    tensors = {LDM_UNET + key.removeprefix(start): value for key, value in _read(file, own).items()}
    weights = convert_ldm_unet_checkpoint(tensors, module.config)
    return _Converted(weights, module.state_dict(), len(tensors) - len(weights))


def _vae(file: Path, keys: Iterable[str], config: Path) -> _Converted | None:
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    # first_stage_model. also holds the loss and the moving averages of its training
    parts = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
    own = [key for key in keys if key.startswith(tuple(LDM_VAE + part for part in parts))]
    if not own:
        return None
    module = _empty(AutoencoderKL, config)
    tensors = {_old_attention(key): value for key, value in _read(file, own).items()}
    weights = convert_ldm_vae_checkpoint(tensors, module.config)
    return _Converted(weights, module.state_dict(), len(tensors) - len(weights))


def _old_attention(key: str) -> str:
    """The original name of a weight of the VAE's attention: some converters leave diffusers' new one."""
    head, at, tail = key.partition(".attn_1.")
    tail = re.sub(r"^to_([qkv])\.", r"\1.", tail)
    return head + at + tail.replace("to_out.0.", "proj_out.").replace("group_norm.", "norm.")


def _text_encoder(file: Path, keys: Iterable[str], config: Path) -> _Converted | None:
    import torch
    from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_open_clip_checkpoint
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel

    tensors = _read(file, [key for key in keys if key.startswith(LDM_TEXT)])
    if not tensors:
        return None
    with torch.device("meta"):
        module = CLIPTextModel(CLIPTextConfig.from_pretrained(config.parent, local_files_only=True))
    if any(key.startswith(f"{LDM_TEXT}model.") for key in tensors):
        named = convert_open_clip_checkpoint(module, tensors, prefix=f"{LDM_TEXT}model.")
    else:
        named = convert_ldm_clip_checkpoint(tensors)
    named = {flat_name(name): value for name, value in named.items()}
    weights = {name: value for name, value in named.items() if name not in TEXT_KEYS_UNUSED}
    return _Converted(weights, module.state_dict())


def flat_name(name: str) -> str:
    """A name in CLIPTextModel, out of which transformers took a level that files keep."""
    return name.removeprefix("text_model.")


def _empty(kind: Any, config: Path) -> Any:
    """A diffusers component on no device."""
    import torch

    with torch.device("meta"):
        return kind.from_config(json.loads(config.read_text(encoding="utf-8")))


def _read(file: Path, keys: Iterable[str]) -> "dict[str, Tensor]":
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        return {key: opened.get_tensor(key) for key in keys}


def _save(weights: "Mapping[str, Tensor]", file: Path) -> None:
    import torch
    from safetensors.torch import save_file

    file.parent.mkdir(parents=True, exist_ok=True)
    usual = (torch.float32, torch.float16, torch.bfloat16)
    tensors = {name: (value if value.dtype in usual else value.float()).contiguous() for name, value in weights.items()}
    save_file(tensors, file, metadata={"format": "pt"})
