"""Loading a target model: a Stable Diffusion folder and the layers that fine-tuning put over it.

Shapes: B pictures, C latent channels, H and W latent sides, L tokens, D text width.
"""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmia.models.attention import choose_attention, set_attention
from lmia.models.denoiser import chunks, to_uint8  # noqa: F401
from lmia.models.families.sd import StableDiffusion, save_part  # noqa: F401
from lmia.models.schedulers import load_scheduler
from lmia.specs import RequestError

log = logging.getLogger(__name__)

DTYPES = ("float32", "float16", "bfloat16")
COMPONENTS = ("vae", "unet", "text_encoder", "tokenizer", "scheduler")
ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
LORA_WEIGHTS = "pytorch_lora_weights.safetensors"
HUB_ID = re.compile(r"^(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})$")


TargetModel = StableDiffusion
"""The old name."""


def load_model(
    layers: Sequence[str | Path],
    *,
    device: str = "cpu",
    dtype: str = "float32",
    attention: str = "auto",
    allow_pickle: bool = False,
) -> StableDiffusion:
    """Loads a base and what fine-tuning laid over it.

    Each component (unet, vae, text_encoder, tokenizer, scheduler) is taken from the last layer that has a
    sub-folder of that name; adapters (`lora/`) of that layer and of later ones are then merged into it, so that a
    LoRA target costs no more than its base. peft's format adapts the U-Net, diffusers' the U-Net, the text encoder
    or both.

    Args:
        layers: the first is a whole Stable Diffusion folder in diffusers' format, or a hub id pinned to a
            revision, "owner/name@<40 hex digits>"; the others are overlay folders.
        device: "cpu", "cuda", "cuda:1".
        dtype: "float32", "float16" or "bfloat16".
        attention: "auto", "sdpa" or "xformers"; the one really used is `Denoiser.attention`.
        allow_pickle: read weights that exist as pickle only; recorded in `Denoiser.pickled`.

    Raises:
        RequestError: a folder or component is missing, weights are pickle, an adapter does not fit the component
            that it is for, or the backend is not there.
    """
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers.models.clip.modeling_clip import CLIPTextModel
    from transformers.models.clip.tokenization_clip import CLIPTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    if dtype not in DTYPES:
        raise RequestError(f"dtype = {dtype!r}: allowed are {', '.join(DTYPES)}")
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise RequestError(f"device = {device!r}: this machine has no usable CUDA device")
    backend = choose_attention(attention, device)
    folders = resolve_layers(layers)
    where = {name: _last_with(folders, name) for name in COMPONENTS}
    pickled = tuple(
        name
        for name in ("vae", "unet", "text_encoder")
        if _is_pickle(folders[where[name]] / name, allow_pickle=allow_pickle)
    )

    def weights(kind: Any, name: str) -> Any:
        source: dict[str, Any] = {"dtype": getattr(torch, dtype), "use_safetensors": name not in pickled}
        folder = folders[where[name]] / name
        if variant := _variant(folder):
            source["variant"] = variant
        return kind.from_pretrained(folder, local_files_only=True, **source)

    adapted = {"unet": weights(UNet2DConditionModel, "unet"), "text_encoder": weights(CLIPTextModel, "text_encoder")}
    for index, folder in enumerate(folders):
        below = {name: part for name, part in adapted.items() if where[name] <= index}
        if below and (folder / "lora").is_dir():
            _merge_adapter(folder / "lora", below)
    model = StableDiffusion(
        vae=weights(AutoencoderKL, "vae").to(device).eval(),
        unet=adapted["unet"].to(device).eval(),
        text_encoder=adapted["text_encoder"].to(device).eval(),
        tokenizer=CLIPTokenizer.from_pretrained(folders[where["tokenizer"]] / "tokenizer", local_files_only=True),
        scheduler=load_scheduler(folders[where["scheduler"]] / "scheduler"),
        device=device,
        dtype=dtype,
        attention=backend,
        layers=tuple(str(folder) for folder in folders),
        pickled=pickled,
    )
    for part in (model.vae, model.unet, model.text_encoder):
        part.requires_grad_(False)
    set_attention(model.unet, backend)
    if torch.device(device).type == "cuda":
        set_attention(model.vae, backend)
        model.vae.enable_slicing()
        model.unet.to(memory_format=torch.channels_last)
        model.vae.to(memory_format=torch.channels_last)
    return model


def resolve_layers(layers: Sequence[str | Path]) -> list[Path]:
    """Folders of the layers; a pinned hub id is fetched (or found in the hub's local cache).

    Raises:
        RequestError: no layers, a folder that does not exist, or a hub id without a pinned revision.
    """
    if not layers:
        raise RequestError("layers = []: at least a base model is needed")
    return [_resolve(layer) for layer in layers]


def _resolve(layer: str | Path) -> Path:
    folder = Path(layer)
    if folder.is_dir():
        return folder
    text = str(layer)
    pinned = HUB_ID.match(text)
    if pinned:
        return fetch_from_hub(pinned["repo"], pinned["revision"])
    if re.fullmatch(r"[\w.-]+/[\w.-]+(@.*)?", text) and not text.startswith((".", "/")):
        raise RequestError(
            f"model = {text!r}: no such folder, and a hub id must be pinned to a revision "
            "(owner/name@<40 hexadecimal digits>)"
        )
    raise RequestError(f"model = {text!r}: no such folder")


def fetch_from_hub(repo: str, revision: str) -> Path:
    """The local snapshot of a hub repository at one revision: safetensors weights and configuration only."""
    from huggingface_hub import snapshot_download

    parts = ["unet", "vae", "text_encoder", "tokenizer", "scheduler"]
    patterns = [f"{part}/*.{end}" for part in parts for end in ("json", "txt", "safetensors")]
    patterns = [pattern for pattern in patterns if "safetensors" not in pattern]
    patterns += [
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "model_index.json",
    ]
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except OSError as error:
        raise RequestError(f"model = '{repo}@{revision}': could not be fetched from the hub: {error}") from error


def weight_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """(safetensors files, pickle files) in a component's folder."""
    safe = sorted(folder.glob("*.safetensors"))
    pickles = sorted(path for end in ("bin", "ckpt", "pt", "pth", "pkl") for path in folder.glob(f"*.{end}"))
    return safe, pickles


def _is_pickle(folder: Path, *, allow_pickle: bool) -> bool:
    safe, pickles = weight_files(folder)
    if safe:
        return False
    if not pickles:
        raise RequestError(f"model: {folder} holds no weights (expected *.safetensors)")
    if not allow_pickle:
        raise RequestError(
            f"model: {pickles[0]} is a pickle, which can run code when it is read; convert it to safetensors, "
            "or allow pickle explicitly if you trust its origin"
        )
    log.warning("reading pickled weights from %s, as explicitly allowed", folder)
    return True


def _variant(folder: Path) -> str | None:
    """The name "fp16" when a component has only its half-precision variant; None for the plain file names."""
    names = [path.name for path in folder.glob("*.safetensors")]
    plain = [
        name for name in names if re.fullmatch(r"(diffusion_pytorch_model|model)(-\d+-of-\d+)?\.safetensors", name)
    ]
    return "fp16" if names and not plain and any(".fp16." in name for name in names) else None


def _last_with(folders: Sequence[Path], name: str) -> int:
    for index in reversed(range(len(folders))):
        if (folders[index] / name).is_dir():
            return index
    raise RequestError(
        f"model = {str(folders[0])!r}: no {name}/ in it; a Stable Diffusion folder in diffusers' format has "
        f"{', '.join(COMPONENTS)}"
    )


def _merge_adapter(folder: Path, modules: dict[str, Any]) -> None:
    """Adds an adapter to the weights of those components among "unet" and "text_encoder" that it is for.

    Raises:
        RequestError: a pickle, no adapter, or one that does not fit; left out silently, the base would be audited.
    """
    from peft import PeftConfig
    from safetensors.torch import load_file

    from lmia.models.given import read_lora

    parts: dict[str, tuple[Any, dict[str, Any]]]
    file = folder / LORA_WEIGHTS
    if file.is_file():
        parts = {**read_lora(file)}
    else:
        file = folder / ADAPTER_WEIGHTS
        if not file.is_file():
            _is_pickle(folder, allow_pickle=False)
            raise RequestError(f"model: {folder} is not a peft adapter ({ADAPTER_WEIGHTS} is missing)")
        state = {name.removeprefix("base_model.model."): value for name, value in load_file(file).items()}
        parts = {"unet": (PeftConfig.from_pretrained(str(folder)), state)}
    for name, (config, state) in parts.items():
        if name in modules:
            _merge(modules[name], config, state, f"model: {file} does not fit the model's {name}")


def _merge(module: Any, config: Any, state: dict[str, Any], misfit: str) -> None:
    """Merges adapter weights, named by peft without its prefix, into a module, which is plain again afterwards."""
    import torch
    from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict

    config.inference_mode = True
    try:
        with torch.random.fork_rng(devices=[]):  # peft draws weights before it is given some
            adapted = PeftModel(module, config)
    except (ValueError, TypeError) as error:
        raise RequestError(f"{misfit}: {error}") from error
    state = {f"base_model.model.{name}": value for name, value in state.items()}
    expected = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    if strangers := sorted(expected.keys() ^ state.keys()):
        raise RequestError(f"{misfit}: {len(strangers)} weights are only in one of both, such as {strangers[0]}")
    for name, value in state.items():
        if value.shape != expected[name].shape:
            raise RequestError(f"{misfit}: {name} is {list(value.shape)}, not {list(expected[name].shape)}")
    set_peft_model_state_dict(adapted, state)
    try:
        adapted.merge_and_unload()
    except RuntimeError as error:  # a trained bias for a layer that has none
        raise RequestError(f"{misfit}: {error}") from error
