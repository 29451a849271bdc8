"""Nearest generated picture: how near the target's output comes to a picture.

Paper: Chen, Yu, Zhang, Fritz: GAN-Leaks (CCS 2020), full black-box attack.
Equation: score(x) = - mean over the k nearest g in G of ||u(x) - u(g)||_2, u = unit vector of the embedding,
    G = the pictures that the target generated.
Access: text-to-image, offline: the target is only asked for G.
Sign: higher (nearer) = more likely a member.
Deviations: the distance is taken in an embedding (default: the base model's VAE latent), not in pixels.
"""

import numpy as np
from pydantic import Field

from lmia.attacks import FitInputs, FitRun, Learned, to_tensors
from lmia.attacks.encoders import GeneratedSet, unit
from lmia.specs import RequestError


class GeneratedSetNearest(GeneratedSet, name="generated_set_nearest"):
    """Minus the mean distance to the k nearest generated pictures."""

    version = 1
    paper = "Chen et al., CCS 2020 (GAN-Leaks)"

    k: int = Field(1, ge=1, description="nearest generated pictures that are averaged over")

    def fit(self, inputs: FitInputs, run: FitRun) -> Learned:
        """Unit embeddings of the generated set."""
        count = len(self.need(inputs.positives, "positives"))
        if count < self.k:
            raise RequestError(f"k = {self.k}: more than the {count} generated pictures")
        return to_tensors({"generated": unit(self.embedded(inputs, run))})

    def compare(self, learned: dict[str, np.ndarray], vectors: np.ndarray) -> np.ndarray:
        """Minus the mean distance of unit vectors: ||u - v||^2 = 2 - 2 u.v."""
        nearest = np.sort(vectors @ learned["generated"].T, axis=1)[:, -self.k :]
        return -np.sqrt(np.maximum(2 - 2 * nearest, 0)).mean(axis=1)
