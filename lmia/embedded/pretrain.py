"""The embedded base model's recipe: a tiny Stable Diffusion from scratch on known people of the synthetic population.

Stages, each of which continues after an interruption: pictures and lists -> tokenizer -> VAE -> latents -> U-Net and
text encoder together, on cached latents, with caption dropout and a moving average of the weights -> measured, then
written with a model card. What is trained on is fixed by the spec alone; no stage looks at a membership figure.

Shapes: B pictures, S side, L tokens.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lmia.embedded.architecture import Parts, build, save_model, save_tokenizer
from lmia.embedded.lists import LISTS, Listed, write_lists
from lmia.embedded.recipe import PretrainSpec, cached_lists
from lmia.finetune.progress import load_progress, optimizer_tensors, restore_optimizer, save_progress
from lmia.models.model import chunks
from lmia.seeds import rng, seed_of
from lmia.specs import RequestError, UnknownName

if TYPE_CHECKING:
    from lmia.data.pictures import Pictures

Report = Callable[[dict[str, Any]], None]
CARD = "MODEL_CARD.md"
SHEET = "samples.png"
SAVE_S = 60.0


def pretrain(spec: PretrainSpec, out: Path, work: Path, on_progress: Report = lambda report: None) -> dict[str, Any]:
    """Trains the base model and writes it to `out`; progress lies in `work`, from which an interrupted run continues.

    Args:
        spec: the recipe.
        out: folder of the finished model: a `StableDiffusionPipeline` folder with lists, card and sample sheet.
        work: folder for progress, safe to delete once `out` is there.
        on_progress: called every few seconds with {"stage", "step", "steps", "loss", "seconds"}.

    Returns:
        The measured figures that the card shows.
    """
    from lmia.data.captions import generic_prompt

    work.mkdir(parents=True, exist_ok=True)
    _check_same_recipe(spec, work)
    listed = cached_lists(spec, work)
    images = listed.pictures.images(spec.architecture.size)
    captions = [caption or "" for caption in listed.pictures.captions]
    trained = listed.of("trained", "domain_trained")
    if spec.start is None:
        if not (work / "tokenizer" / "tokenizer_config.json").is_file():
            words = [*(captions[n] for n in trained), generic_prompt()]
            save_tokenizer(words, spec.architecture, work / "tokenizer")
        parts = build(spec.architecture, seed_of(spec.seed, "weights"))
        train_vae(parts.vae, images[trained], spec, work / "vae", on_progress)
        latents = cached_latents(parts.vae, images, work / "latents.safetensors")
        parts.vae.register_to_config(scaling_factor=float(1 / latents[trained].std()))
    else:
        parts = taken_over(spec, work / "tokenizer")
        latents = cached_latents(parts.vae, images, work / "latents.safetensors")
    texts = Texts.of(listed.pictures.take(trained), work / "tokenizer")
    train_unet(parts, latents[trained], texts, spec=spec, folder=work / "unet", on_progress=on_progress)
    return export(spec, parts, listed, work, out)


def taken_over(spec: PretrainSpec, tokenizer: Path) -> Parts:
    """The parts of the embedded base that `spec.start` names, its tokenizer copied to `tokenizer`.

    Raises:
        RequestError: no such embedded base, or its lists or architecture are not those of the recipe.
    """
    from lmia.models.base import EMBEDDED, embedded
    from lmia.models.model import load_model

    if spec.start not in EMBEDDED:
        raise UnknownName("embedded base in start", spec.start, EMBEDDED)
    folder = embedded(spec.start)
    recipe = json.loads((folder / "recipe.json").read_text())
    for name in ("population", "sources", "photos", "unseen_people", "domains", "domain_photos", "architecture"):
        own = spec.resolved()[name]
        if recipe[name] != own:
            raise RequestError(f"{name} = {own!r}: start = {spec.start!r} was made with {recipe[name]!r}")
    shutil.copytree(folder / "tokenizer", tokenizer, dirs_exist_ok=True)
    model = load_model([folder])
    for part in (model.unet, model.text_encoder):
        part.requires_grad_(True)
    return Parts(model.vae, model.unet, model.text_encoder)


def tokenize(captions: Sequence[str], folder: Path) -> np.ndarray:
    """Token numbers of captions, padded and cut to the model's length: int64 [N, L]."""
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    encoded = tokenizer(
        list(captions),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="np",
    )
    return np.asarray(encoded["input_ids"], dtype=np.int64)


class Texts(NamedTuple):
    """Token numbers, int64: of the captions, class prompts [N, L] each, of the generic and the empty prompt [1, L]."""

    captions: np.ndarray
    classes: np.ndarray
    generic: np.ndarray
    blank: np.ndarray

    @staticmethod
    def of(pictures: "Pictures", tokenizer: Path) -> "Texts":
        """The texts of pictures."""
        from lmia.data.captions import class_prompt, generic_prompt

        captions = [caption or "" for caption in pictures.captions]
        classes = [class_prompt(source or "") for source in pictures.sources]
        one = tokenize([generic_prompt(), ""], tokenizer)
        return Texts(tokenize(captions, tokenizer), tokenize(classes, tokenizer), one[:1], one[1:])

    def draw(self, chosen: np.ndarray, dropped: float, short: float, draw: np.random.Generator) -> np.ndarray:
        """Tokens for the chosen pictures [B, L], some captions dropped and some cut to a prompt."""
        lot = draw.random(len(chosen))[:, None]
        tokens = np.where(lot < dropped + short, self.classes[chosen], self.captions[chosen])
        tokens = np.where(lot < dropped + short / 2, self.generic, tokens)
        return np.where(lot < dropped, self.blank, tokens)


def _batches(stage: str, count: int, spec: PretrainSpec, start: int) -> Iterator[tuple[int, np.ndarray]]:
    """(step, positions) from step `start`: each epoch in an order of its own, incomplete batches left out."""
    size, steps = getattr(spec, f"{stage}_batch"), getattr(spec, f"{stage}_steps")
    per_epoch = count // size
    if per_epoch == 0:
        raise RequestError(f"{stage}_batch = {size}: there are only {count} pictures to train on")
    order = np.empty(0, dtype=np.int64)
    for step in range(start, steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0 or not len(order):
            order = rng(spec.seed, stage, "order", epoch).permutation(count)
        yield step, order[place * size : (place + 1) * size]


def learning_rate(step: int, steps: int, highest: float, warmup: int, final: float) -> float:
    """Linear warm-up, then cosine decay to `final` times the highest."""
    if step < warmup:
        return highest * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return highest * (final + (1 - final) * 0.5 * (1 + np.cos(np.pi * done)))


class _Averaged:
    """Trainable tensors, their moving average, AdamW and a place on disk: what both trainings need."""

    def __init__(self, modules: Mapping[str, Any], *, decay: float, weight_decay: float, folder: Path):
        import torch

        self.parameters = {
            f"{name}.{key}": value for name, module in modules.items() for key, value in module.named_parameters()
        }
        self.optimizer = torch.optim.AdamW(
            list(self.parameters.values()), lr=0.0, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True
        )
        self.average = {key: value.detach().clone() for key, value in self.parameters.items()}
        self.decay, self.folder = decay, folder
        self.step, self.seconds, self.last_save = 0, 0.0, time.monotonic()
        self.losses: dict[str, float] = {}
        saved = load_progress(folder)
        if saved is not None:
            tensors, state = saved
            self.step, self.seconds, self.losses = state["step"], state["seconds"], state["losses"]
            with torch.no_grad():
                for key, value in self.parameters.items():
                    value.copy_(tensors[f"weights.{key}"])
                    self.average[key].copy_(tensors[f"average.{key}"])
            restore_optimizer(self.optimizer, self.parameters, tensors)

    def update(self, loss: Any, lr: float) -> None:
        """One clipped AdamW step, then the average follows."""
        import torch

        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.values()), [p.detach() for p in self.parameters.values()], 1 - decay)

    def tick(self, started: float, final: bool = False) -> None:
        """Saves progress now and then."""
        if not final and time.monotonic() - self.last_save < SAVE_S:
            return
        tensors = {f"weights.{key}": value for key, value in self.parameters.items()}
        tensors |= {f"average.{key}": value for key, value in self.average.items()}
        tensors |= optimizer_tensors(self.optimizer, self.parameters)
        seconds = self.seconds + time.monotonic() - started
        save_progress(self.folder, tensors, {"step": self.step, "seconds": seconds, "losses": self.losses})
        self.last_save = time.monotonic()
        if final:
            self.seconds = seconds

    def use_average(self) -> None:
        """Puts the averaged weights in place."""
        import torch

        with torch.no_grad():
            for key, value in self.parameters.items():
                value.copy_(self.average[key])


def train_vae(vae: Any, images: np.ndarray, spec: PretrainSpec, folder: Path, on_progress: Report) -> None:
    """Trains the VAE on uint8 [N, S, S, 3]: L1, L1 of picture gradients and a small KL term. In place."""
    import torch

    run = _Averaged({"vae": vae}, decay=0.995, weight_decay=1e-4, folder=folder)
    started = last = time.monotonic()
    vae.train()
    for step, chosen in _batches("vae", len(images), spec, run.step):
        x = torch.from_numpy(images[chosen]).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        posterior = vae.encode(x, return_dict=False)[0]
        noise = rng(spec.seed, "vae", "noise", step).standard_normal(posterior.mean.shape, dtype=np.float32)
        y = vae.decode(posterior.mean + posterior.std * torch.from_numpy(noise), return_dict=False)[0]
        edges = (y.diff(dim=2) - x.diff(dim=2)).abs().mean() + (y.diff(dim=3) - x.diff(dim=3)).abs().mean()
        pixels = (y - x).abs().mean()
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        loss = pixels + spec.edges * edges + spec.kl * kl
        run.update(loss, learning_rate(step, spec.vae_steps, spec.vae_lr, 100, spec.final_lr))
        run.tick(started)
        if time.monotonic() - last > 5:
            last = time.monotonic()
            run.losses = {"l1": pixels.item(), "edges": edges.item(), "kl": kl.item()}
            on_progress(_report("vae", run, spec.vae_steps, started))
    run.tick(started, final=True)
    run.use_average()
    vae.eval().requires_grad_(False)


def cached_latents(vae: Any, images: np.ndarray, path: Path, batch: int = 64) -> Any:
    """The VAE's modes for all pictures, unscaled: float32 tensor [N, C, H, W]; kept in `path`."""
    import torch
    from safetensors.torch import load_file, save_file

    if path.is_file():
        return load_file(path)["latents"]
    with torch.inference_mode():
        modes = [
            vae.encode(torch.tensor(images[part]).permute(0, 3, 1, 2).float().div_(127.5).sub_(1), return_dict=False)[
                0
            ].mode()
            for part in chunks(len(images), batch)
        ]
    latents = torch.cat(modes).clone(memory_format=torch.contiguous_format)
    temporary = path.with_suffix(".writing")
    save_file({"latents": latents}, temporary)
    temporary.replace(path)
    return load_file(path)["latents"]


def train_unet(
    parts: Parts, latents: Any, texts: Texts, *, spec: PretrainSpec, folder: Path, on_progress: Report
) -> None:
    """Trains U-Net and text encoder on unscaled latents [N, C, H, W] and their texts: mean squared error. In place."""
    import torch
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    from lmia.embedded.architecture import SCHEDULER

    config = {key: value for key, value in SCHEDULER.items() if key.startswith(("beta", "num"))}
    abar = DDPMScheduler(**config).alphas_cumprod
    latents = latents * parts.vae.config.scaling_factor
    run = _Averaged(
        {"unet": parts.unet, "text_encoder": parts.text_encoder},
        decay=spec.ema,
        weight_decay=1e-2,
        folder=folder,
    )
    started = last = time.monotonic()
    recent: list[Any] = []
    parts.unet.train()
    parts.text_encoder.train()
    for step, chosen in _batches("unet", len(latents), spec, run.step):
        draw = rng(spec.seed, "unet", "step", step)
        t = torch.from_numpy(draw.integers(0, len(abar), len(chosen)))
        noise = torch.from_numpy(draw.standard_normal((len(chosen), *latents.shape[1:]), dtype=np.float32))
        tokens = torch.from_numpy(texts.draw(chosen, spec.caption_dropout, spec.short_captions, draw))
        z0 = latents[chosen]
        a, b = abar[t].sqrt().view(-1, 1, 1, 1), (1 - abar[t]).sqrt().view(-1, 1, 1, 1)
        text = parts.text_encoder(tokens)[0]
        out = parts.unet(a * z0 + b * noise, t, text, return_dict=False)[0]
        target = noise if spec.architecture.prediction_type == "epsilon" else a * noise - b * z0
        loss = (out - target).square().mean()
        run.update(loss, learning_rate(step, spec.unet_steps, spec.unet_lr, spec.warmup_steps, spec.final_lr))
        recent = [*recent[-199:], loss.detach()]
        run.tick(started)
        if time.monotonic() - last > 5:
            last = time.monotonic()
            run.losses = {"mse": torch.stack(recent).mean().item()}
            on_progress(_report("unet", run, spec.unet_steps, started))
    run.tick(started, final=True)
    run.use_average()
    for part in (parts.unet, parts.text_encoder):
        part.eval().requires_grad_(False)


def export(spec: PretrainSpec, parts: Parts, listed: Listed, work: Path, out: Path) -> dict[str, Any]:
    """Writes the model folder with its lists, then measures it as written and adds the card and the sample sheet."""
    writing = out.with_name(out.name + ".writing")
    shutil.rmtree(writing, ignore_errors=True)
    shutil.copytree(work / "tokenizer", writing / "tokenizer")
    save_model(parts, spec.architecture, writing)
    write_lists(listed, writing / LISTS)
    (writing / "recipe.json").write_text(json.dumps(spec.resolved(), indent=2) + "\n")
    from lmia.embedded.card import measure, sample_sheet, write_card

    figures = measure(writing, listed)
    for stage in ("vae", "unet"):
        saved = load_progress(work / stage)
        if saved is not None:
            figures[f"{stage}_steps"], figures[f"{stage}_seconds"] = saved[1]["step"], saved[1]["seconds"]
    sample_sheet(writing, listed, writing / SHEET)
    write_card(writing / CARD, spec, listed, figures)
    shutil.rmtree(out, ignore_errors=True)
    writing.replace(out)
    return figures


def snapshot(spec: PretrainSpec, out: Path, work: Path) -> dict[str, Any]:
    """Writes the model as far as a training in `work` has come (its moving average), card and all."""
    import torch
    from safetensors.torch import load_file

    parts = build(spec.architecture, seed_of(spec.seed, "weights"))
    for stage, modules in (("vae", {"vae": parts.vae}), ("unet", {"unet": parts.unet, "text_encoder": parts[2]})):
        saved = load_progress(work / stage)
        if saved is None:
            raise RequestError(f"work = {str(work)!r}: no progress of stage {stage!r} there yet")
        with torch.no_grad():
            for name, module in modules.items():
                for key, value in module.named_parameters():
                    value.copy_(saved[0][f"average.{name}.{key}"])
    listed = cached_lists(spec, work)
    latents = load_file(work / "latents.safetensors")["latents"]
    parts.vae.register_to_config(scaling_factor=float(1 / latents[listed.of("trained", "domain_trained")].std()))
    for part in parts:
        part.eval().requires_grad_(False)
    return export(spec, parts, listed, work, out)


def _check_same_recipe(spec: PretrainSpec, work: Path) -> None:
    """Progress of another recipe is never continued."""
    note = work / "recipe.json"
    text = json.dumps(spec.resolved(), indent=2) + "\n"
    if note.is_file() and note.read_text() != text:
        raise RequestError(f"work = {str(work)!r}: holds the progress of another recipe; use another folder")
    note.write_text(text)


def _report(stage: str, run: _Averaged, steps: int, started: float) -> dict[str, Any]:
    seconds = run.seconds + time.monotonic() - started
    return {"stage": stage, "step": run.step, "steps": steps, "seconds": round(seconds, 1), **run.losses}
