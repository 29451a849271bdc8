"""TPR at a bounded FPR with its interval, for one world or several.

One world: the bootstrap over people of both classes, because the threshold is estimated too. Clopper-Pearson on the
members alone is also given and says so ("given this threshold"): it covers about .53 where .95 is printed.
Several worlds: Obuchowski-Rockette with covariances from that same bootstrap, as for AUCs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmia.metrics.bootstrap import people_of, tpr_replicates, tpr_replicates_unclustered
from lmia.metrics.estimates import LEVEL, Estimate, clopper_pearson, on_scale
from lmia.metrics.roc import FPRS, tpr_at_fpr
from lmia.metrics.scores import ScoreSet
from lmia.metrics.worlds import FEW_WORLDS
from lmia.seeds import rng

REPLICATES = 2_000


@dataclass(frozen=True)
class LowFpr:
    """TPR at one FPR.

    Attributes:
        tpr: max{TPR : FPR <= a}, mean over worlds.
        ci: 95 % interval over people of both classes (and over worlds, where there are several).
        ci_given_threshold: Clopper-Pearson given this threshold (one world only): ignores that it was estimated.
        true_positives: Members accepted, summed over worlds.
        false_positives: Non-members accepted, summed over worlds.
        fpr: Realised FPR, mean over worlds.
        threshold: Scores above it are accepted (one world only).
        method: How `ci` was computed.
        note: Flags for the reader.
    """

    tpr: float
    ci: list[float] | None
    ci_given_threshold: list[float] | None
    true_positives: int
    false_positives: int
    fpr: float
    threshold: float | None
    method: str
    note: str


def low_fpr(
    worlds: Sequence[Sequence[ScoreSet]],
    fprs: Sequence[float] = FPRS,
    *,
    people: str = "matched",
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, LowFpr | str]:
    """TPR at each FPR; where it is refused (FPR below 1/N) the reason stands in its place.

    Args:
        worlds: Per world the targets' score sets (one, or two twins, whose TPRs are averaged).
        fprs: Bounds on the FPR.
        people: As in `over_worlds`.
        replicates: Bootstrap replicates.
        seed: Of the bootstrap.
    """
    sets = [s for world in worlds for s in world]
    owner = np.repeat(np.arange(len(worlds)), [len(world) for world in worlds])
    points = {fpr: [tpr_at_fpr(s.scores, s.member, fpr) for s in sets] for fpr in fprs}
    result: dict[str, LowFpr | str] = {
        f"{fpr:g}": next(p.note for p in found if p.tpr is None)
        for fpr, found in points.items()
        if any(p.tpr is None for p in found)
    }
    wanted = [fpr for fpr in fprs if f"{fpr:g}" not in result]
    draws = _draws(sets, wanted, people, replicates, seed)
    averaging = np.array([(owner == k) / (owner == k).sum() for k in range(len(worlds))])
    for j, fpr in enumerate(wanted):
        found = points[fpr]
        values = averaging @ np.array([p.tpr for p in found], dtype=np.float64)
        ci, method, note = _interval(values, draws[:, :, j] @ averaging.T, people)
        notes = sorted({p.note for p in found if p.note} | ({note} if note else set()))
        true, false = sum(p.true_positives or 0 for p in found), sum(p.false_positives or 0 for p in found)
        alone = len(found) == 1
        result[f"{fpr:g}"] = LowFpr(
            tpr=float(values.mean()),
            ci=ci,
            ci_given_threshold=list(clopper_pearson(true, sets[0].num_members)) if alone else None,
            true_positives=true,
            false_positives=false,
            fpr=float(np.mean([(p.false_positives or 0) / s.num_nonmembers for p, s in zip(found, sets, strict=True)])),
            threshold=found[0].threshold if alone else None,
            method=method,
            note="; ".join(notes),
        )
    return {f"{fpr:g}": result[f"{fpr:g}"] for fpr in fprs}


def _draws(sets: Sequence[ScoreSet], fprs: Sequence[float], people: str, num: int, seed: int) -> np.ndarray:
    generator = rng("tpr_at_fpr", seed)
    if not fprs:
        return np.empty((num, len(sets), 0))
    if people == "unknown":  # nobody is recognised: each set is resampled by itself
        return np.concatenate([_draws([s], fprs, "matched", num, seed + k) for k, s in enumerate(sets)], axis=1)
    found = people_of(sets)
    if len(sets) == 1 and found.unclustered:
        return tpr_replicates_unclustered(sets[0], fprs, num, generator)
    return tpr_replicates(sets, fprs, num, generator, found)


def _interval(values: np.ndarray, draws: np.ndarray, people: str) -> tuple[list[float] | None, str, str]:
    num = len(values)
    if num == 1:
        low, high = np.quantile(draws[:, 0], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return [float(low), float(high)], "percentile bootstrap over people of both classes", ""
    value = float(values.mean())
    matrix = np.cov(draws.T)
    shared = np.trace(matrix) / num if people == "unknown" else (matrix.sum() - np.trace(matrix)) / (num * (num - 1))
    between = float(values.var(ddof=1)) / num
    variance = between + max(float(shared), 0.0)
    method = f"Obuchowski-Rockette over {num} worlds, covariances from a bootstrap over people"
    few = f"few worlds ({num})" if num < FEW_WORLDS else ""
    if not 0 < value < 1 or variance <= 0:
        return None, method, f"no interval: every world has TPR {value:g}"
    df = variance**2 / (between**2 / (num - 1)) if between > 0 else math.inf
    centre, spread = on_scale(value, variance, "logit")
    estimate = Estimate(value, None, None, math.sqrt(variance), method, few, df, "logit", num, LEVEL, centre, spread)
    return estimate.with_interval().interval, method, few
