"""Scores: one model x one attack x one set of pictures. Membership is not in them.

One job scores a slice of pictures with every attack that asks for the same model and pictures, in one shared pass.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.artifacts import scores as scoring
from bench.artifacts.artifact import Artifact, slice_of
from bench.jobs import Done, Job, Payload, Report, Stage, job, ticking
from bench.store import Manifest, Ref, Store
from bench.workbench import Workbench
from lmia.attacks import Learned
from lmia.attacks.blind import crossfit
from lmia.attacks.scoring import nfe_asked, nfe_shared, score_pass


@dataclass(frozen=True)
class ScoringPayload(Payload):
    """Attacks that score a slice of pictures together.

    Attributes:
        nfe_asked: U-Net evaluations that the attacks ask for, each alone.
        nfe_shared: what their common pass spends.
    """

    nfe_asked: int = 0
    nfe_shared: int = 0


def jobs(refs: list[tuple[Artifact, Ref]], done: Done) -> list[Job]:
    """One job per (model, pictures, slice), for all attacks together."""
    groups: dict[tuple, list[tuple[Artifact, Ref]]] = defaultdict(list)
    for artifact, ref in refs:
        finished = done(ref)
        for number in range(artifact.num_slices):
            if number in finished:
                continue
            model = artifact.inputs["model"].address if "model" in artifact.inputs else ""
            query = artifact.inputs["query"].address if "query" in artifact.inputs else artifact.address
            common = [getattr(artifact.spec, k, None) for k in ("captions", "source", "noise_seed", "batch", "dtype")]
            key = (model, query, number, artifact.num_slices, *map(str, common))
            groups[key].append((artifact, ref))
    found = []
    for (model, query, number, of, *_), group in groups.items():
        first = group[0][0]
        count = len(slice_of(scoring.count(first), of, number))
        asking = [a.spec.attack for a, _ in group if "model" in a.inputs]
        asked, shared = count * nfe_asked(asking), count * nfe_shared(asking)
        payload = ScoringPayload(tuple(ref for _, ref in group), number, asked, shared)
        names = ", ".join(sorted({a.method for a, _ in group}))
        title = f"score {scoring.title(first)} with {names} ({len(group)})"
        work = shared + 0.5 * count * len(group)
        order = (3, model, query, number)
        found.append(job(STAGE, title, payload, work=work, order=order))
    return found


def make(payload: ScoringPayload, bench: Workbench, report: Report) -> None:
    """Score one slice with all attacks of the job."""
    refs, number = payload.refs, payload.number
    if refs[0].method == scoring.CROSSFIT:
        _crossfit(refs[0], bench)
        return
    specs = [scoring.ScoresSpec(**ref.spec) for ref in refs]
    spec = specs[0]
    query = bench.pictures(refs[0].inputs["query"])
    query = query.take(list(slice_of(len(query), refs[0].num_slices, number)))
    learned: list[Learned | None] = [
        bench.tensors(ref.inputs["learned"]) if "learned" in ref.inputs else None for ref in refs
    ]
    model, base = (
        next((bench.model(ref.inputs[name], spec.dtype) for ref in refs if name in ref.inputs), None)
        for name in ("model", "base")
    )
    with ticking() as clock:
        scored = score_pass(
            [(one.attack, state) for one, state in zip(specs, learned, strict=True)],
            with_captions(query, spec.captions, spec.source),
            model,
            base=base,
            noise_seed=spec.noise_seed,
            batch=spec.batch,
            device=bench.device,
        )
    figures = clock()
    spent = float(scored.evaluations)
    asked = [float(one.attack.nfe) if model else 0.0 for one in specs]
    backend = model.attention if model else ""
    for n, (ref, values) in enumerate(zip(refs, scored.scores, strict=True)):
        share = (asked[n] + 0.5) / (sum(asked) + 0.5 * len(refs))
        cost = {
            "nfe": asked[n] * len(query),
            "nfe_spent": spent * share,
            "seconds": figures["seconds"] * share,
            "peak_memory_mb": figures["peak_memory_mb"],
        }
        data = to_parquet(query.ids, values)
        bench.store.put_slice(
            ref,
            number,
            {f"{number:05d}.parquet": data},
            numerics=bench.numerics(backend),
            cost=cost,
        )


def _crossfit(ref: Ref, bench: Workbench) -> None:
    spec = scoring.BlindCrossfitSpec(**ref.spec)
    positives, negatives = (bench.pictures(ref.inputs[name]) for name in ("positives", "negatives"))
    with ticking() as clock:
        scores = crossfit(spec.blind, positives, negatives, see=spec.see)
    data = to_parquet([*positives.ids, *negatives.ids], np.concatenate(scores))
    bench.store.put_slice(ref, 0, {"00000.parquet": data}, numerics=bench.numerics(), cost=clock())


def with_captions(pictures: Any, kind: str | None, source: str | None) -> Any:
    """The pictures with the captions that the attack is given."""
    from lmia.data.captions import class_prompt

    if kind == "class":
        return pictures.with_columns(caption=[class_prompt(str(source))] * len(pictures))
    if kind == "empty":
        return pictures.with_columns(caption=[""] * len(pictures))
    return pictures


def to_parquet(ids: list[str], scores: np.ndarray) -> bytes:
    """`id, score` as Parquet; scores must be finite float64, one per id."""
    if scores.dtype != np.float64 or scores.shape != (len(ids),) or len(set(ids)) != len(ids):
        raise RuntimeError(f"scores: {scores.dtype} {scores.shape} for {len(set(ids))} ids")
    bad = [i for i, value in zip(ids, scores, strict=True) if not np.isfinite(value)]
    if bad:
        raise RuntimeError(f"scores are not finite for {len(bad)} pictures, first {bad[:3]}")
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": pa.array(ids, pa.string()), "score": pa.array(scores)}), sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def read(store: Store, manifest: Manifest) -> dict[str, float]:
    """Score by id."""
    found: dict[str, float] = {}
    for part in manifest.parts:
        table = pq.read_table(pa.BufferReader(store.part_bytes(manifest, part)))
        found.update(zip(table["id"].to_pylist(), table["score"].to_pylist(), strict=True))
    return found


STAGE: Stage[ScoringPayload] = Stage("bench.stages.scores:STAGE", "scores", "data", ScoringPayload, jobs, make)
