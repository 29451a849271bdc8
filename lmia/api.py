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

WHOLE_BYTES = 8 * 2**30
"""Weights on disk above which a dry run would not fit beside other work."""


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
    from lmia.resolve import overlay_files, resolve_base, resolve_model, with_article

    found = resolve_model(str(model))
    if found.needs_base and base is None:
        form = with_article(found.form)
        raise RequestError(f"model = {str(model)!r}: this is {form}; name the model it belongs to as its base")
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


def try_model(reference: str, base: str | None = None, *, field: str = "model") -> list[str]:
    """Loads a model once and tries it: what would fail in every job is a mistake in the request, said now.

    Args:
        reference: a whole model, or with `base` what lies over one.
        base: the model that it lies over.
        field: the option that named `reference`, for messages.

    Returns:
        Cautions for people.

    Raises:
        RequestError: it cannot be fetched, read or laid over its base, or it does not compute.
    """
    from lmia.models.files import files_of
    from lmia.models.trial import try_out
    from lmia.resolve import resolve_base, resolve_model

    given = resolve_model(reference) if field == "model" else resolve_base(reference)
    try:
        large = 0
        if not given.needs_base or base is not None:
            with scratch("trial") as folder:
                below = resolve_base(str(base)) if given.needs_base else given
                large = sum(path.stat().st_size for path in files_of(below.folder(folder)).values())
        if large > WHOLE_BYTES:
            return [f"{field} {reference}: {large / 2**30:.0f} GiB of weights, not tried before the work begins"]
        dtype = "bfloat16" if large > 2**30 else "float32"
        cautions = try_out(load(reference, base=base if given.needs_base else None, device="cpu", dtype=dtype))
    except RequestError as error:
        text = str(error)
        if text.startswith(f"{field} = "):
            raise
        for start in ("model: ", f"model = {reference!r}: ", f"{given.reference}/"):
            text = text.removeprefix(start)
        raise RequestError(f"{field} = {reference!r}: {text}") from error
    return [f"{field} {reference}: {caution}" for caution in cautions]


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
