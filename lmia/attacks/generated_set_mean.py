"""Generated-set mean: how much does a picture look like the target's average output?

Paper: the CLIP baseline of Holme, Storgaard, Arjomand Bigdeli (VISAPP 2025).
Equation: score(x) = cos(e(x), mean over g in G of e(g)), e = the embedding, G = what the target generated.
Access: text-to-image, offline: the target is only asked for G.
Sign: higher = member.
Deviations: the paper embeds with CLIP ViT-L/14 (`encoder: {kind: clip}`); the default here is the base model's VAE.
"""

import numpy as np

from lmia.attacks import FitInputs, FitRun, Learned, to_tensors
from lmia.attacks.encoders import GeneratedSet, unit


class GeneratedSetMean(GeneratedSet, name="generated_set_mean"):
    """Cosine with the mean embedding of the generated set."""

    version = 1
    paper = "Holme et al., VISAPP 2025 (baseline)"

    def fit(self, inputs: FitInputs, run: FitRun) -> Learned:
        """The mean embedding."""
        return to_tensors({"mean": self.embedded(inputs, run).mean(axis=0)})

    def compare(self, learned: dict[str, np.ndarray], vectors: np.ndarray) -> np.ndarray:
        """The cosine."""
        return vectors @ unit(learned["mean"][None])[0]
