"""Naming a base model: one that comes with lmia, a random one for tests, a folder, or a pinned hub id."""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from lmia.specs import RequestError, UnknownName

EMBEDDED = ("tiny", "tiny_long")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}")
WEIGHTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
TRAINED_LISTS = ("trained", "domain_trained", "unseen_photo", "domain_unseen")


@dataclass(frozen=True)
class Base:
    """A base model by name.

    Attributes:
        reference: what it is called: `tiny`, `random`, an absolute folder, or OWNER/NAME@REVISION.
        digest: of its files; of a hub id the revision, which is one.
        version: of the way in which it is taken over.
    """

    reference: str
    digest: str
    version: int = 1

    def folder(self, scratch: Path) -> Path:
        """A local folder in diffusers' format: where it is, or made or fetched now."""
        if self.reference == "random":
            from lmia.embedded.testing import random_model

            return random_model(scratch / "random", seed=0)
        if self.reference in EMBEDDED:
            return embedded(self.reference)
        if HUB_ID.fullmatch(self.reference):
            from lmia.models.model import resolve_layers

            return resolve_layers([self.reference])[0]
        return Path(self.reference)

    def known_identities(self, kind: str, data: Any) -> frozenset[str]:
        """Persons of a data source whose pictures the base model was trained on, as far as it has lists."""
        if self.reference not in EMBEDDED or kind != "population":
            return frozenset()
        return _known(self.reference, getattr(data, "seed", 0))


def embedded(name: str) -> Path:
    """The folder of a model that comes with lmia."""
    return Path(str(resources.files("lmia.embedded") / name))


@cache
def _known(name: str, seed: int) -> frozenset[str]:
    from lmia.embedded.lists import read_lists

    lists = read_lists(embedded(name))
    return frozenset(row["identity"] for key in TRAINED_LISTS for row in lists.get(key, ()))


@cache
def resolve_base(reference: str) -> Base:
    """The base model that `reference` names.

    Raises:
        RequestError: no such embedded model or folder, not a diffusers folder, a pickle, or a hub id without a
            pinned revision.
    """
    if reference == "random":
        return Base("random", "seed-0")
    if reference in EMBEDDED:
        return Base(reference, _folder_digest(embedded(reference)))
    if HUB_ID.fullmatch(reference):
        return Base(reference, reference.partition("@")[2])
    folder = Path(reference).expanduser()
    if folder.is_dir():
        missing = [part for part in WEIGHTS if not (folder / part).is_dir()]
        if missing:
            raise RequestError(f"base = {reference!r}: not a Stable Diffusion folder, no {', '.join(missing)} in it")
        pickles = [p for part in WEIGHTS for end in ("bin", "ckpt", "pt") for p in (folder / part).glob(f"*.{end}")]
        safe = [p for part in ("unet", "vae", "text_encoder") for p in (folder / part).glob("*.safetensors")]
        if pickles and not safe:
            raise RequestError(
                f"base = {reference!r}: {pickles[0]} is a pickle, which can run code when it is read; "
                "convert the model to safetensors"
            )
        return Base(str(folder.absolute()), _folder_digest(folder))
    if re.fullmatch(r"[\w.-]+/[\w.-]+(@.*)?", reference):
        raise RequestError(
            f"base = {reference!r}: no such folder, and a hub id must be pinned: OWNER/NAME@<40 hexadecimal digits> "
            "(`lmia pull OWNER/NAME` finds the revision)"
        )
    raise UnknownName("base", reference, [*EMBEDDED, "random"])


def files_of(folder: Path) -> dict[str, Path]:
    """The files that make a base model, by their path inside of it: configuration, tokenizer, safetensors."""
    found = {}
    for part in WEIGHTS:
        for path in sorted((folder / part).rglob("*")):
            if path.is_file() and path.suffix in (".json", ".txt", ".safetensors"):
                found[str(path.relative_to(folder))] = path
    for name in ("model_index.json", "lists.parquet"):
        if (folder / name).is_file():
            found[name] = folder / name
    return found


def _folder_digest(folder: Path) -> str:
    total = hashlib.sha256()
    for name, path in sorted(files_of(folder).items()):
        total.update(f"{name}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:20]
