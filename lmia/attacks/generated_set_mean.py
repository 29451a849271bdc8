"""Generated-set mean: how much does a picture look like the target's average output?

Paper: the CLIP baseline of Holme, Storgaard, Arjomand Bigdeli (VISAPP 2025).
Equation: score(x) = cos(e(x), mean over g in G of e(g)), e = the embedding, G = what the target generated.
Access: text-to-image, offline: the target is only asked for G.
Sign: higher = member.
Deviations: the paper embeds with CLIP ViT-L/14 (`encoder: {kind: clip}`); the default here is the base model's VAE.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmia.attacks import ATTACKS, Attack, Learned, Progress, need, silent
from lmia.attacks.encoders import Encoder, embed, encoder_field, encoder_needs, load_encoder, unit
from lmia.specs import Spec

if TYPE_CHECKING:
    from lmia.data.pictures import Pictures


class GeneratedSetMeanSpec(Spec):
    """What pictures are compared by."""

    encoder: Encoder = encoder_field


@ATTACKS.register("generated_set_mean")
class GeneratedSetMean(Attack):
    """Cosine with the mean embedding of the generated set."""

    version = 1
    Spec = GeneratedSetMeanSpec
    access = "text-to-image"
    needs = frozenset({"positives", "base", "encoder"})
    learns = True
    paper = "Holme et al., VISAPP 2025 (baseline)"

    @classmethod
    def requires(cls, spec: GeneratedSetMeanSpec) -> frozenset[str]:
        """The generated set and what the encoder needs."""
        return frozenset({"positives"}) | encoder_needs(spec.encoder)

    @classmethod
    def fit(
        cls,
        spec: GeneratedSetMeanSpec,
        inputs: Mapping[str, Any],
        *,
        device: str = "cpu",
        partial: Path | None = None,
        on_progress: Progress = silent,
    ) -> Learned:
        """The mean embedding."""
        import torch

        (positives,) = need(inputs, ("positives",), cls.name)
        vectors = embed(spec.encoder, positives, base=inputs.get("base"), device=device)
        return {"mean": torch.from_numpy(vectors.mean(axis=0))}

    @classmethod
    def prepare(cls, spec: GeneratedSetMeanSpec, learned: Learned | None, *, base: Any, device: str) -> Any:
        """(encoder, mean embedding)."""
        assert learned is not None
        return load_encoder(spec.encoder, base=base, device=device), learned["mean"].numpy()

    @classmethod
    def score_batch(
        cls, spec: GeneratedSetMeanSpec, query: "Pictures", *, prepared: Any, probe: Any, base: Any, device: str
    ) -> np.ndarray:
        """The cosine."""
        encoder, mean = prepared
        return unit(encoder(query.images())) @ unit(mean[None])[0]
