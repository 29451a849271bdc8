"""Rows: the answer for a cell, an estimate over its worlds with its controls beside it. Made by the driver.

Membership is joined here, from the list of pictures that each model was trained on.
"""

import io
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from bench.leaderboard.row import Cost, Measured, Provenance, Rate, Row, join_reasons
from bench.plan.artifact import Artifact, Job
from bench.stages import Done, Report, job
from bench.stages.scores import read
from bench.store import InputRef, Manifest, Ref
from bench.workbench import Workbench, mixed
from lmia.metrics.estimands import auc_estimate, cross_source, crossover_delta
from lmia.metrics.estimates import Estimate
from lmia.metrics.low_fpr import low_fpr
from lmia.metrics.roc import roc_curve
from lmia.metrics.scores import Scores, ScoreSet
from lmia.metrics.sets import set_p_value
from lmia.specs import Spec

EXECUTOR = "driver"
FPRS = (0.1, 0.01, 0.001)
SHEET_PICTURES = 24
# Below this many pictures or people on a side, no interval of ours was shown to cover.
SMALLEST = 8


class RowSpec(Spec):
    """The question, as far as it is not in the inputs."""

    axes: dict[str, Any]
    estimand: str
    role: str
    flags: tuple[str, ...] = ()
    evidence: str = "synthetic"
    absent: dict[str, str] = Field(default_factory=dict, description="controls that have no meaning here, and why")
    access: str = "none"
    shadow: str | None = None

    @staticmethod
    def version() -> int:
        """Of the estimates; raised when a row's numbers change."""
        return 1


def jobs(refs: list[tuple[Artifact, Ref]], done: Done) -> list[Job]:
    """One per row."""
    return [
        job(__name__, f"row {a.spec.axes['attack']} {a.spec.axes['query']}", [ref], work=1, order=(4,))
        for a, ref in refs
    ]


def make(payload: dict[str, Any], bench: Workbench, report: Report) -> None:
    """Estimate, and keep the row with what is shown beside it."""
    ref = Ref.from_json(payload["refs"][0])
    row, curves = _Judge(ref, bench).row()
    files = {"row.json": row.to_json(indent=1).encode(), "curves.json": json.dumps(curves).encode()}
    if "sheet" in ref.inputs:
        files["sheet.png"] = contact_sheet(bench.pictures(ref.inputs["sheet"]).images()[:SHEET_PICTURES])
    bench.store.put_slice(ref, 0, files)


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


@dataclass
class _Judge:
    """One row's inputs, by the names that bench.plan.expand gave them."""

    ref: Ref
    bench: Workbench

    def __post_init__(self) -> None:
        self.spec = RowSpec(**self.ref.spec)
        self.numerics: set[str] = set()
        self.reasons: dict[str, str] = dict(self.spec.absent)
        self._identities: dict[str, dict[str, str]] = {}

    # ---- reading

    def manifest(self, name: str) -> Manifest:
        return self.bench.manifest(self.ref.inputs[name])

    def scores(self, name: str, query: str) -> Scores:
        """The scores of a query set with the persons on its pictures."""
        manifest = self.manifest(name)
        self.numerics.update(manifest.numerics)
        found = read(self.bench.store, manifest)
        persons = self.persons(self.ref.inputs[query])
        if set(found) != set(persons):
            raise RuntimeError(f"{name}: {len(found)} scores for {len(persons)} pictures")
        ids = sorted(found)
        return Scores(ids, np.array([found[i] for i in ids]), [persons[i] for i in ids])

    def persons(self, ref: InputRef) -> dict[str, str]:
        """The person on each picture; a picture without one is a person of its own."""
        if ref.address not in self._identities:
            manifest = self.bench.manifest(ref)
            found: dict[str, str] = {}
            for part in manifest.parts:
                data = self.bench.store.part_bytes(manifest, part)
                table = pq.read_table(pa.BufferReader(data), columns=["id", "identity"])
                ids = table["id"].to_pylist()
                found.update((i, who or i) for i, who in zip(ids, table["identity"].to_pylist(), strict=True))
            self._identities[ref.address] = found
        return self._identities[ref.address]

    def trained(self, name: str) -> tuple[set[str], set[str]]:
        """Pictures and persons that a model was trained on."""
        manifest = self.manifest(name)
        ids = set(manifest.facts["trained_on"])
        pictures = self.bench.find(manifest.inputs["pictures"]["address"], manifest.inputs["pictures"]["digest"])
        persons = self.persons(pictures)
        return ids, {persons[i] for i in ids}

    def worlds(self) -> list[str]:
        return sorted({name.split(".")[0] for name in self.ref.inputs if name.startswith("w")})

    def same(self, world: str, half: str, scores: str = "") -> ScoreSet:
        """Scores of a target (or of `scores` in its place) on members and unseen people of the same source."""
        seen = self.scores(scores or f"{world}.{half}.seen", f"{world}.{half}.seen.query")
        other = scores.replace("seen", "unseen") if scores else f"{world}.{half}.unseen"
        unseen = self.scores(other, f"{world}.{half}.unseen.query")
        ids, persons = self.trained(f"{world}.{half}.model")
        by_person = self.spec.estimand == "person"

        def member(scores: Scores) -> list[bool]:
            return [
                who in persons if by_person else i in ids for i, who in zip(scores.ids, scores.persons(), strict=True)
            ]

        if not all(member(seen)) or any(member(unseen)):
            raise RuntimeError(f"{world}.{half}: the query sets do not agree with what the model was trained on")
        if by_person and (set(seen.ids) | set(unseen.ids)) & ids:
            raise RuntimeError(f"{world}.{half}: a held-back photo was trained on")
        return ScoreSet(
            [*seen.ids, *unseen.ids],
            np.concatenate([seen.scores, unseen.scores]),
            member=np.array(member(seen) + member(unseen)),
            identity=[*seen.persons(), *unseen.persons()],
        )

    # ---- judging

    def row(self) -> tuple[Row, list[dict[str, Any]]]:
        """The row and the ROC curves of its worlds."""
        started = time.monotonic()
        judge = {"cross_source": self._cross_source, "uncontrolled": self._generated}.get(
            self.spec.estimand, self._crossover
        )
        measured, sets = judge()
        # Marked and clean pictures of one world are two conditions of it, not two worlds.
        measured["worlds"] = 2 * len({world.partition("m")[0] for world in self.worlds()})
        measured["num_members"] = len(sets[0][1].members())
        measured["num_nonmembers"] = len(sets[0][1].nonmembers())
        measured["num_identities"] = len(set(sets[0][1].persons()))
        measured["tpr_at_fpr"] = self._low_fpr(sets)
        measured["metrics"] = self._loss_gap()
        status = self._status(measured)
        flags = list(self.spec.flags)
        if mixed(self.numerics):
            flags.append("mixed_numerics")
        if self.spec.role == "planted":
            flags.append("planted")
        row = Row(
            cell=self.ref.address,
            axes=self.spec.axes,
            estimand=self.spec.estimand,
            role=self.spec.role,
            status=status,
            flags=flags,
            reason=join_reasons(self.reasons),
            measured=Measured(**measured),
            cost=self._cost(time.monotonic() - started),
            provenance=Provenance(
                revision=self.bench.revision,
                numerics=sorted(self.numerics),
                scores=sorted({i.address for n, i in self.ref.inputs.items() if n.endswith(("seen", "other"))}),
                evidence=self.spec.evidence,
                made_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            ),
        )
        return row, [self._curve(name, s) for name, s in sets]

    def _crossover(self) -> tuple[dict[str, Any], list[tuple[str, ScoreSet]]]:
        worlds = [(self.same(world, "A"), self.same(world, "B")) for world in self.worlds()]
        result = crossover_delta(worlds)
        measured = {"mde": result.mde, **self._pair("delta_auc", result.delta), **self._pair("auc", result.auc)}
        first = worlds[0][0]
        measured["set_p_value"] = set_p_value(*self._gains(worlds))
        self.reasons.setdefault("source_auc", "applies to members against another source only")
        measured |= self._control(
            "base_auc",
            [
                self.same(world, "A", f"{world}.base.seen")
                for world in self.worlds()
                if f"{world}.base.seen" in self.ref.inputs
            ],
        )
        if "blind.both" in self.ref.inputs:
            blind = read(self.bench.store, self.manifest("blind.both"))
            values = np.array([blind[i] for i in first.ids])
            measured |= self._control("blind_auc", [ScoreSet(first.ids, values, first.member, first.identity)])
        sets = [
            (f"{world} {half}", s)
            for world, pair in zip(self.worlds(), worlds, strict=True)
            for half, s in zip("AB", pair, strict=True)
        ]
        return measured, sets

    def _gains(self, worlds: list[tuple[ScoreSet, ScoreSet]]) -> tuple[Scores, Scores]:
        """What the target gives each picture above what its twin gives it, in units of its spread, over the worlds.

        Halves A and B are exchangeable in it when neither twin knows its own half.
        """
        first, total = worlds[0][0], np.zeros(len(worlds[0][0]))
        for target, twin in worlds:
            own, other = (dict(zip(s.ids, s.scores, strict=True)) for s in (target, twin))
            gain = np.array([own[i] - other[i] for i in first.ids])
            spread = float(gain.std())
            total += gain / spread if spread > 0 else 0.0
        both = ScoreSet(first.ids, total, first.member, first.identity)
        return both.members(), both.nonmembers()

    def _cross_source(self) -> tuple[dict[str, Any], list[tuple[str, ScoreSet]]]:
        worlds, sets, base = [], [], []
        for world in self.worlds():
            targets = []
            for half in "AB":
                same = self.same(world, half)
                other = self.scores(f"{world}.{half}.other", f"{world}.{half}.other.query")
                targets.append((same, other))
                sets.append((f"{world} {half}", joined(same.members(), other)))
            worlds.append(targets)
            if f"{world}.base.seen" in self.ref.inputs:
                seen = self.scores(f"{world}.base.seen", f"{world}.A.seen.query")
                base.append(joined(seen, self.scores(f"{world}.base.other", f"{world}.A.other.query")))
        result = cross_source(worlds)
        measured = {**self._pair("auc", result.auc), **self._pair("source_auc", result.source_auc)}
        measured |= self._control("base_auc", base)
        if "blind.A" in self.ref.inputs:
            world = self.worlds()[0]
            other = self.scores("blind.other", f"{world}.A.other.query")
            halves = [self.scores(f"blind.{half}", f"{world}.{half}.seen.query") for half in "AB"]
            own = Scores(
                [i for h in halves for i in h.ids],
                np.concatenate([h.scores for h in halves]),
                [p for h in halves for p in h.persons()],
            )
            measured |= self._control("blind_auc", [joined(own, other)])
        left = result.difference
        self.extra = {"left": left.value}
        if left.interval:
            self.extra |= {"left_low": left.interval[0], "left_high": left.interval[1]}
        for name in ("delta_auc", "mde", "set_p_value"):
            self.reasons.setdefault(
                name, "not defined against another source: style and membership cannot be told apart"
            )
        return measured, sets

    def _generated(self) -> tuple[dict[str, Any], list[tuple[str, ScoreSet]]]:
        sets = []
        for world in self.worlds():
            for half in "AB":
                seen, other = (read(self.bench.store, self.manifest(f"{world}.{half}.{r}")) for r in ("seen", "other"))
                self.numerics.update(self.manifest(f"{world}.{half}.seen").numerics)
                ids = [*(f"target/{i}" for i in sorted(seen)), *(f"aux/{i}" for i in sorted(other))]
                values = np.array([*(seen[i] for i in sorted(seen)), *(other[i] for i in sorted(other))])
                member = np.array([True] * len(seen) + [False] * len(other))
                sets.append((f"{world} {half}", ScoreSet(ids, values, member, None)))
        for name in ("delta_auc", "mde", "set_p_value", "source_auc"):
            self.reasons.setdefault(name, "the query pictures are generated: nobody's membership is asked for")
        return self._pair("auc", auc_estimate([s for _, s in sets])), sets

    def _control(self, field: str, sets: list[ScoreSet]) -> dict[str, Any]:
        if not sets:
            self.reasons.setdefault(field, "not asked for")
            return {}
        return self._pair(field, auc_estimate(sets))

    def _pair(self, field: str, estimate: Estimate) -> dict[str, Any]:
        if estimate.value is None:
            self.reasons[field] = estimate.note or "could not be computed"
        elif estimate.interval is None:
            self.reasons[f"{field}_ci"] = estimate.note or "could not be computed"
        return {field: estimate.value, f"{field}_ci": estimate.interval}

    def _low_fpr(self, sets: list[tuple[str, ScoreSet]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        why = []
        worlds: dict[str, list[ScoreSet]] = {}
        for name, scores in sets:  # twins are one world: they are scored on the same pictures
            worlds.setdefault(name.split(" ")[0], []).append(scores)
        for fpr, value in low_fpr(list(worlds.values()), FPRS).items():
            if isinstance(value, str):
                found[fpr] = None
                why.append(value)
            else:
                found[fpr] = Rate(tpr=value.tpr, ci=value.ci, false_positives=value.false_positives)
        if why:
            self.reasons["tpr_at_fpr"] = "; ".join(dict.fromkeys(why))
        return found

    def _loss_gap(self) -> dict[str, float | None]:
        """Mean denoising loss of unseen pictures minus that of trained ones: how over-trained the target is."""
        gaps = []
        for name in self.ref.inputs:
            if name.endswith(".gap.seen"):
                seen = read(self.bench.store, self.manifest(name))
                unseen = read(self.bench.store, self.manifest(name.replace(".seen", ".unseen")))
                gaps.append(float(np.mean(list(seen.values())) - np.mean(list(unseen.values()))))
        extra = getattr(self, "extra", {})
        return {**extra, **({"loss_gap": float(np.mean(gaps))} if gaps else {})}

    def _status(self, measured: dict[str, Any]) -> str:
        smallest = min(measured["num_members"], measured["num_nonmembers"])
        if smallest < SMALLEST:
            self.reasons[""] = f"{smallest} pictures on a side: fewer than {SMALLEST} support no interval"
            return "undersized"
        return "ok"

    def _curve(self, name: str, scores: ScoreSet) -> dict[str, Any]:
        curve = roc_curve(scores.scores, scores.member)
        fpr = np.append(0.0, curve.false_positives / scores.num_nonmembers)
        tpr = np.append(0.0, curve.true_positives / scores.num_members)
        keep = np.unique(np.linspace(0, len(fpr) - 1, 200).astype(int))
        world, half = name.split(" ")
        model = self.ref.inputs.get(f"{world}.{half}.model")
        seen = self.ref.inputs[f"{world}.{half}.seen"]
        learned = self.bench.manifest(seen).inputs.get("learned", {})
        return {
            "world": f"half {half}" if len(self.worlds()) == 1 else name,
            "fpr": [round(float(x), 5) for x in fpr[keep]],
            "tpr": [round(float(x), 5) for x in tpr[keep]],
            "auc": auc_estimate([scores]).value,
            "target": model.address if model else None,
            "attack_model": learned.get("address"),
            "scores": seen.address,
        }

    def _cost(self, seconds: float) -> Cost:
        """Evaluations a scored picture, everything offline that the row hangs on, seconds and memory."""
        own = [
            self.manifest(n) for n in self.ref.inputs if n.endswith((".seen", ".unseen", ".other")) and "gap" not in n
        ]
        pictures = sum(len(read(self.bench.store, m)) for m in own)
        offline, total, peak = 0.0, seconds, 0.0
        for manifest in self._lineage(own):
            total += manifest.total("seconds")
            peak = max([peak, *(s.get("cost", {}).get("peak_memory_mb") or 0 for s in manifest.slices)])
            if manifest.kind in ("pictures", "attack"):
                offline += manifest.total("nfe")
        nfe = sum(m.total("nfe") for m in own) / max(1, pictures)
        return Cost(nfe=nfe, nfe_offline=offline, seconds=round(total, 2), peak_memory_mb=peak or None)

    def _lineage(self, manifests: list[Manifest]) -> Iterator[Manifest]:
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
                    stack.append(self.bench.manifest(self.bench.find(i["address"], i["digest"])))


def joined(members: Scores, nonmembers: Scores) -> ScoreSet:
    """Two sets of scores as one with labels."""
    return ScoreSet(
        [*members.ids, *nonmembers.ids],
        np.concatenate([members.scores, nonmembers.scores]),
        np.array([True] * len(members) + [False] * len(nonmembers)),
        [*members.persons(), *nonmembers.persons()],
    )
