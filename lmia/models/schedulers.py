"""Noise schedules and samplers: a model's own scheduler, and those that it may be drawn with."""

import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmia.models.files import read_config
from lmia.specs import RequestError

log = logging.getLogger(__name__)

SAMPLERS = {"ddim": "DDIMScheduler", "pndm": "PNDMScheduler", "dpm": "DPMSolverMultistepScheduler"}
SCHEDULE_KEYS = ("beta_schedule", "beta_start", "beta_end", "trained_betas")
"""What a configuration says about the betas; without any of them there is no schedule of discrete steps."""
V_PREDICTION_KEY, ZERO_SNR_KEY = "v_pred", "ztsnr"
"""Tensors in a checkpoint that say, by being there, what it predicts and that its last step is pure noise."""


def load_scheduler(folder: Path) -> Any:
    """A model's own scheduler: of the class that its configuration names, where that has the schedule in question.

    Scoring needs the betas only. A class that diffusers does not have here, or that knows no zero terminal
    signal-to-noise ratio although the configuration asks for one, is replaced by DDIM with the same betas.

    Raises:
        RequestError: no configuration, or it has no betas (a flow-matching model, say) or unknown ones.
    """
    path = folder / "scheduler_config.json"
    config = read_config(path)
    name = str(config.get("_class_name", "PNDMScheduler"))
    if all(config.get(key) is None for key in SCHEDULE_KEYS):
        raise RequestError(
            f"model: {path}: {name} without betas ({', '.join(SCHEDULE_KEYS)}); allowed are models with "
            "a noise schedule of discrete steps"
        )
    own = scheduler_class(name)
    zero = bool(config.get("rescale_betas_zero_snr"))
    if own is not None and (not zero or "rescale_betas_zero_snr" in inspect.signature(own.__init__).parameters):
        made = _make(own, config, path)
        if hasattr(made, "alphas_cumprod") and "prediction_type" in made.config:
            return made
    log.warning("%s: schedule and predictions of %s are read by DDIM, which also draws for it", path, name)
    return _make(scheduler_class("DDIMScheduler"), config, path)


def scheduler_class(name: str) -> Any | None:
    """A diffusers scheduler class by name, without importing the others; None if it is not there."""
    import diffusers.schedulers

    if not name.isidentifier() or name.startswith("_"):
        return None
    try:
        kind = getattr(diffusers.schedulers, name, None)
    except (ImportError, RuntimeError):  # one that needs a package which is not installed
        return None
    return kind if inspect.isclass(kind) and hasattr(kind, "from_config") and hasattr(kind, "step") else None


def _make(kind: Any, config: Mapping[str, Any], path: Path) -> Any:
    try:
        made = kind.from_config(config)
    except (ValueError, TypeError, LookupError, ImportError, ArithmeticError, RuntimeError) as error:
        raise RequestError(f"model: {path}: {error}") from error
    betas = getattr(made, "betas", None)
    if betas is not None and not (len(betas) and bool(((betas > 0) & (betas <= 1)).all())):
        raise RequestError(f"model: {path}: its betas make no schedule from signal to noise; allowed are 0 < beta <= 1")
    return made


def make_sampler(own: Any, name: str, steps: int) -> Any:
    """A fresh scheduler on the noise schedule of `own`, set to `steps`.

    It stays on the CPU: its indices are read in the sampling loop and must not cost a synchronisation.
    """
    if name == "model":
        made = type(own).from_config(own.config)
    else:  # latents are not bounded by 1, whatever a scheduler's default says
        kind = scheduler_class(SAMPLERS[name])
        assert kind is not None
        made = kind.from_config(own.config, clip_sample=False)
    made.set_timesteps(steps, device="cpu")
    return made


def own_word(keys: "set[str]", metadata: Mapping[str, str]) -> dict[str, Any]:
    """What a checkpoint or an adapter says of its own schedule, as settings of a scheduler; empty if nothing.

    Read are the marker tensors `v_pred` and `ztsnr` of A1111 and ComfyUI, `modelspec.prediction_type` of the
    ModelSpec standard, and kohya's `ss_v_parameterization` and `ss_zero_terminal_snr`.

    Args:
        keys: names of the tensors in the file.
        metadata: of its safetensors header.
    """
    said: dict[str, Any] = {}
    standard = metadata.get("modelspec.prediction_type", "").lower()
    trainer = metadata.get("ss_v_parameterization", "").lower()
    if V_PREDICTION_KEY in keys or standard in ("v", "v_prediction") or trainer == "true":
        said["prediction_type"] = "v_prediction"
    elif standard in ("epsilon", "eps") or trainer == "false":
        said["prediction_type"] = "epsilon"
    if ZERO_SNR_KEY in keys or metadata.get("ss_zero_terminal_snr", "").lower() == "true":
        said |= {"rescale_betas_zero_snr": True}
    return said
