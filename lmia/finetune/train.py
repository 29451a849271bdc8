"""Fine-tuning a target: one trajectory, checkpoints at the epochs asked for, progress from which it continues exactly.

Latents and text states are computed once, since VAE and text encoder stay frozen and there is no random crop (a
flipped picture is encoded, too). The latent is the VAE's mode; diffusers' example samples from a posterior whose
deviation is negligible. The learning rate is constant after warm-up (the paper's decays), so that checkpoints of
one run can be compared.

Shapes: N pictures, B in a batch, C latent channels, H and W latent sides, L tokens, D text width.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from lmia.finetune.methods import METHODS
from lmia.finetune.progress import load_progress, optimizer_tensors, restore_optimizer, save_progress
from lmia.models.model import TargetModel, chunks, load_model
from lmia.models.sample import PromptStates
from lmia.seeds import rng
from lmia.specs import RequestError, Spec

if TYPE_CHECKING:
    from lmia.data.pictures import Pictures


class FineTuneSpec(Spec):
    """What decides a fine-tuned model, beside base, pictures, method and epoch. Defaults: Holme et al. 2025."""

    lr: float = Field(1e-5, gt=0, le=1, description="learning rate after warm-up")
    batch_size: int = Field(5, ge=1, le=4096, description="pictures per step")
    warmup_steps: int = Field(2000, ge=0, description="steps of linear warm-up; constant afterwards")
    weight_decay: float = Field(1e-2, ge=0)
    betas: tuple[float, float] = Field((0.9, 0.999), description="AdamW's")
    epsilon: float = Field(1e-8, gt=0, description="AdamW's")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    flip: bool = Field(True, description="mirror half of the pictures at random")
    caption: Literal["caption", "class"] = Field("caption", description="own caption, or the source's class prompt")
    caption_dropout: float = Field(0.0, ge=0, le=1, description="share of captions replaced by nothing")
    size: int | None = Field(None, ge=8, le=2048, description="picture side in pixels; null: the model's own")
    seed: int = Field(0, ge=0, description="order, noises, timesteps, flips")
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        "float32", description="of the products (autocast); trained weights are float32 always"
    )
    weights: Literal["float16", "float32"] = Field("float16", description="dtype of the saved checkpoint")


def finetune(
    layers: Sequence[str | Path],
    pictures: "Pictures",
    method: str,
    spec: FineTuneSpec,
    *,
    epochs: Sequence[int],
    out: Callable[[int], Path],
    partial: Path | None = None,
    device: str = "cpu",
    attention: str = "auto",
    gradient_checkpointing: bool = False,
    allow_pickle: bool = False,
    save_every_s: float = 60.0,
    report_every_s: float = 2.0,
    on_progress: Callable[[dict[str, Any]], None] = lambda report: None,
) -> dict[int, dict[str, Any]]:
    """Fine-tunes a model on pictures and writes a checkpoint for each epoch asked for.

    Args:
        layers: the base and what already lies over it.
        pictures: trained on; order does not matter, ids do.
        method: a registered fine-tuning method.
        spec: the method's spec.
        epochs: at which ends checkpoints are written; the last one ends the run.
        out: the folder for an epoch's checkpoint, written whole or not at all.
        partial: folder for progress and the checkpoints so far; a run with the same base, pictures and spec
            continues from it, also to later epochs, and ends bit-equal to an uninterrupted one on the same kind of
            machine (on a GPU as far as its attention kernels add up in a fixed order).
        device: where to train.
        attention: backend, see `load_model`.
        gradient_checkpointing: trade time for memory.
        allow_pickle: see `load_model`.
        save_every_s: seconds between saves of progress.
        report_every_s: seconds between calls of `on_progress`.
        on_progress: gets {"epoch", "epochs", "step", "steps", "loss", "pictures_per_second"}.

    Returns:
        For each epoch {"epoch", "step", "train_loss", "seconds", "pictures_per_second", "attention"}; train_loss is
        the mean over that epoch's batches, before each step.
    """
    import torch

    kind = METHODS.get(method)
    wanted = sorted(set(epochs))
    if not wanted or wanted[0] < 1:
        raise RequestError(f"epochs = {list(epochs)}: at least one, and each at least 1")
    if not len(pictures):
        raise RequestError("pictures: there are none to fine-tune on")
    order = np.argsort(np.array(pictures.ids))
    pictures = pictures.take(order)
    captions = training_captions(pictures, spec.caption)

    torch.backends.cudnn.deterministic = True  # convolutions add up in a fixed order
    # weights stay float32 on the device; only products are made in spec.dtype
    model = load_model(layers, device=device, dtype="float32", attention=attention, allow_pickle=allow_pickle)
    data = _Data(model, pictures, captions, spec)
    trained = kind.prepare(model, spec)
    if gradient_checkpointing:
        base = model.unet.get_base_model() if hasattr(model.unet, "get_base_model") else model.unet
        base.enable_gradient_checkpointing()
    run = _Run(model, trained, data, spec)
    run.identity = _identity(layers, pictures.ids, captions, method, spec)
    save = kind.save
    if partial is not None and run.restore(partial, wanted):
        for epoch in (epoch for epoch in wanted if epoch <= run.epoch):
            _copy_whole(_kept(partial, epoch), out(epoch))
    started = last_save = last_report = time.monotonic()
    seen = 0
    steps_per_epoch = -(-len(pictures) // spec.batch_size)

    def keep() -> None:
        if partial is not None:
            run.seconds_before = seconds()
            save_progress(partial, run.tensors(), run.state())

    def seconds() -> float:
        return run.seconds + time.monotonic() - started

    model.unet.train()
    while run.epoch < wanted[-1]:
        for batch in data.batches(run.epoch, run.batch):
            run.step_on(batch)
            seen += len(batch)
            now = time.monotonic()
            if now - last_report >= report_every_s:
                last_report = now
                on_progress(
                    {
                        "epoch": run.epoch + run.batch / steps_per_epoch,
                        "epochs": wanted[-1],
                        "step": run.step,
                        "steps": wanted[-1] * steps_per_epoch,
                        "loss": run.mean_loss(),
                        "pictures_per_second": round(seen / (now - started), 2),
                    }
                )
            if now - last_save >= save_every_s:
                keep()
                last_save = time.monotonic()
        loss = run.mean_loss()
        run.next_epoch()
        if run.epoch in wanted:
            if partial is None:
                _write_whole(out(run.epoch), lambda folder: save(model, spec, folder))
            else:  # the caller's folder may not outlive an interruption, so progress holds the checkpoints, too
                _write_whole(_kept(partial, run.epoch), lambda folder: save(model, spec, folder))
                _copy_whole(_kept(partial, run.epoch), out(run.epoch))
            run.figures[run.epoch] = {
                "epoch": run.epoch,
                "step": run.step,
                "train_loss": loss,
                "seconds": round(seconds(), 3),
                "pictures_per_second": round(seen / max(1e-9, time.monotonic() - started), 2),
                "attention": model.attention,
            }
            keep()
    return {epoch: run.figures[epoch] for epoch in wanted}


def training_captions(pictures: "Pictures", kind: str) -> list[str]:
    """What each picture is trained with: its own caption, or its source's class prompt.

    Raises:
        RequestError: a picture has no caption, or no source; the first is named.
    """
    from lmia.data.captions import class_prompt

    column = pictures.captions if kind == "caption" else pictures.table.column("source").to_pylist()
    missing = [record for record, value in zip(pictures.ids, column, strict=True) if value is None]
    if missing:
        need = "caption" if kind == "caption" else "source"
        raise RequestError(
            f"caption = {kind!r}: picture {missing[0]!r} has no {need} (nor have {len(missing) - 1} more)"
        )
    return [str(value) if kind == "caption" else class_prompt(str(value)) for value in column]


class _Data:
    """Latents and text states, computed once, and what each picture gets in an epoch."""

    def __init__(self, model: TargetModel, pictures: "Pictures", captions: Sequence[str], spec: FineTuneSpec):
        import torch

        self.ids, self.spec, self.device = pictures.ids, spec, model.device
        self.num_times = int(model.scheduler.config.num_train_timesteps)
        images = pictures.images(spec.size or model.size)

        def encode(views: np.ndarray) -> Any:
            return torch.cat([model.encode(views[part]) for part in chunks(len(views), 16)])

        self.latents = encode(images)
        self.mirrored = encode(np.ascontiguousarray(images[:, :, ::-1])) if spec.flip else None
        distinct = sorted({*captions, ""})
        place = {caption: at for at, caption in enumerate(distinct)}
        self.texts = PromptStates(model).of(distinct).to(_compute_dtype(spec))
        self.caption_at = np.array([place[caption] for caption in captions])
        self.blank_at = place[""]
        if torch.device(model.device).type == "cuda":
            model.vae.to("cpu")
            model.text_encoder.to("cpu")

    def batches(self, epoch: int, start: int) -> Any:
        """Positions of each batch of an epoch, from batch `start`; the last one may be smaller."""
        order = rng(self.spec.seed, "order", epoch).permutation(len(self.ids))
        size = self.spec.batch_size
        for first in range(start * size, len(order), size):
            yield order[first : first + size]

    def draw(self, epoch: int, batch: np.ndarray) -> tuple[Any, Any, Any, Any]:
        """(latents, noises, timesteps, text states) of a batch; all randomness from (seed, epoch, record id)."""
        import torch

        spec, shape = self.spec, tuple(self.latents.shape[1:])
        noise = np.empty((len(batch), *shape), np.float32)
        times = np.empty(len(batch), np.int64)
        texts = self.caption_at[batch]
        mirrored = np.zeros(len(batch), bool)
        for row, at in enumerate(batch):
            lot = rng(spec.seed, "finetune", epoch, self.ids[at])
            times[row] = lot.integers(self.num_times)
            mirrored[row] = lot.random() < 0.5
            if lot.random() < spec.caption_dropout:
                texts[row] = self.blank_at
            lot.standard_normal(out=noise[row], dtype=np.float32)
        chosen = _moved(batch, self.device)
        z0 = self.latents[chosen]
        if self.mirrored is not None:
            turned = _moved(mirrored, self.device).view(-1, 1, 1, 1)
            z0 = torch.where(turned, self.mirrored[chosen], z0)
        return (
            z0,
            _moved(noise, self.device),
            _moved(times, self.device),
            self.texts[_moved(texts, self.device)],
        )


def _moved(array: np.ndarray, device: str) -> Any:
    """An array on the device; to a GPU through pinned memory, so that nothing waits for the copy."""
    import torch

    tensor = torch.from_numpy(array)
    if torch.device(device).type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class _Run:
    """The trajectory: weights, optimiser, and where it is."""

    def __init__(self, model: TargetModel, trained: dict[str, Any], data: _Data, spec: FineTuneSpec):
        import torch

        self.model, self.trained, self.data, self.spec = model, trained, data, spec
        self.identity = ""
        self.epoch = self.batch = self.step = 0
        self.seconds = self.seconds_before = 0.0
        self.figures: dict[int, dict[str, Any]] = {}
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=model.device)
        self.parameters = list(trained.values())
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=0.0,
            betas=spec.betas,
            eps=spec.epsilon,
            weight_decay=spec.weight_decay,
            fused=True,
        )
        kind = torch.device(model.device).type
        self.autocast = lambda: torch.autocast(kind, _compute_dtype(spec), enabled=spec.dtype != "float32")
        self.scaler = torch.amp.GradScaler(kind, enabled=spec.dtype == "float16")
        abar = model.abar().to(model.device)
        self.signal = abar.sqrt().float()
        self.spread = (1 - abar).sqrt().float()
        self.is_velocity = model.prediction_type == "v_prediction"

    def step_on(self, batch: np.ndarray) -> None:
        """One optimiser step on the pictures at these positions."""
        import torch

        z0, noise, times, text = self.data.draw(self.epoch, batch)
        a = self.signal[times].view(-1, 1, 1, 1)
        b = self.spread[times].view(-1, 1, 1, 1)
        target = a * noise - b * z0 if self.is_velocity else noise
        with self.autocast():
            predicted = self.model.unet(a * z0 + b * noise, times, text, return_dict=False)[0]
        loss = (predicted.float() - target).square().mean()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.parameters, self.spec.max_grad_norm)
        rate = self.spec.lr * min(1.0, (self.step + 1) / max(1, self.spec.warmup_steps))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss_sum += loss.detach()
        self.batch += 1
        self.step += 1

    def mean_loss(self) -> float:
        """Mean loss of this epoch's batches so far."""
        return float(self.loss_sum) / max(1, self.batch)

    def next_epoch(self) -> None:
        """Turns the page."""
        self.epoch, self.batch = self.epoch + 1, 0
        self.loss_sum.zero_()

    def tensors(self) -> dict[str, Any]:
        """Weights, optimiser and running loss."""
        weights = {f"weights.{name}": value for name, value in self.trained.items()}
        return {**weights, **optimizer_tensors(self.optimizer, self.trained), "loss_sum": self.loss_sum}

    def state(self) -> dict[str, Any]:
        """Everything else that the next step depends on, and the figures so far."""
        return {
            "identity": self.identity,
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "seconds": self.seconds_before,
            "figures": self.figures,
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, partial: Path, wanted: Sequence[int]) -> bool:
        """Continues from saved progress if it is of this very run and no checkpoint before it is missing."""
        import torch

        saved = load_progress(partial)
        if saved is None or saved[1].get("identity") != self.identity:
            return False
        tensors, state = saved
        figures = {int(epoch): value for epoch, value in state["figures"].items()}
        passed = [epoch for epoch in wanted if epoch <= state["epoch"]]
        if any(epoch not in figures or not _kept(partial, epoch).is_dir() for epoch in passed):
            return False
        with torch.no_grad():
            for name, value in self.trained.items():
                value.copy_(tensors[f"weights.{name}"])
            self.loss_sum.copy_(tensors["loss_sum"])
        restore_optimizer(self.optimizer, self.trained, tensors)
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.batch, self.step = state["epoch"], state["batch"], state["step"]
        self.seconds, self.figures = state["seconds"], figures
        return True


def _compute_dtype(spec: FineTuneSpec) -> Any:
    import torch

    return getattr(torch, spec.dtype)


def _identity(
    layers: Sequence[str | Path], ids: Sequence[str], captions: Sequence[str], method: str, spec: FineTuneSpec
) -> str:
    """A fingerprint of what a trajectory depends on, so that progress of another one is never continued.

    The base counts by its weight files' names and sizes: paths differ between machines.
    """
    files = [
        (path.relative_to(layer).as_posix(), path.stat().st_size)
        for layer in map(Path, layers)
        if layer.is_dir()
        for path in sorted(layer.rglob("*.safetensors"))
    ]
    text = json.dumps([files, list(ids), list(captions), method, METHODS.get(method).version, spec.resolved()])
    return hashlib.sha256(text.encode()).hexdigest()


def _kept(partial: Path, epoch: int) -> Path:
    """Where progress holds the checkpoint of an epoch."""
    return partial / f"epoch-{epoch}"


def _copy_whole(source: Path, target: Path) -> None:
    _write_whole(target, lambda folder: shutil.copytree(source, folder, dirs_exist_ok=True))


def _write_whole(folder: Path, write: Callable[[Path], object]) -> None:
    writing = folder.with_name(f"{folder.name}.writing")
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir(parents=True)
    write(writing)
    shutil.rmtree(folder, ignore_errors=True)
    writing.replace(folder)
