"""Progress of a training on disk: one safetensors file, replaced atomically, from which the run continues exactly."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = "progress.safetensors"


def save_progress(folder: Path, tensors: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Writes tensors and a JSON-able state as one file; a crash leaves either the old or the new one."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{FILE}.{os.getpid()}"
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(plain, temporary, metadata={"state": json.dumps(state)})
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, folder / FILE)


def load_progress(folder: Path | None) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """(tensors, state) of the last saved progress; None if there is none or it cannot be read."""
    if folder is None or not (folder / FILE).is_file():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / FILE, "pt") as file:
            state = json.loads(file.metadata()["state"])
            return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError):
        return None  # a torn or foreign file: progress is only ever a saving of time


def optimizer_tensors(optimizer: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """AdamW's state as named tensors: ``optimizer.<parameter>.<key>``."""
    import torch

    return {
        f"optimizer.{name}.{key}": value.clone() if torch.is_tensor(value) else torch.tensor(float(value))
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(optimizer: Any, parameters: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
    """Puts back what `optimizer_tensors` took."""
    for name, parameter in parameters.items():
        prefix = f"optimizer.{name}."
        state = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
        if state:
            optimizer.state[parameter] = {
                key: value.to(parameter.device) if value.ndim else value for key, value in state.items()
            }
