"""Full fine-tuning of the U-Net; VAE and text encoder stay as they are (Holme et al. 2025)."""

from pathlib import Path
from typing import Any

from lmia.finetune.methods import METHODS, Method
from lmia.finetune.train import FineTuneSpec
from lmia.models.model import TargetModel, save_part


@METHODS.register("full")
class Full(Method):
    """All U-Net weights are trained; the overlay is a whole `unet/`."""

    version = 1
    Spec = FineTuneSpec

    @staticmethod
    def prepare(model: TargetModel, spec: FineTuneSpec) -> dict[str, Any]:
        """All parameters of the U-Net."""
        model.unet.requires_grad_(True)
        return dict(model.unet.named_parameters())

    @staticmethod
    def save(model: TargetModel, spec: FineTuneSpec, folder: Path) -> None:
        """Writes `unet/` in diffusers' format."""
        save_part(model.unet, folder / "unet", spec.weights)
