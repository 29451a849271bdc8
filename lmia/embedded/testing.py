"""A real Stable Diffusion folder with random weights that draws in milliseconds, for tests and dry runs."""

from pathlib import Path

from lmia.embedded.architecture import ArchitectureSpec, build, save_model, save_tokenizer

RANDOM = ArchitectureSpec(
    size=32,
    vae_widths=(8, 16, 16),
    unet_widths=(8, 16),
    unet_cross=(False, True),
    unet_heads=(1, 1),
    groups=4,
    text_width=16,
    text_layers=1,
    text_length=24,
    vocabulary=600,
)
"""32 x 32 pixels, 8 x 8 x 4 latents, about 40,000 U-Net weights."""

_WORDS = (
    "a headshot of a man with round glasses and short brown hair",
    "a photo of a smiling woman with long red hair",
    "a profile picture",
)


def random_model(folder: Path, seed: int = 0, spec: ArchitectureSpec = RANDOM) -> Path:
    """Writes the model to `folder` (made if needed) and returns it; equal seeds give equal weights."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(_WORDS, spec, folder / "tokenizer")
    save_model(build(spec, seed), spec, folder)
    return folder
