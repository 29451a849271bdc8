"""In which form a model comes: told from names of files and the header of a safetensors file, never from weights."""

import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from lmia.models.checkpoint import DIFFUSERS_UNET_KEYS, LDM_TEXT, LDM_UNET, LDM_VAE, UNET_PREFIXES
from lmia.models.embeddings import words_of
from lmia.models.files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    LORA_WEIGHTS,
    PICKLES,
    WEIGHTED_PARTS,
    check_channels,
    check_part,
    missing_parts,
    pickle_refused,
    weight_files,
)
from lmia.models.headers import json_object, weight_names, weight_shapes
from lmia.models.lora import ADAPTER_TYPES, LAYER_KEYS, LORA_KEYS, OTHER_KEYS, WORDS, check_lora_keys
from lmia.models.lowrank import LAYER_FILE
from lmia.specs import RequestError

log = logging.getLogger(__name__)

Form = Literal["pipeline", "adapter", "checkpoint"]
"""A whole folder; an adapter that lies over a base; a checkpoint that takes what it lacks from one."""

ALLOWED = (
    "allowed are a Stable Diffusion folder in diffusers' format, a LoRA of peft or diffusers, a checkpoint (a "
    ".safetensors file), OWNER/NAME@REVISION of the hub"
)
FAMILIES = {
    "Stable Diffusion XL": (
        *(
            "conditioner.embedders.",
            "label_emb.",
            "add_embedding.",
            "text_encoder_2.",
            "lora_te2_",
            "text_encoders.clip_g.",
        ),
        *("lora_unet_label_emb", "clip_g"),
    ),
    "Flux": ("double_blocks.", "single_transformer_blocks.", "lora_unet_double_blocks_", "lora_unet_single_blocks_"),
    "Stable Diffusion 3": ("joint_blocks.", "text_encoders.", "pos_embed.proj.", "lora_unet_joint_blocks_"),
    "diffusion transformer (Stable Diffusion 3, Flux or kin)": ("transformer.",),
    "ControlNet": ("control_model.", "controlnet_cond_embedding."),
}
"""Other models, by what the names of their weights begin with once `model.diffusion_model.` is taken off."""


TRAINING_STATE = re.compile(r"(optimizer|scheduler|scaler|training_args|rng_state|random_states|sampler|dl_state)")
"""Files of a training's state, which are no model."""
COMPONENTS = {
    "UNet2DConditionModel": "unet",
    "AutoencoderKL": "vae",
    "CLIPTextModel": "text_encoder",
}
"""Parts of a model by the class that their configuration names."""
HYPERNETWORK = re.compile(r"(320|640|768|1024|1280)\.[01]\.linear")


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
        if found := _parts_of(path, reference):
            return found
        if len(safe) == 1:
            return _file_of(safe[0], reference)
        if safe:
            raise RequestError(
                f"model = {reference!r}: a folder with several .safetensors files ({', '.join(names[:4])}"
                f"{', ...' if len(names) > 4 else ''}); name one of them"
            )
        if weights := [file for file in pickles if not TRAINING_STATE.match(file.name)]:
            raise pickle_refused("model", reference, weights[0])
        if pickles:
            raise RequestError(
                f"model = {reference!r}: a folder with the state of a training only ({pickles[0].name}), no model in it"
            )
        if inside := sorted(one.name for one in path.glob("checkpoint-*") if one.is_dir()):
            raise RequestError(f"model = {reference!r}: a training's folder; name one of {', '.join(inside[:5])} in it")
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
    except (ValueError, AttributeError, RecursionError) as error:
        raise RequestError(f"model = {reference!r}: {ADAPTER_CONFIG} is not a JSON object: {error}") from error
    if kind not in ADAPTER_TYPES:
        raise RequestError(
            f"model = {reference!r}: peft_type = {kind!r} in {ADAPTER_CONFIG}; allowed are {', '.join(ADAPTER_TYPES)}"
        )
    _refuse_other_families(weight_names(weights, reference), reference)
    return {f"lora/{file.name}": file for file in (weights, config)}


def _parts_of(path: Path, reference: str) -> "tuple[Form, dict[str, Path]] | None":
    """Single parts of a model in a folder, as trainers save them between times, or one part's own folder."""
    adapters = [part for part in ("unet", "text_encoder") if (path / part / ADAPTER_CONFIG).is_file()]
    if adapters:
        files: dict[str, Path] = {}
        for part in adapters:
            for name, file in _peft_files(path / part, f"{reference}/{part}").items():
                files[f"lora/{part}/{name.removeprefix('lora/')}"] = file
        return "adapter", files
    where = {part: path / part for part in WEIGHTED_PARTS if any(weight_files(path / part))}
    if "unet" not in where and any(weight_files(path / "unet_ema")):
        where["unet"] = path / "unet_ema"
    elif "unet" in where and (path / "unet_ema").is_dir():
        log.warning(
            "%s holds unet/ and unet_ema/: the first is used; name %s/unet_ema for the other", reference, reference
        )
    if not where and (path / "config.json").is_file() and weight_files(path)[0]:
        config = json_object(path / "config.json", reference)
        kinds = [str(config.get("_class_name")), *map(str, config.get("architectures") or [])]  # type: ignore[call-overload]
        known = next((COMPONENTS[kind] for kind in kinds if kind in COMPONENTS), None)
        if known is None:
            if "None" in kinds[:1] and len(kinds) == 1:
                return None
            raise RequestError(
                f"model = {reference!r}: config.json says {kinds[-1]!r}; allowed are parts of Stable Diffusion 1's and "
                f"2's kind, {', '.join(COMPONENTS)}"
            )
        where = {known: path}
    if not where:
        return None
    found: dict[str, Path] = {}
    for part, folder in where.items():
        weights = check_part("model", reference, folder)
        if part == "unet":
            check_channels(json_object(folder / "config.json", reference).get("in_channels", 4), reference)
        indexes = sorted(folder.glob("*.index*.json"))
        found |= {f"{part}/{file.name}": file for file in (folder / "config.json", *indexes, *weights)}
    return "checkpoint", found


def words(reference: str) -> list[str]:
    """The words of the textual inversion that `reference` names; empty if it names something else."""
    path = Path(reference).expanduser()
    if not path.exists() or (path.is_dir() and not missing_parts(path)):
        return []
    (file, *_) = form_of(path, reference)[1].items()
    return words_of(weight_shapes(file[1], reference), file[1]) if file[0].startswith(f"lora/{WORDS}/") else []


def _file_of(path: Path, reference: str) -> tuple[Form, dict[str, Path]]:
    """Form and files of a .safetensors file, by the names of its weights."""
    shapes = weight_shapes(path, reference)
    keys = list(shapes)
    if not keys:
        raise RequestError(f"model = {reference!r}: {path.name} holds no weights")
    if any(key.startswith("base_model.model.") for key in keys):
        if path.name == ADAPTER_WEIGHTS:
            return "adapter", _peft_files(path.parent, reference)
        raise RequestError(
            f"model = {reference!r}: weights of a peft adapter; name a folder that holds them as {ADAPTER_WEIGHTS}, "
            f"with {ADAPTER_CONFIG} beside them"
        )
    _refuse_other_families(keys, reference)
    if any(f".{said}" in key for key in keys for said in OTHER_KEYS):
        check_lora_keys(keys, reference)
    if any(".base_layer." in key for key in keys):
        raise RequestError(
            f"model = {reference!r}: a whole U-Net with a LoRA's layers still in it, as a trainer keeps it to go on; "
            f"name the {LORA_WEIGHTS} beside it"
        )
    if any(LAYER_KEYS.search(key) for key in keys):
        return "adapter", {f"lora/{LAYER_FILE}": path}
    if any(LORA_KEYS.search(key) for key in keys):
        return "adapter", {f"lora/{LORA_WEIGHTS}": path}
    starts = [key for key in UNET_PREFIXES if f"{key}input_blocks.0.0.weight" in shapes]
    if DIFFUSERS_UNET_KEYS.issubset(keys) or starts:
        first = shapes["conv_in.weight" if not starts else f"{starts[0]}input_blocks.0.0.weight"]
        if len(first) == 4 and first[1] > 4:
            check_channels(first[1], reference)
        return "checkpoint", {"checkpoint.safetensors": path}
    if words_of(shapes, path):
        return "adapter", {f"lora/{WORDS}/{path.name}": path}
    if HYPERNETWORK.match(keys[0]):
        raise RequestError(
            f"model = {reference!r}: this is a hypernetwork, which is not supported; its weights are not part "
            "of the U-Net's, and its activations are not in the file"
        )
    if any(key.startswith((LDM_VAE, LDM_TEXT)) for key in keys):
        raise RequestError(f"model = {reference!r}: a checkpoint without U-Net ({LDM_UNET}*)")
    raise RequestError(
        f"model = {reference!r}: neither an adapter nor a Stable Diffusion checkpoint; its weights are called "
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
