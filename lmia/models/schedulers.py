"""Samplers: the diffusers schedulers that a model may have, or may be drawn with."""

import importlib
import json
from pathlib import Path
from typing import Any

from lmia.specs import RequestError

SAMPLERS = {"ddim": "DDIMScheduler", "pndm": "PNDMScheduler", "dpm": "DPMSolverMultistepScheduler"}
SCHEDULERS = {
    "DDIMScheduler": "scheduling_ddim",
    "PNDMScheduler": "scheduling_pndm",
    "DDPMScheduler": "scheduling_ddpm",
    "DPMSolverMultistepScheduler": "scheduling_dpmsolver_multistep",
    "EulerDiscreteScheduler": "scheduling_euler_discrete",
    "EulerAncestralDiscreteScheduler": "scheduling_euler_ancestral_discrete",
    "LMSDiscreteScheduler": "scheduling_lms_discrete",
    "HeunDiscreteScheduler": "scheduling_heun_discrete",
    "UniPCMultistepScheduler": "scheduling_unipc_multistep",
}


def scheduler_class(name: str) -> Any:
    """A diffusers scheduler class by name, without importing the others."""
    if name not in SCHEDULERS:
        raise RequestError(f"model: scheduler {name!r} is not supported (known: {', '.join(sorted(SCHEDULERS))})")
    return getattr(importlib.import_module(f"diffusers.schedulers.{SCHEDULERS[name]}"), name)


def load_scheduler(folder: Path) -> Any:
    """A model's own scheduler, of the class that its configuration names."""
    path = folder / "scheduler_config.json"
    if not path.is_file():
        raise RequestError(f"model: {path} is missing")
    config = json.loads(path.read_text())
    return scheduler_class(config.get("_class_name", "PNDMScheduler")).from_config(config)


def make_sampler(own: Any, name: str, steps: int) -> Any:
    """A fresh scheduler on the noise schedule of `own`, set to `steps`.

    It stays on the CPU: its indices are read in the sampling loop and must not cost a synchronisation.
    """
    if name == "model":
        made = scheduler_class(type(own).__name__).from_config(own.config)
    else:  # latents are not bounded by 1, whatever a scheduler's default says
        made = scheduler_class(SAMPLERS[name]).from_config(own.config, clip_sample=False)
    made.set_timesteps(steps, device="cpu")
    return made
