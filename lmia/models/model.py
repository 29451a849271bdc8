"""The old place of some names, until everybody asks for them at the new ones."""

from lmia.models.denoiser import chunks, to_uint8
from lmia.models.families.sd import StableDiffusion, save_part
from lmia.models.files import fetch_from_hub, resolve_layers
from lmia.models.load import load_model

TargetModel = StableDiffusion

__all__ = ["TargetModel", "chunks", "fetch_from_hub", "load_model", "resolve_layers", "save_part", "to_uint8"]
