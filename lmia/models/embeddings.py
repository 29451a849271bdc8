"""Textual inversion embeddings: new words for the tokenizer and text encoder, read by diffusers' own loader.

A model that lies below one is scored with captions that hold the word; without it nothing has changed.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmia.models.lowrank import check_tensors
from lmia.specs import RequestError

A1111 = "emb_params"
"""The name of the vectors in a file of A1111's, whose word is the file's name."""


def words_of(shapes: Mapping[str, tuple[int, ...]], path: Path) -> list[str]:
    """The words of a textual inversion by its weights' names and shapes; empty if it is none."""
    flat = all(1 <= len(shape) <= 2 and "." not in name for name, shape in shapes.items())
    if not flat or not shapes:
        return []
    if A1111 in shapes:
        return [path.stem] if len(shapes) == 1 else []
    plain = all(re.fullmatch(r"<[^<>\s]+>|\S+", name) and "lora" not in name and ":" not in name for name in shapes)
    learned = all(len(shape) == 1 or shape[0] <= 75 for shape in shapes.values())
    return list(shapes) if plain and learned and len({shape[-1] for shape in shapes.values()}) == 1 else []


def add_words(file: Path, parts: Mapping[str, Any]) -> None:
    """Adds a textual inversion's words to the tokenizer and its vectors to the text encoder.

    Raises:
        RequestError: vectors of another width, or a word that the tokenizer has already.
    """
    from diffusers.loaders.textual_inversion import TextualInversionLoaderMixin
    from safetensors.torch import load_file

    if "text_encoder" not in parts or "tokenizer" not in parts:
        return
    reference = str(file.resolve())
    tensors = load_file(file)
    check_tensors(tensors, reference)
    width = parts["text_encoder"].get_input_embeddings().weight.shape[-1]
    loader: Any = TextualInversionLoaderMixin()
    loader.hf_device_map, loader.components = None, {}  # what it asks of the pipeline that it is usually mixed into
    for name, vectors in tensors.items():
        word = file.stem if name == A1111 else name
        if vectors.shape[-1] != width:
            raise RequestError(
                f"model = {reference!r}: a textual inversion with vectors of {vectors.shape[-1]} numbers; the base's "
                f"text encoder has {width} (768 in Stable Diffusion 1, 1024 in 2)"
            )
        try:
            loader.load_textual_inversion(
                {word: vectors.float()}, token=word, tokenizer=parts["tokenizer"], text_encoder=parts["text_encoder"]
            )
        except (ValueError, TypeError, RuntimeError) as error:
            raise RequestError(
                f"model = {reference!r}: the word {word!r} of a textual inversion cannot be added "
                f"({' '.join(str(error).split())[:120]}); give the file another name, and its word in the captions"
            ) from error


def spelled_out(captions: list[str], tokenizer: Any) -> list[str]:
    """Captions with the word of each inversion of several vectors followed by the words of the others."""
    from diffusers.loaders.textual_inversion import TextualInversionLoaderMixin

    if not any(word.endswith("_1") for word in tokenizer.added_tokens_encoder):
        return captions
    return TextualInversionLoaderMixin().maybe_convert_prompt(captions, tokenizer)
