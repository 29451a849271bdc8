"""A dry run of a loaded model: what would fail or mislead in every job is found once, before any work."""

from typing import TYPE_CHECKING

from lmia.models.denoiser import check_prediction, noise_of
from lmia.specs import RequestError

if TYPE_CHECKING:
    from torch import Tensor

    from lmia.models.denoiser import Denoiser

NOISE_LIKE = 0.5
"""Correlation with the noise, at almost pure noise, above which a network predicts the noise."""


def try_out(model: "Denoiser") -> list[str]:
    """Tries a model once: finite weights, one forward pass of the right shape, a known schedule.

    Returns:
        Cautions: that the network does not predict what the model says it does, by the correlation of its output with
        the noise in z = b e at a late step, where b is nearly 1. A network of noise has about 1 there, one of v
        (v = a e - b z0, Salimans and Ho 2022) about a.

    Raises:
        RequestError: a weight that is not finite, a prediction type that is not known, an output of another shape or
            that is not finite; the message begins with "model: ".
    """
    import torch

    check_prediction(model.prediction_type)
    for part, module in model.parts.items():
        for name, value in module.state_dict().items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise RequestError(f"model: {part}: {name} holds numbers that are not finite (NaN or infinity)")
    last = model.num_timesteps - 1
    late = last - max(1, last // 50)
    channels, *_ = model.latent_shape()
    side = model.size_multiple // (model.size // model.latent_shape()[1]) * 2
    noise = torch.randn((2, channels, side, side), generator=torch.Generator().manual_seed(0)).to(model.device)
    with torch.inference_mode():
        a, b = model.schedule(late)
        out = model.predict(b * noise, late, model.condition(["a photo", ""]))
        if out.shape != noise.shape:
            raise RequestError(f"model: the network gives {list(out.shape)} for latents {list(noise.shape)}")
        drawn = model.decode(noise)
    if not bool(torch.isfinite(out).all()) or not bool(torch.isfinite(drawn).all()):
        raise RequestError("model: one forward pass gives numbers that are not finite (NaN or infinity)")
    found = _correlation(out, noise)
    means = _correlation(noise_of(model.prediction_type, out, b * noise, a, b), noise)
    if model.prediction_type == "v_prediction" and found > NOISE_LIKE:
        return [f"says that it predicts v, and its output follows the noise (correlation {found:.2f} at step {late})"]
    if model.prediction_type == "epsilon" and means < NOISE_LIKE:
        return [
            f"says that it predicts the noise, and its output does not follow it (correlation {found:.2f} at step "
            f"{late}): another prediction type, or not a trained model"
        ]
    return []


def _correlation(one: "Tensor", two: "Tensor") -> float:
    import torch

    return float(torch.corrcoef(torch.stack([one.flatten().double(), two.flatten().double()]))[0, 1])
