"""What `metrics.json` of an audit holds: its JSON schema is made from these types.

python -m bench.audit.record > docs/audit.schema.json
"""

import json
import sys
from typing import Literal

from pydantic import ConfigDict, Field

from bench.audit.request import Audit
from lmia.attacks import Access
from lmia.metrics.verdict import Outcome
from lmia.specs import Spec

PictureLevel = Literal["reliable", "weak", "not reliable"]


class _Record(Spec):
    model_config = ConfigDict(allow_inf_nan=False)


class Measured(_Record):
    """A number with its interval."""

    value: float = Field(description="the estimate")
    ci: tuple[float, float] | None = Field(description="95 % interval")


class Rate(_Record):
    """How many members are found while few non-members are accused."""

    tpr: float = Field(description="share of the members that are found")
    ci: tuple[float, float] | None = Field(description="95 % interval")
    false_positives: int = Field(description="non-members accused")
    note: str = Field(description="what a reader must know")


class AttackRecord(_Record):
    """What one attack says; what could not be computed is null, with the reason in `reason`."""

    attack: str = Field(description="its name")
    access: Access = Field(description="what it asks of the model")
    auc: Measured | None = Field(description="on the audited model")
    base_auc: Measured | None = Field(description="on the model before tuning")
    over_chance: Measured | None = Field(description="AUC - 1/2")
    over_base: Measured | None = Field(description="AUC minus that on the model before tuning")
    over_blind: Measured | None = Field(description="AUC minus that of the classifier that sees the pictures only")
    lower_limit: float | None = Field(description="the smallest of the one-sided lower limits, for all attacks at once")
    lower_limit_over: str = Field(description="which difference it belongs to")
    set_p_value: float | None = Field(description="set level: persons permuted between the two sets")
    set_p_adjusted: float | None = Field(description="the same, adjusted for the number of attacks (Holm)")
    tpr_at_fpr: dict[str, Rate | None] = Field(description="picture level by false positive rate")
    mde: float | None = Field(description="smallest AUC - 1/2 that would have been found with probability .8")
    found: bool = Field(description="whether it alone supports the claim")
    nfe: float = Field(description="evaluations of the model a picture")
    no_base: str | None = Field(description="why a comparison with the model before tuning has no meaning for it")
    reason: dict[str, str] | None = Field(description="why something above is null, by its name")


class Judgement(_Record):
    """All that follows from the scores alone: `lmia audit --check` computes it again."""

    verdict: Outcome = Field(description="the answer")
    reasons: tuple[str, ...] = Field(description="why")
    remedies: tuple[str, ...] = Field(description="what would make an undetermined case determinable")
    picture_level: PictureLevel | None = Field(description="whether single pictures can be judged; null without a leak")
    alpha: float = Field(description="level of the claim, all attacks together")
    mde: float | None = Field(description="minimum detectable effect: smallest AUC - 1/2 found with probability .8")
    people_needed: int | None = Field(description="persons with whom the strongest attack would have found the leak")
    num_members: int = Field(description="pictures that may have been used")
    num_nonmembers: int = Field(description="pictures that were not")
    num_identities: int = Field(description="persons on both sides")
    blind: dict[str, Measured | None] = Field(
        description="AUC of classifiers that never see the model, by what they see"
    )
    attacks: tuple[AttackRecord, ...] = Field(description="the strongest first")


class File(_Record):
    """One file."""

    name: str = Field(description="path inside of what was given, with forward slashes")
    sha256: str = Field(description="SHA-256 of its bytes", pattern="^[0-9a-f]{64}$")


class ModelRecord(_Record):
    """A model as it was given."""

    reference: str = Field(description="its name, path or hub id, as it was given")
    form: str = Field(description="pipeline (a whole model), adapter or checkpoint")
    sha256: str | None = Field(
        description="of a single file its SHA-256; of several that of the lines 'SHA256  NAME' sorted by name, as "
        "sha256sum writes them; null for a model without files"
    )
    files: tuple[File, ...] = Field(description="the files that are used")


class Picture(File):
    """One picture of a set."""

    person: str = Field(description="who is on it; its own name where nobody is named")
    caption: str | None = Field(description="its caption")


class SetRecord(_Record):
    """A set of pictures as it was given."""

    folder: str = Field(description="as it was given")
    sha256: str = Field(description="of the lines 'SHA256  NAME' of its pictures, sorted by name")
    num_people: int = Field(description="persons on the pictures that are used")
    pictures: tuple[Picture, ...] = Field(description="the pictures that are used, sorted by name")
    left_out: tuple[str, ...] = Field(description="names of pictures that are not: unreadable, or there twice")


class Materials(_Record):
    """What an audit rests on, by its digests."""

    model: ModelRecord | None = Field(description="the audited model; null where only its pictures are given")
    base: ModelRecord | None = Field(description="the model before tuning")
    sets: dict[str, SetRecord] = Field(description="the sets of pictures by their part in the audit")


class Provenance(_Record):
    """Who made this, when and with what."""

    made_at: str = Field(description="date and time, UTC")
    command: str | None = Field(description="the command line; null where a program asked")
    revision: str = Field(description="git revision of lmia, or its version outside of a checkout")
    versions: dict[str, str] = Field(description="versions of what computes, by package")
    numerics: tuple[str, ...] = Field(description="classes of machines that computed")


class AuditRecord(Judgement):
    """Everything that an audit asked, used and concluded."""

    schema_version: Literal[2] = Field(2, description="of this layout")
    left_out: dict[str, str] = Field(description="attacks that were not made, and why")
    failed: dict[str, str] = Field(description="attacks that could not be made, and why")
    request: Audit = Field(description="what was asked")
    size_px: int = Field(description="picture side in px")
    materials: Materials = Field(description="what it rests on")
    scores_sha256: str = Field(description="SHA-256 of scores.parquet")
    shown: dict[str, str] = Field(description="SHA-256 of the small JPEG of each picture that the report shows")
    provenance: Provenance = Field(description="who made this, when and with what")

    def to_json(self) -> str:
        """The text of metrics.json."""
        return self.model_dump_json(indent=1) + "\n"


def schema() -> str:
    """The JSON schema of metrics.json."""
    found = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **AuditRecord.model_json_schema(mode="serialization"),
    }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema())
