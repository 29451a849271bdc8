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

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from lmia.attacks import ATTACKS, Attack, Learned, Progress, Shadow, need, silent
from lmia.attacks.encoders import Encoder, encoder_field, encoder_needs, load_encoder, unit
from lmia.attacks.networks import restored, seeded, train_classifier
from lmia.attacks.scoring import Labelled, on_shadows
from lmia.specs import Spec

if TYPE_CHECKING:
    from lmia.data.pictures import Pictures


class ReconstructionSpec(Spec):
    """What is drawn and what it is compared by."""

    m: int = Field(3, ge=1, description="pictures drawn per caption")
    steps: int = Field(30, ge=1, le=1000, description="inference steps")
    guidance: float = Field(7.5, ge=0, description="guidance scale of the drawing")
    seed: int = Field(0, ge=0, description="initial latents come from (seed, record id, i)")
    encoder: Encoder = encoder_field


class _Reconstruction(Attack):
    """What the three heads share."""

    access = "text-to-image"
    needs = frozenset({"model", "captions", "base", "encoder"})
    paper = "Pang and Wang, NDSS 2025"

    @classmethod
    def requires(cls, spec: ReconstructionSpec) -> frozenset[str]:
        """The target, captions, what the encoder needs and, for a fitted head, shadow targets."""
        return frozenset({"model", "captions"}) | (cls.needs & {"shadow"}) | encoder_needs(spec.encoder)

    @classmethod
    def evaluations(cls, spec: ReconstructionSpec) -> dict[Hashable, int]:
        """Steps for each picture, twice under guidance."""
        cost = spec.steps * (1 if spec.guidance in (0, 1) else 2)
        return {("generate", spec.guidance, spec.steps, spec.seed, draw): cost for draw in range(spec.m)}


@ATTACKS.register("reconstruction")
class Reconstruction(_Reconstruction):
    """Mean similarity with what the target draws for the caption."""

    version = 1
    Spec = ReconstructionSpec

    @classmethod
    def prepare(cls, spec: ReconstructionSpec, learned: Learned | None, *, base: Any, device: str) -> Any:
        """The encoder."""
        return load_encoder(spec.encoder, base=base, device=device)

    @classmethod
    def score_batch(
        cls, spec: ReconstructionSpec, query: "Pictures", *, prepared: Any, probe: Any, base: Any, device: str
    ) -> np.ndarray:
        """The mean of the s_i."""
        return similarities(probe, spec, prepared).mean(axis=1)


@ATTACKS.register("reconstruction_gaussian")
class ReconstructionGaussian(_Reconstruction):
    """Likelihood ratio of the mean similarity under two Gaussians."""

    version = 1
    Spec = ReconstructionSpec
    needs = _Reconstruction.needs | {"shadow"}
    learns = True

    @classmethod
    def fit(
        cls,
        spec: ReconstructionSpec,
        inputs: Mapping[str, Any],
        *,
        device: str = "cpu",
        partial: Path | None = None,
        on_progress: Progress = silent,
    ) -> Learned:
        """Mean and standard deviation of both classes on shadow targets."""
        import torch

        (shadows,) = need(inputs, ("shadow",), cls.name)
        data = _on_shadows(spec, shadows, inputs.get("base"), device)
        classes = [data.values.mean(axis=1)[data.labels == label] for label in (0, 1)]
        return {
            "mean": torch.tensor([float(s.mean()) for s in classes], dtype=torch.float64),
            "sd": torch.tensor([max(float(s.std()), 1e-6) for s in classes], dtype=torch.float64),
        }

    @classmethod
    def prepare(cls, spec: ReconstructionSpec, learned: Learned | None, *, base: Any, device: str) -> Any:
        """(encoder, means, standard deviations), non-members first."""
        assert learned is not None
        return load_encoder(spec.encoder, base=base, device=device), learned["mean"].numpy(), learned["sd"].numpy()

    @classmethod
    def score_batch(
        cls, spec: ReconstructionSpec, query: "Pictures", *, prepared: Any, probe: Any, base: Any, device: str
    ) -> np.ndarray:
        """The log likelihood ratio."""
        encoder, mean, sd = prepared
        s = similarities(probe, spec, encoder).mean(axis=1)
        log = [-0.5 * ((s - mean[k]) / sd[k]) ** 2 - np.log(sd[k]) for k in (0, 1)]
        return log[1] - log[0]


class ReconstructionMlpSpec(ReconstructionSpec):
    """What is drawn, what it is compared by, and the network on top."""

    width: int = Field(32, ge=1, description="hidden units")
    lr: float = Field(1e-3, gt=0, description="Adam learning rate")
    batch: int = Field(32, ge=2, description="records per step")
    epochs: int = Field(100, ge=1, description="passes over the shadow data")


@ATTACKS.register("reconstruction_mlp")
class ReconstructionMlp(_Reconstruction):
    """A small network on the sorted similarities."""

    version = 1
    Spec = ReconstructionMlpSpec
    needs = _Reconstruction.needs | {"shadow"}
    learns = True

    @classmethod
    def fit(
        cls,
        spec: ReconstructionMlpSpec,
        inputs: Mapping[str, Any],
        *,
        device: str = "cpu",
        partial: Path | None = None,
        on_progress: Progress = silent,
    ) -> Learned:
        """The network and the standardisation of its inputs, from shadow targets."""
        import torch

        (shadows,) = need(inputs, ("shadow",), cls.name)
        data = _on_shadows(spec, shadows, inputs.get("base"), device)
        values = np.sort(data.values, axis=1)
        mean, scale = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-6)
        x = torch.from_numpy((values - mean) / scale).float().to(device)
        state = train_classifier(
            _network(spec).to(device),
            lambda rows: x[torch.from_numpy(rows).to(x.device)],
            data.keys,
            data.labels.tolist(),
            lr=spec.lr,
            batch=spec.batch,
            epochs=spec.epochs,
            seed=spec.seed,
            task=spec.resolved(),
            device=device,
            partial=partial,
            on_progress=on_progress,
        )
        return {f"network.{name}": tensor for name, tensor in state.items()} | {
            "mean": torch.from_numpy(mean),
            "scale": torch.from_numpy(scale),
        }

    @classmethod
    def prepare(cls, spec: ReconstructionMlpSpec, learned: Learned | None, *, base: Any, device: str) -> Any:
        """(encoder, network, mean, scale)."""
        assert learned is not None
        prefix = "network."
        state = {k[len(prefix) :]: v for k, v in learned.items() if k.startswith(prefix)}
        network = restored(lambda: _network(spec), state)
        encoder = load_encoder(spec.encoder, base=base, device=device)
        return encoder, network.to(device), learned["mean"].numpy(), learned["scale"].numpy()

    @classmethod
    def score_batch(
        cls, spec: ReconstructionMlpSpec, query: "Pictures", *, prepared: Any, probe: Any, base: Any, device: str
    ) -> np.ndarray:
        """The logit margin."""
        import torch

        encoder, network, mean, scale = prepared
        s = np.sort(similarities(probe, spec, encoder), axis=1)
        with torch.inference_mode():
            logits = network(torch.from_numpy((s - mean) / scale).float().to(device)).double()
        return (logits[:, 1] - logits[:, 0]).cpu().numpy()


def similarities(probe: Any, spec: ReconstructionSpec, encoder: Any) -> np.ndarray:
    """s_i of the pictures at hand: float64 [N, m]."""
    from lmia.models.sample import SampleSpec

    sample = SampleSpec(
        guidance=spec.guidance,
        steps=spec.steps,
        sampler="ddim",
        seed=spec.seed,
        dtype=probe.model.dtype,
        batch=probe.batch,
    )
    own = unit(encoder(probe.images()))
    drawn = [unit(encoder(probe.generate(None, sample, draw))) for draw in range(spec.m)]
    return np.stack([(own * other).sum(axis=1) for other in drawn], axis=1)


def _on_shadows(spec: ReconstructionSpec, shadows: Sequence[Shadow], base: Any, device: str) -> Labelled:
    """`similarities` of all pictures of shadow targets."""
    encoder = load_encoder(spec.encoder, base=base, device=device)
    what = ("similarities", spec.m, spec.steps, spec.guidance, spec.seed, spec.encoder)
    return on_shadows(shadows, what, lambda probe: similarities(probe, spec, encoder))


def _network(spec: ReconstructionMlpSpec) -> Any:
    def make() -> Any:
        from torch.nn import Linear, ReLU, Sequential

        return Sequential(
            Linear(spec.m, spec.width), ReLU(), Linear(spec.width, spec.width), ReLU(), Linear(spec.width, 2)
        )

    return seeded(spec.seed, make)
