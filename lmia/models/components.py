"""Reading one part of a model with the libraries' own loaders, and holding them to what the files say."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lmia.models.files import WEIGHTED_PARTS, read_config, variant_of
from lmia.specs import RequestError

UNREADABLE = (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, ArithmeticError)
"""What diffusers and transformers raise for files that they cannot make a component of."""
NOT_THE_MODELS = ("position_ids", "text_projection.weight", "logit_scale")
"""Endings of weights that files have and the component has no use for: a constant, and what is CLIP's."""


def check_side(folder: Path, side: Any) -> int:
    """The side in latent pixels that a U-Net's configuration states; RequestError if that is none."""
    if not isinstance(side, int) or isinstance(side, bool) or side < 1:
        raise RequestError(f"model: {folder}/config.json: sample_size = {side!r}: allowed is a latent side")
    return side


def read_component(kind: Any, folder: Path, *, dtype: Any, pickled: bool) -> Any:
    """A component from its folder, every weight of it from the file and every weight of the file in it.

    diffusers and transformers fill in what a file lacks with random numbers and leave out what does not fit, with
    a warning: another model would be scored.

    Args:
        kind: the class, of diffusers or transformers.
        folder: configuration and weights.
        dtype: torch's, of the weights in memory.
        pickled: the weights exist as pickle only, and that was allowed.

    Raises:
        RequestError: what the folder lacks, or what of it has no place.
    """
    from safetensors import SafetensorError

    read_config(folder / "config.json")
    source: dict[str, Any] = {"dtype": dtype, "use_safetensors": not pickled}
    if variant := variant_of(folder):
        source["variant"] = variant
    try:
        with _quiet():
            made, info = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True, **source)
    except (*UNREADABLE, SafetensorError) as error:
        raise RequestError(f"model: {folder}: cannot be read as {kind.__name__}: {first_line(error)}") from error
    lacking = sorted(info["missing_keys"])
    beyond = sorted(name for name in info["unexpected_keys"] if not name.endswith(NOT_THE_MODELS))
    for names, what in ((lacking, "lack"), (beyond, "hold, beyond what config.json describes,")):
        if names:
            raise RequestError(f"model: {folder}: its weights {what} {len(names)} tensors, such as {names[0]}")
    return made


def read_tokenizer(kind: Any, folder: Path) -> Any:
    """A tokenizer that has said a caption once; RequestError if it cannot."""
    try:
        made = kind.from_pretrained(folder, local_files_only=True)
        made(["a photo"], padding="max_length", max_length=made.model_max_length, truncation=True)
    except (*UNREADABLE, MemoryError) as error:
        raise RequestError(f"model: {folder}: cannot be read as a tokenizer: {first_line(error)}") from error
    return made


def check_together(where: Mapping[str, Path], parts: Mapping[str, Any]) -> None:
    """Refuses components that are each whole and do not make a model of captions together."""
    unet, vae, text = (parts[part].config for part in WEIGHTED_PARTS)
    if unet.in_channels != vae.latent_channels or unet.out_channels != vae.latent_channels:
        more = ": an inpainting, depth or other picture-conditioned model" if unet.in_channels in (5, 8, 9) else ""
        raise RequestError(
            f"model: {where['unet']}: the U-Net takes {unet.in_channels} channels and gives {unet.out_channels}, the "
            f"VAE's latents have {vae.latent_channels}{more}; allowed are text-to-image models"
        )
    check_side(where["unet"], unet.sample_size)
    for setting in ("class_embed_type", "addition_embed_type", "encoder_hid_dim_type"):
        if value := unet.get(setting):
            raise RequestError(
                f"model: {where['unet']}: {setting} = {value!r}: this U-Net needs more than a caption; allowed are "
                "models of Stable Diffusion 1's and 2's architecture"
            )
    if unet.cross_attention_dim != text.hidden_size:
        raise RequestError(
            f"model: {where['unet']}: the U-Net attends to text states of width {unet.cross_attention_dim}, "
            f"{where['text_encoder']} gives {text.hidden_size}"
        )
    if len(parts["tokenizer"]) > text.vocab_size:
        raise RequestError(
            f"model: {where['tokenizer']}: {len(parts['tokenizer'])} tokens, {where['text_encoder']} knows "
            f"{text.vocab_size}"
        )


def first_line(error: BaseException) -> str:
    """An error of a library as one line of at most 200 characters."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "") or type(error).__name__
    text = text.split(". If you want")[0]
    return text if len(text) <= 200 else f"{text[:197]}..."


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' own words on loading: what matters of them is raised."""
    import diffusers.utils.logging
    import transformers.utils.logging

    loud = [(lib, lib.get_verbosity()) for lib in (diffusers.utils.logging, transformers.utils.logging)]
    for library, _ in loud:
        library.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        for library, level in loud:
            library.set_verbosity(level)
