"""A campaign's rows, models and leaderboard page, written to MLflow: only what has changed.

One experiment a campaign, `lmia/NAME`; in it a parent run (tag lmia.kind = campaign) and a child for each cell
(lmia.kind = cell), found again by its address (lmia.cell) and reopened, never doubled. Axes are params, numbers with
their intervals metrics (a null is left out and its reason kept as tag null.FIELD). Targets and attack models are
external logged models: their store address, no weights.
"""

import hashlib
import json
import math
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bench.axes import AXES
from bench.leaderboard import fields, formats, texts
from bench.leaderboard.attachments import ModelRef
from bench.leaderboard.findings import auc_minus_source
from bench.leaderboard.rank import Board, Entry
from bench.leaderboard.row import Measured, why_null
from bench.leaderboard.settings import Usual, as_line
from bench.tracking.database import Database, metric, now, redacted, short_hash, tag

if TYPE_CHECKING:
    from mlflow.entities import Run

    from bench.leaderboard.roc import RocPainter

LAYOUT = 1  # raised when what is written for a row changes, so that old runs are written again

# The runs of a campaign as MLflow's UI first shows them: the leaderboard. Anybody may choose another view there.
VIEW = "leaderboard"
_NUMBERS = ("rank", "delta_auc", "delta_auc_low", "delta_auc_high", "delta_bound", "mde", "p_adjusted", "auc")


def _experiment_tags(board: Board) -> dict[str, str]:
    """What MLflow is told of the experiment; the columns are the attack and every axis that varies."""
    axes = ["attack", *(axis for axis in board.varying if axis != "attack")]
    view = {
        "searchFilter": "tags.section = 'ranked' and tags.current = 'yes'",
        "orderByKey": "metrics.`delta_bound`",
        "orderByAsc": False,
        "selectedColumns": [
            *[f"metrics.`{name}`" for name in _NUMBERS],
            *[f"params.`{axis}`" for axis in axes],
            "tags.`section`",
        ],
    }
    return {
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.experiment.primaryMetric.name": "delta_auc",
        "mlflow.experiment.primaryMetric.greaterIsBetter": "True",
        f"mlflow.sharedViewState.{VIEW}": json.dumps(view),
    }


@dataclass(frozen=True)
class Synced:
    """What a sync did: cell runs written and skipped, models new, cells that no longer belong to the campaign."""

    written: int
    skipped: int
    models: int
    retired: int
    run_id: str


def experiment_name(campaign: str) -> str:
    """MLflow's experiment of a campaign."""
    return f"lmia/{campaign}"


def sync(
    database: Database, board: Board, models: list[ModelRef], page: bytes, mark: str = "", *, anew: bool = False
) -> Synced:
    """Writes what has changed; see `Tracker.sync`.

    Args:
        database: where to.
        board: the campaign's rows, joined.
        models: targets and attack models.
        page: the leaderboard page; empty for none.
        mark: kept as tag lmia.rows of the campaign's own run when all the rest is written.
        anew: write the files of runs again whose numbers are there.
    """
    to = _Campaign(database, board, anew=anew)
    num_new = to.write_models(models)
    made = [entry for entry in board.entries if entry.section != "waiting"]
    written = sum(to.write_cell(entry) for entry in made)
    retired = to.retire()
    to.write_summary(page)
    if mark and tag(to.known_parent, "lmia.rows") != mark:
        database.write(to.parent, tags={"lmia.rows": mark})
    database.to_disk()
    return Synced(written, len(made) - written, num_new, retired, to.parent)


class _Campaign:
    """The runs of one campaign, as they are and as they should be."""

    def __init__(self, database: Database, board: Board, *, anew: bool):
        self.database, self.board, self.client, self.anew = database, board, database.client, anew
        self.usual = Usual(board)
        self.experiment = database.experiment(experiment_name(board.campaign.name), _experiment_tags(board))
        runs = database.runs(self.experiment)
        self.known_parent = runs.get("campaign", {}).get(board.campaign.name)
        self.known_cells: Mapping[str, Run] = runs.get("cell", {})
        self.known_models_run = runs.get("models", {}).get("models")
        self.parent = self._parent()
        self.model_ids: dict[str, str] = {}

    @cached_property
    def roc(self) -> "RocPainter":
        """Draws ROC curves; made once, since it brings in matplotlib."""
        from bench.leaderboard.roc import RocPainter

        return RocPainter()

    def _parent(self) -> str:
        if self.known_parent is not None:
            return str(self.known_parent.info.run_id)
        name = self.board.campaign.name
        tags = {"mlflow.runName": f"campaign {name}", "lmia.kind": "campaign", "lmia.key": name}
        return str(self.client.create_run(self.experiment, tags=tags).info.run_id)

    def write_models(self, models: list[ModelRef]) -> int:
        """Registers the models that are not there yet; returns how many."""
        if not models:
            return 0
        self.model_ids = self.database.models(self.experiment)
        new = [model for model in models if model.address not in self.model_ids]
        if not new:
            return 0
        from mlflow.utils.mlflow_tags import MLFLOW_MODEL_IS_EXTERNAL

        holder = self.known_models_run
        if holder is None:
            tags = {
                "mlflow.runName": "models",
                "mlflow.parentRunId": self.parent,
                "lmia.kind": "models",
                "lmia.key": "models",
            }
            holder = self.client.create_run(self.experiment, tags=tags)
        run_id, at, metrics = holder.info.run_id, now(), []
        for model in new:
            logged = self.client.create_logged_model(
                name=re.sub(r"[/:.%\"']+", "-", model.name)[:200] or model.address,
                source_run_id=run_id,
                tags={
                    MLFLOW_MODEL_IS_EXTERNAL: "true",
                    "lmia.address": model.address,
                    "lmia.uri": redacted(model.uri),
                    "lmia.name": model.name[:5000],
                },
                params={str(k)[:250]: str(v)[:500] for k, v in model.params.items() if v is not None},
                model_type=model.kind,
                experiment_id=self.experiment,
            )
            self.client.finalize_logged_model(logged.model_id, "READY")
            self.model_ids[model.address] = logged.model_id
            metrics += [
                metric(key, value, at, model_id=logged.model_id)
                for key, value in model.metrics.items()
                if value is not None and math.isfinite(value)
            ]
        self.database.write(run_id, metrics)
        self.client.set_terminated(run_id)
        return len(new)

    def write_cell(self, entry: Entry) -> bool:
        """Writes a cell's run unless it says all that already; returns whether it was written."""
        row, at = entry.row, now()
        known = self.known_cells.get(row.cell)
        digest = _digest(entry)
        numbers = _numbers(entry)
        params = [(axis, formats.axis_text(value)) for axis in AXES if (value := getattr(row.axes, axis)) is not None]
        if known is not None and tag(known, "lmia.digest") == digest and _has_all(known, numbers, params):
            if self.anew or not self.database.has_file(known.info.run_id, "row.json", self.experiment):
                self._write_files(known.info.run_id, entry)
            return False
        if known is not None and not _may_stay(known, numbers, params):
            # Neither a metric nor a param can be taken back: what no longer holds must not stay on show.
            self.client.delete_run(known.info.run_id)
            known = None
        run_id = known.info.run_id if known is not None else self._new_cell(entry)
        worlds = [
            metric(
                "auc_world",
                curve.auc,
                at,
                index,
                model_id=self.model_ids[curve.target],
                dataset=str(row.axes.query),
                digest=curve.scores,
            )
            for index, curve in enumerate(entry.attachments.curves)
            if curve.auc is not None and curve.target is not None and curve.target in self.model_ids
        ]
        used = {a for c in entry.attachments.curves for a in (c.target, c.attack_model) if a is not None} & set(
            self.model_ids
        )
        if used and known is None:
            from mlflow.entities import LoggedModelInput

            self.client.log_inputs(
                run_id, models=[LoggedModelInput(self.model_ids[address]) for address in sorted(used)]
            )
        self._write_files(run_id, entry)
        # The digest comes last (tags are the end of a batch): a sync that was interrupted writes the cell again.
        self.database.write(
            run_id,
            [*(metric(key, value, at) for key, value in numbers.items()), *worlds],
            [] if known is not None else params,
            {**_cell_tags(entry), "lmia.digest": digest},
        )
        self.client.set_terminated(run_id, "FAILED" if row.status == "failed" else "FINISHED")
        return True

    def _new_cell(self, entry: Entry) -> str:
        tags = {
            "mlflow.runName": self._run_name(entry),
            "mlflow.parentRunId": self.parent,
            "lmia.kind": "cell",
            "lmia.key": entry.row.cell,
            "lmia.cell": entry.row.cell,
            "lmia.campaign": self.board.campaign.name,
        }
        return str(self.client.create_run(self.experiment, tags=tags).info.run_id)

    def _run_name(self, entry: Entry) -> str:
        row = entry.row
        setting = as_line(self.usual.differences(row))
        return f"{setting or 'usual setting'}, {row.axes.attack}, {row.axes.query}"[:250]

    def _write_files(self, run_id: str, entry: Entry) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "row.json").write_text(entry.row.to_json(indent=1), encoding="utf-8")
            if entry.attachments.curves:
                (Path(folder) / "roc.png").write_bytes(self.roc.png(entry.attachments.curves))
            sheet = entry.attachments.sheet_bytes()
            if sheet is not None:
                (Path(folder) / "sheet.png").write_bytes(sheet)
            self.database.add_files(run_id, Path(folder), self.experiment)

    def retire(self) -> int:
        """Marks cells that the campaign no longer asks for, so that filters can leave them out; returns how many."""
        asked = {entry.row.cell for entry in self.board.entries}
        gone = [run for cell, run in self.known_cells.items() if cell not in asked and tag(run, "current") != "no"]
        for run in gone:
            # Without the digest, a cell that comes back is written, and marked as current, again.
            self.database.write(run.info.run_id, tags={"current": "no", "lmia.digest": ""})
        return len(gone)

    def write_summary(self, page: bytes) -> None:
        """The parent's own description, counts and page; skipped if nothing of it has changed."""
        board = self.board
        note = "\n\n".join(f"**{sentence.title}.** {sentence.text}" for sentence in texts.summary(board))
        counts = {
            "num_rows": len(board.entries),
            "num_ranked": len(board.section("ranked")),
            "num_waiting": len(board.section("waiting")),
            "num_failed": sum(entry.row.status == "failed" for entry in board.entries),
            "num_found": sum(e.p_adjusted is not None and e.p_adjusted < 0.05 for e in board.entries),
        }
        digest = short_hash(LAYOUT, note, counts, hashlib.sha256(page).hexdigest())
        if tag(self.known_parent, "lmia.digest") == digest and not self.anew:
            return
        at = now()
        if page:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "leaderboard.html"
                path.write_bytes(page)
                self.database.add_files(self.parent, Path(folder), self.experiment)
        tags = {
            "mlflow.note.content": note,
            "lmia.digest": digest,
            "evidence": " ".join(board.evidence),
            "lmia.store": redacted(self.database.store),
            "lmia.title": board.campaign.title,
        }
        params = [] if self.known_parent is not None else [("benchmark", board.campaign.name)]
        self.database.write(self.parent, [metric(key, value, at) for key, value in counts.items()], params, tags)
        self.client.set_terminated(self.parent, "FAILED" if counts["num_failed"] else "FINISHED")


def _has_all(known: "Run", numbers: Mapping[str, float], params: Iterable[tuple[str, str]]) -> bool:
    """Whether a run still shows all that its digest stands for."""
    return set(known.data.metrics) - {"auc_world"} == set(numbers) and dict(known.data.params) == dict(params)


def _may_stay(known: "Run", numbers: Mapping[str, float], params: Iterable[tuple[str, str]]) -> bool:
    """Whether all that a run shows is among what it should show."""
    return not set(known.data.metrics) - {"auc_world", *numbers} and dict(known.data.params) == dict(params)


def _numbers(entry: Entry) -> dict[str, float]:
    """A row's numbers by their names as metrics, which MLflow restricts; nulls left out."""
    return {re.sub(r"[^\w\-. /]", "_", name)[:250]: value for name, value in fields.metrics(entry).items()}


def _cell_tags(entry: Entry) -> dict[str, str]:
    row = entry.row
    nulls = [f for f in Measured.model_fields if getattr(row.measured, f) is None and not f.endswith("_ci")]
    tags = {
        "current": "yes",
        "section": entry.section,
        "role": row.role,
        "status": row.status,
        "estimand": row.estimand,
        "level": row.level,
        "flags": " ".join(row.flags) or "none",
        "evidence": row.provenance.evidence,
        "reason": row.reason or "none",
        "mlflow.note.content": _note(entry),
        **{f"null.{field}": why_null(row, field) for field in nulls},
    }
    if entry.attachments.access:
        tags["access"] = entry.attachments.access
    if row.provenance.revision:
        tags["revision"] = row.provenance.revision
    if entry.reported is not None:
        tags["reported"] = entry.reported.source
    return tags


def _note(entry: Entry) -> str:
    m = entry.row.measured
    lines = []
    if entry.section == "cross":
        rest, ci = auc_minus_source(entry.row)
        lines.append(
            f"AUC **{formats.with_interval(m.auc, m.auc_ci)}**, people never seen **"
            f"{formats.with_interval(m.source_auc, m.source_auc_ci)}**: what is left is "
            f"**{formats.with_interval(rest, ci, signed=True)}**."
        )
    elif m.delta_auc is not None:
        lines.append(
            f"Delta **{formats.with_interval(m.delta_auc, m.delta_auc_ci, signed=True)}**, minimum detectable effect "
            f"{formats.number(m.mde)}."
        )
    if entry.why_unranked:
        lines.append(f"Not ranked: {entry.why_unranked}.")
    return "\n\n".join([*lines, formats.counts_text(entry.row)])


def _digest(entry: Entry) -> str:
    """What a cell's run shows, so that what has not changed is not written again."""
    side = entry.attachments
    curves = [[c.world, list(c.fpr), list(c.tpr), c.auc, c.target, c.attack_model, c.scores] for c in side.curves]
    sheet = side.sheet_bytes()
    return short_hash(
        LAYOUT,
        entry.row.to_dict(),
        _numbers(entry),
        _cell_tags(entry),
        curves,
        hashlib.sha256(sheet).hexdigest() if sheet is not None else None,
    )
