"""Drawing pictures with a target model: its own loop, because a picture must not depend on its batch mates.

Guidance: 0 is truly unconditional (the noise prediction for the empty prompt), 1 purely conditional, each one
evaluation a step; any other scale s is classifier-free guidance, u + s (c - u), in one doubled batch. diffusers
differs: there guidance is active only for scales above 1, so its 0 (and every scale up to 1) draws conditionally;
what papers call "guidance 0" with diffusers is 1 here.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from lmia.models.denoiser import Denoiser, chunks, to_uint8
from lmia.seeds import rng
from lmia.specs import RequestError, Spec

if TYPE_CHECKING:
    from torch import Tensor


class SampleSpec(Spec):
    """What decides a drawn picture, beside the model, the prompt and the record id. Defaults: Holme et al. 2025."""

    guidance: float = Field(7.5, ge=0, le=100, description="guidance scale; 0 unconditional, 1 conditional")
    steps: int = Field(100, ge=1, le=1000, description="inference steps")
    sampler: Literal["model", "ddim", "pndm", "dpm"] = Field("pndm", description="'model': the model's own scheduler")
    seed: int = Field(0, ge=0, description="initial latents come from (seed, record id)")
    negative_prompt: str = Field("", description="what the unconditional branch is given")
    size: int | None = Field(None, ge=8, le=2048, description="picture side in pixels; null: the model's own")
    dtype: Literal["float32", "float16", "bfloat16"] = Field("float32", description="dtype of weights and activations")
    batch: int = Field(16, ge=1, le=1024, description="pictures per call; rounding depends on it")


def count_evaluations(spec: SampleSpec, model: Denoiser | None = None) -> int:
    """Evaluations per picture: the scheduler's calls (PNDM of n steps makes n + 1), twice under guidance.

    Exact for a named sampler; for "model" the model must be given, otherwise it is taken to be PNDM.
    """
    if spec.sampler == "model" and model is not None:
        calls = len(model.sampler(spec.sampler, spec.steps).timesteps)
    else:
        calls = spec.steps + (1 if spec.sampler in ("pndm", "model") and spec.steps > 1 else 0)
    return calls * (1 if spec.guidance in (0, 1) else 2)


def initial_latents(ids: Sequence[str], seed: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Standard normal float32 [N, C, H, W], each from (seed, its id)."""
    return np.stack([rng(seed, "latent", record).standard_normal(shape, dtype=np.float32) for record in ids])


def generate(
    model: Denoiser,
    ids: Sequence[str],
    prompts: Sequence[str],
    spec: SampleSpec,
    on_batch: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Draws one picture for each (id, prompt): uint8 [N, S, S, 3].

    Args:
        model: the target; its dtype must be the spec's.
        ids: record ids; a picture's noise comes from (spec.seed, id).
        prompts: one per id.
        spec: everything else that decides the picture.
        on_batch: called with the number of pictures done after each batch.

    Raises:
        RequestError: the model was loaded in another dtype, or the size does not fit the VAE.
    """
    import torch

    if len(ids) != len(prompts):
        raise ValueError(f"{len(ids)} ids for {len(prompts)} prompts")
    if model.dtype != spec.dtype:
        raise RequestError(f"dtype = {spec.dtype!r}: the model was loaded in {model.dtype!r}")
    if spec.size is not None and spec.size % model.size_multiple:
        raise RequestError(f"size = {spec.size}: does not divide by the model's down-sampling")
    if not len(ids):
        side = spec.size or model.size
        return np.zeros((0, side, side, 3), np.uint8)
    noise = initial_latents(ids, spec.seed, model.latent_shape(spec.size))
    states = PromptStates(model)
    drawn = []
    for part in chunks(len(ids), spec.batch):
        z = torch.from_numpy(noise[part]).to(model.device)
        latents = denoise(model, z, states.of(prompts[part]), states.of([spec.negative_prompt] * len(z)), spec)
        drawn.append(to_uint8(model.decode(latents)))
        if on_batch is not None:
            on_batch(part.stop)
    return np.concatenate(drawn)


def denoise(model: Denoiser, noise: "Tensor", text: "Tensor", negative: "Tensor", spec: SampleSpec) -> "Tensor":
    """Runs the sampler from standard normal noise [B, C, H, W] to latents, float32.

    Args:
        model: the target.
        noise: initial latents before the scheduler's own scaling.
        text: text states of the prompts, [B, L, D].
        negative: text states of the unconditional branch, [B, L, D].
        spec: guidance, steps and sampler.
    """
    import torch

    scheduler = model.sampler(spec.sampler, spec.steps)
    z = noise * float(scheduler.init_noise_sigma)
    single = spec.guidance in (0, 1)
    states = {0.0: negative, 1.0: text}[float(spec.guidance)] if single else torch.cat([negative, text])
    times = scheduler.timesteps.to(model.device)
    with torch.inference_mode():
        for index, t in enumerate(scheduler.timesteps):
            x = scheduler.scale_model_input(z, t)
            if single:
                out = model.predict(x, times[index], states)
            else:
                blank, prompted = model.predict(torch.cat([x, x]), times[index], states).chunk(2)
                out = blank + spec.guidance * (prompted - blank)
            z = scheduler.step(out, t, z, return_dict=False)[0]
    return z.clone()


class PromptStates:
    """Text states of prompts, each encoded once: class prompts repeat thousands of times."""

    def __init__(self, model: Denoiser, batch: int = 32):
        self._model = model
        self._batch = batch
        self._states: dict[str, Tensor] = {}

    def of(self, prompts: Sequence[str]) -> "Tensor":
        """Text states [B, L, D] in the model's dtype."""
        import torch

        missing = sorted(set(prompts) - set(self._states))
        for part in chunks(len(missing), self._batch):
            for prompt, states in zip(missing[part], self._model.condition(missing[part]), strict=True):
                self._states[prompt] = states
        return torch.stack([self._states[prompt] for prompt in prompts])
