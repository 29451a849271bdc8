"""The embedded base model's recipe: a tiny Stable Diffusion from scratch on known people of the synthetic population.

Stages, each of which continues after an interruption: pictures and lists -> tokenizer -> VAE -> latents -> U-Net and
text encoder together, on cached latents, with caption dropout and a moving average of the weights -> measured, then
written with a model card. What is trained on is fixed by the spec alone; no stage looks at a membership figure.

Shapes: B pictures, S side, L tokens.
"""

import json
import shutil
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lmia.checked import is_kept, keep, kept, read_tensors
from lmia.embedded import EMBEDDED, embedded
from lmia.embedded.architecture import SCHEDULER, Parts, build, save_model, save_tokenizer
from lmia.embedded.card import measure, sample_sheet, write_card
from lmia.embedded.lists import LISTS, Listed, write_lists
from lmia.embedded.recipe import PretrainSpec, cached_lists
from lmia.models.denoiser import chunks, target_of
from lmia.models.load import load_model
from lmia.seeds import rng, seed_of
from lmia.specs import RequestError, UnknownName
from lmia.training import PROGRESS, Training

if TYPE_CHECKING:
    from lmia.data.pictures import Pictures

Report = Callable[[dict[str, Any]], None]
CARD = "MODEL_CARD.md"
SHEET = "samples.png"
SAVE_S = 60.0
REPORT_S = 5.0


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
    what = spec.model_dump_json()
    if spec.start is None:
        words = [*(captions[n] for n in trained), generic_prompt()]
        tokenizer = kept(work / "tokenizer", lambda folder: save_tokenizer(words, spec.architecture, folder), what)
        parts = build(spec.architecture, seed_of(spec.seed, "weights"))
        train_vae(parts.vae, images[trained], spec, work / "vae", on_progress)
        latents = cached_latents(parts.vae, images, work / "latents.safetensors", what)
        parts.vae.register_to_config(scaling_factor=float(1 / latents[trained].std()))
    else:
        tokenizer = work / "tokenizer"
        parts = taken_over(spec, tokenizer)
        latents = cached_latents(parts.vae, images, work / "latents.safetensors", what)
    texts = Texts.of(listed.pictures.take(trained), tokenizer)
    train_unet(parts, latents[trained], texts, spec=spec, folder=work / "unet", on_progress=on_progress)
    return export(spec, parts, listed, work, out)


def taken_over(spec: PretrainSpec, tokenizer: Path) -> Parts:
    """The parts of the embedded base that `spec.start` names, its tokenizer copied to `tokenizer`.

    Raises:
        RequestError: no such embedded base, or its lists or architecture are not those of the recipe.
    """
    if spec.start not in EMBEDDED:
        raise UnknownName("embedded base in start", spec.start, EMBEDDED)
    folder = embedded(spec.start)
    recipe = json.loads((folder / "recipe.json").read_text())
    for name in ("population", "sources", "photos", "unseen_people", "domains", "domain_photos", "architecture"):
        own = spec.resolved()[name]
        if recipe[name] != own:
            raise RequestError(f"{name} = {own!r}: start = {spec.start!r} was made with {recipe[name]!r}")
    shutil.copytree(folder / "tokenizer", tokenizer, dirs_exist_ok=True)
    parts = Parts(**load_model([folder]).parts)
    for part in (parts.unet, parts.text_encoder):
        part.requires_grad_(True)
    return parts


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
        share = draw.random(len(chosen))[:, None]
        tokens = np.where(share < dropped + short, self.classes[chosen], self.captions[chosen])
        tokens = np.where(share < dropped + short / 2, self.generic, tokens)
        return np.where(share < dropped, self.blank, tokens)


def batches(stage: str, count: int, spec: PretrainSpec) -> Callable[[int], np.ndarray]:
    """From a step to the positions that it trains on: each epoch in an order of its own, no incomplete batches."""
    size = getattr(spec, f"{stage}_batch")
    per_epoch = count // size
    if per_epoch == 0:
        raise RequestError(f"{stage}_batch = {size}: there are only {count} pictures to train on")

    @lru_cache(maxsize=1)
    def order(epoch: int) -> np.ndarray:
        return rng(spec.seed, stage, "order", epoch).permutation(count)

    def of(step: int) -> np.ndarray:
        epoch, place = divmod(step, per_epoch)
        return order(epoch)[place * size : (place + 1) * size]

    return of


def learning_rate(step: int, steps: int, highest: float, warmup: int, final: float) -> float:
    """Linear warm-up, then cosine decay to `final` times the highest."""
    if step < warmup:
        return highest * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return highest * (final + (1 - final) * 0.5 * (1 + np.cos(np.pi * done)))


def _train(
    stage: str,
    modules: Mapping[str, Any],
    loss: Callable[[int], Any],
    *,
    spec: PretrainSpec,
    decay: float,
    weight_decay: float,
    warmup: int,
    losses: Callable[[], dict[str, float]],
    folder: Path,
    on_progress: Report,
) -> None:
    """Trains modules by AdamW for a stage's steps, then puts the moving average of their weights in place."""
    import torch

    steps, lr = getattr(spec, f"{stage}_steps"), getattr(spec, f"{stage}_lr")
    parameters = {
        f"{name}.{key}": value for name, module in modules.items() for key, value in module.named_parameters()
    }
    average = {key: value.detach().clone() for key, value in parameters.items()}

    def follow() -> None:
        now = min(decay, (1 + training.step) / (10 + training.step))
        torch._foreach_lerp_(list(average.values()), [value.detach() for value in parameters.values()], 1 - now)

    def report() -> None:
        place = {"stage": stage, "step": training.step, "steps": steps, "seconds": round(training.seconds, 1)}
        on_progress({**place, **losses()})

    training = Training(
        loss,
        parameters,
        torch.optim.AdamW(parameters.values(), lr=0.0, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True),
        identity=[stage, spec.resolved()],
        folder=folder,
        lr=lambda step: learning_rate(step, steps, lr, warmup, spec.final_lr),
        max_grad_norm=1.0,
        carried=average,
        after_step=follow,
    )
    training.restore()
    for module in modules.values():
        module.train()
    training.run(steps, save_every_s=SAVE_S, on_progress=report, report_every_s=REPORT_S)
    training.save()
    with torch.no_grad():
        for key, value in parameters.items():
            value.copy_(average[key])
    for module in modules.values():
        module.eval().requires_grad_(False)


def train_vae(vae: Any, images: np.ndarray, spec: PretrainSpec, folder: Path, on_progress: Report) -> None:
    """Trains the VAE on uint8 [N, S, S, 3]: L1, L1 of picture gradients and a small KL term. In place."""
    import torch

    chosen = batches("vae", len(images), spec)
    last: dict[str, Any] = {}

    def loss(step: int) -> Any:
        x = torch.from_numpy(images[chosen(step)]).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        posterior = vae.encode(x, return_dict=False)[0]
        noise = rng(spec.seed, "vae", "noise", step).standard_normal(posterior.mean.shape, dtype=np.float32)
        y = vae.decode(posterior.mean + posterior.std * torch.from_numpy(noise), return_dict=False)[0]
        edges = (y.diff(dim=2) - x.diff(dim=2)).abs().mean() + (y.diff(dim=3) - x.diff(dim=3)).abs().mean()
        pixels = (y - x).abs().mean()
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        last.update(l1=pixels.detach(), edges=edges.detach(), kl=kl.detach())
        return pixels + spec.edges * edges + spec.kl * kl

    _train(
        "vae",
        {"vae": vae},
        loss,
        spec=spec,
        decay=0.995,
        weight_decay=1e-4,
        warmup=100,
        losses=lambda: {name: value.item() for name, value in last.items()},
        folder=folder,
        on_progress=on_progress,
    )


def cached_latents(vae: Any, images: np.ndarray, path: Path, identity: str, batch: int = 64) -> Any:
    """The VAE's modes for all pictures, unscaled: float32 tensor [N, C, H, W]; kept in `path`."""
    import torch
    from safetensors.torch import load_file, save_file

    def write(file: Path) -> None:
        with torch.inference_mode():
            modes = [
                vae.encode(
                    torch.tensor(images[part]).permute(0, 3, 1, 2).float().div_(127.5).sub_(1), return_dict=False
                )[0].mode()
                for part in chunks(len(images), batch)
            ]
        save_file({"latents": torch.cat(modes).clone(memory_format=torch.contiguous_format)}, file)

    return load_file(kept(path, write, identity))["latents"]


def train_unet(
    parts: Parts, latents: Any, texts: Texts, *, spec: PretrainSpec, folder: Path, on_progress: Report
) -> None:
    """Trains U-Net and text encoder on unscaled latents [N, C, H, W] and their texts: mean squared error. In place."""
    import torch
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    config = {key: value for key, value in SCHEDULER.items() if key.startswith(("beta", "num"))}
    abar = DDPMScheduler(**config).alphas_cumprod
    latents = latents * parts.vae.config.scaling_factor
    chosen_at = batches("unet", len(latents), spec)
    recent: deque[Any] = deque(maxlen=200)

    def loss(step: int) -> Any:
        chosen = chosen_at(step)
        draw = rng(spec.seed, "unet", "step", step)
        t = torch.from_numpy(draw.integers(0, len(abar), len(chosen)))
        noise = torch.from_numpy(draw.standard_normal((len(chosen), *latents.shape[1:]), dtype=np.float32))
        tokens = torch.from_numpy(texts.draw(chosen, spec.caption_dropout, spec.short_captions, draw))
        z0 = latents[chosen]
        a, b = abar[t].sqrt().view(-1, 1, 1, 1), (1 - abar[t]).sqrt().view(-1, 1, 1, 1)
        text = parts.text_encoder(tokens)[0]
        out = parts.unet(a * z0 + b * noise, t, text, return_dict=False)[0]
        value = (out - target_of(spec.architecture.prediction_type, z0, noise, a, b)).square().mean()
        recent.append(value.detach())
        return value

    _train(
        "unet",
        {"unet": parts.unet, "text_encoder": parts.text_encoder},
        loss,
        spec=spec,
        decay=spec.ema,
        weight_decay=1e-2,
        warmup=spec.warmup_steps,
        losses=lambda: {"mse": torch.stack(list(recent)).mean().item()},
        folder=folder,
        on_progress=on_progress,
    )


def export(spec: PretrainSpec, parts: Parts, listed: Listed, work: Path, out: Path) -> dict[str, Any]:
    """Writes the model folder with its lists, then measures it as written and adds the card and the sample sheet."""
    writing = out.with_name(out.name + ".writing")
    shutil.rmtree(writing, ignore_errors=True)
    shutil.copytree(work / "tokenizer", writing / "tokenizer")
    save_model(parts, spec.architecture, writing)
    write_lists(listed, writing / LISTS)
    (writing / "recipe.json").write_text(json.dumps(spec.resolved(), indent=2) + "\n")
    figures = measure(writing, listed)
    for stage in ("vae", "unet"):
        saved = read_tensors(work / stage / PROGRESS)
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

    parts = build(spec.architecture, seed_of(spec.seed, "weights"))
    for stage, modules in (("vae", {"vae": parts.vae}), ("unet", {"unet": parts.unet, "text_encoder": parts[2]})):
        saved = read_tensors(work / stage / PROGRESS)
        if saved is None:
            raise RequestError(f"work = {str(work)!r}: no progress of stage {stage!r} there yet")
        with torch.no_grad():
            for name, module in modules.items():
                for key, value in module.named_parameters():
                    value.copy_(saved[0][f"carried.{name}.{key}"])
    for part in parts:
        part.eval().requires_grad_(False)
    listed = cached_lists(spec, work)
    images = listed.pictures.images(spec.architecture.size)
    latents = cached_latents(parts.vae, images, work / "latents.safetensors", spec.model_dump_json())
    parts.vae.register_to_config(scaling_factor=float(1 / latents[listed.of("trained", "domain_trained")].std()))
    return export(spec, parts, listed, work, out)


def _check_same_recipe(spec: PretrainSpec, work: Path) -> None:
    """Progress of another recipe is never continued; a note that is damaged says nothing about it."""
    note = work / "recipe.json"
    text = json.dumps(spec.resolved(), indent=2) + "\n"
    if is_kept(note) and note.read_text() != text:
        raise RequestError(f"work = {str(work)!r}: holds the progress of another recipe; use another folder")
    keep(note, lambda file: file.write_text(text))
