"""Fine-tuning methods: one file each. A method is its configuration, and owns what it does with it.

It says which weights are trained, by which loss, what stays frozen, how the result is saved and how it is laid over a
base again; `lmia.finetune.train` does the rest.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from lmia.models.denoiser import Denoiser, target_of
from lmia.models.overlays import METHODS as METHODS
from lmia.specs import Spec

if TYPE_CHECKING:
    from torch import Tensor

    from lmia.finetune.batch import Batch


class Method(Spec):
    """A fine-tuning method's configuration: what decides a tuned model beside base, pictures and epoch.

    `class Full(Method, name="full")` registers it. Defaults: Holme et al. 2025.

    Class attributes:
        version: part of a model's address; raised whenever results change.
        caches: what stays frozen and so is computed once: "latents" of the pictures, "condition" of their captions.
        needs: extra inputs by name, each a set of pictures of which every batch gets as many as it has of its own
            (such as a prior set); they come as `Batch.extra`.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    caches: ClassVar[frozenset[Literal["latents", "condition"]]] = frozenset({"latents", "condition"})
    needs: ClassVar[frozenset[str]] = frozenset()

    lr: float = Field(1e-5, gt=0, le=1, description="learning rate after warm-up")
    batch_size: int = Field(5, ge=1, le=4096, description="pictures per step")
    warmup_steps: int = Field(2000, ge=0, description="steps of linear warm-up; constant afterwards")
    weight_decay: float = Field(1e-2, ge=0)
    betas: tuple[float, float] = Field((0.9, 0.999), description="AdamW's")
    epsilon: float = Field(1e-8, gt=0, description="AdamW's")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    flip: bool = Field(True, description="mirror half of the pictures at random")
    caption: Literal["caption", "class"] = Field("caption", description="own caption, or the source's class prompt")
    caption_dropout: float = Field(0.0, ge=0, le=1, description="share of captions replaced by nothing")
    size: int | None = Field(None, ge=8, le=2048, description="picture side in pixels; null: the model's own")
    seed: int = Field(0, ge=0, description="order, noises, timesteps, flips")
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        "float32", description="of the products (autocast); trained weights are float32 always"
    )
    weights: Literal["float16", "float32"] = Field("float16", description="dtype of the saved checkpoint")

    def __init_subclass__(cls, *, name: str | None = None) -> None:
        super().__init_subclass__()
        if name is not None:
            METHODS.register(name)(cls)

    def trained(self, model: Denoiser) -> "Mapping[str, Tensor]":
        """Makes the model trainable (its network may be replaced, its conditioning extended); the trained tensors."""
        raise TypeError("a fine-tuning method defines trained")

    def loss(self, model: Denoiser, batch: "Batch") -> "Tensor":
        """The loss of a batch, a scalar: here the mean squared error of the network's output (Ho et al. 2020)."""
        a, b = model.schedule(batch.t)
        out = model.predict(a * batch.z0 + b * batch.noise, batch.t, batch.condition)
        return (out - target_of(model.prediction_type, batch.z0, batch.noise, a, b)).square().mean()

    def save(self, model: Denoiser, folder: Path) -> None:
        """Writes an overlay, safetensors only.

        Its sub-folders named like parts of a model replace these; the one named like the method is read by `load`.
        """
        raise TypeError("a fine-tuning method defines save")

    @staticmethod
    def load(folder: Path, parts: Mapping[str, Any]) -> None:
        """The inverse of `save`: changes parts in place by what lies in the overlay's sub-folder of the method's name.

        Args:
            folder: that sub-folder.
            parts: modules and tokenizer by the names of their sub-folders, on the CPU; only those that the overlay lies
                over.

        Raises:
            RequestError: it does not fit them.
        """
        raise TypeError("a fine-tuning method that saves more than whole parts defines load")
