"""Which model a name means: one that comes with lmia, a folder, an adapter, a checkpoint, a pinned hub id."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lmia.embedded import EMBEDDED, embedded
from lmia.embedded.lists import LISTS, read_lists
from lmia.embedded.testing import random_model
from lmia.models import forms
from lmia.models.checkpoint import convert, weight_names
from lmia.models.families.sd import native_size
from lmia.models.files import (
    HUB_ID,
    HUB_NAME,
    PICKLES,
    check_weights,
    digest_files,
    files_of,
    missing_parts,
    read_config,
    resolve_layers,
    widest_block,
)
from lmia.models.forms import Form
from lmia.models.schedulers import own_word
from lmia.scratch import scratch
from lmia.specs import RequestError, UnknownName

RANDOM = "random"
"""The name of a model with random weights, for tests and dry runs."""
ALLOWED = f"{forms.ALLOWED}, {', '.join(EMBEDDED)}, {RANDOM}"
FULL_WIDTH = 640
"""Channels of the widest block below which a model is a miniature: Stable Diffusion 1 and 2 have 1,280."""
TRAINED_LISTS = ("trained", "domain_trained", "unseen_photo", "domain_unseen")


@dataclass(frozen=True)
class ExternalModel:
    """A model that was not made by the program at hand.

    Attributes:
        reference: what it is called: `tiny`, `random`, an absolute path, or OWNER/NAME@REVISION.
        form: a whole pipeline, an adapter that lies over a base, or a checkpoint that takes what it lacks from one.
        digest: of the files that matter, whatever they are called; of a hub id the revision, which is one.
        version: of the way in which it is taken over.
    """

    reference: str
    form: Form
    digest: str
    version: int = 1

    @property
    def needs_base(self) -> bool:
        """Whether a base model has to be named beside it."""
        return self.form != "pipeline"

    def folder(self, scratch: Path) -> Path:
        """A local folder of a pipeline in diffusers' format: where it is, or made or fetched now.

        Raises:
            RequestError: a hub id that cannot be fetched, or of a repository that is no whole model.
        """
        if self.reference == RANDOM:
            return random_model(scratch / "random", seed=0)
        if self.reference in EMBEDDED:
            return embedded(self.reference)
        folder = resolve_layers([self.reference])[0]
        if missing := missing_parts(folder):
            raise RequestError(f"model = {self.reference!r}: no {', '.join(missing)} in it; a whole model has them")
        return folder

    def native_size(self) -> int:
        """The picture side in pixels that a pipeline was made for, from its configuration files."""
        with scratch("size") as folder:
            return native_size(self.folder(folder))

    def known_identities(self, kind: str) -> frozenset[str]:
        """Persons of a kind of data source whose pictures the model was trained on, as far as it has lists."""
        if kind != "population":
            return frozenset()
        folder = embedded(self.reference) if self.reference in EMBEDDED else Path(self.reference)
        return _known(folder) if (folder / LISTS).is_file() else frozenset()

    def is_miniature(self) -> bool:
        """Whether it is far smaller than any Stable Diffusion, told by its width and not by its name.

        A hub id whose configuration cannot be had counts as no miniature.
        """
        if self.reference == RANDOM or self.reference in EMBEDDED:
            return True
        width = widest_block(self.reference)
        return width is not None and width < FULL_WIDTH


@cache
def _known(folder: Path) -> frozenset[str]:
    lists = read_lists(folder)
    return frozenset(row["identity"] for key in TRAINED_LISTS for row in lists.get(key, ()))


@cache
def resolve_base(reference: str) -> ExternalModel:
    """The base model that `reference` names: a whole pipeline.

    Raises:
        RequestError: no such embedded model or folder, not a diffusers folder, a pickle, or a hub id without a
            pinned revision; the message names the field `base`.
    """
    if reference == RANDOM:
        return ExternalModel(reference, "pipeline", "seed-0")
    if reference in EMBEDDED:
        return ExternalModel(reference, "pipeline", digest_files(files_of(embedded(reference))))
    if HUB_ID.fullmatch(reference):
        return ExternalModel(reference, "pipeline", reference.partition("@")[2])
    folder = Path(reference).expanduser()
    if folder.is_dir():
        if missing := missing_parts(folder):
            raise RequestError(f"base = {reference!r}: not a Stable Diffusion folder, no {', '.join(missing)} in it")
        check_weights("base", reference, folder)
        return ExternalModel(str(folder.absolute()), "pipeline", digest_files(files_of(folder)))
    if HUB_NAME.fullmatch(reference):
        raise RequestError(
            f"base = {reference!r}: no such folder, and a hub id must be pinned: OWNER/NAME@<40 hexadecimal digits> "
            "(`lmia pull OWNER/NAME` finds the revision)"
        )
    raise UnknownName("base", reference, [*EMBEDDED, RANDOM])


@cache
def resolve_model(reference: str) -> ExternalModel:
    """The model that `reference` names, its form told from file names and safetensors headers.

    Raises:
        RequestError: nothing there, a pickle, something that is no model of Stable Diffusion 1's or 2's kind, or a
            hub id without a pinned revision; the message names the field `model`, the value and what is allowed.
    """
    path = Path(reference).expanduser()
    if reference == RANDOM or reference in EMBEDDED:
        return _pipeline(reference)
    if HUB_ID.fullmatch(reference):  # only its files tell whether it is a whole model
        folder = _local(reference)
        if not missing_parts(folder):
            return _pipeline(reference)
        form, _ = forms.form_of(folder, reference, ALLOWED)
        return ExternalModel(reference, form, reference.partition("@")[2])
    if path.is_dir() and not missing_parts(path):
        check_weights("model", reference, path)
        return _pipeline(reference)
    if not path.exists():
        if path.suffix.lower() in (*PICKLES, ".safetensors") or reference.startswith((".", "/", "~")):
            raise RequestError(f"model = {reference!r}: no such file or folder; {ALLOWED}")
        return _pipeline(reference)  # says what is wrong with a name that is neither here nor pinned
    form, files = forms.form_of(path, reference, ALLOWED)
    return ExternalModel(str(path.absolute()), form, digest_files(files))


def _pipeline(reference: str) -> ExternalModel:
    try:
        return resolve_base(reference)
    except RequestError as error:
        raise RequestError(f"{str(error).replace('base', 'model', 1)}; {ALLOWED}") from error


def given_files(model: ExternalModel) -> dict[str, Path]:
    """The files of a model as they were given, by their path inside of it; none of `random`."""
    if model.reference == RANDOM:
        return {}
    if model.form == "pipeline":
        return files_of(model.folder(Path()))
    path = _local(model.reference)
    _, files = forms.form_of(path, model.reference, ALLOWED)
    root = path if path.is_dir() else path.parent
    return {file.relative_to(root).as_posix(): file for file in files.values()}


def overlay_files(model: ExternalModel, base: Path | None, scratch: Path) -> Mapping[str, Path]:
    """The files of which the store keeps a model, by their path inside its overlay folder.

    A pipeline is kept as it is; an adapter lies in `lora/` exactly as given; a checkpoint is converted by diffusers'
    own rules into the parts that it has, with the base's configurations.

    Args:
        model: from `resolve_model` or `resolve_base`.
        base: folder of the base model in diffusers' format; only a checkpoint needs it.
        scratch: folder for files that have to be made; they must outlive the returned mapping.

    Raises:
        RequestError: the base does not have the checkpoint's architecture, or there is none.
    """
    if model.form == "pipeline":
        return files_of(model.folder(scratch))
    _, files = forms.form_of(_local(model.reference), model.reference, ALLOWED)
    word = _own_word(files.values(), model.reference)
    if model.form == "adapter":
        if base is not None:
            _check_word(word, base, model.reference)
        return files
    if base is None:
        raise RequestError(f"base = None: model {model.reference!r} is a checkpoint, which needs a base model")
    if "checkpoint.safetensors" not in files:  # parts in diffusers' format
        return files
    (file,) = files.values()
    made = convert(file, base, scratch, model.reference)
    return made | _scheduler(word, base, scratch)


def _local(reference: str) -> Path:
    """Where a model lies: itself, or the hub's snapshot of it."""
    return resolve_layers([reference])[0] if HUB_ID.fullmatch(reference) else Path(reference).expanduser()


def _own_word(files: Iterable[Path], reference: str) -> dict[str, Any]:
    """What the weights of a model say of their own schedule."""
    from safetensors import safe_open

    said: dict[str, Any] = {}
    for file in files:
        if file.suffix == ".safetensors":
            weight_names(file, reference)  # says what is wrong with one that is none
            with safe_open(file, framework="np") as opened:
                said |= own_word(set(opened.keys()), opened.metadata() or {})
    return said


def _check_word(word: Mapping[str, Any], base: Path, reference: str) -> None:
    """Refuses an adapter that says that it was trained on another prediction than its base's."""
    path = base / "scheduler" / "scheduler_config.json"
    theirs, ours = word.get("prediction_type"), read_config(path).get("prediction_type", "epsilon")
    if theirs is not None and theirs != ours:
        raise RequestError(
            f"model = {reference!r}: says that it was trained to predict {theirs}, the base {str(base)!r} predicts "
            f"{ours}; name the base that it was tuned from"
        )


def _scheduler(word: Mapping[str, Any], base: Path, scratch: Path) -> dict[str, Path]:
    """The base's scheduler with what a checkpoint says of itself, if that is something else."""
    path = base / "scheduler" / "scheduler_config.json"
    theirs = read_config(path)
    if all(theirs.get(key) == value for key, value in word.items()):
        return {}
    if word.get("rescale_betas_zero_snr"):  # its last step is drawn from only by this spacing (Lin et al. 2023)
        word = {**word, "timestep_spacing": "trailing"}
    made = scratch / "scheduler" / "scheduler_config.json"
    made.parent.mkdir(parents=True, exist_ok=True)
    made.write_text(json.dumps({**theirs, **word}, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return {"scheduler/scheduler_config.json": made}


def with_article(form: str) -> str:
    """A form for people: an adapter, a checkpoint."""
    return f"an {form}" if form[0] in "aeiou" else f"a {form}"
