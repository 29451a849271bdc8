"""The few calls that an attack may make on a target model, remembered for the pictures at hand.

Notation (facts and papers alike): z0 = latent of the picture, (a, b) = (sqrt(abar_t), sqrt(1 - abar_t)) from the
model's own schedule, z_t(e) = a z0 + b e, eps(z, t, c) the model's noise prediction with no classifier-free guidance.
Shapes: N pictures, C latent channels, H and W latent sides, L tokens, D text width, S picture side, P parameter
tensors. All tensors are float32 on the model's device unless it says otherwise.

What is computed once and shared by all attacks on the same Probe: z0, text states, noises, noise predictions on the
clean latent, losses, deterministic inversions, image-to-image variations, drawn pictures and gradients. Each such
piece of work has one name, made by a function below: attacks declare it as what they will ask for
(`Attack.evaluations`), and the Probe remembers it under it.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from lmia.models.denoiser import Denoiser, check_prediction, chunks, clean_of
from lmia.seeds import rng

if TYPE_CHECKING:
    import torch

    from lmia.data.pictures import Pictures

T = TypeVar("T")


@dataclass(frozen=True)
class Captions:
    """Captions made of the pictures' own.

    Attributes:
        name: what stands for them in the name of a piece of work.
        of: from a picture's caption to the one that the model is given.
    """

    name: str
    of: Callable[[str], str]


def eps_clean_key(t: int) -> Hashable:
    """Of `Probe.eps_clean`: one evaluation."""
    return "eps", t


def loss_key(t: int, index: int, captions: Captions | None = None) -> Hashable:
    """Of `Probe.loss`: one evaluation."""
    return "loss", t, index, captions and captions.name


def inverted_eps_key(t: int, stride: int) -> Hashable:
    """Of `Probe.inverted_eps`: one evaluation; at 0 it is that on the clean latent."""
    return eps_clean_key(0) if t == 0 else ("inverted", stride, t)


def gradients_key(timesteps: tuple[int, ...]) -> Hashable:
    """Of `Probe.gradient_norms`: one evaluation with its backward per timestep."""
    return "gradients", timesteps


def vary_key(t: int, stride: int, draw: int) -> Hashable:
    """Of `Probe.vary`: t / stride evaluations."""
    return "vary", t, stride, draw


def generate_key(guidance: float, steps: int, seed: int, draw: int) -> Hashable:
    """Of `Probe.generate`: an evaluation per step, two under guidance."""
    return "generate", guidance, steps, seed, draw


@dataclass
class Meter:
    """Counts evaluations of models: one per picture, two under classifier-free guidance."""

    evaluations: int = 0


class Probe:
    """A target model as an attack sees it while it looks at some pictures. Nothing of it changes but what it remembers.

    Args:
        model: the loaded target; None for attacks that look at the pictures only.
        pictures: the pictures at hand.
        base: the public base model, for `Probe.base`.
        noise_seed: noises come from (noise_seed, record id, index), never from the model: the same noises for
            every target, condition and attack.
        batch: pictures per call of the model; rounding depends on it, memory too.
        meter: counts what is spent on target and base; what is remembered is not counted again.
    """

    def __init__(
        self,
        model: Denoiser | None,
        pictures: "Pictures",
        *,
        base: Denoiser | None = None,
        noise_seed: int = 0,
        batch: int = 16,
        meter: Meter | None = None,
    ):
        if model is not None:
            check_prediction(model.prediction_type)
        self.pictures = pictures
        self.noise_seed = noise_seed
        self.batch = batch
        self.meter = meter or Meter()
        self._model = model
        self._base = base
        self._memo: dict[Hashable, object] = {}
        self._text: dict[str, torch.Tensor] = {}

    @property
    def model(self) -> Denoiser:
        """The target."""
        if self._model is None:
            raise ValueError("this probe has no model: only pictures may be looked at")
        return self._model

    @cached_property
    def base(self) -> "Probe":
        """The public base model with the same pictures and noises."""
        if self._base is None:
            raise ValueError("this probe has no base model")
        return Probe(self._base, self.pictures, noise_seed=self.noise_seed, batch=self.batch, meter=self.meter)

    @property
    def captions(self) -> list[str]:
        """Captions of the pictures at hand; a picture without one counts as captioned ""."""
        return [caption or "" for caption in self.pictures.captions]

    def images(self) -> np.ndarray:
        """The pictures at hand at the model's size: uint8 [N, S, S, 3]."""
        return self.pictures.images(self.model.size)

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What `compute` gives, remembered under `key`, whoever asks for it again."""
        if key not in self._memo:
            self._memo[key] = compute()
        return self._memo[key]  # type: ignore[return-value]  # what was put there under this key

    # Latents, text, noise.

    def encode(self, images: np.ndarray) -> "torch.Tensor":
        """Latents of any pictures uint8 [N, S, S, 3]: [N, C, H, W]. Not remembered."""
        import torch

        return torch.cat([self.model.encode(images[part]) for part in chunks(len(images), self.batch)])

    def decode(self, latents: "torch.Tensor") -> "torch.Tensor":
        """Pictures of any latents [N, C, H, W]: [N, 3, S, S] in [-1, 1]. Not remembered."""
        import torch

        return torch.cat([self.model.decode(latents[part]) for part in chunks(len(latents), self.batch)])

    def z0(self) -> "torch.Tensor":
        """Latents of the pictures at hand, without any random draw: [N, C, H, W]."""
        return self.once("z0", lambda: self.encode(self.images()))

    def text(self, captions: Captions | None = None) -> "torch.Tensor":
        """Text states [N, L, D] of the pictures' own captions, or of others made of them."""
        import torch

        wanted = self.captions if captions is None else [captions.of(caption) for caption in self.captions]
        missing = sorted(set(wanted) - set(self._text))
        for part in chunks(len(missing), self.batch):
            for caption, states in zip(missing[part], self.model.condition(missing[part]), strict=True):
                self._text[caption] = states
        return torch.stack([self._text[caption] for caption in wanted])

    def noise(self, index: int) -> "torch.Tensor":
        """Standard normal noise number `index` of every picture at hand, from (noise seed, id, index): [N, C, H, W]."""

        def draw() -> "torch.Tensor":
            import torch

            shape = self.model.latent_shape()
            drawn = [
                rng(self.noise_seed, "noise", record, index).standard_normal(shape, dtype=np.float32)
                for record in self.pictures.ids
            ]
            return torch.from_numpy(np.stack(drawn)).to(self.model.device)

        return self.once(("noise", index), draw)

    # The diffusion process.

    def diffuse(self, t: int, noise: "torch.Tensor", z0: "torch.Tensor | None" = None) -> "torch.Tensor":
        """z_t = a z0 + b noise: [N, C, H, W]; z0 defaults to the pictures at hand."""
        a, b = self.model.schedule(t)
        return a * (self.z0() if z0 is None else z0) + b * noise

    def eps(self, z: "torch.Tensor", t: int, text: "torch.Tensor") -> "torch.Tensor":
        """Predicts the noise in z [N, C, H, W] at t under text states [N, L, D], one evaluation a picture."""
        import torch

        out = torch.empty_like(z, dtype=torch.float32)
        with torch.no_grad():
            for part in chunks(len(z), self.batch):
                out[part] = self._eps(z[part], t, text[part])
        return out

    def eps_clean(self, t: int = 0) -> "torch.Tensor":
        """eps(z0, t, own captions): what PIA, PIAN, SimA and the first inversion step share."""
        return self.once(eps_clean_key(t), lambda: self.eps(self.z0(), t, self.text()))

    def loss(self, t: int, index: int = 0, captions: Captions | None = None) -> np.ndarray:
        """mean((e - eps(z_t(e), t, c))^2) with e = noise(index): float64 [N]."""
        return self.once(loss_key(t, index, captions), lambda: self.loss_of(self.z0(), t, index, captions))

    def loss_of(self, z0: "torch.Tensor", t: int, index: int = 0, captions: Captions | None = None) -> np.ndarray:
        """`loss` at other latents in z0's place. Not remembered."""
        noise = self.noise(index)
        difference = self.eps(self.diffuse(t, noise, z0), t, self.text(captions)) - noise
        return difference.double().square().mean(dim=(1, 2, 3)).cpu().numpy()

    def ddim(self, z: "torch.Tensor", eps: "torch.Tensor", t_from: int, t_to: int) -> "torch.Tensor":
        """The deterministic DDIM step of z from t_from to t_to, up or down, with a given noise prediction."""
        a, b = self.model.schedule(t_to)
        return a * clean_of(z, eps, *self.model.schedule(t_from)) + b * eps

    def inverted(self, t: int, stride: int) -> "list[torch.Tensor]":
        """States of the deterministic DDIM inversion at 0, stride, .., t under the own captions: [z0, z_stride, ..].

        Remembered by stride: a longer inversion continues a shorter one. The noise prediction made on the way at
        step s is `inverted_eps(s, stride)`. t must be a multiple of stride. Costs t / stride evaluations.
        """
        if t % stride:
            raise ValueError(f"t = {t} is not a multiple of stride = {stride}")
        states = self.once(("states", stride), lambda: [self.z0()])
        while len(states) <= t // stride:
            step = (len(states) - 1) * stride
            states.append(self.ddim(states[-1], self.inverted_eps(step, stride), step, step + stride))
        return states[: t // stride + 1]

    def inverted_eps(self, t: int, stride: int) -> "torch.Tensor":
        """eps(inverted state at t, t, own captions)."""
        state = self.inverted(t, stride)[-1]
        return self.once(inverted_eps_key(t, stride), lambda: self.eps(state, t, self.text()))

    def gradient_norms(self, timesteps: tuple[int, ...]) -> np.ndarray:
        """2-norms of the loss gradient in each parameter tensor of the network: float64 [N, 2, P].

        First of mean_t L_t (GSA1), then averaged over t of the norms of each L_t's (GSA2); both come from the same
        backward passes, with noise number 0. Adapters are merged on loading, so on a LoRA target these are gradients
        in the merged weights.
        """
        return self.once(gradients_key(timesteps), lambda: self._gradient_norms(timesteps))

    def _gradient_norms(self, timesteps: tuple[int, ...]) -> np.ndarray:
        import torch

        z0, text, noise = self.z0(), self.text(), self.noise(0)
        parameters = list(self.model.network.parameters())
        found = []
        self.model.network.requires_grad_(True)
        try:
            for n in range(len(z0)):
                one = slice(n, n + 1)
                total = [torch.zeros_like(p, dtype=torch.float32) for p in parameters]
                norms = torch.zeros(len(parameters), dtype=torch.float64, device=z0.device)
                for t in timesteps:
                    z = self.diffuse(t, noise[one], z0[one])
                    loss = (self._eps(z, t, text[one]) - noise[one]).square().mean()
                    gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
                    norms += _norms(gradients)
                    torch._foreach_add_(total, [g.float() for g in gradients])
                found.append([(each / len(timesteps)).cpu().numpy() for each in (_norms(total), norms)])
        finally:
            self.model.network.requires_grad_(False)
        return np.array(found)

    # Pictures out of the model.

    def generate(self, guidance: float, steps: int, seed: int, draw: int = 0) -> np.ndarray:
        """One picture for each caption of the pictures at hand, by DDIM: uint8 [N, S, S, 3].

        Different `draw` numbers give different pictures for the same record.
        """
        from lmia.models.sample import SampleSpec, count_evaluations, generate

        spec = SampleSpec(
            guidance=guidance, steps=steps, sampler="ddim", seed=seed, dtype=self.model.dtype, batch=self.batch
        )

        def compute() -> np.ndarray:
            self.meter.evaluations += count_evaluations(spec, self.model) * len(self.pictures)
            return generate(self.model, [f"{record}#{draw}" for record in self.pictures.ids], self.captions, spec)

        return self.once(generate_key(guidance, steps, seed, draw), compute)

    def vary(self, t: int, stride: int, draw: int) -> "torch.Tensor":
        """Image-to-image: noise number `draw` added up to t, then t / stride DDIM steps down, guidance 1.

        Returns:
            Pictures [N, 3, S, S] in [-1, 1].
        """
        if t % stride:
            raise ValueError(f"t = {t} is not a multiple of stride = {stride}")

        def compute() -> "torch.Tensor":
            z, text = self.diffuse(t, self.noise(draw)), self.text()
            for step in range(t, 0, -stride):
                z = self.ddim(z, self.eps(z, step, text), step, step - stride)
            return self.decode(z)

        return self.once(vary_key(t, stride, draw), compute)

    def _eps(self, z: "torch.Tensor", t: int, text: "torch.Tensor") -> "torch.Tensor":
        self.meter.evaluations += len(z)
        return self.model.eps(z, t, text)


def _norms(tensors: "Sequence[torch.Tensor]") -> "torch.Tensor":
    import torch

    return torch.stack(torch._foreach_norm(list(tensors), 2, dtype=torch.float64))
