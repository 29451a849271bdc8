"""Embeddings of pictures for the attacks that compare pictures: the base model's VAE, or a network from outside.

The VAE latent of the public base model is the default: it needs nothing that is not there already. A timm or CLIP
network is used when its safetensors weights are in the local hub cache or can be fetched, and is an error otherwise.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from lmia.attacks import Access, Attack, FitInputs, FitRun, Need, ScoreInputs, Scorer, to_arrays
from lmia.specs import RequestError, Spec

if TYPE_CHECKING:
    import torch

    from lmia.models.denoiser import Denoiser


class VaeEncoder(Spec):
    """The latent of the base model's VAE (mode, scaled), flattened."""

    kind: Literal["vae"] = "vae"


class TimmEncoder(Spec):
    """The pooled features of a timm model, with its own input size and normalisation."""

    kind: Literal["timm"] = "timm"
    model: str = Field("vit_small_patch16_224.dino", description="a timm model name with its tag, e.g. DINO or DeiT")
    revision: str | None = Field(None, description="revision of the weights' repository; null = the current one")


class ClipEncoder(Spec):
    """The image embedding of a CLIP model, with its own preprocessing."""

    kind: Literal["clip"] = "clip"
    model: str = Field("openai/clip-vit-large-patch14", description="hub id of a CLIP model")
    revision: str | None = Field(None, description="revision of the repository; null = the current one")


Encoder = Annotated[
    VaeEncoder | TimmEncoder | ClipEncoder,
    Field(discriminator="kind", description="what pictures are compared by: kind = vae, timm or clip"),
]
Encode = Callable[[np.ndarray], np.ndarray]


class GeneratedSet(Attack):
    """An attack that compares embeddings of pictures with those of the generated set."""

    access: ClassVar[Access] = "text-to-image"

    encoder: Encoder = VaeEncoder()

    @property
    def needs(self) -> frozenset[Need]:
        """The generated set and what the encoder needs."""
        return encoder_needs(self.encoder) | {"positives"}

    def embedded(self, inputs: FitInputs, run: FitRun) -> np.ndarray:
        """Embeddings of the generated set: float64 [G, D]."""
        positives = self.need(inputs.positives, "positives")
        return load_encoder(self.encoder, base=inputs.base, device=run.device)(positives.images())

    def compare(self, learned: dict[str, np.ndarray], vectors: np.ndarray) -> np.ndarray:
        """Scores [N] of unit embeddings [N, D]."""
        raise NotImplementedError

    def scorer(self, inputs: ScoreInputs) -> Scorer:
        """`compare` under the encoder."""
        encode, learned = load_encoder(self.encoder, base=inputs.base, device=inputs.device), to_arrays(inputs.learned)
        return lambda target: self.compare(learned, unit(encode(target.pictures.images())))


def encoder_needs(spec: Encoder) -> frozenset[Need]:
    """What an encoder adds to an attack's needs."""
    return frozenset({"base"} if isinstance(spec, VaeEncoder) else {"encoder"})


def load_encoder(spec: Encoder, *, base: "Denoiser | None", device: str, batch: int = 32) -> Encode:
    """An encoder as a function from pictures uint8 [N, H, W, 3] to embeddings float64 [N, D].

    Args:
        spec: which encoder.
        base: the public base model; only the VAE encoder uses it.
        device: where an outside network computes.
        batch: pictures per call.

    Raises:
        RequestError: the encoder's weights are not there, or the VAE encoder was given no base model.
    """
    if isinstance(spec, VaeEncoder):
        if base is None:
            raise RequestError("encoder 'vae' needs the base model, and none was given")
        return _vae(base, batch)
    network, preparation = _timm(spec) if isinstance(spec, TimmEncoder) else _clip(spec)
    return _network(network.to(device).eval(), preparation, device, batch)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to 2-norm 1 (a zero row stays zero): float64 [N, D]."""
    vectors = np.asarray(vectors, dtype=np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float64).tiny)


def hub_file(repo: str, name: str, revision: str | None = None) -> Path:
    """A file of a hub repository: from the local cache, else fetched.

    Raises:
        RequestError: it is neither there nor reachable. One short attempt is made, without the hub client's retries.
    """
    from huggingface_hub import get_session, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_OFFLINE

    cached = try_to_load_from_cache(repo, name, revision=revision)
    if isinstance(cached, str):
        return Path(cached)
    reason = "the hub client is set to offline"
    if not HF_HUB_OFFLINE:
        try:
            get_session().head(hf_hub_url(repo, name, revision=revision), timeout=5)
            return Path(hf_hub_download(repo, name, revision=revision))
        except Exception as error:  # noqa: BLE001 - every failure of the network stack means "not available"
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
    raise RequestError(f"weights {repo!r} ({name}) are not in the local cache and cannot be fetched: {reason}")


def timm_network(model: str, *, num_classes: int, revision: str | None = None) -> Any:
    """A timm network with its pretrained weights, read from safetensors only.

    Raises:
        RequestError: the name is unknown to timm, or the weights are not available.
    """
    import timm
    from timm.models import get_pretrained_cfg

    try:
        config = get_pretrained_cfg(model)
    except RuntimeError as error:
        raise RequestError(f"encoder model = {model!r}: {error}") from error
    if config is None or not config.hf_hub_id:
        raise RequestError(f"encoder model = {model!r}: timm knows no pretrained weights of that name")
    file = hub_file(config.hf_hub_id, "model.safetensors", revision)
    overlay = {"file": str(file)}
    return timm.create_model(model, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=num_classes)


def _vae(model: "Denoiser", batch: int) -> Encode:
    def encode(images: np.ndarray) -> np.ndarray:
        images = resized(images, model.size, "bicubic")
        parts = [model.encode(images[i : i + batch]).flatten(1).double().cpu() for i in range(0, len(images), batch)]
        return np.concatenate([part.numpy() for part in parts])

    return encode


class _Preparation(NamedTuple):
    """How a network wants its pictures."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: str


def _timm(spec: TimmEncoder) -> tuple["torch.nn.Module", _Preparation]:
    network = timm_network(spec.model, revision=spec.revision, num_classes=0)
    config = network.pretrained_cfg
    return network, _Preparation(config["input_size"][-1], config["mean"], config["std"], config["interpolation"])


def _clip(spec: ClipEncoder) -> tuple["torch.nn.Module", _Preparation]:
    import torch
    from transformers.models.clip.modeling_clip import CLIPVisionModelWithProjection

    file = hub_file(spec.model, "model.safetensors", spec.revision)
    hub_file(spec.model, "config.json", spec.revision)
    network: Any = CLIPVisionModelWithProjection.from_pretrained(
        file.parent, local_files_only=True, use_safetensors=True
    )

    class Embedding(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.network(pixel_values=pixels).image_embeds

    # The normalisation that all OpenAI and LAION CLIP models were trained with.
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    return Embedding(), _Preparation(network.config.image_size, mean, std, "bicubic")


def _network(network: "torch.nn.Module", preparation: _Preparation, device: str, batch: int) -> Encode:
    import torch

    mean = torch.tensor(preparation.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(preparation.std, device=device).view(1, 3, 1, 1)

    def encode(images: np.ndarray) -> np.ndarray:
        images = resized(images, preparation.size, preparation.resample)
        parts = []
        for start in range(0, len(images), batch):
            x = torch.tensor(images[start : start + batch], device=device).permute(0, 3, 1, 2).float().div(255)
            with torch.no_grad():
                parts.append(network((x - mean) / std).flatten(1).double().cpu().numpy())
        return np.concatenate(parts)

    return encode


def resized(images: np.ndarray, size: int, resample: str = "bilinear") -> np.ndarray:
    """Pictures uint8 [N, H, W, 3] at `size`, resampled by Pillow ("bilinear" or "bicubic"): uint8 [N, S, S, 3]."""
    from PIL import Image

    if images.shape[1:3] == (size, size):
        return images
    method = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[resample]
    return np.stack([np.asarray(Image.fromarray(image).resize((size, size), method)) for image in images])
