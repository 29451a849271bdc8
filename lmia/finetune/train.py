"""Fine-tuning a target: one trajectory, checkpoints at the epochs asked for, progress from which it continues exactly.

The learning rate is constant after warm-up (the paper's decays), so that checkpoints of one run can be compared.
"""

import dataclasses
import hashlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmia.checked import is_kept, keep, write_whole
from lmia.finetune.data import TrainingSet, compute_dtype
from lmia.finetune.methods import METHODS, Method
from lmia.models.denoiser import Denoiser
from lmia.models.files import PARTS, resolve_layers
from lmia.models.load import load_model
from lmia.seeds import rng
from lmia.specs import RequestError
from lmia.training import Training

if TYPE_CHECKING:
    from torch import Tensor

    from lmia.data.pictures import Pictures


@dataclasses.dataclass(frozen=True)
class TuningRun:
    """How a fine-tuning is run; nothing of it changes the weights on the same kind of machine.

    Attributes:
        partial: folder for progress and the checkpoints so far; a run with the same base, pictures and method
            continues from it, also to later epochs, and ends bit-equal to an uninterrupted one on the same kind of
            machine (on a GPU as far as its attention kernels add up in a fixed order).
        device: where to train.
        attention: backend, see `load_model`.
        gradient_checkpointing: trade time for memory.
        allow_pickle: see `load_model`.
        save_every_s: seconds between saves of progress.
        report_every_s: seconds between calls of `on_progress`.
        on_progress: gets {"epoch", "epochs", "step", "steps", "loss", "pictures_per_second"}.
    """

    partial: Path | None = None
    device: str = "cpu"
    attention: str = "auto"
    gradient_checkpointing: bool = False
    allow_pickle: bool = False
    save_every_s: float = 60.0
    report_every_s: float = 2.0
    on_progress: Callable[[dict[str, Any]], None] = lambda report: None


@dataclasses.dataclass(frozen=True)
class EpochFigures:
    """What is known of a checkpoint: train_loss is the mean over its epoch's batches, before each step."""

    epoch: int
    step: int
    train_loss: float
    seconds: float
    pictures_per_second: float
    attention: str


def finetune(
    layers: Sequence[str | Path],
    pictures: "Pictures",
    method: Method,
    *,
    epochs: Sequence[int],
    out: Callable[[int], Path],
    extra: "Mapping[str, Pictures] | None" = None,
    run: TuningRun | None = None,
) -> dict[int, EpochFigures]:
    """Fine-tunes a model on pictures and writes a checkpoint for each epoch asked for.

    Args:
        layers: the base and what already lies over it.
        pictures: trained on; order does not matter, ids do.
        method: a registered fine-tuning method, configured.
        epochs: at which ends checkpoints are written; the last one ends the run.
        out: the folder for an epoch's checkpoint, written whole or not at all.
        extra: the extra inputs that the method needs, by name.
        run: how it is run.

    Returns:
        The figures of each epoch asked for.

    Raises:
        RequestError: no epochs, no pictures, or other extra inputs than the method needs.
    """
    import torch

    run, extra = run or TuningRun(), extra or {}
    wanted = sorted(set(epochs))
    if not wanted or wanted[0] < 1:
        raise RequestError(f"epochs = {list(epochs)}: at least one, and each at least 1")
    if not len(pictures):
        raise RequestError("pictures: there are none to fine-tune on")
    if set(extra) != method.needs or not all(len(more) for more in extra.values()):
        raise RequestError(f"extra = {sorted(extra)}: {method.name!r} needs {sorted(method.needs)}, none of them empty")
    pictures, extra = _in_order(pictures), {name: _in_order(more) for name, more in sorted(extra.items())}

    torch.backends.cudnn.deterministic = True  # convolutions add up in a fixed order
    # weights stay float32 on the device; only products are made in method.dtype
    model = load_model(
        layers, device=run.device, dtype="float32", attention=run.attention, allow_pickle=run.allow_pickle
    )
    data = _Data(model, method, pictures, extra)
    training = _training(model, method, data, [_digest_of(layers), *data.identity], run)
    return _to_the_last_epoch(training, data, wanted, out, run)


def _in_order(pictures: "Pictures") -> "Pictures":
    return pictures.take(np.argsort(np.array(pictures.ids)))


class _Data:
    """The batches of all steps, and the running loss of an epoch."""

    def __init__(self, model: Denoiser, method: Method, pictures: "Pictures", extra: "Mapping[str, Pictures]"):
        import torch

        self.model, self.method = model, method
        self.own = TrainingSet(model, pictures, method)
        self.extra = {name: TrainingSet(model, more, method, name) for name, more in extra.items()}
        if method.caches >= {"latents", "condition"} and torch.device(model.device).type == "cuda":
            model.offload_frozen()
        self.steps_per_epoch = -(-len(pictures) // method.batch_size)
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=model.device)
        self.seen = 0
        sets = [self.own, *self.extra.values()]
        self.identity = [[one.name, one.ids, list(one.captions), one.digest] for one in sets]
        self.order = lru_cache(maxsize=1)(self._order)

    def _order(self, epoch: int) -> np.ndarray:
        return rng(self.method.seed, "order", epoch).permutation(len(self.own))

    def loss(self, step: int) -> "Tensor":
        """The method's loss of a step's batch; the last batch of an epoch may be smaller."""
        import torch

        method, size = self.method, self.method.batch_size
        epoch, index = divmod(step, self.steps_per_epoch)
        chosen = self.order(epoch)[index * size : (index + 1) * size]
        batch = self.own.draw(chosen, epoch)
        for name, more in self.extra.items():
            rows = rng(method.seed, "order", name, step).integers(len(more), size=len(chosen))
            batch.extra[name] = more.draw(rows, step)
        device = torch.device(self.model.device).type
        with torch.autocast(device, compute_dtype(method), enabled=method.dtype != "float32"):
            loss = method.loss(self.model, batch)
        if index == 0:
            self.loss_sum.zero_()
        self.loss_sum += loss.detach()
        self.seen += len(chosen)
        return loss

    def mean_loss(self, step: int) -> float:
        """Mean over the batches so far of the epoch in which `step` steps end."""
        return float(self.loss_sum) / ((step - 1) % self.steps_per_epoch + 1)


def _training(model: Denoiser, method: Method, data: _Data, what: list[Any], run: TuningRun) -> Training:
    """AdamW on what the method trains."""
    import torch

    trained = method.trained(model)
    if run.gradient_checkpointing:
        model.checkpoint_gradients()
    model.network.train()
    optimizer = torch.optim.AdamW(
        trained.values(), lr=0.0, betas=method.betas, eps=method.epsilon, weight_decay=method.weight_decay, fused=True
    )
    return Training(
        data.loss,
        trained,
        optimizer,
        identity=[method.name, method.version, method.resolved(), *what],
        folder=run.partial,
        lr=lambda step: method.lr * min(1.0, (step + 1) / max(1, method.warmup_steps)),
        max_grad_norm=method.max_grad_norm,
        carried={"loss_sum": data.loss_sum},
        scaler=torch.amp.GradScaler(torch.device(model.device).type, enabled=method.dtype == "float16"),
    )


def _to_the_last_epoch(
    training: Training, data: _Data, wanted: Sequence[int], out: Callable[[int], Path], run: TuningRun
) -> dict[int, EpochFigures]:
    """Trains from where the progress ends, and writes the checkpoints into the progress, then where they are asked for.

    The caller's folder may not outlive an interruption, so the progress holds the checkpoints, too. One that is
    missing or damaged is written again if the training stands at its step; otherwise all starts anew.
    """
    per_epoch, started = data.steps_per_epoch, time.monotonic()

    def save(folder: Path) -> None:
        data.method.save(data.model, folder)

    def checkpoint(epoch: int) -> Path | None:
        return None if run.partial is None else run.partial / f"epoch-{epoch}"

    def is_there(epoch: int, state: Mapping[str, Any]) -> bool:
        kept = checkpoint(epoch)
        return kept is not None and str(epoch) in state and is_kept(kept, training.fingerprint)

    def speed() -> float:
        return round(data.seen / max(1e-9, time.monotonic() - started), 2)

    def report() -> None:
        run.on_progress(
            {
                "epoch": training.step / per_epoch,
                "epochs": wanted[-1],
                "step": training.step,
                "steps": wanted[-1] * per_epoch,
                "loss": data.mean_loss(training.step),
                "pictures_per_second": speed(),
            }
        )

    training.restore(lambda step, state: all(e * per_epoch >= step or is_there(e, state) for e in wanted))
    for epoch in wanted:
        training.run(
            epoch * per_epoch, save_every_s=run.save_every_s, on_progress=report, report_every_s=run.report_every_s
        )
        kept = checkpoint(epoch)
        if not is_there(epoch, training.state):
            loss, seconds = data.mean_loss(training.step), round(training.seconds, 3)
            figures = EpochFigures(epoch, training.step, loss, seconds, speed(), data.model.attention)
            training.state[str(epoch)] = dataclasses.asdict(figures)
            if kept is None:
                write_whole(out(epoch), save)
            else:
                keep(kept, save, training.fingerprint)
                training.save()
        if kept is not None:
            write_whole(out(epoch), partial(shutil.copytree, kept))
    return {epoch: EpochFigures(**training.state[str(epoch)]) for epoch in wanted}


def _digest_of(layers: Sequence[str | Path]) -> str:
    """Digest of the files that make a model, wherever they lie."""
    total = hashlib.sha256()
    for number, layer in enumerate(resolve_layers(layers)):
        own_folders = [layer / name for name in (*PARTS, *METHODS.names())]
        for path in sorted(path for folder in own_folders for path in folder.rglob("*") if path.is_file()):
            with open(path, "rb") as file:
                own = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{number} {path.relative_to(layer).as_posix()} {own}\n".encode())
    return total.hexdigest()
