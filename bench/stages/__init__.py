"""How artifacts are made: one stage a kind."""

from typing import Any

from bench.jobs import Stage
from bench.stages import attack, model, pictures, row, scores

STAGES: dict[str, Stage[Any]] = {
    stage.kind: stage for stage in (pictures.STAGE, model.STAGE, attack.STAGE, scores.STAGE, row.STAGE)
}
