"""Loading a model: a base and the layers that fine-tuning put over it."""

from collections.abc import Sequence
from pathlib import Path

from lmia.models.attention import choose_attention
from lmia.models.denoiser import Denoiser
from lmia.models.families.sd import StableDiffusion
from lmia.models.files import resolve_layers
from lmia.specs import RequestError

DTYPES = ("float32", "float16", "bfloat16")


def load_model(
    layers: Sequence[str | Path],
    *,
    device: str = "cpu",
    dtype: str = "float32",
    attention: str = "auto",
    allow_pickle: bool = False,
) -> Denoiser:
    """Loads a base and what fine-tuning laid over it.

    Each part (unet, vae, text_encoder, tokenizer, scheduler) is taken from the last layer that has a
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
        RequestError: a folder or part is missing, weights are pickle, an adapter does not fit the part
            that it is for, or the backend is not there.
    """
    import torch

    if dtype not in DTYPES:
        raise RequestError(f"dtype = {dtype!r}: allowed are {', '.join(DTYPES)}")
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise RequestError(f"device = {device!r}: this machine has no usable CUDA device")
    backend = choose_attention(attention, device)
    folders = resolve_layers(layers)
    return StableDiffusion.load(folders, device=device, dtype=dtype, attention=backend, allow_pickle=allow_pickle)
