"""The embedded base model's card: what it was made of, how well it draws, and what its membership figures are.

Measured on the folder as it is shipped, half-precision weights and all, through the same calls an attack uses.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmia.attacks.loss import Loss
from lmia.attacks.pia import Pia
from lmia.embedded import embedded
from lmia.metrics.roc import auc
from lmia.models.denoiser import Denoiser, chunks, to_uint8
from lmia.models.families.sd import StableDiffusion
from lmia.models.load import load_model
from lmia.models.probe import Probe
from lmia.seeds import rng

if TYPE_CHECKING:
    from lmia.data.pictures import Pictures
    from lmia.embedded.lists import Listed
    from lmia.embedded.recipe import PretrainSpec

LOSS_TIMES = (50, 100, 200, 400)
SAMPLE = 600


def measure(folder: Path, listed: "Listed") -> dict[str, Any]:
    """Figures of a model folder: sizes, work, reconstruction, losses on all lists, Loss and PIA AUC.

    At most SAMPLE pictures of each list, drawn from a fixed seed.
    """
    model = load_model([folder])
    assert isinstance(model, StableDiffusion)  # `lmia.embedded.architecture` makes no other
    figures: dict[str, Any] = {
        "megabytes": round(sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 1e6, 2),
        "unet_gflop": round(unet_gflop(model), 4),
        "parameters": {name: sum(value.numel() for value in part.parameters()) for name, part in model.parts.items()},
        "scaling_factor": model.vae.config.scaling_factor,
        "tokens": len(model.tokenizer),
    }
    losses: dict[str, dict[str, float]] = {}
    scores: dict[str, dict[str, np.ndarray]] = {}
    for name in ("trained", "unseen_photo", "unseen_person", "domain_trained", "domain_unseen"):
        rows = listed.of(name)
        if not len(rows):
            continue
        rows = np.sort(rng(0, "card", name).permutation(rows)[:SAMPLE])
        pictures = listed.pictures.take(rows)
        if name == "unseen_person":
            figures["reconstruction"] = reconstruction(model, pictures)
        scores[name] = attack_scores(model, pictures)
        losses[name] = {attack: round(float(-value.mean()), 6) for attack, value in scores[name].items()}
    figures["losses"] = losses
    figures["auc"] = {
        f"{members} vs {others}": {
            attack: round(auc_between(scores[members][attack], scores[others][attack]), 4) for attack in scores[members]
        }
        for members, others in (
            ("trained", "unseen_photo"),
            ("trained", "unseen_person"),
            ("domain_trained", "domain_unseen"),
        )
        if members in scores and others in scores
    }
    return figures


def attack_scores(model: Denoiser, pictures: "Pictures") -> dict[str, np.ndarray]:
    """Loss at several steps (one noise) and PIA at t = 200, p = 4, higher = member: float64 [N] each."""
    attacks = {f"loss t={t}": Loss(t=t, noises=1) for t in LOSS_TIMES} | {"pia t=200": Pia(t=200, p=4)}
    probe = Probe(model, pictures, batch=50)
    return {name: attack.score(probe) for name, attack in attacks.items()}


def reconstruction(model: Denoiser, pictures: "Pictures") -> dict[str, float]:
    """Error of a round trip through the VAE: mean squared error in [0, 1] units, and PSNR in decibels of that."""
    images = pictures.images(model.size)
    errors = []
    for part in chunks(len(images), 50):
        back = to_uint8(model.decode(model.encode(images[part])))
        errors.append(((back / 255.0 - images[part] / 255.0) ** 2).mean(axis=(1, 2, 3)))
    mse = float(np.concatenate(errors).mean())
    return {"mse": round(mse, 6), "psnr_db": round(-10 * float(np.log10(mse)), 2)}


def unet_gflop(model: Denoiser) -> float:
    """Work of one U-Net forward at batch 1 by torch's counter, two operations per multiply-add."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    z = torch.zeros(1, *model.latent_shape(), device=model.device, dtype=model.torch_dtype)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.predict(z, 1, model.condition([""]))
    return counter.get_total_flops() / 1e9


def auc_between(members: np.ndarray, others: np.ndarray) -> float:
    """AUC of two sets of scores."""
    return auc(np.concatenate([members, others]), np.repeat([True, False], [len(members), len(others)]))


def sample_sheet(folder: Path, listed: "Listed", path: Path, columns: int = 12) -> None:
    """Five rows: unseen people, their way through the VAE, drawn for their captions, domains by name, class prompts."""
    from PIL import Image

    from lmia.data.captions import class_prompt, generic_prompt
    from lmia.models.sample import SampleSpec, generate

    model = load_model([folder])
    people = listed.pictures.take(listed.of("unseen_person")[:: max(1, len(listed.of("unseen_person")) // columns)])
    people = people.take(list(range(min(columns, len(people)))))
    images = people.images(model.size)
    domains = listed.of("domain_unseen", "unseen_photo")
    named = [c or "" for c in listed.pictures.take(domains).captions]
    named = named[:: max(1, len(named) // columns)][:columns]
    sources = sorted({source or "" for source in listed.pictures.sources})
    prompts = [class_prompt(sources[n * len(sources) // columns]) for n in range(columns - 2)] + [generic_prompt()] * 2
    spec = SampleSpec(guidance=4.0, steps=30, sampler="ddim")
    rows = [
        images,
        to_uint8(model.decode(model.encode(images))),
        generate(model, [f"caption/{n}" for n in range(len(people))], [c or "" for c in people.captions], spec),
        generate(model, [f"named/{n}" for n in range(len(named))], named, spec),
        generate(model, [f"prompt/{n}" for n in range(columns)], prompts, spec),
    ]
    sheet = np.zeros((len(rows) * model.size, columns * model.size, 3), np.uint8)
    for at, row in enumerate(rows):
        strip = np.concatenate(list(row), axis=1)
        sheet[at * model.size : (at + 1) * model.size, : strip.shape[1]] = strip
    Image.fromarray(sheet).save(path, optimize=True)


def write_card(path: Path, spec: "PretrainSpec", listed: "Listed", figures: dict[str, Any]) -> None:
    """Writes the model card."""
    counts = {name: len(listed.of(name)) for name in dict.fromkeys(listed.lists)}
    domains = list(dict.fromkeys(name for name in listed.domain if name))
    trained = counts.get("trained", 0) + counts.get("domain_trained", 0)
    passes = figures.get("unet_steps", 0) * spec.unet_batch
    before = _passes_before(spec)
    epochs = (before + passes) / max(1, trained)
    changed = " ".join(f"--set {name}={value}" for name, value in spec.identity().items())
    vae = f"{figures.get('vae_steps')} | {spec.vae_batch} | {spec.vae_lr} | {figures.get('vae_seconds', 0):.0f}"
    lines = [
        "# The embedded base model"
        if spec.start is None
        else f"# The embedded base model `{spec.start}`, trained longer",
        "",
        "A tiny but real Stable Diffusion (diffusers `StableDiffusionPipeline` folder), trained by `lmia pretrain` on",
        "procedurally drawn, synthetic faces. No real person is in its data. It teaches and tests;",
        "its levels are not those of SD 1.5. `recipe.json` is the complete spec it was made with, and",
        f"`lmia pretrain --out FOLDER --work FOLDER{' ' + changed if changed else ''}` remakes it.",
        "",
        f"![samples]({'samples.png'})",
        "",
        "Rows: unseen people; the same through the VAE; drawn for the captions of the first row; drawn for captions",
        "of domains and trained people; class prompts and the generic prompt (last two). DDIM, 30 steps, guidance 4.",
        "",
        "## Data",
        "",
        f"Known people of {', '.join(f'{source} ({n})' for source, n in sorted(spec.sources.items()))}, {spec.photos}",
        f"photos each, and {len(domains)} domains ({', '.join(domains)}), whose captions carry the person's name.",
        f"The lists are in `lists.parquet` (list, domain, id, identity, source, caption). Seed {spec.seed}.",
        "",
        "| list | photos |",
        "|---|---|",
        *(f"| {name} | {count} |" for name, count in counts.items()),
        "",
        "## Training",
        "",
        "| part | steps | batch | highest learning rate | seconds |",
        "|---|---|---|---|---|",
        f"| VAE | {vae} |" if spec.start is None else f"| VAE | that of `{spec.start}` | | | |",
        f"| U-Net and text encoder | {figures.get('unet_steps')} | {spec.unet_batch} | {spec.unet_lr} | "
        f"{figures.get('unet_seconds', 0):.0f} |",
        "",
        f"The U-Net saw {before + passes} pictures ({before} of them before it was taken over from `{spec.start}`),"
        if spec.start
        else f"The U-Net saw {passes} pictures,",
        f"{epochs:.1f} epochs of {trained} photos; captions were",
        f"dropped with probability {spec.caption_dropout} and cut to a class or the generic prompt with",
        f"{spec.short_captions}. AdamW, cosine decay, moving average of the weights ({spec.ema}). One thread of a",
        "shared CPU in float32; the seconds are those of the wall clock. The recipe was fixed before any membership",
        "figure was looked at.",
        "",
        "## Size and quality",
        "",
        f"- {figures['megabytes']} MB of half-precision safetensors; parameters {figures['parameters']}",
        f"- U-Net forward at batch 1: {figures['unet_gflop']} GFLOP (2 per multiply-add)",
        f"- VAE: scaling factor {figures['scaling_factor']:.5f}; on unseen people mean squared error "
        f"{figures['reconstruction']['mse']} in [0, 1] units, PSNR {figures['reconstruction']['psnr_db']} dB",
        "",
        f"## Losses (at most {SAMPLE} pictures a list)",
        "",
        "Mean squared error of the noise prediction with the own caption, one noise a picture; PIA as 4-norm.",
        "",
        *_table("list", figures["losses"]),
        "",
        "## Membership figures, as they are (AUC; higher score = trained on)",
        "",
        *_table("pair", figures["auc"]),
        "",
    ]
    path.write_text("\n".join(lines))


def _passes_before(spec: "PretrainSpec") -> int:
    """Pictures that the U-Net saw before this recipe took it over."""
    if spec.start is None:
        return 0
    recipe = json.loads((embedded(spec.start) / "recipe.json").read_text())
    return int(recipe["unet_steps"]) * int(recipe["unet_batch"])


def _table(first: str, rows: dict[str, dict[str, float]]) -> list[str]:
    columns = list(next(iter(rows.values())))
    return [
        f"| {first} | {' | '.join(columns)} |",
        "|---|" + "---|" * len(columns),
        *(f"| {name} | {' | '.join(str(row[column]) for column in columns)} |" for name, row in rows.items()),
    ]
