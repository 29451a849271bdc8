"""Low-rank adapters on the U-Net's attention projections, through peft (Hu et al. 2022; diffusers' LoRA example)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from lmia.finetune.methods import METHODS, Method
from lmia.finetune.train import FineTuneSpec
from lmia.models.model import TargetModel
from lmia.seeds import rng


class LoraSpec(FineTuneSpec):
    """Fine-tuning with adapters; rank, targets and learning rate default to diffusers' text-to-image LoRA example."""

    lr: float = Field(1e-4, gt=0, le=1, description="learning rate after warm-up")
    rank: int = Field(4, ge=1, le=1024, description="rank of each adapter")
    alpha: int | None = Field(None, ge=1, description="scale is alpha / rank; null: alpha = rank")
    targets: tuple[str, ...] = Field(("to_k", "to_q", "to_v", "to_out.0"), description="names of the adapted layers")


@METHODS.register("lora")
class Lora(Method):
    """Only the adapters are trained; the overlay is `lora/` in peft's format."""

    version = 1
    Spec = LoraSpec

    @staticmethod
    def prepare(model: TargetModel, spec: LoraSpec) -> dict[str, Any]:
        """Puts adapters into the U-Net: A normal with deviation 1 / rank from (seed, name), B zero."""
        import torch
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=spec.rank, lora_alpha=spec.alpha or spec.rank, target_modules=list(spec.targets), init_lora_weights=True
        )
        with torch.random.fork_rng(devices=[]):
            adapted = get_peft_model(model.unet, config)
        trained = {name: value for name, value in adapted.named_parameters() if value.requires_grad}
        with torch.no_grad():
            for name, value in trained.items():
                if "lora_A" in name:
                    drawn = rng(spec.seed, "lora", name).standard_normal(tuple(value.shape), dtype=np.float32)
                    value.copy_(torch.from_numpy(drawn / spec.rank))
                else:
                    value.zero_()
        model.unet = adapted
        return trained

    @staticmethod
    def save(model: TargetModel, spec: LoraSpec, folder: Path) -> None:
        """Writes `lora/adapter_model.safetensors` and `lora/adapter_config.json`."""
        import torch
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        target = folder / "lora"
        target.mkdir(parents=True, exist_ok=True)
        dtype = getattr(torch, spec.weights)
        state = get_peft_model_state_dict(model.unet)
        tensors = {name: value.detach().to(dtype).cpu().contiguous() for name, value in state.items()}
        save_file(tensors, target / "adapter_model.safetensors", metadata={"format": "pt"})
        config = {
            "peft_type": "LORA",
            "r": spec.rank,
            "lora_alpha": spec.alpha or spec.rank,
            "target_modules": sorted(spec.targets),
            "base_model_name_or_path": None,
            "inference_mode": True,
        }
        (target / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
