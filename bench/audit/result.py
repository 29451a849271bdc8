"""An audit's scores read back from the store, or from scores.parquet, and judged."""

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.artifacts.artifact import Artifact
from bench.audit.plan import AuditPlan, Line
from bench.audit.record import AttackRecord, Judgement, Materials, Measured, Rate
from bench.audit.request import MEMBERS, Audit
from bench.driver import Outcome, revision
from bench.stages.scores import read
from bench.store import Entry, Manifest, Store
from lmia.attacks import ATTACKS
from lmia.data.pictures import Pictures
from lmia.metrics.estimates import Estimate
from lmia.metrics.low_fpr import LowFpr
from lmia.metrics.scores import ScoreSet
from lmia.metrics.sets import power_curve
from lmia.metrics.verdict import Evidence, Finding, Verdict, conclude
from lmia.specs import RequestError


class AuditFailed(RuntimeError):
    """Nothing can be judged: the pictures could not be taken over, or no attack could be made."""


@dataclass(frozen=True)
class Result:
    """A judged audit.

    Attributes:
        plan: what was made.
        verdict: the answer.
        evidence: scores by attack.
        pictures: both sets, members first.
        failed: attacks that could not be made, and why.
        blind: scores of the blind controls, by what they look at.
        judgement: all that follows from the scores, in numbers.
        materials: digests of what was given.
        numerics: classes of machines that computed.
        jobs: jobs that were done for it by this run.
        seconds: wall time of this run.
    """

    plan: AuditPlan
    verdict: Verdict
    evidence: dict[str, Evidence]
    pictures: Pictures
    failed: dict[str, str]
    blind: dict[str, ScoreSet]
    judgement: Judgement
    materials: Materials
    numerics: tuple[str, ...]
    jobs: int = 0
    seconds: float = 0.0
    made_at: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    revision: str = field(default_factory=revision)


def result(plan: AuditPlan, store: Store, outcome: Outcome, given: Materials) -> Result:
    """Reads what was made and judges it.

    Args:
        plan: the audit.
        store: where its artifacts are.
        outcome: what became of making them.
        given: digests of what was given, taken before the work.

    Raises:
        AuditFailed: the pictures could not be taken over, or no attack could be made.
    """
    reader, failed = _Reader(store, store.index()), outcome.failed
    lost = [f"{label}: {failed[a.address]}" for label, a in plan.sets.items() if a.address in failed]
    if lost:
        raise AuditFailed("; ".join(lost))
    pictures = Pictures.concat([reader.pictures(artifact) for artifact in plan.sets.values()])
    persons = {
        record: f"{source}/{who}"
        for record, source, who in zip(pictures.ids, pictures.sources, pictures.identities, strict=True)
    }
    blind = {
        what: reader.score_set([artifact], persons)
        for what, artifact in plan.blind.items()
        if artifact.address not in failed
    }
    evidence, broken = {}, {}
    for line in plan.lines:
        why = [failed[a.address] for a in (*line.target.values(), *line.base.values()) if a.address in failed]
        if why:
            broken[line.attack] = why[0]
        else:
            evidence[line.attack] = reader.evidence(line, persons)
    if not evidence:
        raise AuditFailed("; ".join(f"{name}: {why}" for name, why in broken.items()))
    costs = {line.attack: float(line.target[MEMBERS].spec.attack.nfe) for line in plan.lines if line.attack in evidence}
    verdict, judgement = judge(list(evidence.values()), blind, plan.audit, costs)
    return Result(
        plan=plan,
        verdict=verdict,
        evidence=evidence,
        pictures=pictures,
        failed=broken,
        blind=blind,
        judgement=judgement,
        materials=given,
        numerics=tuple(sorted(reader.numerics)),
        jobs=outcome.made,
        seconds=outcome.seconds,
    )


def judge(
    evidence: Sequence[Evidence], blind: dict[str, ScoreSet], audit: Audit, costs: Mapping[str, float]
) -> tuple[Verdict, Judgement]:
    """The verdict on scores, and the same in numbers: what could not be computed is null with its reason beside it."""
    verdict = conclude(
        evidence, blind, fpr=audit.picture_fpr, alpha=audit.alpha, random_split=audit.random_split, seed=audit.seed
    )
    by_name = {one.attack: one for one in evidence}
    target = by_name[verdict.findings[0].attack].target
    people_needed = None
    if verdict.outcome == "leak":
        people_needed = power_curve(target.members(), target.nonmembers(), seed=audit.seed).smallest
    return verdict, Judgement(
        verdict=verdict.outcome,
        reasons=verdict.reasons,
        remedies=verdict.remedies,
        picture_level=verdict.picture_level,
        alpha=verdict.alpha,
        mde=verdict.mde,
        people_needed=people_needed,
        num_members=target.num_members,
        num_nonmembers=target.num_nonmembers,
        num_identities=len(set(target.persons())),
        blind={what: _measured(estimate) for what, estimate in verdict.blind.items()},
        attacks=tuple(_attack(finding, costs[finding.attack]) for finding in verdict.findings),
    )


@dataclass
class _Reader:
    store: Store
    index: dict[str, list[Entry]]
    numerics: set[str] = field(default_factory=set)

    def manifest(self, artifact: Artifact) -> Manifest:
        manifest = self.store.manifest(self.index[artifact.address][-1].key)
        self.numerics.update(manifest.numerics)
        return manifest

    def pictures(self, artifact: Artifact) -> Pictures:
        manifest = self.manifest(artifact)
        return Pictures.from_parquet([self.store.part_bytes(manifest, part) for part in manifest.parts])

    def score_set(self, artifacts: list[Artifact], persons: Mapping[str, str]) -> ScoreSet:
        """Scores of both sets with their membership, in the order of `persons`."""
        found: dict[str, float] = {}
        for artifact in artifacts:
            found |= read(self.store, self.manifest(artifact))
        if set(found) != set(persons):
            raise RuntimeError(f"{artifacts[0]}: {len(found)} scores for {len(persons)} pictures")
        ids = list(persons)
        member = np.array([record.startswith(f"{MEMBERS}/") for record in ids])
        return ScoreSet(ids, np.array([found[i] for i in ids]), member, [persons[i] for i in ids])

    def evidence(self, line: Line, persons: Mapping[str, str]) -> Evidence:
        base = self.score_set(list(line.base.values()), persons) if line.base else None
        return Evidence(line.attack, self.score_set(list(line.target.values()), persons), base, line.no_base)


SCORE_COLUMNS = ("attack", "id", "identity", "member", "score", "base_score", "blind_pictures", "blind_captions")


def scores_parquet(result: Result) -> bytes:
    """One row per attack and picture, the controls' scores beside it; what `lmia evaluate` and `--check` read."""
    columns: dict[str, list[Any]] = {name: [] for name in SCORE_COLUMNS}
    for name, one in result.evidence.items():
        count = len(one.target)
        columns["attack"] += [name] * count
        columns["id"] += list(one.target.ids)
        columns["identity"] += one.target.persons()
        columns["member"] += one.target.member.tolist()
        columns["score"] += one.target.scores.tolist()
        columns["base_score"] += [None] * count if one.base is None else one.base.scores.tolist()
        for what in ("pictures", "captions"):
            scores = result.blind.get(what)
            columns[f"blind_{what}"] += [None] * count if scores is None else scores.scores.tolist()
    kinds = {"attack": pa.string(), "id": pa.string(), "identity": pa.string(), "member": pa.bool_()}
    sink = io.BytesIO()
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in SCORE_COLUMNS])
    pq.write_table(pa.table(columns).cast(schema), sink, compression="zstd")
    return sink.getvalue()


def scores_of(data: bytes, no_base: Mapping[str, str | None]) -> tuple[list[Evidence], dict[str, ScoreSet]]:
    """Evidence and blind controls back from `scores_parquet`.

    Args:
        data: its bytes.
        no_base: by attack, why a base control has no meaning.

    Raises:
        RequestError: not such a table, or not of these attacks.
    """
    try:
        table = pq.read_table(io.BytesIO(data)).select(list(SCORE_COLUMNS)).to_pydict()
    except (pa.ArrowException, KeyError) as error:
        raise RequestError(f"scores.parquet: not the scores of an audit ({str(error).splitlines()[0]})") from None
    rows: dict[str, list[int]] = {}
    for at, name in enumerate(table["attack"]):
        rows.setdefault(name, []).append(at)
    if set(rows) != set(no_base):
        raise RequestError(f"scores.parquet: attacks {', '.join(map(str, rows))}, not {', '.join(no_base)}")

    def score_set(at: list[int], column: str) -> ScoreSet | None:
        values = [table[column][i] for i in at]
        if None in values:
            return None
        ids, people = [table["id"][i] for i in at], [table["identity"][i] for i in at]
        return ScoreSet(ids, np.array(values, float), np.array([table["member"][i] for i in at]), people)

    evidence = []
    for name, places in rows.items():
        target = score_set(places, "score")
        if target is None:
            raise RequestError(f"scores.parquet: {name} lacks scores")
        evidence.append(Evidence(name, target, score_set(places, "base_score"), no_base[name]))
    first = next(iter(rows.values()))
    blind = {what: score_set(first, f"blind_{what}") for what in ("pictures", "captions")}
    return evidence, {what: scores for what, scores in blind.items() if scores is not None}


def _attack(finding: Finding, cost: float) -> AttackRecord:
    controls = finding.controls
    (fpr, rate) = next(iter(finding.tpr.items()))
    why = {}
    if finding.p_value is None:
        why["set_p_value"] = "the sets are not known to be exchangeable"
    if controls.base_auc.value is None:
        why["base_auc"] = finding.no_base or controls.base_auc.note
    if not isinstance(rate, LowFpr):
        why["tpr"] = rate
    return AttackRecord(
        attack=finding.attack,
        access=ATTACKS.get(finding.attack)().access,
        auc=_measured(controls.auc),
        base_auc=_measured(controls.base_auc),
        over_chance=_measured(controls.over_chance),
        over_base=_measured(controls.over_base),
        over_blind=_measured(controls.over_blind),
        lower_limit=finding.limit,
        lower_limit_over=finding.against,
        set_p_value=finding.p_value,
        set_p_adjusted=finding.p_adjusted,
        tpr_at_fpr={fpr: _rate(rate) if isinstance(rate, LowFpr) else None},
        mde=finding.mde,
        found=finding.found,
        nfe=cost,
        no_base=finding.no_base,
        reason=why or None,
    )


def _rate(rate: LowFpr) -> Rate:
    return Rate(tpr=rate.tpr, ci=_pair(rate.ci), false_positives=rate.false_positives, note=rate.note)


def _measured(estimate: Estimate) -> Measured | None:
    return None if estimate.value is None else Measured(value=estimate.value, ci=_pair(estimate.interval))


def _pair(interval: Sequence[float] | None) -> tuple[float, float] | None:
    return None if interval is None else (interval[0], interval[1])
