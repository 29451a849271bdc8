"""Loading somebody's model and scoring pictures with it, in one call each; torch is imported when they are called."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lmia.specs import RequestError

if TYPE_CHECKING:
    from lmia.models.denoiser import Denoiser


def load(
    model: str | Path, *, base: str | Path | None = None, device: str = "auto", dtype: str = "float32"
) -> "Denoiser":
    """Loads a model, whatever its form.

    Args:
        model: a diffusers folder, a single .safetensors checkpoint, a LoRA adapter, OWNER/NAME@REVISION of the hub, or
            the name of a model that comes with lmia (`tiny`, `tiny_long`).
        base: the whole model that a checkpoint or an adapter belongs to.
        device: "cpu", "cuda", "cuda:1"; "auto": a CUDA device if there is one.
        dtype: "float32", "float16" or "bfloat16".

    Raises:
        RequestError: there is no such model, it is a pickle, it needs a base, or it does not fit the one given.
    """
    import torch

    from lmia.models.load import load_model
    from lmia.resolve import overlay_files, resolve_base, resolve_model

    found = resolve_model(str(model))
    if found.needs_base and base is None:
        raise RequestError(f"model = {str(model)!r}: this is a {found.form}; name the model it belongs to as its base")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory(prefix="lmia-model-") as scratch:
        if not found.needs_base:
            return load_model([found.folder(Path(scratch))], device=device, dtype=dtype)
        below = resolve_base(str(base)).folder(Path(scratch) / "base")
        overlay = Path(scratch) / "overlay"
        for name, path in overlay_files(found, below, Path(scratch) / "made").items():
            (overlay / name).parent.mkdir(parents=True, exist_ok=True)
            (overlay / name).symlink_to(path.absolute())
        return load_model([below, overlay], device=device, dtype=dtype)
