"""What attacks, sampler and trainer may ask of a latent diffusion model, whatever family it is of.

Notation: z_t = a z0 + b e, where (a, b) = schedule(t), z0 is the latent of a picture and e standard normal noise. What
the network predicts is a matter of its training; the conversions between that, e and z0 stand in this file only.

Shapes: B pictures, S picture side, C latent channels, H and W latent sides, L tokens, D width of the condition.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from lmia.specs import RequestError

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Module

    Level = float | Tensor

PREDICTIONS = ("epsilon", "v_prediction", "velocity")
"""What a network can predict: the noise e; v = a e - b z0 (Salimans and Ho 2022); e - z0 (flow matching)."""


def target_of(prediction: str, z0: "Tensor", noise: "Tensor", a: "Level", b: "Level") -> "Tensor":
    """What the network should predict in z_t = a z0 + b noise: the regression target of its training."""
    if prediction == "epsilon":
        return noise
    if prediction == "v_prediction":
        return a * noise - b * z0
    if prediction == "velocity":
        return noise - z0
    raise _unknown(prediction)


def noise_of(prediction: str, out: "Tensor", z: "Tensor", a: "Level", b: "Level") -> "Tensor":
    """The noise e that the network's output for z = a z0 + b e means: the output itself, a v + b z, or from e - z0."""
    if prediction == "epsilon":
        return out
    if prediction == "v_prediction":
        return a * out + b * z
    if prediction == "velocity":
        return (z + a * out) / (a + b)
    raise _unknown(prediction)


def clean_of(z: "Tensor", eps: "Tensor", a: "Level", b: "Level") -> "Tensor":
    """The clean latent z0 in z = a z0 + b eps."""
    return (z - b * eps) / a


def check_prediction(prediction: str) -> None:
    """Refuses a model whose predictions cannot be converted.

    Raises:
        RequestError: `prediction` is not in PREDICTIONS.
    """
    if prediction not in PREDICTIONS:
        raise _unknown(prediction)


def _unknown(prediction: str) -> RequestError:
    return RequestError(f"model: prediction type {prediction!r} is not supported (allowed: {', '.join(PREDICTIONS)})")


class Denoiser(ABC):
    """A latent diffusion model on one device, in eval mode, its attention backend set.

    Sizes come from the model's own configuration, so that a model of another size is the same to all callers.

    Attributes:
        device: where it lies: "cpu", "cuda", "cuda:1".
        dtype: of weights and activations: "float32", "float16" or "bfloat16".
        attention: the backend really used: "sdpa" or "xformers".
        layers: folders that it was loaded from, the base first.
        pickled: parts that were read from pickle because the caller allowed it.
        network: the module that predicts (a U-Net, a transformer); it may be replaced by one with adapters.
    """

    device: str
    dtype: str
    attention: str
    layers: tuple[str, ...]
    pickled: tuple[str, ...]

    @property
    @abstractmethod
    def network(self) -> "Module":
        """The module that predicts: what is fine-tuned, and whose gradients a white-box attack sees."""

    @network.setter
    @abstractmethod
    def network(self, module: "Module") -> None: ...

    @property
    @abstractmethod
    def parts(self) -> Mapping[str, "Module"]:
        """The modules with weights, by the names of the sub-folders in which they are saved."""

    @property
    @abstractmethod
    def prediction_type(self) -> str:
        """What the network predicts, one of PREDICTIONS if the model is supported."""

    @property
    @abstractmethod
    def num_timesteps(self) -> int:
        """T, the training steps of the diffusion process."""

    @property
    @abstractmethod
    def size(self) -> int:
        """The picture side in pixels that the network was made for."""

    @property
    @abstractmethod
    def size_multiple(self) -> int:
        """Picture sides that the model can draw are multiples of this, in pixels."""

    @abstractmethod
    def latent_shape(self, size: int | None = None) -> tuple[int, int, int]:
        """(C, H, W) of the latent of a picture with side `size` in pixels (default: the model's own)."""

    @abstractmethod
    def encode(self, images: "np.ndarray | Tensor") -> "Tensor":
        """Latents of pictures, without any random draw.

        Args:
            images: uint8 numpy [B, S, S, 3], or float tensor [B, 3, S, S] in [-1, 1].

        Returns:
            float32 tensor [B, C, H, W] on the model's device, scaled as the network wants it.
        """

    @abstractmethod
    def decode(self, latents: "Tensor") -> "Tensor":
        """Pictures of latents [B, C, H, W]: float32 tensor [B, 3, S, S], clipped to [-1, 1], on the device."""

    @abstractmethod
    def condition(self, captions: Sequence[str]) -> "Tensor":
        """What the network is told about captions, padded or cut to the model's length: [B, L, D] in its dtype.

        Here and in `encode`, gradients flow only to what is being trained.
        """

    @overload
    def schedule(self, t: int) -> tuple[float, float]: ...

    @overload
    def schedule(self, t: "Tensor") -> tuple["Tensor", "Tensor"]: ...

    @abstractmethod
    def schedule(self, t: "int | Tensor") -> tuple["Level", "Level"]:
        """(a, b), the weights of clean latent and noise after step t, 0 <= t < T, from the model's own scheduler.

        Two floats for a whole number; for a tensor of steps [B] two float32 tensors [B, 1, 1, 1] on the device.
        """

    @abstractmethod
    def predict(self, z: "Tensor", t: "int | Tensor", condition: "Tensor") -> "Tensor":
        """The network's own output in z [B, C, H, W] at t (a whole number, or a tensor of steps): float32.

        Gradients flow through it unless the caller turned them off; no guidance.
        """

    @abstractmethod
    def sampler(self, name: str, steps: int) -> Any:
        """A fresh diffusers scheduler on this model's schedule, set to `steps`, on the CPU.

        Args:
            name: "model" (the model's own), or a name of `lmia.models.schedulers.SAMPLERS`.
            steps: inference steps.
        """

    @abstractmethod
    def save_network(self, folder: Path, dtype: str) -> None:
        """Writes the network into its sub-folder of `folder`, an overlay that `load_model` lays over a base."""

    @abstractmethod
    def checkpoint_gradients(self) -> None:
        """Makes the network's backward passes take less memory and more time."""

    @abstractmethod
    def offload_frozen(self) -> None:
        """Moves what only `encode`, `decode` and `condition` need to the CPU, until the model is loaded anew."""

    def eps(self, z: "Tensor", t: "int | Tensor", condition: "Tensor") -> "Tensor":
        """The noise that the network sees in z [B, C, H, W] at t: float32, whatever the network predicts."""
        return noise_of(self.prediction_type, self.predict(z, t, condition), z, *self.schedule(t))

    @property
    def torch_dtype(self) -> "torch.dtype":
        """The dtype of weights and activations."""
        import torch

        return getattr(torch, self.dtype)


def to_uint8(pixels: "Tensor") -> np.ndarray:
    """Pictures [B, 3, S, S] in [-1, 1] as uint8 numpy [B, S, S, 3]."""
    import torch

    return pixels.add(1).mul(127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def chunks(count: int, size: int) -> Iterable[slice]:
    """Consecutive slices of at most `size` that cover range(count)."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
