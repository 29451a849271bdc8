"""Loading somebody's model and scoring pictures with it, in one call each; torch is imported when they are called."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lmia.scratch import scratch
from lmia.specs import RequestError

if TYPE_CHECKING:
    import pyarrow as pa

    from lmia.attacks import Attack, Learned
    from lmia.data.pictures import Pictures
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
    with scratch("model") as folder:
        if not found.needs_base:
            return load_model([found.folder(folder)], device=device, dtype=dtype)
        below = resolve_base(str(base)).folder(folder / "base")
        overlay = folder / "overlay"
        for name, path in overlay_files(found, below, folder / "made").items():
            (overlay / name).parent.mkdir(parents=True, exist_ok=True)
            (overlay / name).symlink_to(path.absolute())
        return load_model([below, overlay], device=device, dtype=dtype)


def score(
    model: "Denoiser | str | Path",
    pictures: "Pictures | str | Path",
    attacks: "Sequence[Attack | tuple[Attack, Learned]]",
    *,
    base: "Denoiser | str | Path | None" = None,
    caption: str | None = None,
    seed: int = 0,
    batch: int = 16,
) -> "pa.Table":
    """Scores pictures with attacks.

    Args:
        model: the target, or what `load` takes.
        pictures: the pictures, or a folder: ``DIR/*.png``, ``DIR/PERSON/*.png``, or with a metadata file.
        attacks: such as [Loss(t=200), Pia()]; one that learns as a pair with what its `fit` returned. What they share
            is computed once.
        base: the public base model, for attacks that compare with it, and for a `model` that lies over one.
        caption: of a folder's pictures that have none of their own.
        seed: of the attacks' noises.
        batch: pictures per call of the model; rounding depends on it.

    Returns:
        A row per attack and picture: `id`, `person` (null if not known), `attack` (its name, with its settings where
        the same attack is asked for twice), `score` (float64, higher = more likely a member).

    Raises:
        RequestError: an attack needs something that is not given, or a picture lacks its caption.
    """
    import pyarrow as pa

    from lmia.attacks.scoring import score_pass
    from lmia.data.sources.imagefolder import read_folder

    below = load(base) if isinstance(base, str | Path) else base
    if isinstance(model, str | Path):
        model = load(model, base=base if isinstance(base, str | Path) else None)
    if isinstance(pictures, str | Path):
        pictures = read_folder(pictures, model.size, caption)
    asked = [item if isinstance(item, tuple) else (item, None) for item in attacks]
    found = score_pass(asked, pictures, model, base=below, noise_seed=seed, batch=batch, device=str(model.device))
    count, labels = len(pictures), _labels([attack for attack, _ in asked])
    return pa.table(
        {
            "id": pa.array(pictures.ids * len(labels), pa.string()),
            "person": pa.array(pictures.identities * len(labels), pa.string()),
            "attack": pa.array([label for label in labels for _ in range(count)], pa.string()),
            "score": pa.array([value for values in found.scores for value in values], pa.float64()),
        }
    )


def _labels(attacks: "Sequence[Attack]") -> list[str]:
    """A name for each attack; one that stands there twice with other settings has those that are not the default."""
    times = Counter(attack.name for attack in attacks)
    labels = []
    for attack in attacks:
        settings = {k: v for k, v in attack.identity().items() if k not in ("kind", "version")}
        said = ", ".join(f"{name}={value}" for name, value in settings.items())
        labels.append(f"{attack.name}({said})" if times[attack.name] > 1 and said else attack.name)
    if len(set(labels)) < len(labels):
        raise RequestError(f"attacks: {max(labels, key=labels.count)} is asked for twice")
    return labels
