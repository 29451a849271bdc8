"""The few calls that an attack may make on a target model, memoised for the pictures at hand.

Notation (facts and papers alike): z0 = latent of the picture, abar_t from the model's own scheduler,
a = sqrt(abar_t), b = sqrt(1 - abar_t), z_t(e) = a z0 + b e, eps(z, t, c) the U-Net's noise prediction with no
classifier-free guidance. Shapes: N pictures, C latent channels, H and W latent sides, L tokens, D text width,
S picture side, P parameter tensors. All tensors are float32 on the model's device unless it says otherwise.

What is computed once and shared by all attacks on one batch of pictures: z0, text states, noises, noise
predictions on the clean latent, losses, deterministic inversions and image-to-image variations.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from lmia.models.model import TargetModel, chunks
from lmia.seeds import rng
from lmia.specs import RequestError

if TYPE_CHECKING:
    from lmia.data.pictures import Pictures
    from lmia.models.sample import SampleSpec

T = TypeVar("T")


class Probe:
    """A target model as an attack sees it.

    Args:
        model: the loaded target.
        noise_seed: noises come from (noise_seed, record id, index), never from the model: the same noises for
            every target, condition and attack.
        batch: pictures per U-Net call; rounding depends on it, memory too.

    Attributes:
        evaluations: U-Net evaluations so far, one per picture (two under classifier-free guidance); what was
            memoised is not counted again.
    """

    def __init__(self, model: TargetModel, noise_seed: int = 0, batch: int = 16):
        if model.prediction_type not in ("epsilon", "v_prediction"):
            raise RequestError(
                f"model: prediction type {model.prediction_type!r} is not supported (allowed: epsilon, v_prediction)"
            )
        self.model = model
        self.noise_seed = noise_seed
        self.batch = batch
        self.evaluations = 0
        self._abar = [float(value) for value in model.abar()]
        self._query: Pictures | None = None
        self._memo: dict[Hashable, Any] = {}
        self._text: dict[str, Any] = {}

    # The pictures at hand.

    def show(self, query: "Pictures") -> "Probe":
        """Makes `query` the pictures at hand; showing the same object again keeps what was memoised."""
        if query is not self._query:
            self._query = query
            self._memo = {}
            self._text = {}
        return self

    @property
    def query(self) -> "Pictures":
        """The pictures at hand."""
        if self._query is None:
            raise ValueError("no pictures were shown to the probe: call show(query) first")
        return self._query

    @property
    def ids(self) -> list[str]:
        """Record ids of the pictures at hand."""
        return self.query.ids

    @property
    def captions(self) -> list[str]:
        """Captions of the pictures at hand; a picture without one counts as captioned ""."""
        return [caption or "" for caption in self.query.captions]

    def images(self) -> np.ndarray:
        """The pictures at hand at the model's size: uint8 [N, S, S, 3]."""
        return self.query.images(self.model.size)

    # Latents, text, noise.

    def encode(self, images: Any) -> Any:
        """Latents of any pictures, uint8 [N, S, S, 3] or float [N, 3, S, S] in [-1, 1]: [N, C, H, W]. Not memoised."""
        import torch

        return torch.cat([self.model.encode(images[part]) for part in chunks(len(images), self.batch)])

    def decode(self, latents: Any) -> Any:
        """Pictures of any latents [N, C, H, W]: [N, 3, S, S] in [-1, 1]. Not memoised."""
        import torch

        return torch.cat([self.model.decode(latents[part]) for part in chunks(len(latents), self.batch)])

    def z0(self) -> Any:
        """Latents of the pictures at hand, the VAE's mode times the scaling factor: [N, C, H, W]."""
        return self.once("z0", lambda: self.encode(self.images()))

    def text(self, captions: Sequence[str] | str | None = None) -> Any:
        """Text states [N, L, D]: of the pictures' own captions, of others (one each), or of one for all."""
        import torch

        if captions is None:
            captions = self.captions
        elif isinstance(captions, str):
            captions = [captions] * len(self.ids)
        if len(captions) != len(self.ids):
            raise ValueError(f"{len(captions)} captions for {len(self.ids)} pictures")
        missing = sorted(set(captions) - set(self._text))
        for part in chunks(len(missing), self.batch):
            for caption, states in zip(missing[part], self.model.text_states(missing[part]), strict=True):
                self._text[caption] = states
        return torch.stack([self._text[caption] for caption in captions])

    def noise(self, index: int) -> Any:
        """Standard normal noise number `index` of every picture at hand, from (noise seed, id, index): [N, C, H, W]."""

        def draw() -> Any:
            import torch

            shape = self.model.latent_shape()
            drawn = [
                rng(self.noise_seed, "noise", record, index).standard_normal(shape, dtype=np.float32)
                for record in self.ids
            ]
            return torch.from_numpy(np.stack(drawn)).to(self.model.device)

        return self.once(("noise", index), draw)

    # The diffusion process.

    def abar(self, t: int) -> float:
        """Cumulative signal power after step t, 0 <= t < T, from the model's own scheduler."""
        return self._abar[t]

    def diffuse(self, t: int, noise: Any, z0: Any = None) -> Any:
        """z_t = sqrt(abar_t) z0 + sqrt(1 - abar_t) noise: [N, C, H, W]; z0 defaults to the pictures at hand."""
        abar = self.abar(t)
        return abar**0.5 * (self.z0() if z0 is None else z0) + (1 - abar) ** 0.5 * noise

    def eps(self, z: Any, t: int, text: Any) -> Any:
        """Predicts the noise in z [N, C, H, W] at t under text states [N, L, D], one evaluation a picture.

        A v-prediction is converted: eps = a v + b z.
        """
        import torch

        out = torch.empty_like(z, dtype=torch.float32)
        with torch.no_grad():
            for part in chunks(len(z), self.batch):
                out[part] = self._predict(z[part], t, text[part])
        return out

    def eps_clean(self, t: int = 0) -> Any:
        """eps(z0, t, own captions), memoised: what PIA, PIAN, SimA and the first inversion step share."""
        return self.once(("eps", t), lambda: self.eps(self.z0(), t, self.text()))

    def loss(
        self, t: int, index: int = 0, *, captions: Sequence[str] | str | None = None, z0: Any = None
    ) -> np.ndarray:
        """mean((e - eps(z_t(e), t, c))^2) with e = noise(index): float64 [N].

        Memoised by (t, index, captions) for the pictures at hand; not when other latents `z0` are given.
        """

        def compute() -> np.ndarray:
            noise = self.noise(index)
            difference = self.eps(self.diffuse(t, noise, z0), t, self.text(captions)) - noise
            return difference.double().square().mean(dim=(1, 2, 3)).cpu().numpy()

        if z0 is not None:
            return compute()
        key = captions if captions is None or isinstance(captions, str) else tuple(captions)
        return self.once(("loss", t, index, key), compute)

    def ddim(self, z: Any, eps: Any, t_from: int, t_to: int) -> Any:
        """The deterministic DDIM step of z from t_from to t_to, up or down, with a given noise prediction."""
        start, end = self.abar(t_from), self.abar(t_to)
        clean = (z - (1 - start) ** 0.5 * eps) / start**0.5
        return end**0.5 * clean + (1 - end) ** 0.5 * eps

    def inverted(self, t: int, stride: int) -> list[Any]:
        """States of the deterministic DDIM inversion at 0, stride, .., t under the own captions: [z0, z_stride, ..].

        Memoised by stride: a longer inversion continues a shorter one. The noise prediction made on the way at
        step s is `inverted_eps(s, stride)`. t must be a multiple of stride. Costs t / stride evaluations.
        """
        if t % stride:
            raise ValueError(f"t = {t} is not a multiple of stride = {stride}")
        states: list[Any] = self.once(("states", stride), lambda: [self.z0()])
        while len(states) <= t // stride:
            step = (len(states) - 1) * stride
            states.append(self.ddim(states[-1], self.inverted_eps(step, stride), step, step + stride))
        return states[: t // stride + 1]

    def inverted_eps(self, t: int, stride: int) -> Any:
        """eps(inverted state at t, t, own captions), memoised; one evaluation if it is new."""
        if t == 0:
            return self.eps_clean(0)
        state = self.inverted(t, stride)[-1]
        return self.once(("states eps", stride, t), lambda: self.eps(state, t, self.text()))

    def gradient_norms(self, timesteps: Sequence[int], index: int = 0, *, per_timestep: bool = False) -> np.ndarray:
        """2-norm of the loss gradient in each U-Net parameter tensor: float64 [N, P].

        Of mean_t L_t (GSA1), or averaged over t of the norms of each L_t's (GSA2); both come from the same
        backward passes and are memoised together. Adapters are merged on loading, so on a LoRA target these are
        gradients in the merged weights. Costs one evaluation with its backward per timestep.
        """
        both = self.once(("gradients", tuple(timesteps), index), lambda: self._gradient_norms(timesteps, index))
        return both[int(per_timestep)]

    def _gradient_norms(self, timesteps: Sequence[int], index: int) -> tuple[np.ndarray, np.ndarray]:
        """Norms of the mean gradient, and mean norms of the gradients: float64 [N, P] each."""
        import torch

        z0, text, noise = self.z0(), self.text(), self.noise(index)
        parameters = list(self.model.unet.parameters())
        of_mean, mean_of = [], []
        self.model.unet.requires_grad_(True)
        try:
            for n in range(len(z0)):
                one = slice(n, n + 1)
                total = [torch.zeros_like(p, dtype=torch.float32) for p in parameters]
                norms = torch.zeros(len(parameters), dtype=torch.float64, device=z0.device)
                for t in timesteps:
                    z = self.diffuse(t, noise[one], z0[one])
                    loss = (self._predict(z, t, text[one]) - noise[one]).square().mean()
                    gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
                    norms += _norms(gradients)
                    torch._foreach_add_(total, [g.float() for g in gradients])
                of_mean.append((_norms(total) / len(timesteps)).cpu().numpy())
                mean_of.append((norms / len(timesteps)).cpu().numpy())
        finally:
            self.model.unet.requires_grad_(False)
        return np.stack(of_mean), np.stack(mean_of)

    # Pictures out of the model.

    def generate(self, prompts: Sequence[str] | None, spec: "SampleSpec", draw: int = 0) -> np.ndarray:
        """One picture for each picture at hand: uint8 [N, S, S, 3], prompted by its own caption or by `prompts`.

        Different `draw` numbers give different pictures for the same record. Memoised by (prompts, spec, draw).
        """
        from lmia.models.sample import count_evaluations, generate

        asked = self.captions if prompts is None else list(prompts)

        def compute() -> np.ndarray:
            self.evaluations += count_evaluations(spec, self.model) * len(asked)
            return generate(self.model, [f"{record}#{draw}" for record in self.ids], asked, spec)

        return self.once(("generate", tuple(asked), spec, draw), compute)

    def vary(self, t: int, stride: int, draw: int, captions: Sequence[str] | str | None = None) -> Any:
        """Image-to-image: noise number `draw` added up to t, then t / stride DDIM steps down, guidance 1.

        Returns:
            Pictures [N, 3, S, S] in [-1, 1]; memoised. Costs t / stride evaluations.
        """
        if t % stride:
            raise ValueError(f"t = {t} is not a multiple of stride = {stride}")

        def compute() -> Any:
            text = self.text(captions)
            z = self.diffuse(t, self.noise(draw))
            for step in range(t, 0, -stride):
                z = self.ddim(z, self.eps(z, step, text), step, step - stride)
            return self.decode(z)

        key = captions if captions is None or isinstance(captions, str) else tuple(captions)
        return self.once(("vary", t, stride, draw, key), compute)

    def _predict(self, z: Any, t: int, text: Any) -> Any:
        import torch

        dtype = self.model.torch_dtype
        times = torch.full((len(z),), t, device=z.device, dtype=torch.long)
        out = self.model.unet(z.to(dtype), times, text.to(dtype), return_dict=False)[0].float()
        self.evaluations += len(z)
        if self.model.prediction_type == "v_prediction":
            abar = self.abar(t)
            out = abar**0.5 * out + (1 - abar) ** 0.5 * z
        return out

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What `compute` gives, remembered under `key` for the pictures at hand, whoever asks for it again."""
        if key not in self._memo:
            self._memo[key] = compute()
        return self._memo[key]


def _norms(tensors: Sequence[Any]) -> Any:
    import torch

    return torch.stack(torch._foreach_norm(list(tensors), 2, dtype=torch.float64))
