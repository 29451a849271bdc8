"""Small Stable Diffusion models from scratch: the parts of the embedded base and of the random test model."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from lmia.models.families.sd import save_part
from lmia.specs import Spec

START, END = "<|startoftext|>", "<|endoftext|>"


class ArchitectureSpec(Spec):
    """Widths and depths of a small latent diffusion model; its VAE halves the side once per width but the first."""

    size: int = Field(64, ge=8, le=512, description="picture side in pixels")
    vae_widths: tuple[int, ...] = Field((16, 32, 64), description="channels of the VAE's levels; all but one halve")
    latent_channels: int = Field(4, ge=1, le=16)
    unet_widths: tuple[int, ...] = Field((32, 64, 96), description="channels of the U-Net's levels")
    unet_cross: tuple[bool, ...] = Field((False, True, False), description="which levels attend to the text")
    unet_heads: tuple[int, ...] = Field((1, 1, 2), description="attention heads of each level")
    layers: int = Field(1, ge=1, le=4, description="residual blocks per level, of VAE and U-Net")
    groups: int = Field(8, ge=1, description="groups of the normalisation layers")
    text_width: int = Field(64, ge=8, description="width of the text states")
    text_layers: int = Field(2, ge=1)
    text_length: int = Field(32, ge=8, le=77, description="tokens of a prompt, begin and end included")
    vocabulary: int = Field(1024, ge=515, le=49408, description="tokens at most: 512 letters, 2 marks, merges")
    prediction_type: str = Field("epsilon", pattern="^(epsilon|v_prediction)$")


class Parts(NamedTuple):
    """The trainable parts of a model."""

    vae: Any
    unet: Any
    text_encoder: Any


SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
}
"""Stable Diffusion 1.5's, so that what is learned about schedules here carries over."""


def build(spec: ArchitectureSpec, seed: int, scaling_factor: float = 1.0) -> Parts:
    """VAE, U-Net and text encoder with random weights from `seed`; the global random state is left as it was."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel

    levels = len(spec.vae_widths)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKL(
            block_out_channels=spec.vae_widths,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            layers_per_block=spec.layers,
            latent_channels=spec.latent_channels,
            norm_num_groups=spec.groups,
            sample_size=spec.size,
            mid_block_add_attention=False,
            scaling_factor=scaling_factor,
        )
        cross = spec.unet_cross
        unet = UNet2DConditionModel(
            sample_size=spec.size // 2 ** (levels - 1),
            in_channels=spec.latent_channels,
            out_channels=spec.latent_channels,
            block_out_channels=spec.unet_widths,
            down_block_types=tuple("CrossAttnDownBlock2D" if on else "DownBlock2D" for on in cross),
            up_block_types=tuple("CrossAttnUpBlock2D" if on else "UpBlock2D" for on in reversed(cross)),
            layers_per_block=spec.layers,
            norm_num_groups=spec.groups,
            cross_attention_dim=spec.text_width,
            attention_head_dim=spec.unet_heads,  # for this class: the number of heads
        )
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=spec.vocabulary,
                hidden_size=spec.text_width,
                intermediate_size=4 * spec.text_width,
                projection_dim=spec.text_width,
                num_hidden_layers=spec.text_layers,
                num_attention_heads=max(1, spec.text_width // 16),
                max_position_embeddings=spec.text_length,
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=1,
            )
        )
    return Parts(vae, unet, text)


def save_tokenizer(captions: Sequence[str], spec: ArchitectureSpec, folder: Path) -> None:
    """Learns a byte-pair vocabulary from captions and writes it as a CLIP tokenizer (vocab.json, merges.txt).

    All 256 bytes are in it twice (inside a word, at its end), so unseen words fall into pieces, never into "unknown".
    """
    from tokenizers import Regex, normalizers, pre_tokenizers

    normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), behavior="removed", invert=True
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    words: Counter[str] = Counter()
    for caption, count in Counter(captions).items():
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(caption)):
            words[word] += count
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [START, END, *letters, *(letter + "</w>" for letter in letters)]
    merges = learn_merges(words, spec.vocabulary - len(vocabulary))
    vocabulary += ["".join(pair) for pair in merges]
    folder.mkdir(parents=True, exist_ok=True)
    table = {token: index for index, token in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(table, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
        "model_max_length": spec.text_length,
        "do_lower_case": True,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def learn_merges(words: Mapping[str, int], count: int) -> list[tuple[str, str]]:
    """The `count` first merges of byte-pair encoding (Sennrich et al. 2016), fewer if all words are whole before.

    Among equally frequent pairs the alphabetically first is taken: the trainer of the tokenizers library breaks ties
    at random, and a recipe that cannot be repeated is none.

    Args:
        words: byte-level words and how often they occur.
        count: merges at most.
    """
    split = {word: (*word[:-1], word[-1] + "</w>") for word in words}
    merges: list[tuple[str, str]] = []
    made: set[str] = set()
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, symbols in split.items():
            for pair in pairwise(symbols):
                pairs[pair] += words[word]
        pairs = Counter({pair: number for pair, number in pairs.items() if "".join(pair) not in made})
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        made.add("".join(best))
        split = {word: _merged(symbols, best) for word, symbols in split.items()}
    return merges


def _merged(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    at = 0
    while at < len(symbols):
        if symbols[at : at + 2] == pair:
            out.append("".join(pair))
            at += 2
        else:
            out.append(symbols[at])
            at += 1
    return tuple(out)


def save_model(parts: Parts, spec: ArchitectureSpec, folder: Path) -> None:
    """Writes a `StableDiffusionPipeline` folder, weights as half-precision safetensors; the tokenizer must be there.

    The parts are not changed.
    """
    import copy

    import torch

    save_part(parts.vae, folder / "vae", "float16")
    save_part(parts.unet, folder / "unet", "float16")
    copy.deepcopy(parts.text_encoder).to(torch.float16).save_pretrained(folder / "text_encoder")
    scheduler = folder / "scheduler"
    scheduler.mkdir(parents=True, exist_ok=True)
    config = {**SCHEDULER, "prediction_type": spec.prediction_type}
    (scheduler / "scheduler_config.json").write_text(json.dumps(config, indent=2) + "\n")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
