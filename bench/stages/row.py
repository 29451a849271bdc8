"""Rows: the answer for a cell, an estimate over its worlds with its controls beside it. Made by the driver.

Scores are read here, and membership is joined from the list of pictures that each model was trained on; what they say
is judged in lmia.metrics.judge.
"""

import io
import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.artifacts.artifact import Artifact
from bench.artifacts.row import BlindInputs, RowInputs, RowSpec, ScoredInputs, TargetInputs, WorldInputs, unflatten
from bench.jobs import Done, Job, Payload, Report, Stage, job
from bench.leaderboard.row import Cost, Measured, Provenance, Rate, Row, Uncertainty, join_reasons
from bench.stages.scores import read
from bench.store import InputRef, Manifest, Ref
from bench.workbench import Workbench, mixed
from lmia.metrics import judge
from lmia.metrics.roc import auc, roc_curve
from lmia.metrics.scores import Scores, ScoreSet

SHEET_PICTURES = 24
CURVE_POINTS = 200


def jobs(refs: list[tuple[Artifact, Ref]], done: Done) -> list[Job]:
    """One per row."""
    return [
        job(STAGE, f"row {a.spec.axes.attack} {a.spec.axes.query}", Payload((ref,)), work=1, order=(4,))
        for a, ref in refs
    ]


def make(payload: Payload, bench: Workbench, report: Report) -> None:
    """Read, judge, and keep the row with what is shown beside it."""
    started = time.monotonic()
    ref = payload.ref
    spec, inputs = RowSpec(**ref.spec), unflatten(ref.inputs)
    reader = _Reader(bench)
    judged = judge.judge(reader.question(spec, inputs))
    row = Row(
        cell=ref.address,
        axes=spec.axes,
        estimand=spec.estimand,
        role=spec.role,
        status=judged.status,
        flags=_flags(spec, reader.numerics),
        reason=join_reasons(judged.reasons),
        measured=measured(judged),
        cost=_cost(inputs, bench, time.monotonic() - started),
        provenance=Provenance(
            revision=bench.revision,
            numerics=sorted(reader.numerics),
            scores=sorted({i.address for i in ref.inputs.values() if bench.manifest(i).kind == "scores"}),
            evidence=spec.evidence,
            made_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        ),
    )
    curves = _curves(inputs, judged.sets, bench)
    files = {"row.json": row.to_json(indent=1).encode(), "curves.json": json.dumps(curves).encode()}
    if inputs.sheet is not None:
        files["sheet.png"] = contact_sheet(bench.pictures(inputs.sheet).images()[:SHEET_PICTURES])
    bench.store.put_slice(ref, 0, files)


def measured(judged: judge.Measured) -> Measured:
    """What was judged, as a row's numbers."""
    numbers: dict[str, Any] = {}
    metrics: dict[str, float | None] = {}
    for name, estimate in judged.estimates.items():
        if name != "difference":
            numbers |= {name: estimate.value, f"{name}_ci": estimate.interval}
            continue
        metrics["left"] = estimate.value
        if estimate.interval:
            metrics["left_low"], metrics["left_high"] = estimate.interval
    if judged.loss_gap is not None:
        metrics["loss_gap"] = judged.loss_gap
    return Measured(
        num_members=judged.num_members,
        num_nonmembers=judged.num_nonmembers,
        num_identities=judged.num_identities,
        worlds=judged.num_models,
        mde=judged.mde,
        tpr_at_fpr={
            fpr: None if isinstance(rate, str) else Rate(tpr=rate.tpr, ci=rate.ci, false_positives=rate.false_positives)
            for fpr, rate in judged.tpr_at_fpr.items()
        },
        set_p_value=judged.set_p_value,
        metrics=metrics,
        estimates={name: Uncertainty.of(e) for name, e in judged.estimates.items() if e.se is not None},
        **numbers,
    )


def contact_sheet(images: np.ndarray, columns: int = 8) -> bytes:
    """Pictures [N, H, W, 3] side by side as one PNG, at most 96 px each."""
    from PIL import Image

    side = min(96, images.shape[1])
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * side, rows * side), "white")
    for n, image in enumerate(images):
        tile = Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(tile, (n % columns * side, n // columns * side))
    sink = io.BytesIO()
    sheet.save(sink, "PNG", optimize=True)
    return sink.getvalue()


class _Reader:
    """Scores, persons and membership from the store.

    `numerics` collects which machines made the scores of the query pictures (the target's and its base's).
    """

    def __init__(self, bench: Workbench):
        self.bench = bench
        self.numerics: set[str] = set()
        self._persons: dict[str, dict[str, str]] = {}

    def question(self, spec: RowSpec, inputs: RowInputs[InputRef]) -> judge.Question:
        """Everything that is judged."""
        worlds = [self.world(spec, world) for world in inputs.worlds]
        blind = None
        if inputs.blind is not None:
            blind = self.blind(inputs.blind, inputs.worlds[0], worlds[0].targets[0].same)
        return judge.Question(spec.estimand, worlds, blind, spec.absent)

    def world(self, spec: RowSpec, world: WorldInputs[InputRef]) -> judge.World:
        """A target and its twin."""
        return judge.World([self.target(spec, target) for target in (world.a, world.b)], world.seed)

    def target(self, spec: RowSpec, target: TargetInputs[InputRef]) -> judge.TargetScores:
        """One target's scores of the query sets that there are."""
        if target.model is None:
            return judge.TargetScores(self.drawn(target))
        assert target.unseen is not None
        pictures, persons = self.trained(target.model)
        known = persons if spec.estimand == "person" else None
        seen, unseen, other = target.seen, target.unseen, target.other
        base_same = None
        if seen.base is not None and unseen.base is not None:
            base_same = judge.labelled(self.scores(seen, seen.base), self.scores(unseen, unseen.base), pictures, known)
        return judge.TargetScores(
            same=judge.labelled(self.scores(seen), self.scores(unseen), pictures, known),
            other=self.scores(other) if other else None,
            base_same=base_same,
            base_other=self.scores(other, other.base) if other and other.base else None,
            loss_gap=self.loss_gap(target),
        )

    def drawn(self, target: TargetInputs[InputRef]) -> ScoreSet:
        """The target's own pictures against others that a model drew; nobody is on them."""
        assert target.other is not None
        sets = []
        for name, scored in (("target", target.seen), ("aux", target.other)):
            found = self.read(scored.scores)
            self.numerics.update(self.bench.manifest(scored.scores).numerics)
            ids = sorted(found)
            sets.append(Scores([f"{name}/{i}" for i in ids], np.array([found[i] for i in ids])))
        return judge.joined(*sets)

    def blind(self, blind: BlindInputs[InputRef], world: WorldInputs[InputRef], first: ScoreSet) -> ScoreSet:
        """The blind scores of the first target's pictures; against another source, of both halves' members."""
        if blind.halves is not None:
            found = self.read(blind.halves)
            return ScoreSet(first.ids, np.array([found[i] for i in first.ids]), first.member, first.identity)
        assert world.a.other is not None and blind.a and blind.b and blind.other
        a, b = self.scores(world.a.seen, blind.a), self.scores(world.b.seen, blind.b)
        both = Scores([*a.ids, *b.ids], np.concatenate([a.scores, b.scores]), [*a.persons(), *b.persons()])
        return judge.joined(both, self.scores(world.a.other, blind.other))

    def loss_gap(self, target: TargetInputs[InputRef]) -> float | None:
        """Mean loss of unseen people's photos minus that of trained ones; a score is minus the loss."""
        if target.trained_loss is None or target.unseen_loss is None:
            return None
        trained, unseen = (list(self.read(ref).values()) for ref in (target.trained_loss, target.unseen_loss))
        return float(np.mean(trained) - np.mean(unseen))

    def scores(self, scored: ScoredInputs[InputRef], by: InputRef | None = None) -> Scores:
        """The target's scores (or `by`, others of the same pictures) with the persons on the pictures."""
        assert scored.query is not None
        ref = by or scored.scores
        found, persons = self.read(ref), self.persons(scored.query)
        self.numerics.update(self.bench.manifest(ref).numerics)
        if set(found) != set(persons):
            raise RuntimeError(f"{ref.address}: {len(found)} scores for {len(persons)} pictures")
        ids = sorted(found)
        return Scores(ids, np.array([found[i] for i in ids]), [persons[i] for i in ids])

    def read(self, ref: InputRef) -> dict[str, float]:
        """Score by picture."""
        return read(self.bench.store, self.bench.manifest(ref))

    def persons(self, ref: InputRef) -> dict[str, str]:
        """The person on each picture; a picture without one is a person of its own."""
        if ref.address not in self._persons:
            manifest = self.bench.manifest(ref)
            found: dict[str, str] = {}
            for part in manifest.parts:
                data = self.bench.store.part_bytes(manifest, part)
                table = pq.read_table(pa.BufferReader(data), columns=["id", "identity"])
                ids = table["id"].to_pylist()
                found.update((i, who or i) for i, who in zip(ids, table["identity"].to_pylist(), strict=True))
            self._persons[ref.address] = found
        return self._persons[ref.address]

    def trained(self, model: InputRef) -> tuple[set[str], set[str]]:
        """Pictures and persons that a model was trained on."""
        manifest = self.bench.manifest(model)
        ids = set(manifest.facts["trained_on"])
        pictures = self.bench.find(manifest.inputs["pictures"]["address"], manifest.inputs["pictures"]["digest"])
        persons = self.persons(pictures)
        return ids, {persons[i] for i in ids}


def _flags(spec: RowSpec, numerics: set[str]) -> list[str]:
    flags = list(spec.flags)
    if mixed(numerics):
        flags.append("mixed_numerics")
    if spec.role == "planted":
        flags.append("planted")
    return flags


def _curves(inputs: RowInputs[InputRef], sets: list[list[ScoreSet]], bench: Workbench) -> list[dict[str, Any]]:
    """The ROC curve of every target, with what it belongs to."""
    found = []
    for world, own in zip(inputs.worlds, sets, strict=True):
        for half, target, scores in zip("AB", (world.a, world.b), own, strict=True):
            curve = roc_curve(scores.scores, scores.member)
            fpr, tpr = np.append(0.0, curve.fpr), np.append(0.0, curve.tpr)
            keep = np.unique(np.linspace(0, len(fpr) - 1, CURVE_POINTS).astype(int))
            learned = bench.manifest(target.seen.scores).inputs.get("learned")
            found.append(
                {
                    "world": f"half {half}" if len(inputs.worlds) == 1 else f"{world.name} {half}",
                    "fpr": [round(float(x), 5) for x in fpr[keep]],
                    "tpr": [round(float(x), 5) for x in tpr[keep]],
                    "auc": auc(scores.scores, scores.member),
                    "target": target.model.address if target.model else None,
                    "attack_model": learned["address"] if learned else None,
                    "scores": target.seen.scores.address,
                }
            )
    return found


def _cost(inputs: RowInputs[InputRef], bench: Workbench, seconds: float) -> Cost:
    """Evaluations a scored picture, everything offline that the row hangs on, seconds and memory."""
    sets = [scored for world in inputs.worlds for target in (world.a, world.b) for scored in target.scored()]
    own = [bench.manifest(ref) for scored in sets for ref in (scored.scores, scored.base) if ref is not None]
    pictures = sum(len(read(bench.store, m)) for m in own)
    offline, total, peak = 0.0, seconds, 0.0
    for manifest in _lineage(own, bench):
        total += manifest.total("seconds")
        peak = max([peak, *(s.cost.get("peak_memory_mb") or 0 for s in manifest.slices)])
        if manifest.kind in ("pictures", "attack"):
            offline += manifest.total("nfe")
    nfe = sum(m.total("nfe") for m in own) / max(1, pictures)
    return Cost(nfe=nfe, nfe_offline=offline, seconds=round(total, 2), peak_memory_mb=peak or None)


def _lineage(manifests: list[Manifest], bench: Workbench) -> Iterator[Manifest]:
    """The manifests and all that they were made of, each once."""
    seen: set[str] = set()
    stack = list(manifests)
    while stack:
        manifest = stack.pop()
        if manifest.address in seen:
            continue
        seen.add(manifest.address)
        yield manifest
        for i in manifest.inputs.values():
            if i["address"] not in seen:
                stack.append(bench.manifest(bench.find(i["address"], i["digest"])))


STAGE: Stage[Payload] = Stage("bench.stages.row:STAGE", "row", "driver", Payload, jobs, make)
