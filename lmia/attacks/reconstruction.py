"""Reconstruction: the target draws what a caption makes it remember, and that is compared with the picture.

Paper: Pang, Wang: Black-box Membership Inference Attacks against Fine-tuned Diffusion Models (NDSS 2025).
Equation: s_i = cos(e(x), e(y_i)), y_i = the target's picture number i for x's caption, i = 1 .. m.
    threshold: score = mean_i s_i. gaussian: log N(s; member) - log N(s; non-member) of s = mean_i s_i, both fitted on
    shadow targets. mlp: logit margin of a small network on the sorted s_i, trained on shadow targets.
Access: text-to-image, with the picture's caption. Guidance as stated by the spec: it is generation, not scoring.
Sign: higher similarity = member; log ratio and margin of "member".
Deviations: the default embedding is the base model's VAE (paper: DeiT; `encoder: {kind: timm}`). DDIM sampling.
    Evaluations count both branches of classifier-free guidance.
"""

from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from lmia.attacks import Access, Attack, FitRun, Learned, Need, ScoreInputs, Scorer, to_tensors
from lmia.attacks.encoders import Encode, Encoder, VaeEncoder, encoder_needs, load_encoder, unit
from lmia.attacks.networks import ShadowNetwork
from lmia.attacks.shadows import Labelled, ShadowTrained
from lmia.models.probe import Probe, generate_key

if TYPE_CHECKING:
    import torch

    from lmia.models.denoiser import Denoiser


class _Reconstruction(Attack):
    """What the three heads share: what is drawn and what it is compared by."""

    paper = "Pang and Wang, NDSS 2025"
    access: ClassVar[Access] = "text-to-image"

    m: int = Field(3, ge=1, description="pictures drawn per caption")
    steps: int = Field(30, ge=1, le=1000, description="inference steps")
    guidance: float = Field(7.5, ge=0, description="guidance scale of the drawing")
    seed: int = Field(0, ge=0, description="initial latents come from (seed, record id, i)")
    encoder: Encoder = VaeEncoder()

    @property
    def needs(self) -> frozenset[Need]:
        """The target, captions and what the encoder needs."""
        return frozenset[Need]({"model", "captions"}) | encoder_needs(self.encoder)

    @property
    def evaluations(self) -> dict[Hashable, int]:
        """Steps for each picture, twice under guidance."""
        cost = self.steps * (1 if self.guidance in (0, 1) else 2)
        return {generate_key(self.guidance, self.steps, self.seed, draw): cost for draw in range(self.m)}

    def measuring(self, base: "Denoiser | None", device: str) -> Scorer:
        """`similarities` under the encoder."""
        return partial(self.similarities, load_encoder(self.encoder, base=base, device=device))

    def similarities(self, encode: Encode, target: Probe) -> np.ndarray:
        """s_i of the target's pictures: float64 [N, m]."""
        own = unit(encode(target.images()))
        drawn = [unit(encode(target.generate(self.guidance, self.steps, self.seed, draw))) for draw in range(self.m)]
        return np.stack([(own * other).sum(axis=1) for other in drawn], axis=1)


class Reconstruction(_Reconstruction, name="reconstruction"):
    """Mean similarity with what the target draws for the caption."""

    version = 1

    def scorer(self, inputs: ScoreInputs) -> Scorer:
        """The mean of the s_i."""
        similarities = self.measuring(inputs.base, inputs.device)
        return lambda target: similarities(target).mean(axis=1)


class _Fitted(_Reconstruction, ShadowTrained):
    """A head that is fitted on the similarities on shadow targets."""

    @property
    def needs(self) -> frozenset[Need]:
        """As without a fitted head, and shadow targets."""
        return super().needs | {"shadow"}

    @property
    def measurement(self) -> Hashable:
        """The similarities."""
        return "similarities", self.m, self.steps, self.guidance, self.seed, self.encoder


class ReconstructionGaussian(_Fitted, name="reconstruction_gaussian"):
    """Likelihood ratio of the mean similarity under two Gaussians."""

    version = 1

    def learn(self, data: Labelled, run: FitRun) -> Learned:
        """Mean and standard deviation of both classes, non-members first."""
        classes = [data.values.mean(axis=1)[data.labels == label] for label in (0, 1)]
        mean, sd = (np.array(each) for each in zip(*((s.mean(), max(s.std(), 1e-6)) for s in classes), strict=True))
        return to_tensors({"mean": mean, "sd": sd})

    def decision(self, learned: Learned, device: str) -> Callable[[np.ndarray], np.ndarray]:
        """The log likelihood ratio."""
        mean, sd = learned["mean"].numpy(), learned["sd"].numpy()

        def decide(values: np.ndarray) -> np.ndarray:
            s = values.mean(axis=1)
            log = [-0.5 * ((s - mean[k]) / sd[k]) ** 2 - np.log(sd[k]) for k in (0, 1)]
            return log[1] - log[0]

        return decide


class ReconstructionMlp(_Fitted, ShadowNetwork, name="reconstruction_mlp"):
    """A small network on the sorted similarities."""

    version = 1
    first_layer = "0.weight"

    width: int = Field(32, ge=1, description="hidden units")
    epochs: int = Field(100, ge=1, description="passes over the shadow data")

    def scales(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Mean and standard deviation of each sorted similarity."""
        values = np.sort(values, axis=1)
        return {"mean": values.mean(axis=0), "scale": np.maximum(values.std(axis=0), 1e-6)}

    def standardised(self, values: np.ndarray, scales: Mapping[str, np.ndarray]) -> np.ndarray:
        """Sorted similarities, each standardised."""
        return (np.sort(values, axis=1) - scales["mean"]) / scales["scale"]

    def network(self, channels: int) -> "torch.nn.Module":
        """Two hidden layers."""
        from torch.nn import Linear, ReLU, Sequential

        width = self.width
        return Sequential(Linear(channels, width), ReLU(), Linear(width, width), ReLU(), Linear(width, 2))
