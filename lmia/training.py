"""The training loop of fine-tuning, pre-training and attack networks; interrupted, it goes on to the same bits.

What the next step depends on lies in one safetensors file with a checksum, replaced atomically. Progress that is
damaged, or of another training, is discarded: it is only ever a saving of time.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmia.checked import read_tensors, write_tensors

if TYPE_CHECKING:
    from torch import Tensor
    from torch.amp.grad_scaler import GradScaler
    from torch.optim import Optimizer

log = logging.getLogger(__name__)

PROGRESS = "progress.safetensors"
Usable = Callable[[int, Mapping[str, Any]], bool]


def _nothing() -> None:
    pass


@dataclass
class Training:
    """A training, one optimiser step after the other.

    Attributes:
        loss: from the number of a step to its loss, a scalar tensor; what it draws comes from that number alone.
        parameters: what is trained, by name.
        optimizer: over these parameters.
        identity: JSON values that say what is trained; progress of another training is not continued.
        folder: of the progress; None keeps none.
        lr: from the number of a step to its learning rate; None leaves the optimiser's.
        max_grad_norm: gradients are clipped to this norm; None leaves them.
        carried: other tensors that later steps or figures depend on (averages, buffers, running sums), by name.
        scaler: of the loss, for half-precision products.
        after_step: called after each step, when `step` counts it.
        step: steps done.
        state: JSON values that are saved and restored with the progress.
    """

    loss: "Callable[[int], Tensor]"
    parameters: "Mapping[str, Tensor]"
    optimizer: "Optimizer"
    identity: Any
    folder: Path | None = None
    lr: Callable[[int], float] | None = None
    max_grad_norm: float | None = None
    carried: "Mapping[str, Tensor]" = field(default_factory=dict)
    scaler: "GradScaler | None" = None
    after_step: Callable[[], None] = _nothing
    step: int = field(default=0, init=False)
    state: dict[str, Any] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        import torch

        self._scaler = self.scaler or torch.amp.GradScaler("cpu", enabled=False)
        text = json.dumps(self.identity, sort_keys=True)
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()
        self._seconds_before = 0.0
        self._started = self._saved = self._reported = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time spent so far, interrupted runs included as far as they were saved."""
        return self._seconds_before + time.monotonic() - self._started

    def run(
        self,
        until: int,
        *,
        save_every_s: float = 60.0,
        on_progress: Callable[[], None] = _nothing,
        report_every_s: float = 2.0,
    ) -> None:
        """Trains until `step` is `until`.

        Args:
            until: steps in all.
            save_every_s: seconds between saves of progress.
            on_progress: called after a step, after the last one in any case.
            report_every_s: seconds between these calls.
        """
        while self.step < until:
            self._advance()
            now = time.monotonic()
            if now - self._reported >= report_every_s or self.step == until:
                self._reported = now
                on_progress()
            if now - self._saved >= save_every_s:
                self.save()

    def _advance(self) -> None:
        import torch

        self._scaler.scale(self.loss(self.step)).backward()
        if self.max_grad_norm is not None:
            self._scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self.max_grad_norm)
        if self.lr is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr(self.step)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.after_step()

    def save(self) -> None:
        """Writes the progress."""
        if self.folder is None:
            return
        tensors = {f"weights.{name}": value for name, value in self.parameters.items()}
        tensors |= {f"carried.{name}": value for name, value in self.carried.items()}
        tensors |= self._optimizer_tensors()
        progress = {"identity": self.fingerprint, "step": self.step, "seconds": self.seconds, "state": self.state}
        progress["scaler"] = self._scaler.state_dict()
        write_tensors(self.folder / PROGRESS, tensors, progress)
        self._saved = time.monotonic()

    def restore(self, usable: Usable = lambda step, state: True) -> bool:
        """Goes to where the progress was saved, if it is undamaged, of this very training and `usable(step, state)`."""
        import torch

        saved = None if self.folder is None else read_tensors(self.folder / PROGRESS)
        if saved is None:
            return False
        tensors, progress = saved
        if progress.get("identity") != self.fingerprint:
            log.warning("%s is of another training: it is discarded", self.folder)
            return False
        if not usable(progress["step"], progress["state"]):
            return False
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(tensors[f"weights.{name}"])
            for name, value in self.carried.items():
                value.copy_(tensors[f"carried.{name}"])
        self._restore_optimizer(tensors)
        self._scaler.load_state_dict(progress["scaler"])
        self.step, self.state = progress["step"], progress["state"]
        self._seconds_before = progress["seconds"]
        return True

    def _optimizer_tensors(self) -> "dict[str, Tensor]":
        """The optimiser's state, `optimizer.PARAMETER.KEY`."""
        import torch

        return {
            f"optimizer.{name}.{key}": value if torch.is_tensor(value) else torch.tensor(float(value))
            for name, parameter in self.parameters.items()
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }

    def _restore_optimizer(self, tensors: "Mapping[str, Tensor]") -> None:
        """Puts back what `_optimizer_tensors` took, in the parameter's memory layout as fused kernels expect it."""
        import torch

        for name, parameter in self.parameters.items():
            prefix = f"optimizer.{name}."
            state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            if state:
                self.optimizer.state[parameter] = {
                    key: torch.empty_like(parameter, requires_grad=False).copy_(value)
                    if value.shape == parameter.shape
                    else value.to(parameter.device)
                    for key, value in state.items()
                }
