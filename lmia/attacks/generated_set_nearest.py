"""Nearest generated picture: how near the target's output comes to a picture.

Paper: Chen, Yu, Zhang, Fritz: GAN-Leaks (CCS 2020), full black-box attack.
Equation: score(x) = - mean over the k nearest g in G of ||u(x) - u(g)||_2, u = unit vector of the embedding,
    G = the pictures that the target generated.
Access: text-to-image, offline: the target is only asked for G.
Sign: higher (nearer) = more likely a member.
Deviations: the distance is taken in an embedding (default: the base model's VAE latent), not in pixels.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from lmia.attacks import ATTACKS, Attack, Learned, Progress, need, silent
from lmia.attacks.encoders import Encoder, embed, encoder_field, encoder_needs, load_encoder, unit
from lmia.specs import RequestError, Spec

if TYPE_CHECKING:
    from lmia.data.pictures import Pictures


class GeneratedSetNearestSpec(Spec):
    """How near is near."""

    k: int = Field(1, ge=1, description="nearest generated pictures that are averaged over")
    encoder: Encoder = encoder_field


@ATTACKS.register("generated_set_nearest")
class GeneratedSetNearest(Attack):
    """Minus the mean distance to the k nearest generated pictures."""

    version = 1
    Spec = GeneratedSetNearestSpec
    access = "text-to-image"
    needs = frozenset({"positives", "base", "encoder"})
    learns = True
    paper = "Chen et al., CCS 2020 (GAN-Leaks)"

    @classmethod
    def requires(cls, spec: GeneratedSetNearestSpec) -> frozenset[str]:
        """The generated set and what the encoder needs."""
        return frozenset({"positives"}) | encoder_needs(spec.encoder)

    @classmethod
    def fit(
        cls,
        spec: GeneratedSetNearestSpec,
        inputs: Mapping[str, Any],
        *,
        device: str = "cpu",
        partial: Path | None = None,
        on_progress: Progress = silent,
    ) -> Learned:
        """Unit embeddings of the generated set."""
        import torch

        (positives,) = need(inputs, ("positives",), cls.name)
        if len(positives) < spec.k:
            raise RequestError(f"k = {spec.k}: more than the {len(positives)} generated pictures")
        vectors = unit(embed(spec.encoder, positives, base=inputs.get("base"), device=device))
        return {"generated": torch.from_numpy(vectors)}

    @classmethod
    def prepare(cls, spec: GeneratedSetNearestSpec, learned: Learned | None, *, base: Any, device: str) -> Any:
        """(encoder, unit vectors of the generated set)."""
        assert learned is not None
        return load_encoder(spec.encoder, base=base, device=device), learned["generated"].numpy()

    @classmethod
    def score_batch(
        cls, spec: GeneratedSetNearestSpec, query: "Pictures", *, prepared: Any, probe: Any, base: Any, device: str
    ) -> np.ndarray:
        """Minus the mean distance of unit vectors: ||u - v||^2 = 2 - 2 u.v."""
        encoder, generated = prepared
        cosines = unit(encoder(query.images())) @ generated.T
        nearest = np.sort(cosines, axis=1)[:, -spec.k :]
        return -np.sqrt(np.maximum(2 - 2 * nearest, 0)).mean(axis=1)
