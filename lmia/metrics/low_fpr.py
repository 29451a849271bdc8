"""TPR at a bounded FPR with its interval, for one world or several.

One world: the bootstrap over people of both classes, because the threshold is estimated too. Where it rests on too few
people (threshold or members) it does not cover, and the exact joint interval is shown instead: an order-statistic
interval of the threshold and a Clopper-Pearson interval at either end, a quarter of the error each. Clopper-Pearson on
the members alone is also given and says so ("given this threshold"): it covers about .53 where .95 is printed.
Several worlds: Obuchowski-Rockette with covariances from that same bootstrap, as for AUCs; where a world has too few
people, the mean of the worlds' own exact intervals, widened by the spread between worlds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from lmia.metrics.bootstrap import tpr_replicates, tpr_replicates_unclustered
from lmia.metrics.estimates import LEVEL, Estimate, clopper_pearson, on_scale, pairs_interval, t_quantile
from lmia.metrics.roc import FPRS, tpr_at_fpr
from lmia.metrics.scores import ScoreSet
from lmia.metrics.worlds import FEW_WORLDS
from lmia.seeds import rng

REPLICATES = 2_000
FEW_FALSE_POSITIVES = 5  # people's worth: below, a bootstrap of the threshold jumps between a few scores
FEW_MEMBERS = 3  # people's worth of members on the smaller side of the threshold


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
        f"{fpr:g}": found[min(range(len(sets)), key=lambda i: sets[i].num_nonmembers)].note
        for fpr, found in points.items()
        if any(p.tpr is None for p in found)
    }
    wanted = [fpr for fpr in fprs if f"{fpr:g}" not in result]
    draws = _draws(sets, wanted, people, replicates, seed)
    persons = [_num_persons(s) for s in sets]
    averaging = np.array([(owner == k) / (owner == k).sum() for k in range(len(worlds))])
    for j, fpr in enumerate(wanted):
        found = points[fpr]
        values = averaging @ np.array([p.tpr for p in found], dtype=np.float64)
        ci: list[float] | None
        if any(_few(count, point.tpr or 0.0, fpr) for count, point in zip(persons, found, strict=True)):
            exact = [joint_interval(s, fpr) for s in sets]
            ci, method, note = _widened(values, averaging @ np.array(exact))
        else:
            ci, method, note = _interval(values, draws[:, :, j] @ averaging.T, people)
        scarce = min(range(len(sets)), key=lambda i: sets[i].num_nonmembers)
        notes = [text for text in (found[scarce].note, note) if text]
        true, false = sum(p.true_positives or 0 for p in found), sum(p.false_positives or 0 for p in found)
        single = len(found) == 1
        result[f"{fpr:g}"] = LowFpr(
            tpr=float(values.mean()),
            ci=ci,
            ci_given_threshold=list(clopper_pearson(true, sets[0].num_members)) if single else None,
            true_positives=true,
            false_positives=false,
            fpr=float(np.mean([(p.false_positives or 0) / s.num_nonmembers for p, s in zip(found, sets, strict=True)])),
            threshold=found[0].threshold if single else None,
            method=method,
            note="; ".join(notes),
        )
    return {f"{fpr:g}": result[f"{fpr:g}"] for fpr in fprs}


def joint_interval(scores: ScoreSet, fpr: float, level: float = LEVEL) -> tuple[float, float]:
    """Exact interval of the TPR at the threshold whose population FPR is `fpr`, whatever the scores' distribution.

    The number of non-members above that threshold is binomial, which bounds it by two order statistics; the members
    above these are binomial too. Each of the four one-sided errors gets a quarter (Bonferroni), so it covers at least
    `level` for independent pictures. With several pictures a person, ranks and shares are taken over pictures but
    counted in persons, as if a person had one picture.
    """
    tail = (1 - level) / 4
    members = scores.scores[scores.member]
    num_members, num = _num_persons(scores)
    falling = np.sort(scores.scores[~scores.member])[::-1]
    counts = np.arange(num + 1)
    highest = int(np.searchsorted(special.bdtr(counts, num, fpr), tail))
    lowest = int((special.bdtrc(counts, num, fpr) > tail).sum()) + 1
    low, high = 0.0, 1.0
    if highest > 0:
        above = float((members > falling[_rank(highest, num, falling.size)]).mean())
        low = pairs_interval(above, num_members, 1 - 2 * tail)[0]
    if lowest <= num:
        above = float((members >= falling[_rank(lowest, num, falling.size)]).mean())
        high = pairs_interval(above, num_members, 1 - 2 * tail)[1]
    return low, high


def _num_persons(scores: ScoreSet) -> tuple[int, int]:
    """Persons among members and among non-members."""
    if scores.identity is None:
        return scores.num_members, scores.num_nonmembers
    return len(set(scores.members().persons())), len(set(scores.nonmembers().persons()))


def _rank(person: int, num_persons: int, num_pictures: int) -> int:
    return min(math.ceil(person * num_pictures / num_persons), num_pictures) - 1


def _few(persons: tuple[int, int], tpr: float, fpr: float) -> bool:
    num_members, num_negative = persons
    return fpr * num_negative < FEW_FALSE_POSITIVES or min(tpr, 1 - tpr) * num_members < FEW_MEMBERS


def _widened(values: np.ndarray, limits: np.ndarray) -> tuple[list[float], str, str]:
    """The worlds' own intervals [K, 2] averaged (they share their people), worlds' spread added in quadrature."""
    num, value = len(values), float(values.mean())
    below, above = value - float(limits[:, 0].mean()), float(limits[:, 1].mean()) - value
    method, note = "exact: order statistics of the threshold x Clopper-Pearson", "few people: exact interval"
    if num > 1:
        half = t_quantile((1 + LEVEL) / 2, num - 1) * float(values.std(ddof=1)) / math.sqrt(num)
        below, above = math.hypot(below, half), math.hypot(above, half)
        method += f", averaged over {num} worlds, their spread added"
    return [max(value - below, 0.0), min(value + above, 1.0)], method, note


def _draws(sets: Sequence[ScoreSet], fprs: Sequence[float], people: str, num: int, seed: int) -> np.ndarray:
    generator = rng("tpr_at_fpr", seed)
    if not fprs:
        return np.empty((num, len(sets), 0))
    if people == "unknown":  # nobody is recognised: each set is resampled by itself
        return np.concatenate([_draws([s], fprs, "matched", num, seed + k) for k, s in enumerate(sets)], axis=1)
    if len(sets) == 1 and sum(_num_persons(sets[0])) == len(sets[0]):
        return tpr_replicates_unclustered(sets[0], fprs, num, generator)
    return tpr_replicates(sets, fprs, num, generator)


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
