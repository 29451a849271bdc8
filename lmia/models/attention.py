"""Which fused attention a model uses: chosen on the worker, by what its device really has."""

from typing import Any

from lmia.specs import RequestError, UnknownName

BACKENDS = ("auto", "sdpa", "xformers")
"""What may be asked for; what is recorded is the one really used."""


def choose_attention(asked: str, device: str) -> str:
    """The backend for `device`: "sdpa" or "xformers".

    ``auto`` takes torch's own fused kernels, except on GPUs older than Ampere, where torch has no flash kernel
    and xformers is taken if it works there. (Published end-to-end figures on an A100 have sdpa slightly ahead.)

    Raises:
        RequestError: xformers was asked for and does not work on this device; the reason is named.
    """
    if asked not in BACKENDS:
        raise UnknownName("attention backend", asked, BACKENDS)
    if asked == "sdpa":
        return "sdpa"
    if asked == "auto" and not _lacks_flash(device):
        return "sdpa"
    fault = _xformers_fault(device)
    if fault is None:
        return "xformers"
    if asked == "auto":
        return "sdpa"
    raise RequestError(
        f"attention = 'xformers' cannot be used on device {device!r}: {fault} (allowed here: auto, sdpa)"
    )


def set_attention(module: Any, backend: str) -> None:
    """Makes a diffusers U-Net or VAE use `backend` ("sdpa" or "xformers").

    `set_attention_backend` is a silent no-op for these classes in diffusers 0.42, so processors are set instead.
    """
    if backend == "xformers":
        module.enable_xformers_memory_efficient_attention()
        return
    from diffusers.models.attention_processor import AttnProcessor2_0

    module.set_attn_processor(AttnProcessor2_0())


def _lacks_flash(device: str) -> bool:
    import torch

    return torch.device(device).type == "cuda" and torch.cuda.get_device_capability(device)[0] < 8


def _xformers_fault(device: str) -> str | None:
    """Why xformers cannot run on `device`; None when a small product really ran."""
    import torch

    if torch.device(device).type != "cuda":
        return "xformers has no operator for this kind of device"
    try:
        from xformers.ops import memory_efficient_attention

        x = torch.zeros(1, 8, 1, 8, device=device, dtype=torch.float16)
        memory_efficient_attention(x, x, x)
    except (ImportError, NotImplementedError, RuntimeError, OSError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    return None
