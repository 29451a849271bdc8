"""Attacks, sampler and trainer ask the Denoiser protocol: what is special to a family stands in lmia/models."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORDS = re.compile(r"\b(alphas_cumprod|unet|text_encoder)\b")
ALLOWED = {
    "lmia/embedded/architecture.py": "builds a Stable Diffusion from its parts and writes its folder",
    "lmia/embedded/pretrain.py": "trains those parts from scratch",
}
FILES = [path.relative_to(ROOT).as_posix() for top in ("lmia", "bench") for path in sorted((ROOT / top).rglob("*.py"))]


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith("lmia/models/")])
def test_parts_of_a_family_are_named_in_models_only(name):
    found = set(WORDS.findall((ROOT / name).read_text(encoding="utf-8")))
    assert not found or name in ALLOWED, f"{name} names {sorted(found)}: ask lmia.models.denoiser.Denoiser"
