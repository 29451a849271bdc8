"""Stable Diffusion 1 and 2: a U-Net that attends to CLIP's text states, on a VAE's latents; noise or v predicted."""

import dataclasses
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from lmia.models.attention import set_attention
from lmia.models.components import check_side, check_together, read_component, read_tokenizer
from lmia.models.denoiser import Denoiser
from lmia.models.embeddings import spelled_out
from lmia.models.files import PARTS, WEIGHTED_PARTS, is_pickled, read_config
from lmia.models.overlays import lay_over
from lmia.models.schedulers import load_scheduler, make_sampler
from lmia.specs import RequestError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


@dataclasses.dataclass(eq=False)
class StableDiffusion(Denoiser):
    """A Stable Diffusion of the first or second kind; the fields are the components of its folder."""

    vae: Any
    unet: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any
    device: str
    dtype: str
    attention: str
    layers: tuple[str, ...] = ()
    pickled: tuple[str, ...] = ()

    @classmethod
    def load(
        cls, folders: Sequence[Path], *, device: str, dtype: str, attention: str, allow_pickle: bool
    ) -> "StableDiffusion":
        """The model in `folders`, the base first: `lmia.models.load.load_model` after its checks."""
        import torch
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
        from transformers.models.clip.modeling_clip import CLIPTextModel
        from transformers.models.clip.tokenization_clip import CLIPTokenizer
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        layer = {part: _last_with(folders, part) for part in PARTS}
        where = {part: folders[at] / part for part, at in layer.items()}
        pickled = tuple(part for part in WEIGHTED_PARTS if is_pickled(where[part], allow_pickle=allow_pickle))

        def weights(kind: Any, part: str) -> Any:
            return read_component(kind, where[part], dtype=getattr(torch, dtype), pickled=part in pickled)

        parts = {
            "vae": weights(AutoencoderKL, "vae"),
            "unet": weights(UNet2DConditionModel, "unet"),
            "text_encoder": weights(CLIPTextModel, "text_encoder"),
            "tokenizer": read_tokenizer(CLIPTokenizer, where["tokenizer"]),
        }
        check_together(where, parts)
        for index, folder in enumerate(folders):
            if below := {part: module for part, module in parts.items() if layer[part] <= index}:
                lay_over(folder, below)
        model = cls(
            vae=parts["vae"].to(device).eval(),
            unet=parts["unet"].to(device).eval(),
            text_encoder=parts["text_encoder"].to(device).eval(),
            tokenizer=parts["tokenizer"],
            scheduler=load_scheduler(where["scheduler"]),
            device=device,
            dtype=dtype,
            attention=attention,
            layers=tuple(str(folder) for folder in folders),
            pickled=pickled,
        )
        for module in model.parts.values():
            module.requires_grad_(False)
        set_attention(model.unet, attention)
        if torch.device(device).type == "cuda":
            set_attention(model.vae, attention)
            model.vae.enable_slicing()
            model.unet.to(memory_format=torch.channels_last)
            model.vae.to(memory_format=torch.channels_last)
        return model

    @property
    def network(self) -> "Module":
        """The U-Net."""
        return self.unet

    @network.setter
    def network(self, module: "Module") -> None:
        self.unet = module

    @property
    def parts(self) -> "dict[str, Module]":
        """VAE, U-Net and text encoder."""
        return {"vae": self.vae, "unet": self.unet, "text_encoder": self.text_encoder}

    @property
    def prediction_type(self) -> str:
        """What the U-Net predicts: "epsilon" or "v_prediction", as its scheduler's configuration says."""
        return self.scheduler.config.prediction_type

    @property
    def num_timesteps(self) -> int:
        """T, the training steps of the diffusion process; 1000 in all that are published."""
        return int(self.scheduler.config.num_train_timesteps)

    @property
    def vae_scale(self) -> int:
        """Picture pixels per latent pixel along a side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def size(self) -> int:
        """The picture side in pixels that the U-Net was made for."""
        return self.unet.config.sample_size * self.vae_scale

    @property
    def size_multiple(self) -> int:
        """The VAE's and the U-Net's down-sampling together, in pixels."""
        return self.vae_scale * 2 ** (len(self.unet.config.block_out_channels) - 1)

    def latent_shape(self, size: int | None = None) -> tuple[int, int, int]:
        """(C, H, W) of the latent of a picture with side `size` (default: the model's own)."""
        side = (size or self.size) // self.vae_scale
        return self.vae.config.latent_channels, side, side

    def encode(self, images: "np.ndarray | Tensor") -> "Tensor":
        """Scaling factor times the VAE's mode [B, C, H, W] (a sample would be an unseeded noise)."""
        with _grad_if_trained(self.vae):
            x = self._pixels(images).to(self.torch_dtype)
            z = self.vae.encode(x, return_dict=False)[0].mode()
        return z.float() * self.vae.config.scaling_factor

    def decode(self, latents: "Tensor") -> "Tensor":
        """Pictures of latents [B, C, H, W]: float32 tensor [B, 3, S, S], clipped to [-1, 1], on the device."""
        import torch

        with torch.no_grad():
            z = (latents / self.vae.config.scaling_factor).to(self.torch_dtype)
            return self.vae.decode(z, return_dict=False)[0].float().clamp(-1, 1)

    def condition(self, captions: Sequence[str]) -> "Tensor":
        """Text states of captions, padded or cut to the tokenizer's length: [B, L, D] in the model's dtype."""
        tokens = self.tokenizer(
            spelled_out(list(captions), self.tokenizer),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        with _grad_if_trained(self.text_encoder):
            return self.text_encoder(tokens.input_ids.to(self.device))[0]

    @overload
    def schedule(self, t: int) -> tuple[float, float]: ...

    @overload
    def schedule(self, t: "Tensor") -> tuple["Tensor", "Tensor"]: ...

    def schedule(self, t: "int | Tensor") -> tuple["float | Tensor", "float | Tensor"]:
        """(sqrt(abar_t), sqrt(1 - abar_t)), abar_t the scheduler's cumulative signal power after step t."""
        import torch

        if not isinstance(t, torch.Tensor):
            return self._levels[t]
        on_device, noise_on_device = self._levels_on_device
        return on_device[t].view(-1, 1, 1, 1), noise_on_device[t].view(-1, 1, 1, 1)

    def predict(self, z: "Tensor", t: "int | Tensor", condition: "Tensor") -> "Tensor":
        """The U-Net's output in z [B, C, H, W] at t under text states [B, L, D]: float32."""
        import torch

        times = t if isinstance(t, torch.Tensor) else torch.full((len(z),), t, device=z.device, dtype=torch.long)
        dtype = self.torch_dtype
        return self.unet(z.to(dtype), times, condition.to(dtype), return_dict=False)[0].float()

    def sampler(self, name: str, steps: int) -> Any:
        """A fresh scheduler with the noise schedule of the model's own."""
        return make_sampler(self.scheduler, name, steps)

    def save_network(self, folder: Path, dtype: str) -> None:
        """Writes `unet/` in diffusers' format."""
        save_part(self.unet, folder / "unet", dtype)

    def checkpoint_gradients(self) -> None:
        """Turns on the U-Net's gradient checkpointing, below its adapters if it has some."""
        unet = self.unet.get_base_model() if hasattr(self.unet, "get_base_model") else self.unet
        unet.enable_gradient_checkpointing()

    def offload_frozen(self) -> None:
        """Moves VAE and text encoder to the CPU."""
        self.vae.to("cpu")
        self.text_encoder.to("cpu")

    def _pixels(self, images: "np.ndarray | Tensor") -> "Tensor":
        """uint8 [B, S, S, 3] as float32 [B, 3, S, S] in [-1, 1] on the device; tensors are only moved there."""
        import torch

        if isinstance(images, np.ndarray):
            x = torch.tensor(images, device=self.device)
            return x.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        return images.to(self.device)

    @property
    def _abar(self) -> "Tensor":
        """Cumulative signal power by training step, float64 [T] on the CPU."""
        import torch

        return self.scheduler.alphas_cumprod.to("cpu", torch.float64)

    @cached_property
    def _levels(self) -> list[tuple[float, float]]:
        """(sqrt(abar), sqrt(1 - abar)) by training step."""
        return [(abar**0.5, (1 - abar) ** 0.5) for abar in self._abar.tolist()]

    @cached_property
    def _levels_on_device(self) -> tuple[Any, Any]:
        abar = self._abar
        return abar.sqrt().float().to(self.device), (1 - abar).sqrt().float().to(self.device)


def _grad_if_trained(module: "Module") -> AbstractContextManager:
    """Gradients flow only if the module is trained and the caller left them on."""
    import torch

    return torch.set_grad_enabled(torch.is_grad_enabled() and any(p.requires_grad for p in module.parameters()))


def save_part(module: Any, folder: Path, dtype: str) -> None:
    """Writes a diffusers module as config.json and safetensors in `dtype`; equal weights give equal files."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    kind = getattr(torch, dtype)
    tensors = {name: value.detach().to(kind).cpu().contiguous() for name, value in module.state_dict().items()}
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    # where the weights once lay, and which library version read them, is no part of the result
    config = {key: value for key, value in module.config.items() if not key.startswith("_")}
    config = {"_class_name": type(module).__name__, **config}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def native_size(folder: Path) -> int:
    """The picture side in pixels that the model in a folder was made for, from its configuration files alone."""
    unet, vae = (read_config(folder / part / "config.json") for part in ("unet", "vae"))
    side, blocks = unet.get("sample_size"), vae.get("block_out_channels")
    side = check_side(folder / "unet", side)
    if not isinstance(blocks, list) or not blocks:
        raise RequestError(f"model: {folder}/vae/config.json: block_out_channels = {blocks!r}: allowed is a list")
    return side * 2 ** (len(blocks) - 1)


def _last_with(folders: Sequence[Path], part: str) -> int:
    for index in reversed(range(len(folders))):
        if (folders[index] / part).is_dir():
            return index
    raise RequestError(
        f"model = {str(folders[0])!r}: no {part}/ in it; a Stable Diffusion folder in diffusers' format has "
        f"{', '.join(PARTS)}"
    )
