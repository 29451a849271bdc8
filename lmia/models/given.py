"""Models that somebody else made, in the forms in which they come.

A whole Stable Diffusion folder (or its name, or a pinned hub id), a LoRA, or one file with a checkpoint. The form is
told from names of files and from the header of a safetensors file, never from weights; pickles are refused.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lmia.models.base import EMBEDDED, HUB_ID, WEIGHTS, Base, files_of, resolve_base
from lmia.models.model import ADAPTER_CONFIG, ADAPTER_WEIGHTS, LORA_WEIGHTS, weight_files
from lmia.specs import RequestError

Form = Literal["pipeline", "adapter", "checkpoint"]

ALLOWED = (
    "allowed are a Stable Diffusion folder in diffusers' format, a LoRA of peft or diffusers, a checkpoint (a "
    f".safetensors file), OWNER/NAME@REVISION of the hub, {', '.join(EMBEDDED)}, random"
)
PICKLES = (".ckpt", ".bin", ".pt", ".pth", ".pkl")
ADAPTER_TYPES = ("LORA", "LOHA", "LOKR")
"""What peft can merge into the weights that it adapts, without a network and without data."""

LDM_UNET, LDM_VAE, LDM_TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
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

LORA_KEYS = re.compile(r"[._]lora[._](A|B|up|down)\.|\.lora_linear_layer\.|\.lora_(embedding_[AB]|magnitude_vector)")
LYCORIS_KEYS = re.compile(r"\.(hada|lokr|oft|boft|glora|ia3)_")
DIFFUSERS_UNET_KEYS = {"conv_in.weight", "conv_out.weight", "time_embedding.linear_1.weight"}
TEXT_KEYS_UNUSED = ("embeddings.position_ids", "text_projection.weight", "logit_scale")
"""Weights that some checkpoints have beside the text encoder's; a constant, and two that are CLIP's, not its."""


@dataclass(frozen=True)
class Given:
    """A model that somebody else made.

    Attributes:
        reference: what it is called: an absolute path, an embedded model's name, or OWNER/NAME@REVISION.
        form: a whole pipeline, an adapter that lies over a base, or a checkpoint that takes what it lacks from one.
        digest: of the files that matter, whatever they are called; of a hub id the revision.
        version: of the way in which it is taken over.
    """

    reference: str
    form: Form
    digest: str
    version: int = 1

    @property
    def needs_base(self) -> bool:
        """Whether a base model has to be named beside it."""
        return self.form != "pipeline"


class LoraPart(NamedTuple):
    """What a LoRA file holds for one component."""

    config: Any
    """peft's configuration: ranks, scales and names of the adapted layers."""
    weights: dict[str, Any]
    """Tensors by peft's names, without `base_model.model.`."""


@cache
def resolve_given(reference: str) -> Given:
    """The model that `reference` names, its form told from file names and safetensors headers.

    Raises:
        RequestError: nothing there, a pickle, something that is no model of Stable Diffusion 1's or 2's kind, or a
            hub id without a pinned revision; the message names the field `model`, the value and what is allowed.
    """
    path = Path(reference).expanduser()
    if reference == "random" or reference in EMBEDDED or HUB_ID.fullmatch(reference):
        return _pipeline(reference)
    if path.is_dir() and all((path / part).is_dir() for part in WEIGHTS):
        for part in ("unet", "vae", "text_encoder"):
            safe, pickles = weight_files(path / part)
            if pickles and not safe:
                raise _is_pickle(reference, pickles[0])
            if not safe:
                raise RequestError(f"model = {reference!r}: {part}/ holds no .safetensors weights")
        return _pipeline(reference)
    if not path.exists():
        if path.suffix.lower() in (*PICKLES, ".safetensors") or reference.startswith((".", "/", "~")):
            raise RequestError(f"model = {reference!r}: no such file or folder; {ALLOWED}")
        return _pipeline(reference)  # says what is wrong with a name that is neither here nor pinned
    form, files = _look_into(path, reference)
    return Given(str(path.absolute()), form, _digest(files))


def overlay_files(given: Given, base: Path | None, scratch: Path) -> dict[str, Path]:
    """The files of which the store keeps a model, by their path inside its overlay folder.

    A pipeline is kept as it is; an adapter lies in `lora/` exactly as given; a checkpoint is converted by diffusers'
    own rules into `unet/`, `vae/` and `text_encoder/`, as far as it has them, with the base's configurations.

    Args:
        given: from `resolve_given`.
        base: folder of the base model in diffusers' format; only a checkpoint needs it.
        scratch: folder for files that have to be made; they must outlive the returned mapping.

    Raises:
        RequestError: the base does not have the checkpoint's architecture, or there is none.
    """
    if given.form == "pipeline":
        return files_of(Base(given.reference, given.digest).folder(scratch))
    _, files = _look_into(Path(given.reference), given.reference)
    if given.form == "adapter":
        return files
    if base is None:
        raise RequestError(f"base = None: model {given.reference!r} is a checkpoint, which needs a base model")
    (file,) = files.values()
    return _convert(file, base, scratch, given.reference)


def read_lora(file: Path) -> dict[str, LoraPart]:
    """The parts ("unet", "text_encoder") of a LoRA in diffusers' format, kohya's names included.

    The scale of each layer is its own alpha / rank: from the file's metadata, from its alphas, else 1.

    Raises:
        RequestError: weights that diffusers would leave out, or that belong to neither component.
    """
    from diffusers.loaders.lora_pipeline import StableDiffusionLoraLoaderMixin
    from diffusers.utils import state_dict_utils
    from safetensors import safe_open
    from safetensors.torch import load_file

    tensors = load_file(file)
    if not tensors:
        raise RequestError(f"model = {str(file)!r}: a LoRA without weights")
    _check_lora_keys(tensors, str(file))
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
    if strangers := [name for name in state if not name.startswith(("unet.", "text_encoder."))]:
        raise RequestError(
            f"model = {str(file)!r}: {strangers[0]} belongs neither to a U-Net (unet.) nor to a text encoder "
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


def _peft_names(state: Mapping[str, Any], part: str, mapping: dict[str, str]) -> dict[str, Any]:
    """What of `state` belongs to a component, under peft's names."""
    from diffusers.utils.state_dict_utils import convert_state_dict

    own = {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}
    return {_flat(name): value for name, value in convert_state_dict(own, mapping).items()}


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


def _pipeline(reference: str) -> Given:
    try:
        base = resolve_base(reference)
    except RequestError as error:
        raise RequestError(f"{str(error).replace('base', 'model', 1)}; {ALLOWED}") from error
    return Given(base.reference, "pipeline", base.digest, base.version)


def _is_pickle(reference: str, path: Path) -> RequestError:
    return RequestError(
        f"model = {reference!r}: {path.name} is a pickle, which can run code when it is read; convert it to safetensors"
    )


def _look_into(path: Path, reference: str) -> tuple[Form, dict[str, Path]]:
    """Form and files of what lies at an existing path; an adapter's files by their path in the overlay."""
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
            raise _is_pickle(reference, pickles[0])
        missing = [part for part in WEIGHTS if not (path / part).is_dir()]
        raise RequestError(
            f"model = {reference!r}: a folder without weights that lmia knows: no {', '.join(missing)} of a Stable "
            f"Diffusion folder in it, no {ADAPTER_WEIGHTS}, no {LORA_WEIGHTS}; {ALLOWED}"
        )
    if path.suffix.lower() in PICKLES:
        raise _is_pickle(reference, path)
    if path.suffix != ".safetensors":
        raise RequestError(f"model = {reference!r}: not a .safetensors file; {ALLOWED}")
    return _file_of(path, reference)


def _peft_files(folder: Path, reference: str) -> dict[str, Path]:
    weights, config = folder / ADAPTER_WEIGHTS, folder / ADAPTER_CONFIG
    if not weights.is_file():
        pickles = weight_files(folder)[1]
        if pickles:
            raise _is_pickle(reference, pickles[0])
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
    _refuse_other_families(_keys(weights, reference), reference)
    return {f"lora/{file.name}": file for file in (weights, config)}


def _file_of(path: Path, reference: str) -> tuple[Form, dict[str, Path]]:
    """Form and files of a .safetensors file, by the names of its weights."""
    keys = _keys(path, reference)
    if any(key.startswith("base_model.model.") for key in keys):
        if path.name == ADAPTER_WEIGHTS:
            return "adapter", _peft_files(path.parent, reference)
        raise RequestError(
            f"model = {reference!r}: weights of a peft adapter; name a folder that holds them as {ADAPTER_WEIGHTS}, "
            f"with {ADAPTER_CONFIG} beside them"
        )
    _refuse_other_families(keys, reference)
    if any(LORA_KEYS.search(key) or LYCORIS_KEYS.search(key) for key in keys):
        _check_lora_keys(keys, reference)
        return "adapter", {f"lora/{LORA_WEIGHTS}": path}
    if DIFFUSERS_UNET_KEYS.issubset(keys) or any(key.startswith(f"{LDM_UNET}input_blocks.") for key in keys):
        return "checkpoint", {"checkpoint.safetensors": path}
    if any(key.startswith((LDM_VAE, LDM_TEXT)) for key in keys):
        raise RequestError(f"model = {reference!r}: a checkpoint without U-Net ({LDM_UNET}*)")
    raise RequestError(
        f"model = {reference!r}: neither a LoRA nor a Stable Diffusion checkpoint; its weights are called "
        f"{', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}"
    )


def _keys(path: Path, reference: str) -> list[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return sorted(file.keys())
    except SafetensorError as error:
        raise RequestError(f"model = {reference!r}: {path.name} is not a safetensors file: {error}") from error


def _refuse_other_families(keys: Iterable[str], reference: str) -> None:
    bare = {key.removeprefix(LDM_UNET).removeprefix("base_model.model.") for key in keys}
    bare |= {key.removeprefix("transformer.") for key in bare}
    for family, starts in FAMILIES.items():
        if any(key.startswith(starts) for key in bare):
            raise RequestError(
                f"model = {reference!r}: a model of another family, {family}, which is not supported; allowed are "
                "models of Stable Diffusion 1's and 2's architecture"
            )


def _check_lora_keys(keys: Iterable[str], reference: str) -> None:
    """Refuses what diffusers would leave out of a LoRA, because then another model would be audited."""
    for key in keys:
        if LYCORIS_KEYS.search(key):
            raise RequestError(
                f"model = {reference!r}: {key} is of a LyCORIS adapter (LoHa, LoKr and kin), which is not supported; "
                "allowed is LoRA"
            )
        if "dora_scale" in key:
            raise RequestError(
                f"model = {reference!r}: {key} is of a DoRA in kohya's format, which is not supported; allowed is LoRA"
            )


def _digest(files: Mapping[str, Path]) -> str:
    total = hashlib.sha256()
    for name, path in sorted(files.items()):
        total.update(f"{name}\0".encode())
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:20]


def _convert(file: Path, base: Path, scratch: Path, reference: str) -> dict[str, Path]:
    """Writes a checkpoint's components in diffusers' format, one after the other, with the base's configurations."""
    keys = _keys(file, reference)
    found: dict[str, Path] = {}
    for part, convert in {"unet": _unet, "vae": _vae, "text_encoder": _text_encoder}.items():
        config = base / part / "config.json"
        if not config.is_file():
            raise RequestError(f"base = {str(base)!r}: no {part}/config.json in it")
        converted = convert(file, keys, config)
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

    weights: dict[str, Any]
    expected: Mapping[str, Any]
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
    tensors = _read(file, [key for key in keys if key.startswith(LDM_UNET)])
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
    named = {_flat(name): value for name, value in named.items()}
    weights = {name: value for name, value in named.items() if name not in TEXT_KEYS_UNUSED}
    return _Converted(weights, module.state_dict())


def _flat(name: str) -> str:
    """A name in CLIPTextModel, out of which transformers took a level that files keep."""
    return name.removeprefix("text_model.")


def _empty(kind: Any, config: Path) -> Any:
    """A diffusers component on no device."""
    import torch

    with torch.device("meta"):
        return kind.from_config(json.loads(config.read_text(encoding="utf-8")))


def _read(file: Path, keys: Iterable[str]) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        return {key: opened.get_tensor(key) for key in keys}


def _save(weights: Mapping[str, Any], file: Path) -> None:
    import torch
    from safetensors.torch import save_file

    file.parent.mkdir(parents=True, exist_ok=True)
    usual = (torch.float32, torch.float16, torch.bfloat16)
    tensors = {name: (value if value.dtype in usual else value.float()).contiguous() for name, value in weights.items()}
    save_file(tensors, file, metadata={"format": "pt"})
