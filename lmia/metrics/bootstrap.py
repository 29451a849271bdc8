"""Resampling people (both classes) for the numbers that have no variance formula, and people x worlds as a check.

A replicate draws persons with replacement, within each pattern of classes (members, non-members), so a picture's
weight is how often its person was drawn. Scores are sorted once; a replicate is a cumulative sum of weights.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lmia.metrics.estimates import LEVEL, Estimate
from lmia.metrics.roc import allowed_false_positives, auc
from lmia.metrics.scores import ScoreSet
from lmia.seeds import rng as seeded

CHUNK = 4_000_000  # weights held at once (float32: 16 MB)


class People(NamedTuple):
    """The persons behind one or several score sets.

    Attributes:
        strata: Per stratum (persons who are on the same sides in every set) the persons' numbers.
        codes: Per set the number of each picture's person.
    """

    strata: list[np.ndarray]
    codes: list[np.ndarray]


def people_of(sets: Sequence[ScoreSet]) -> People:
    """Persons, recognised across sets by name, grouped by the sides they are on."""
    place: dict[str, int] = {}
    codes = [np.array([place.setdefault(p, len(place)) for p in s.persons()], dtype=np.int64) for s in sets]
    num = len(place)
    sides = np.zeros((num, 2 * len(sets)), dtype=bool)
    for k, (s, code) in enumerate(zip(sets, codes, strict=True)):
        sides[code[s.member], 2 * k] = True
        sides[code[~s.member], 2 * k + 1] = True
    _, pattern = np.unique(sides, axis=0, return_inverse=True)
    pattern = pattern.reshape(-1)
    return People([np.flatnonzero(pattern == p) for p in range(pattern.max() + 1)], codes)


def draw_weights(strata: Sequence[np.ndarray], num: int, rng: np.random.Generator) -> np.ndarray:
    """float32 [num, P]: how often each person is drawn when each stratum is resampled to its own size."""
    total = sum(len(s) for s in strata)
    weights = np.zeros((num, total), dtype=np.float32)
    offset = np.arange(num)[:, None]
    for persons in strata:
        size = len(persons)
        drawn = rng.integers(size, size=(num, size)) + offset * size
        weights[:, persons] = np.bincount(drawn.ravel(), minlength=num * size).reshape(num, size)
    return weights


def auc_replicates(sets: Sequence[ScoreSet], num: int, rng: np.random.Generator) -> np.ndarray:
    """float64 [num, sets]: AUC in each bootstrap replicate, people shared between sets."""
    people = people_of(sets)
    sorters = [_AucSorter(s, code) for s, code in zip(sets, people.codes, strict=True)]
    num_people = sum(len(s) for s in people.strata)
    step = max(1, CHUNK // max(num_people, *(len(s) for s in sets)))
    result = np.empty((num, len(sets)))
    for start in range(0, num, step):
        weights = draw_weights(people.strata, min(step, num - start), rng)
        for k, sorter in enumerate(sorters):
            result[start : start + step, k] = sorter.auc(weights)
    return result


def crossed_bootstrap(
    worlds: Sequence[Sequence[ScoreSet]], *, replicates: int = 2_000, seed: int = 0, level: float = LEVEL
) -> Estimate:
    """Mean AUC over worlds with the percentile interval of a bootstrap that resamples people and worlds, crossed.

    A check on `worlds.over_worlds`, not a substitute: K worlds drawn from K have (K - 1) / K of their spread, and the
    noise of one picture in one world is counted more than once, so few worlds make it too narrow and many too wide.

    Args:
        worlds: Per world the targets' score sets (one, or two twins, whose AUCs are averaged).
        replicates: Bootstrap replicates.
        seed: Of the bootstrap.
        level: Coverage aimed at.
    """
    sets = [s for world in worlds for s in world]
    owner = np.repeat(np.arange(len(worlds)), [len(world) for world in worlds])
    averaging = np.array([(owner == k) / (owner == k).sum() for k in range(len(worlds))])
    generator = seeded("crossed_bootstrap", seed)
    per_world = auc_replicates(sets, replicates, generator) @ averaging.T
    drawn = draw_weights([np.arange(len(worlds))], replicates, generator) / len(worlds)
    means = (per_world * drawn).sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    value = float((averaging @ np.array([auc(s.scores, s.member) for s in sets])).mean())
    method = f"crossed bootstrap over people and {len(worlds)} worlds, percentiles"
    se = float(means.std(ddof=1))
    return Estimate(value, float(low), float(high), se, method, num_worlds=len(worlds), level=level)


def tpr_replicates(
    sets: Sequence[ScoreSet], fprs: Sequence[float], num: int, rng: np.random.Generator, people: People | None = None
) -> np.ndarray:
    """float64 [num, sets, fprs]: max{TPR : FPR <= fpr} in each bootstrap replicate, people shared between sets."""
    people = people or people_of(sets)
    sorters = [_TprSorter(s, code) for s, code in zip(sets, people.codes, strict=True)]
    num_people = sum(len(s) for s in people.strata)
    step = max(1, CHUNK // max(num_people, *(len(s) for s in sets)))
    result = np.empty((num, len(sets), len(fprs)))
    for start in range(0, num, step):
        weights = draw_weights(people.strata, min(step, num - start), rng)
        for k, sorter in enumerate(sorters):
            result[start : start + step, k] = sorter.tpr(weights, fprs)
    return result


def tpr_replicates_unclustered(
    scores: ScoreSet, fprs: Sequence[float], num: int, rng: np.random.Generator
) -> np.ndarray:
    """The same distribution as `tpr_replicates` when each picture is its own person, at O(1) a replicate.

    The (k + 1)-th highest of n draws with replacement is the non-member whose rank is ceil(n * U), U the (k + 1)-th
    lowest of n uniforms, which is Beta(k + 1, n - k); the accepted members are then binomial.
    """
    member = np.sort(scores.scores[scores.member])
    negative = np.sort(scores.scores[~scores.member])[::-1]
    n, m = negative.size, member.size
    result = np.ones((num, 1, len(fprs)))
    for j, fpr in enumerate(fprs):
        k = allowed_false_positives(fpr, n)
        if k >= n:
            continue
        rank = np.ceil(n * rng.beta(k + 1, n - k, size=num)).astype(np.int64)
        threshold = negative[np.clip(rank, 1, n) - 1]
        accepted = m - np.searchsorted(member, threshold, "right")
        result[:, 0, j] = rng.binomial(m, accepted / m) / m
    return result


class _AucSorter:
    """One set's scores, sorted once: a weighted Mann-Whitney count per replicate."""

    def __init__(self, scores: ScoreSet, code: np.ndarray):
        order = np.argsort(scores.scores, kind="stable")
        member = scores.member[order]
        ordered = scores.scores[order]
        self.member_code = code[order][member]
        self.negative_code = code[order][~member]
        self.below = np.searchsorted(ordered[~member], ordered[member], "left")
        self.not_above = np.searchsorted(ordered[~member], ordered[member], "right")

    def auc(self, weights: np.ndarray) -> np.ndarray:
        """float64 [B] for person weights [B, P]."""
        positive = weights[:, self.member_code]
        negative = np.zeros((len(weights), len(self.negative_code) + 1), dtype=np.float32)
        np.cumsum(weights[:, self.negative_code], axis=1, out=negative[:, 1:])
        wins = negative[:, self.below] + negative[:, self.not_above]
        twice = np.einsum("bm,bm->b", positive, wins, dtype=np.float64)
        return twice / (2 * positive.sum(axis=1, dtype=np.float64) * negative[:, -1].astype(np.float64))


class _TprSorter:
    """One set's scores, sorted once, so that a replicate costs cumulative sums only."""

    def __init__(self, scores: ScoreSet, code: np.ndarray):
        order = np.argsort(-scores.scores, kind="stable")
        member = scores.member[order]
        self.member_code = code[order][member]
        self.negative_code = code[order][~member]
        falling = -scores.scores[order]
        # Members strictly above each non-member, in falling order of score.
        self.above = np.searchsorted(falling[member], falling[~member], "left")

    def tpr(self, weights: np.ndarray, fprs: Sequence[float]) -> np.ndarray:
        """float64 [B, fprs] for person weights [B, P] (whole numbers, so float32 sums are exact)."""
        rows = np.arange(len(weights))
        num = len(self.negative_code)
        total_negative = weights @ np.bincount(self.negative_code, minlength=weights.shape[1]).astype(np.float32)
        total_positive = weights @ np.bincount(self.member_code, minlength=weights.shape[1]).astype(np.float32)
        # The threshold lies among the highest non-members: sum over these only, and over more when a draw needs it.
        head = min(num, int(4 * max(fprs) * num) + 64)
        limit = np.floor(np.outer(total_negative.astype(np.float64), fprs) + 1e-9)
        negative = np.cumsum(weights[:, self.negative_code[:head]], axis=1)
        if head < num and (negative[:, -1] <= limit.max(axis=1)).any():
            negative = np.cumsum(weights[:, self.negative_code], axis=1)
        first = np.stack([(negative <= limit[:, [j]]).sum(axis=1) for j in range(len(fprs))], axis=1)
        # Members above the first non-member at which FPR would exceed its bound are accepted.
        accepted = np.append(self.above, len(self.member_code))[first]
        reach = int(accepted.max())
        positive = np.zeros((len(weights), reach + 1), dtype=np.float32)
        np.cumsum(weights[:, self.member_code[:reach]], axis=1, out=positive[:, 1:])
        return positive[rows[:, None], accepted].astype(np.float64) / total_positive[:, None]
