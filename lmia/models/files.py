"""The files of models: which parts a Stable Diffusion folder has, which files are weights, which are refused.

Nothing here reads weights, so that naming a model stays cheap.
"""

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmia.models.headers import json_object, weight_shapes
from lmia.specs import RequestError

log = logging.getLogger(__name__)

WEIGHTED_PARTS = ("unet", "vae", "text_encoder")
PARTS = (*WEIGHTED_PARTS, "tokenizer", "scheduler")
"""Sub-folders of a Stable Diffusion folder in diffusers' format."""
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
"""Endings of files that can run code when they are read."""
ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
LORA_WEIGHTS = "pytorch_lora_weights.safetensors"
"""Names under which peft and diffusers write adapters."""
WEIGHT_FILE = re.compile(
    r"(?:diffusion_pytorch_model|model)(?:\.(?P<early>\w+))?(?:-\d+-of-(?P<of>\d+))?(?:\.(?P<late>\w+))?\.safetensors"
)
"""A part's weights: perhaps a variant (`.fp16`, `.non_ema`), perhaps one of several files."""
OTHER_PARTS = {
    "text_encoder_2": "Stable Diffusion XL",
    "transformer": "a diffusion transformer (Stable Diffusion 3, Flux or kin)",
    "controlnet": "ControlNet",
    "prior": "a cascade or unCLIP",
}
"""Sub-folders of pipelines that are not read."""
INPUTS: dict[object, str] = {
    5: "a depth model",
    7: "an upscaler",
    8: "a model that edits pictures, as InstructPix2Pix",
    9: "an inpainting model",
}
"""What a U-Net is that takes more channels than the four of a latent."""
HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})")
"""A model of the hub, pinned to a revision; to be matched in full."""
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@.*)?")
"""What could be meant as one."""


def files_of(folder: Path) -> dict[str, Path]:
    """The files that make a whole model, by their path inside of it: configuration, tokenizer, safetensors."""
    found = {}
    for part in PARTS:
        for path in sorted((folder / part).rglob("*")):
            if path.is_file() and path.suffix in (".json", ".txt", ".safetensors"):
                found[str(path.relative_to(folder))] = path
    for name in ("model_index.json", "lists.parquet"):
        if (folder / name).is_file():
            found[name] = folder / name
    return found


def digest_files(files: Mapping[str, Path]) -> str:
    """Digest of names and contents, 20 hexadecimal digits."""
    total = hashlib.sha256()
    for name, path in sorted(files.items()):
        total.update(f"{name}\0".encode())
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:20]


def missing_parts(folder: Path) -> list[str]:
    """Sub-folders that a whole model has and this folder has not."""
    return [part for part in PARTS if not (folder / part).is_dir()]


def weight_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """(safetensors files, pickle files) in a part's folder."""
    pickles = sorted(path for end in PICKLES for path in folder.glob(f"*{end}"))
    return sorted(folder.glob("*.safetensors")), pickles


def pickle_refused(field: str, reference: str, path: Path) -> RequestError:
    """Why a pickle is not read."""
    return RequestError(
        f"{field} = {reference!r}: {path.name} is a pickle, which can run code when it is read; "
        "convert it to safetensors"
    )


def check_weights(field: str, reference: str, folder: Path) -> None:
    """Refuses a whole model that is none of Stable Diffusion 1's or 2's, or a part of which cannot be read.

    Raises:
        RequestError: another family, an adapter beside it, or what `check_part` refuses; it names `field` and the value
            `reference`.
    """
    for name, family in OTHER_PARTS.items():
        if (folder / name).is_dir():
            raise RequestError(
                f"{field} = {reference!r}: {name}/ in it: a pipeline of another family, {family}, which is not "
                "supported; allowed are models of Stable Diffusion 1's and 2's architecture"
            )
    if both := [name for name in (LORA_WEIGHTS, ADAPTER_WEIGHTS) if (folder / name).is_file()]:
        raise RequestError(
            f"{field} = {reference!r}: a whole model and an adapter, {both[0]}, in one folder: the adapter would be "
            f"left out; name {folder / both[0]} as the model and the folder, without it, as its base"
        )
    for part in WEIGHTED_PARTS:
        check_part(field, reference, folder / part)
    for name in ("scheduler/scheduler_config.json", "vae/config.json"):
        json_object(folder / name, reference, field)
    tokenizer = folder / "tokenizer"
    if not any((tokenizer / name).is_file() for name in ("vocab.json", "tokenizer.json")):
        raise RequestError(f"{field} = {reference!r}: no tokenizer/vocab.json and no tokenizer/tokenizer.json in it")
    channels = json_object(folder / "vae" / "config.json", reference, field).get("latent_channels", 4)
    check_channels(
        json_object(folder / "unet" / "config.json", reference, field).get("in_channels", 4), reference, field
    )
    if channels != 4:
        raise RequestError(f"{field} = {reference!r}: vae/config.json: latent_channels = {channels!r}; allowed is 4")


def check_part(field: str, reference: str, folder: Path) -> list[Path]:
    """The files with the weights of a part that are read, if they can be.

    Raises:
        RequestError: no weights, pickles only, no configuration, a shard that is missing, several variants, or a file
            that is none of safetensors.
    """
    part = folder.name
    safe, pickles = weight_files(folder)
    if pickles and not safe:
        raise pickle_refused(field, reference, pickles[0])
    if not safe:
        raise RequestError(f"{field} = {reference!r}: {part}/ holds no .safetensors weights")
    kinds = _variants(folder)
    if not kinds:
        raise RequestError(
            f"{field} = {reference!r}: {part}/ holds {safe[0].name}; weights are read from "
            f"{'model' if part.startswith('text_encoder') else 'diffusion_pytorch_model'}.safetensors"
        )
    if None not in kinds and "fp16" not in kinds and len(kinds) > 1:
        said = ", ".join(sorted(str(kind) for kind in kinds))
        raise RequestError(
            f"{field} = {reference!r}: {part}/ holds the variants {said} of its weights; leave one of them"
        )
    json_object(folder / "config.json", reference, field)
    read = kinds[_chosen(kinds)]
    counts = {match["of"] for path in read if (match := WEIGHT_FILE.fullmatch(path.name))}
    for count in counts - {None}:
        shards = [path for path in read if f"-of-{count}" in path.name]
        if len(shards) < int(count):
            raise RequestError(
                f"{field} = {reference!r}: {part}/ holds {len(shards)} of the {int(count)} files that its weights are "
                f"split into, such as {shards[0].name}; copy or download the others"
            )
    for path in read:
        weight_shapes(path, f"{reference}/{part}" if part not in Path(reference).name else reference, field)
    return read


def check_channels(channels: object, reference: str, field: str = "model") -> None:
    """Refuses a U-Net that takes more than latents."""
    if channels != 4:
        kind = f" ({INPUTS[channels]})" if channels in INPUTS else ""
        raise RequestError(
            f"{field} = {reference!r}: its U-Net has {channels!r} input channels{kind}; allowed are 4, latents alone, "
            "because there are no masks or second pictures to score it with"
        )


def is_pickled(folder: Path, *, allow_pickle: bool = False) -> bool:
    """Whether the weights in a part's folder exist as pickle only.

    Raises:
        RequestError: they do, and that was not allowed; or there are none.
    """
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


def variant_of(folder: Path) -> str | None:
    """The variant of a part's weights that is read, such as "fp16"; None for the plain file names, which go first."""
    kinds = _variants(folder)
    return _chosen(kinds) if kinds else None


def _chosen(kinds: Mapping[str | None, list[Path]]) -> str | None:
    return None if None in kinds else "fp16" if "fp16" in kinds else next(iter(kinds))


def _variants(folder: Path) -> dict[str | None, list[Path]]:
    """A part's safetensors files by the variant that they belong to."""
    found: dict[str | None, list[Path]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        if match := WEIGHT_FILE.fullmatch(path.name):
            found.setdefault(match["early"] or match["late"], []).append(path)
    return found


def read_config(path: Path) -> dict[str, Any]:
    """A component's configuration.

    Raises:
        RequestError: the file is missing or not a JSON object.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"model: {path} is missing or cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RequestError(f"model: {path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise RequestError(f"model: {path} is not a JSON object")
    return config


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
    if pinned := HUB_ID.fullmatch(text):
        return fetch_from_hub(pinned["repo"], pinned["revision"])
    if HUB_NAME.fullmatch(text) and not text.startswith((".", "/")):
        raise RequestError(
            f"model = {text!r}: no such folder, and a hub id must be pinned to a revision "
            "(owner/name@<40 hexadecimal digits>)"
        )
    raise RequestError(f"model = {text!r}: no such folder")


def fetch_from_hub(repo: str, revision: str) -> Path:
    """The local snapshot of a hub repository at one revision: safetensors weights and configuration only."""
    from huggingface_hub import snapshot_download

    patterns = [
        *(f"{part}/*.{end}" for part in PARTS for end in ("json", "txt")),
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "model_index.json",
    ]
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except OSError as error:
        raise RequestError(f"model = '{repo}@{revision}': could not be fetched from the hub: {error}") from error


def widest_block(reference: str) -> int | None:
    """Channels of the widest block of a model's U-Net: of a folder, or of a pinned hub id if that can be had."""
    from huggingface_hub import hf_hub_download

    try:
        if pinned := HUB_ID.fullmatch(reference):
            path = hf_hub_download(pinned["repo"], "unet/config.json", revision=pinned["revision"], etag_timeout=5)
        else:
            path = str(Path(reference) / "unet" / "config.json")
        return int(max(json.loads(Path(path).read_text(encoding="utf-8"))["block_out_channels"]))
    except (OSError, RecursionError, ValueError, KeyError, TypeError):
        return None
