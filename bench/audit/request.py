"""What an audit is asked: the model, the two sets of pictures and what else there is; checked before any work."""

import math
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from lmia.attacks import ATTACKS, attack_from
from lmia.data.sources.imagefolder import ImageFolder, ImageFolderSpec
from lmia.resolve import resolve_model
from lmia.specs import RequestError, Spec, UnknownName

MEMBERS, NONMEMBERS = "members", "non-members"
WITHOUT_MODEL_PX = 256


class Audit(Spec):
    """An audit: what changes the result or what the report shows; how it runs is `bench.workbench.Runtime`."""

    members: str = Field(description="folder of the pictures that may have been used")
    nonmembers: str = Field(description="folder of pictures of the same kind that were certainly not used")
    model: str | None = Field(
        None, description="diffusers folder, hub id, adapter, or a single .safetensors checkpoint"
    )
    base: str | None = Field(None, description="the model before tuning: diffusers folder or hub id")
    generated: str | None = Field(None, description="folder of pictures drawn by a model that one cannot hold")
    shadow: str | None = Field(None, description="folder of further people of the same kind, to tune a shadow model on")
    auxiliary: str | None = Field(
        None, description="folder of pictures of others: negatives of the generated-set attack"
    )
    attacks: tuple[str, ...] | None = Field(None, min_length=1, description="null: all that access and inputs allow")
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict, description="settings by attack")
    caption: str | None = Field(None, min_length=1, description="caption of pictures that have none")
    prompt: str | None = Field(None, min_length=1, description="what the model is asked to draw; null: the captions")
    drawn: int = Field(200, ge=8, description="pictures in a set that is drawn")
    sampling: dict[str, Any] = Field(
        default_factory=lambda: {"guidance": 7.5, "steps": 50}, description="settings of the sampler"
    )
    method: str = Field("full", description="how the shadow model is tuned")
    epochs: int = Field(50, ge=1, description="epochs of the shadow model")
    finetune: dict[str, Any] = Field(default_factory=dict, description="settings of the shadow model's tuning")
    size: int | None = Field(None, ge=16, le=2048, description="side in px; null: the model's own")
    dtype: Literal["float32", "float16", "bfloat16"] = Field("float32", description="dtype of scoring")
    batch: int = Field(16, ge=1, description="pictures per U-Net call; rounding depends on it")
    fpr: float | None = Field(None, gt=0, lt=1, description="false positive rate of the picture level; null: .01")
    alpha: float = Field(0.05, gt=0, lt=0.5, description="level of the verdict, all attacks together")
    random_split: bool = Field(
        False, description="members and non-members are vouched to be a random split of one pool"
    )
    skip_unreadable: bool = Field(False, description="leave out pictures that cannot be read")
    near_duplicates: Literal["refuse", "leave_out", "keep"] = Field(
        "refuse", description="when two persons of one set share (nearly) the same picture"
    )
    pictures: Literal["none", "few", "all"] = Field(
        "none", description="which of the two sets' pictures the report shows, small"
    )
    credit: str | None = Field(
        None, min_length=1, description="whose the pictures are, and on what terms: stands on the report"
    )
    seed: int = Field(0, ge=0, description="of noises, drawings, shadow split, permutations")

    @model_validator(mode="after")
    def _one_target(self) -> "Audit":
        if (self.model is None) == (self.generated is None):
            raise ValueError("give either a model, or a folder of pictures that it generated")
        return self

    @property
    def picture_fpr(self) -> float:
        """The false positive rate of the picture-level statement."""
        return 0.01 if self.fpr is None else self.fpr

    @cached_property
    def folders(self) -> dict[str, str]:
        """The folders of real pictures by what they are called."""
        given = {MEMBERS: self.members, NONMEMBERS: self.nonmembers, "shadow": self.shadow, "auxiliary": self.auxiliary}
        return {label: root for label, root in given.items() if root is not None}

    @property
    def all_folders(self) -> dict[str, str]:
        """These, and the folder of generated pictures."""
        return self.folders | ({"generated": self.generated} if self.generated is not None else {})

    def spec_of(self, label: str, root: str, size: int) -> ImageFolderSpec:
        """A folder as a data source."""
        return ImageFolderSpec(
            root=str(Path(root).expanduser().absolute()),
            size=size,
            label=label,
            caption=self.caption,
            skip_unreadable=self.skip_unreadable,
            near_duplicates=self.near_duplicates,
        )


def check(audit: Audit, tell: Callable[[str], None]) -> int:
    """Checks what can be checked before any work; returns the side in px at which pictures are taken.

    Args:
        audit: the request.
        tell: hears what of the folders is left out.

    Raises:
        RequestError: a mistake in the request; it names field, value and what is allowed.
    """
    from lmia.data.sources._index import check_apart
    from lmia.finetune.methods import METHODS

    for name in audit.attacks or ():
        if name not in rankable():
            raise UnknownName("attack", name, rankable())
    for name, settings in audit.settings.items():
        if name not in rankable():
            raise UnknownName("attack in settings", name, rankable())
        attack_from(name, settings, f"settings.{name}")
    METHODS.get(audit.method)
    size = audit.size or picture_size(audit)
    indexes = {label: ImageFolder.index(audit.spec_of(label, root, size)) for label, root in audit.folders.items()}
    for label, index in indexes.items():
        for warning in index.warnings:
            tell(f"{label}: {warning}")
    check_apart(indexes)
    if audit.generated is not None:
        for warning in ImageFolder.index(audit.spec_of("generated", audit.generated, size)).warnings:
            tell(f"generated: {warning}")
    count = sum(len(entries) for entries in indexes[NONMEMBERS].sources[NONMEMBERS].values())
    needed = math.ceil(1 / audit.picture_fpr - 1e-9)
    if count < needed and audit.fpr is not None:
        raise RequestError(
            f"fpr = {audit.fpr:g}: {count} non-members cannot show it; at least {needed:,d} pictures are needed, "
            f"{10 * needed:,d} for a figure that means something"
        )
    return size


def rankable() -> list[str]:
    """The attacks that an audit can make."""
    return [name for name in ATTACKS.names() if ATTACKS.get(name).role == "attack"]


def picture_size(audit: Audit) -> int:
    """The picture side that the model (else its base) was made for."""
    for reference in (audit.model, audit.base):
        if reference is not None:
            model = resolve_model(reference)
            if model.form == "pipeline":
                return model.native_size()
    return WITHOUT_MODEL_PX


def interleaved(lists: Iterable[list[str]]) -> list[str]:
    """First of each, second of each, and so on, as long as all last: no list gets more than its share."""
    return [text for together in zip(*lists, strict=False) for text in together]
