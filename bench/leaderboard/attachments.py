"""What is shown beside a row but is no part of it: curves, a sample sheet, what the attack was given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Curve:
    """The ROC curve of one world: points in rising order, (0, 0) to (1, 1), and what they belong to.

    `target`, `attack_model` and `scores` are store addresses; they tie a number to the models that it was measured
    on. `auc` is this world's own.
    """

    world: str
    fpr: Sequence[float]
    tpr: Sequence[float]
    auc: float | None = None
    target: str | None = None
    attack_model: str | None = None
    scores: str | None = None


@dataclass(frozen=True)
class Attachments:
    """What is shown beside a row, all of it optional.

    `sheet` is a PNG (bytes, or the path of one) of pictures drawn by the row's target; `access` and
    `shadow` say what the attack was given (for the tracks): access as the attack declares it, shadow in words such
    as "none", "another source", "same source".
    """

    curves: tuple[Curve, ...] = ()
    sheet: bytes | Path | None = None
    sheet_title: str | None = None
    access: str | None = None
    shadow: str | None = None

    def sheet_bytes(self) -> bytes | None:
        """The sheet's PNG bytes; None if there is none, or its file has gone."""
        if isinstance(self.sheet, Path):
            return self.sheet.read_bytes() if self.sheet.is_file() else None
        return self.sheet


@dataclass(frozen=True)
class ModelRef:
    """A target or attack model as tracking shows it: its address in the store, never its weights."""

    address: str
    name: str
    kind: str
    uri: str
    params: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    metrics: Mapping[str, float | None] = field(default_factory=dict)
