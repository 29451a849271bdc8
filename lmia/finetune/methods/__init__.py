"""Fine-tuning methods: one file each says which weights are trained and how the result is laid over the base."""

from pathlib import Path
from typing import Any, ClassVar

from lmia.models.model import TargetModel
from lmia.registry import Registry
from lmia.specs import Spec

METHODS: Registry = Registry("fine-tuning method", "lmia.finetune.methods")


class Method:
    """What a fine-tuning method has to say; `lmia.finetune.train` does the rest."""

    name: ClassVar[str]
    version: ClassVar[int]
    Spec: ClassVar[type[Spec]]

    @staticmethod
    def prepare(model: TargetModel, spec: Any) -> dict[str, Any]:
        """Makes the model trainable (it may replace ``model.unet``) and names the trained parameters."""
        raise TypeError("a fine-tuning method defines prepare")

    @staticmethod
    def save(model: TargetModel, spec: Any, folder: Path) -> None:
        """Writes the overlay that `lmia.models.model.load_model` lays over the base; safetensors only."""
        raise TypeError("a fine-tuning method defines save")
