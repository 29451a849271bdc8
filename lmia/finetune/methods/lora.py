"""Low-rank adapters on the network's attention projections, through peft (Hu et al. 2022; diffusers' LoRA example)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from lmia.finetune.methods import Method
from lmia.models.denoiser import Denoiser
from lmia.models.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lmia.models.lora import merge_adapter
from lmia.seeds import rng

if TYPE_CHECKING:
    from torch import Tensor


class Lora(Method, name="lora"):
    """Only the adapters are trained; the overlay is `lora/` in peft's format.

    Rank, targets and learning rate default to diffusers' text-to-image LoRA example.
    """

    version = 1

    lr: float = Field(1e-4, gt=0, le=1, description="learning rate after warm-up")
    rank: int = Field(4, ge=1, le=1024, description="rank of each adapter")
    alpha: int | None = Field(None, ge=1, description="scale is alpha / rank; null: alpha = rank")
    targets: tuple[str, ...] = Field(("to_k", "to_q", "to_v", "to_out.0"), description="names of the adapted layers")

    def trained(self, model: Denoiser) -> "Mapping[str, Tensor]":
        """Puts adapters into the network: A normal with deviation 1 / rank from (seed, name), B zero."""
        import torch
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=self.rank, lora_alpha=self.alpha or self.rank, target_modules=list(self.targets), init_lora_weights=True
        )
        with torch.random.fork_rng(devices=[]):
            adapted = get_peft_model(model.network, config)
        trained = {name: value for name, value in adapted.named_parameters() if value.requires_grad}
        with torch.no_grad():
            for name, value in trained.items():
                if "lora_A" in name:
                    drawn = rng(self.seed, "lora", name).standard_normal(tuple(value.shape), dtype=np.float32)
                    value.copy_(torch.from_numpy(drawn / self.rank))
                else:
                    value.zero_()
        model.network = adapted
        return trained

    def save(self, model: Denoiser, folder: Path) -> None:
        """Writes `lora/adapter_model.safetensors` and `lora/adapter_config.json`."""
        import torch
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        target = folder / self.name
        target.mkdir(parents=True, exist_ok=True)
        dtype = getattr(torch, self.weights)
        state = get_peft_model_state_dict(model.network)
        tensors = {name: value.detach().to(dtype).cpu().contiguous() for name, value in state.items()}
        save_file(tensors, target / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        config = {
            "peft_type": "LORA",
            "r": self.rank,
            "lora_alpha": self.alpha or self.rank,
            "target_modules": sorted(self.targets),
            "base_model_name_or_path": None,
            "inference_mode": True,
        }
        (target / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n")

    @staticmethod
    def load(folder: Path, parts: Mapping[str, Any]) -> None:
        """Merges the adapter into the weights, so that a tuned model costs no more than its base."""
        merge_adapter(folder, parts)
