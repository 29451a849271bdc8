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

from lmia.specs import RequestError

log = logging.getLogger(__name__)

WEIGHTED_PARTS = ("unet", "vae", "text_encoder")
PARTS = (*WEIGHTED_PARTS, "tokenizer", "scheduler")
"""Sub-folders of a Stable Diffusion folder in diffusers' format."""
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
"""Endings of files that can run code when they are read."""
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
    """Refuses a whole model one of whose parts has no safetensors weights.

    Raises:
        RequestError: there are none, or pickles only; the message names the field and the value `reference`.
    """
    for part in WEIGHTED_PARTS:
        safe, pickles = weight_files(folder / part)
        if pickles and not safe:
            raise pickle_refused(field, reference, pickles[0])
        if not safe:
            raise RequestError(f"{field} = {reference!r}: {part}/ holds no .safetensors weights")


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
    """The name "fp16" when a part has only its half-precision variant; None for the plain file names."""
    names = [path.name for path in folder.glob("*.safetensors")]
    plain = [
        name for name in names if re.fullmatch(r"(diffusion_pytorch_model|model)(-\d+-of-\d+)?\.safetensors", name)
    ]
    return "fp16" if names and not plain and any(".fp16." in name for name in names) else None


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
    except (OSError, ValueError, KeyError, TypeError):
        return None
