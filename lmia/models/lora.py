"""LoRA and its kin: reading what diffusers, kohya and peft write, and merging it into the weights below."""

import json
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lmia.models.checkpoint import flat_name
from lmia.models.embeddings import add_words
from lmia.models.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, LORA_WEIGHTS, is_pickled
from lmia.models.headers import weight_names
from lmia.models.lowrank import LAYER_FILE, check_tensors, merge_layers
from lmia.specs import RequestError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

ADAPTER_TYPES = ("LORA", "LOHA", "LOKR")
"""What peft can merge into the weights that it adapts, without a network and without data."""
LORA_KEYS = re.compile(r"[._]lora[._](A|B|up|down)\.|\.lora_linear_layer\.|\.lora_(embedding_[AB]|magnitude_vector)")
LAYER_KEYS = re.compile(
    r"\.(hada|lokr)_|\.(dora_scale|diff|diff_b|w_norm|b_norm)$|lora_mid|diffusion_model\..*lora|"
    r"lora_unet_(input|middle|output)_|text_encoders\.clip_l\.|(unet|text_encoder):\d+:(up|down)"
)
"""Of adapters that `lmia.models.lowrank` reads, because diffusers does not, or would leave some of it out."""
OTHER_KEYS = {
    "oft_": "an OFT", "oft_diag": "an OFT", "boft": "a BOFT", "on_input": "an (IA)3", "a1.weight": "a GLoRA",
    "b1.weight": "a GLoRA", "glora": "a GLoRA", "ia3_l": "an (IA)3",
}  # fmt: skip
"""Adapters of LyCORIS and peft that are not read, by what their weights' names hold after a dot."""
WORDS = "words"
"""Sub-folder of an overlay's adapter for a textual inversion."""


class LoraPart(NamedTuple):
    """What a LoRA file holds for one part."""

    config: Any
    """peft's configuration: ranks, scales and names of the adapted layers."""
    weights: "dict[str, Tensor]"
    """Tensors by peft's names, without `base_model.model.`."""


def merge_adapter(folder: Path, modules: "Mapping[str, Module]") -> None:
    """Adds an adapter to the weights of those parts among "unet" and "text_encoder" that it is for.

    Raises:
        RequestError: a pickle, no adapter, or one that does not fit; left out silently, the base would be audited.
    """
    if (layers := folder / LAYER_FILE).is_file():
        return merge_layers(layers, modules)
    if words := sorted((folder / WORDS).glob("*.safetensors")):
        return add_words(words[0], modules)
    parts: dict[str, tuple[Any, dict[str, Tensor]]] = {}
    file = folder / LORA_WEIGHTS
    if file.is_file() and any(map(LAYER_KEYS.search, weight_names(file, str(file)))):
        return merge_layers(file, modules)
    if file.is_file():
        parts = {**read_lora(file)}
    elif inside := [part for part in ("unet", "text_encoder") if (folder / part / ADAPTER_WEIGHTS).is_file()]:
        parts = {part: _peft_part(folder / part) for part in inside}
    else:
        file = folder / ADAPTER_WEIGHTS
        if not file.is_file():
            is_pickled(folder)
            raise RequestError(f"model: {folder} is not a peft adapter ({ADAPTER_WEIGHTS} is missing)")
        config, state = _peft_part(folder)
        text = any(name.removeprefix("text_model.").startswith("encoder.layers.") for name in state)
        parts = {"text_encoder" if text else "unet": (config, state)}
    for name, (config, state) in parts.items():
        if name in modules:
            check_tensors(state, str(file.resolve()))
            _merge(modules[name], config, state, f"model = {str(file.resolve())!r} does not fit the model's {name}")


def _peft_part(folder: Path) -> "tuple[Any, dict[str, Tensor]]":
    """Peft's configuration and tensors, by names without its prefix."""
    from peft import PeftConfig
    from safetensors.torch import load_file

    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (ValueError, TypeError, KeyError) as error:
        said = " ".join(str(error).split())[:200]
        raise RequestError(
            f"model = {str(folder.resolve())!r}: {ADAPTER_CONFIG} that peft cannot read: {said}"
        ) from error
    state = load_file(folder / ADAPTER_WEIGHTS)
    return config, {name.removeprefix("base_model.model."): value for name, value in state.items()}


def _merge(module: Any, config: Any, state: "dict[str, Tensor]", misfit: str) -> None:
    """Merges adapter weights, named by peft without its prefix, into a module, which is plain again afterwards."""
    import torch
    from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict

    config.inference_mode = True
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():  # peft draws weights before it is given some
            warnings.simplefilter("ignore")  # patterns that match no layer: every name is compared below
            adapted = PeftModel(module, config)
    except (ValueError, TypeError) as error:
        raise RequestError(f"{misfit}: {' '.join(str(error).split())[:400]}") from error
    state = {f"base_model.model.{name}": value for name, value in state.items()}
    expected = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    if unmatched := sorted(expected.keys() ^ state.keys()):
        raise RequestError(f"{misfit}: {len(unmatched)} weights are only in one of both, such as {unmatched[0]}")
    for name, value in state.items():
        if value.shape != expected[name].shape:
            raise RequestError(f"{misfit}: {name} is {list(value.shape)}, not {list(expected[name].shape)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that other layers have no adapter, at length
        set_peft_model_state_dict(adapted, state)
    try:
        adapted.merge_and_unload()
    except RuntimeError as error:  # a trained bias for a layer that has none
        raise RequestError(f"{misfit}: {error}") from error


def read_lora(file: Path) -> dict[str, LoraPart]:
    """The parts ("unet", "text_encoder") of a LoRA in diffusers' format, kohya's names included.

    The scale of each layer is its own alpha / rank: from the file's metadata, from its alphas, else 1.

    Raises:
        RequestError: weights that diffusers would leave out, or that belong to neither part.
    """
    from diffusers.loaders.lora_pipeline import StableDiffusionLoraLoaderMixin
    from diffusers.utils import state_dict_utils
    from safetensors import safe_open
    from safetensors.torch import load_file

    tensors = load_file(file)
    if not tensors:
        raise RequestError(f"model = {str(file)!r}: a LoRA without weights")
    check_lora_keys(tensors, str(file))
    with safe_open(file, framework="pt") as opened:
        noted = (opened.metadata() or {}).get("lora_adapter_metadata", "{}")
    try:
        metadata = dict(json.loads(noted) or {})
        state, found = StableDiffusionLoraLoaderMixin.lora_state_dict(tensors)
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(f"model = {str(file)!r}: a LoRA that diffusers cannot read: {error}") from error
    alphas = {}
    for name, alpha in (found or {}).items():
        down = name.removesuffix(".alpha")
        alphas[down if down.endswith(".down.weight") else f"{down}.lora.down.weight"] = alpha
    if not any(name.startswith(("unet.", "text_encoder.")) for name in state):  # as `unet.save_attn_procs` once wrote
        state = {f"unet.{name}": value for name, value in state.items()}
    if unmatched := [name for name in state if not name.startswith(("unet.", "text_encoder."))]:
        raise RequestError(
            f"model = {str(file)!r}: {unmatched[0]} belongs neither to a U-Net (unet.) nor to a text encoder "
            "(text_encoder.), the components that a LoRA may adapt"
        )
    names = {
        "unet": state_dict_utils.UNET_TO_DIFFUSERS,
        "text_encoder": {**state_dict_utils.DIFFUSERS_TO_PEFT, **state_dict_utils.DIFFUSERS_OLD_TO_PEFT},
    }
    parts = {}
    for part, mapping in names.items():
        weights = _peft_names(state, part, mapping)
        if weights:
            settings = {k.removeprefix(f"{part}."): v for k, v in metadata.items() if k.startswith(f"{part}.")}
            try:
                config = _lora_config(weights, _peft_names(alphas, part, mapping), settings)
            except (TypeError, ValueError) as error:
                raise RequestError(f"model = {str(file)!r}: settings that peft does not know: {error}") from error
            parts[part] = LoraPart(config, weights)
    return parts


def check_lora_keys(keys: Iterable[str], reference: str) -> None:
    """Refuses forms that nothing here reads, by their names."""
    for key in keys:
        for said, form in OTHER_KEYS.items():
            if f".{said}" in key:
                raise RequestError(
                    f"model = {reference!r}: {key} is of {form} adapter of LyCORIS or peft, which is not supported; "
                    "allowed are LoRA, LoCon, LoHa, LoKr and DoRA"
                )


def _peft_names(state: Mapping[str, Any], part: str, mapping: dict[str, str]) -> dict[str, Any]:
    """What of `state` belongs to a component, under peft's names."""
    from diffusers.utils.state_dict_utils import convert_state_dict

    own = {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}
    return {flat_name(name): value for name, value in convert_state_dict(own, mapping).items()}


def _lora_config(weights: Mapping[str, Any], alphas: Mapping[str, float], settings: dict[str, Any]) -> Any:
    """The configuration of a LoRA for peft: its own `settings`, or what the tensors and their alphas say.

    diffusers' own derivation is not used: where alphas differ, its patterns do not match the names of attention
    layers, which then get the most frequent alpha.
    """
    from peft import LoraConfig

    layers = sorted({name.split(".lora_")[0] for name in weights})
    where: dict[str, Any] = {
        "target_modules": f"({'|'.join(map(re.escape, layers))})",
        "exclude_modules": None,
        "layers_to_transform": None,
        "layers_pattern": None,
        "task_type": None,
        "inference_mode": True,
    }
    if settings:
        return LoraConfig(**{**settings, **where})
    ranks = {
        layer: weights[f"{layer}.lora_B.weight"].shape[1] for layer in layers if f"{layer}.lora_B.weight" in weights
    }
    scales = {layer: alphas.get(f"{layer}.lora_A.weight", rank) for layer, rank in ranks.items()}
    return LoraConfig(
        rank_pattern={f"^{re.escape(layer)}": rank for layer, rank in ranks.items()},
        alpha_pattern={f"^{re.escape(layer)}": alpha for layer, alpha in scales.items()},
        use_dora=any("lora_magnitude_vector" in name for name in weights),
        lora_bias=any(name.endswith("lora_B.bias") for name in weights),
        **where,
    )
