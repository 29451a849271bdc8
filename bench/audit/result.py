"""An audit's scores read back from the store and judged; scores as Parquet, metrics as JSON."""

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.artifacts.artifact import Artifact
from bench.audit.plan import AuditPlan, Line
from bench.audit.request import MEMBERS
from bench.driver import Outcome, revision
from bench.stages.scores import read
from bench.store import Entry, Manifest, Store
from lmia.attacks import ATTACKS
from lmia.data.pictures import Pictures
from lmia.metrics.estimates import Estimate
from lmia.metrics.low_fpr import LowFpr
from lmia.metrics.scores import ScoreSet
from lmia.metrics.sets import PowerCurve, power_curve
from lmia.metrics.verdict import Evidence, Finding, Verdict, conclude

SCHEMA_VERSION = 1


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
        power: how many people the strongest attack needs; None unless a leak was found.
        numerics: classes of machines that computed.
        costs: evaluations per picture by attack.
        jobs: jobs that were done for it by this run.
        seconds: wall time of this run.
    """

    plan: AuditPlan
    verdict: Verdict
    evidence: dict[str, Evidence]
    pictures: Pictures
    failed: dict[str, str]
    power: PowerCurve | None
    numerics: tuple[str, ...]
    costs: dict[str, float]
    jobs: int = 0
    seconds: float = 0.0
    made_at: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    revision: str = field(default_factory=revision)

    def finding(self, attack: str) -> Finding:
        """What one attack says."""
        return next(f for f in self.verdict.findings if f.attack == attack)


def result(plan: AuditPlan, store: Store, outcome: Outcome) -> Result:
    """Reads what was made and judges it.

    Args:
        plan: the audit.
        store: where its artifacts are.
        outcome: what became of making them.

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
    audit = plan.audit
    verdict = conclude(
        list(evidence.values()),
        blind,
        fpr=audit.picture_fpr,
        alpha=audit.alpha,
        random_split=audit.random_split,
        seed=audit.seed,
    )
    best = evidence[verdict.findings[0].attack].target
    power = power_curve(best.members(), best.nonmembers(), seed=audit.seed) if verdict.outcome == "leak" else None
    costs = {line.attack: float(line.target[MEMBERS].spec.attack.nfe) for line in plan.lines if line.attack in evidence}
    return Result(
        plan=plan,
        verdict=verdict,
        evidence=evidence,
        pictures=pictures,
        failed=broken,
        power=power,
        numerics=tuple(sorted(reader.numerics)),
        costs=costs,
        jobs=outcome.made,
        seconds=outcome.seconds,
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


def scores_parquet(result: Result) -> bytes:
    """One row per attack and picture: `attack, id, identity, member, score, base_score`; what `lmia evaluate` reads."""
    columns: dict[str, list[Any]] = {k: [] for k in ("attack", "id", "identity", "member", "score", "base_score")}
    for name, one in result.evidence.items():
        count = len(one.target)
        columns["attack"] += [name] * count
        columns["id"] += list(one.target.ids)
        columns["identity"] += one.target.persons()
        columns["member"] += one.target.member.tolist()
        columns["score"] += one.target.scores.tolist()
        columns["base_score"] += [None] * count if one.base is None else one.base.scores.tolist()
    sink = io.BytesIO()
    table = pa.table(columns).cast(
        pa.schema(
            [
                ("attack", pa.string()),
                ("id", pa.string()),
                ("identity", pa.string()),
                ("member", pa.bool_()),
                ("score", pa.float64()),
                ("base_score", pa.float64()),
            ]
        )
    )
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def metrics(result: Result) -> dict[str, Any]:
    """Everything that was concluded, as JSON values; what could not be computed is null with its reason beside it."""
    verdict, plan = result.verdict, result.plan
    target = next(iter(result.evidence.values())).target
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": verdict.outcome,
        "reasons": list(verdict.reasons),
        "remedies": list(verdict.remedies),
        "picture_level": verdict.picture_level,
        "alpha": verdict.alpha,
        "mde": verdict.mde,
        "people_needed": None if result.power is None else result.power.smallest,
        "num_members": target.num_members,
        "num_nonmembers": target.num_nonmembers,
        "num_identities": len(set(target.persons())),
        "blind": {what: _estimate(estimate) for what, estimate in verdict.blind.items()},
        "attacks": [_attack(result, finding) for finding in verdict.findings],
        "left_out": plan.left_out,
        "failed": result.failed,
        "request": plan.audit.model_dump(mode="json"),
        "size_px": plan.size,
        "provenance": {"revision": result.revision, "made_at": result.made_at, "numerics": list(result.numerics)},
    }


def _attack(result: Result, finding: Finding) -> dict[str, Any]:
    controls = finding.controls
    (fpr, rate) = next(iter(finding.tpr.items()))
    why = {}
    if finding.p_value is None:
        why["set_p_value"] = "the sets are not known to be exchangeable"
    if controls.base_auc.value is None:
        why["base_auc"] = finding.no_base or controls.base_auc.note
    if not isinstance(rate, LowFpr):
        why["tpr"] = rate
    return {
        "attack": finding.attack,
        "access": ATTACKS.get(finding.attack)().access,
        "auc": _estimate(controls.auc),
        "base_auc": _estimate(controls.base_auc),
        "over_chance": _estimate(controls.over_chance),
        "over_base": _estimate(controls.over_base),
        "over_blind": _estimate(controls.over_blind),
        "lower_limit": finding.limit,
        "lower_limit_over": finding.against,
        "set_p_value": finding.p_value,
        "set_p_adjusted": finding.p_adjusted,
        "tpr_at_fpr": {
            fpr: {"tpr": rate.tpr, "ci": rate.ci, "false_positives": rate.false_positives, "note": rate.note}
            if isinstance(rate, LowFpr)
            else None
        },
        "mde": finding.mde,
        "found": finding.found,
        "nfe": result.costs[finding.attack],
        "reason": why or None,
    }


def _estimate(estimate: Estimate) -> dict[str, Any] | None:
    return None if estimate.value is None else {"value": estimate.value, "ci": estimate.interval}
