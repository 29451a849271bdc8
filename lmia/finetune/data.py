"""What a model is trained on: pictures and captions, computed once as far as that is frozen, and drawn batches of them.

The latent is the VAE's mode; diffusers' example samples from a posterior whose deviation is negligible. There is no
random crop; a mirrored picture is encoded, too.

Shapes: N pictures, B in a batch, S picture side, C latent channels, H and W latent sides, L tokens, D text width.
"""

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from lmia.data.captions import class_prompt
from lmia.finetune.batch import Batch
from lmia.finetune.methods import Method
from lmia.models.denoiser import Denoiser, chunks
from lmia.models.sample import PromptStates
from lmia.seeds import rng
from lmia.specs import RequestError

if TYPE_CHECKING:
    from torch import Tensor

    from lmia.data.pictures import Pictures


class TrainingSet:
    """Pictures with what each is trained with, in the order of the pictures.

    Args:
        model: encodes pictures and captions.
        pictures: with captions or sources, as `method.caption` says.
        method: decides size, captions, flips and what is cached.
        name: of an extra input; empty for the pictures that are fine-tuned on.
    """

    def __init__(self, model: Denoiser, pictures: "Pictures", method: Method, name: str = ""):
        self.model, self.method, self.ids, self.name = model, method, pictures.ids, name
        self.captions = np.array([*training_captions(pictures, method.caption), ""], dtype=object)
        self.digest = hashlib.sha256(
            b"".join(hashlib.sha256(i).digest() for i in pictures.table["image"].to_pylist())
        ).hexdigest()
        """Of the picture files."""
        images = pictures.images(method.size or model.size)
        if "latents" in method.caches:
            self._latents = self._encoded(images)
            self._mirrored = self._encoded(_mirror(images)) if method.flip else None
        else:
            self._images = images
        if "condition" in method.caches:
            distinct = sorted(set(self.captions))
            place = {caption: at for at, caption in enumerate(distinct)}
            self._conditions = PromptStates(model).of(distinct).to(compute_dtype(method))
            self._condition_at = np.array([place[caption] for caption in self.captions])

    def __len__(self) -> int:
        return len(self.ids)

    def _encoded(self, images: np.ndarray) -> "Tensor":
        import torch

        return torch.cat([self.model.encode(images[part]) for part in chunks(len(images), 16)])

    def draw(self, chosen: np.ndarray, at: int) -> Batch:
        """The pictures at these positions as a batch; all randomness comes from (seed, `at`, record id).

        Args:
            chosen: positions [B].
            at: the epoch; of an extra input the step.
        """
        import torch

        model, method = self.model, self.method
        shape = model.latent_shape(method.size)
        noise = np.empty((len(chosen), *shape), np.float32)
        times = np.empty(len(chosen), np.int64)
        captions = np.array(chosen)
        mirrored = np.zeros(len(chosen), bool)
        key = (f"finetune/{self.name}" if self.name else "finetune", at)
        for row, position in enumerate(chosen):
            draw = rng(method.seed, *key, self.ids[position])
            times[row] = draw.integers(model.num_timesteps)
            mirrored[row] = draw.random() < 0.5
            if draw.random() < method.caption_dropout:
                captions[row] = len(self.captions) - 1  # nothing
            draw.standard_normal(out=noise[row], dtype=np.float32)
        batch: dict[str, Any] = {"noise": _moved(noise, model.device), "t": _moved(times, model.device)}
        if "latents" in method.caches:
            rows = _moved(chosen, model.device)
            z0 = self._latents[rows]
            if self._mirrored is not None:
                z0 = torch.where(_moved(mirrored, model.device).view(-1, 1, 1, 1), self._mirrored[rows], z0)
        else:
            images = self._images[chosen]
            if method.flip:
                images[mirrored] = _mirror(images[mirrored])
            z0 = model.encode(images)
            batch["images"] = images
        if "condition" in method.caches:
            condition = self._conditions[_moved(self._condition_at[captions], model.device)]
        else:
            batch["captions"] = list(self.captions[captions])
            condition = model.condition(self.captions[captions])
        return Batch(z0=z0, condition=condition, **batch)


def training_captions(pictures: "Pictures", kind: str) -> list[str]:
    """What each picture is trained with: its own caption, or its source's class prompt.

    Raises:
        RequestError: a picture has no caption, or no source; the first is named.
    """
    column = pictures.captions if kind == "caption" else pictures.table.column("source").to_pylist()
    missing = [record for record, value in zip(pictures.ids, column, strict=True) if value is None]
    if missing:
        need = "caption" if kind == "caption" else "source"
        raise RequestError(
            f"caption = {kind!r}: picture {missing[0]!r} has no {need} (nor have {len(missing) - 1} more)"
        )
    return [str(value) if kind == "caption" else class_prompt(str(value)) for value in column]


def compute_dtype(method: Method) -> Any:
    """The dtype of products."""
    import torch

    return getattr(torch, method.dtype)


def _mirror(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images[:, :, ::-1])


def _moved(array: np.ndarray, device: str) -> "Tensor":
    """An array on the device; to a GPU through pinned memory, so that nothing waits for the copy."""
    import torch

    tensor = torch.from_numpy(array)
    if torch.device(device).type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
