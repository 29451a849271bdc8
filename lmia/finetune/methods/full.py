"""Full fine-tuning of the denoising network; VAE and text encoder stay as they are (Holme et al. 2025)."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lmia.finetune.methods import Method
from lmia.models.denoiser import Denoiser

if TYPE_CHECKING:
    from torch import Tensor


class Full(Method, name="full"):
    """All weights of the network are trained; the overlay is the whole network, which replaces the base's."""

    version = 1

    def trained(self, model: Denoiser) -> "Mapping[str, Tensor]":
        """All parameters of the network."""
        model.network.requires_grad_(True)
        return dict(model.network.named_parameters())

    def save(self, model: Denoiser, folder: Path) -> None:
        """Writes the network in its sub-folder, in diffusers' format."""
        model.save_network(folder, self.weights)
