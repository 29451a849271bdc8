"""In which form a model comes: told from names of files and the header of a safetensors file, never from weights."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from lmia.models.checkpoint import DIFFUSERS_UNET_KEYS, LDM_TEXT, LDM_UNET, LDM_VAE, weight_names
from lmia.models.files import PICKLES, missing_parts, pickle_refused, weight_files
from lmia.models.lora import (
    ADAPTER_CONFIG,
    ADAPTER_TYPES,
    ADAPTER_WEIGHTS,
    LORA_KEYS,
    LORA_WEIGHTS,
    LYCORIS_KEYS,
    check_lora_keys,
)
from lmia.specs import RequestError

Form = Literal["pipeline", "adapter", "checkpoint"]
"""A whole folder; an adapter that lies over a base; a checkpoint that takes what it lacks from one."""

ALLOWED = (
    "allowed are a Stable Diffusion folder in diffusers' format, a LoRA of peft or diffusers, a checkpoint (a "
    ".safetensors file), OWNER/NAME@REVISION of the hub"
)
FAMILIES = {
    "Stable Diffusion XL": (
        *("conditioner.embedders.", "label_emb.", "add_embedding.", "text_encoder_2.", "lora_te2_"),
        *("lora_unet_input_blocks_", "lora_unet_output_blocks_"),
    ),
    "Flux": ("double_blocks.", "single_transformer_blocks.", "lora_unet_double_blocks_", "lora_unet_single_blocks_"),
    "Stable Diffusion 3": ("joint_blocks.", "text_encoders.", "pos_embed.proj.", "lora_unet_joint_blocks_"),
    "diffusion transformer (Stable Diffusion 3, Flux or kin)": ("transformer.",),
    "ControlNet": ("control_model.", "controlnet_cond_embedding."),
}
"""Other models, by what the names of their weights begin with once `model.diffusion_model.` is taken off."""


def form_of(path: Path, reference: str, allowed: str = ALLOWED) -> tuple[Form, dict[str, Path]]:
    """Form and files of what lies at an existing path; an adapter's files by their path in the overlay.

    Raises:
        RequestError: a pickle, or nothing of Stable Diffusion 1's or 2's kind; `allowed` says what would be.
    """
    if path.is_dir():
        safe, pickles = weight_files(path)
        names = [file.name for file in safe]
        if ADAPTER_WEIGHTS in names and LORA_WEIGHTS in names:
            raise RequestError(
                f"model = {reference!r}: two adapters, {ADAPTER_WEIGHTS} and {LORA_WEIGHTS}; name the file of one"
            )
        if ADAPTER_WEIGHTS in names or (path / ADAPTER_CONFIG).is_file():
            return "adapter", _peft_files(path, reference)
        if LORA_WEIGHTS in names:
            return "adapter", _file_of(path / LORA_WEIGHTS, reference)[1]
        if len(safe) == 1:
            return _file_of(safe[0], reference)
        if safe:
            raise RequestError(
                f"model = {reference!r}: a folder with several .safetensors files ({', '.join(names[:4])}"
                f"{', ...' if len(names) > 4 else ''}); name one of them"
            )
        if pickles:
            raise pickle_refused("model", reference, pickles[0])
        missing = ", ".join(missing_parts(path))
        raise RequestError(
            f"model = {reference!r}: a folder without weights that lmia knows: no {missing} of a Stable "
            f"Diffusion folder in it, no {ADAPTER_WEIGHTS}, no {LORA_WEIGHTS}; {allowed}"
        )
    if path.suffix.lower() in PICKLES:
        raise pickle_refused("model", reference, path)
    if path.suffix != ".safetensors":
        raise RequestError(f"model = {reference!r}: not a .safetensors file; {allowed}")
    return _file_of(path, reference)


def _peft_files(folder: Path, reference: str) -> dict[str, Path]:
    weights, config = folder / ADAPTER_WEIGHTS, folder / ADAPTER_CONFIG
    if not weights.is_file():
        pickles = weight_files(folder)[1]
        if pickles:
            raise pickle_refused("model", reference, pickles[0])
        raise RequestError(f"model = {reference!r}: a peft adapter without {ADAPTER_WEIGHTS}")
    if not config.is_file():
        raise RequestError(f"model = {reference!r}: a peft adapter without {ADAPTER_CONFIG}")
    try:
        kind = json.loads(config.read_text(encoding="utf-8")).get("peft_type")
    except (ValueError, AttributeError) as error:
        raise RequestError(f"model = {reference!r}: {ADAPTER_CONFIG} is not a JSON object: {error}") from error
    if kind not in ADAPTER_TYPES:
        raise RequestError(
            f"model = {reference!r}: peft_type = {kind!r} in {ADAPTER_CONFIG}; allowed are {', '.join(ADAPTER_TYPES)}"
        )
    _refuse_other_families(weight_names(weights, reference), reference)
    return {f"lora/{file.name}": file for file in (weights, config)}


def _file_of(path: Path, reference: str) -> tuple[Form, dict[str, Path]]:
    """Form and files of a .safetensors file, by the names of its weights."""
    keys = weight_names(path, reference)
    if any(key.startswith("base_model.model.") for key in keys):
        if path.name == ADAPTER_WEIGHTS:
            return "adapter", _peft_files(path.parent, reference)
        raise RequestError(
            f"model = {reference!r}: weights of a peft adapter; name a folder that holds them as {ADAPTER_WEIGHTS}, "
            f"with {ADAPTER_CONFIG} beside them"
        )
    _refuse_other_families(keys, reference)
    if any(LORA_KEYS.search(key) or LYCORIS_KEYS.search(key) for key in keys):
        check_lora_keys(keys, reference)
        return "adapter", {f"lora/{LORA_WEIGHTS}": path}
    if DIFFUSERS_UNET_KEYS.issubset(keys) or any(key.startswith(f"{LDM_UNET}input_blocks.") for key in keys):
        return "checkpoint", {"checkpoint.safetensors": path}
    if any(key.startswith((LDM_VAE, LDM_TEXT)) for key in keys):
        raise RequestError(f"model = {reference!r}: a checkpoint without U-Net ({LDM_UNET}*)")
    raise RequestError(
        f"model = {reference!r}: neither a LoRA nor a Stable Diffusion checkpoint; its weights are called "
        f"{', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}"
    )


def _refuse_other_families(keys: Iterable[str], reference: str) -> None:
    bare = {key.removeprefix(LDM_UNET).removeprefix("base_model.model.") for key in keys}
    bare |= {key.removeprefix("transformer.") for key in bare}
    for family, starts in FAMILIES.items():
        if any(key.startswith(starts) for key in bare):
            raise RequestError(
                f"model = {reference!r}: a model of another family, {family}, which is not supported; allowed are "
                "models of Stable Diffusion 1's and 2's architecture"
            )
