"""AUCs and linear combinations of AUCs with what each person contributes to their sampling error.

An AUC is a two-sample U-statistic. DeLong's structural components say how much each picture moves it; summed over a
person's pictures they give Obuchowski's clustered variance (Obuchowski, Biometrics 1997; plain DeLong when every
picture is its own person). Every estimand of this package is a linear combination of AUCs on overlapping pictures,
so its influences are the same combination, and one covariance formula serves pairs of attacks, twins, controls and
worlds alike.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lmia.metrics.roc import placements
from lmia.metrics.scores import Scores, ScoreSet


@dataclass(frozen=True, eq=False)
class Statistic:
    """A number and what each person adds to it.

    Attributes:
        value: The estimate.
        persons: The persons, P of them, sorted or not, unique.
        effects: Stratum ("member", "nonmember", "half A", ...) -> float64 [P]: the contribution of the person's
            pictures in that stratum to value - expectation; sums to 0 over each stratum; 0 for persons elsewhere.
        nulls: The same with placements among one's own class: what the contributions would be if nothing leaked
            (same clustering, same correlation between twins), from which the minimum detectable effect is computed.
        sizes: Stratum -> number of its persons.
    """

    value: float
    persons: np.ndarray
    effects: dict[str, np.ndarray]
    nulls: dict[str, np.ndarray]
    sizes: dict[str, int]


def auc_statistic(scores: ScoreSet) -> Statistic:
    """The AUC of one score set, strata "member" and "nonmember"."""
    persons, (code,) = _codes([scores.persons()])
    high, low = scores.member, ~scores.member
    value, of_high, of_low = _contributions(scores.scores[high], scores.scores[low])
    return _summed(value, persons, [("member", code[high], *of_high), ("nonmember", code[low], *of_low)])


def two_sample(high: Scores, low: Scores, high_stratum: str, low_stratum: str) -> Statistic:
    """P(score of `high` > score of `low`) + P(equal) / 2, in O(n log n)."""
    value, of_high, of_low = _contributions(high.scores, low.scores)
    return from_rows(value, [(high_stratum, high.persons(), *of_high), (low_stratum, low.persons(), *of_low)])


def from_rows(value: float, rows: Iterable[tuple[str, Sequence[str], np.ndarray, np.ndarray]]) -> Statistic:
    """Sums contributions given per picture, (stratum, person [N], effect [N], null effect [N]), over persons."""
    rows = list(rows)
    persons, codes = _codes([who for _, who, _, _ in rows])
    return _summed(value, persons, [(r[0], code, r[2], r[3]) for r, code in zip(rows, codes, strict=True)])


def combine(terms: Sequence[tuple[float, Statistic]], value: float | None = None) -> Statistic:
    """The linear combination sum(weight * statistic); strata of one name are the same people's.

    Args:
        terms: Weights and statistics.
        value: The combined value, where it can be had more exactly than by adding floats.
    """
    persons, statistics = _on_one_list([statistic for _, statistic in terms])
    effects: dict[str, np.ndarray] = {}
    nulls: dict[str, np.ndarray] = {}
    sizes: dict[str, int] = {}
    for (weight, _), statistic in zip(terms, statistics, strict=True):
        for stratum in statistic.effects:
            effects[stratum] = effects.get(stratum, 0) + weight * statistic.effects[stratum]
            nulls[stratum] = nulls.get(stratum, 0) + weight * statistic.nulls[stratum]
            sizes[stratum] = max(sizes.get(stratum, 0), statistic.sizes[stratum])
    if value is None:
        value = sum(weight * statistic.value for weight, statistic in terms)
    return Statistic(value, persons, effects, nulls, sizes)


def covariance(statistics: Sequence[Statistic], *, null: bool = False) -> np.ndarray:
    """Covariance matrix [K, K] of statistics on overlapping people (Obuchowski's, eq. 5 and its paired form).

    A stratum of I persons carries the factor I / (I - 1), products across strata that of all persons together; NaN
    where a stratum has one person only, which says nothing about the spread between people.
    """
    persons, aligned = _on_one_list(statistics)
    num = len(persons)
    strata = sorted({stratum for statistic in aligned for stratum in statistic.effects})
    zero = np.zeros(num)
    by_stratum = {s: np.stack([(a.nulls if null else a.effects).get(s, zero) for a in aligned]) for s in strata}
    whole = np.sum(list(by_stratum.values()), axis=0)
    overall = num / (num - 1) if num > 1 else np.nan
    result = overall * (whole @ whole.T)
    for stratum, effect in by_stratum.items():
        size = max(a.sizes.get(stratum, 0) for a in aligned)
        factor = size / (size - 1) if size > 1 else np.nan
        result += (factor - overall) * (effect @ effect.T)
    return result


def degrees_of_freedom(statistics: Sequence[Statistic]) -> float:
    """Satterthwaite's degrees of freedom of the variance of the mean of `statistics`: V^2 / (Var(V) / 2).

    Each stratum's part of the variance is a sum of squares over its I persons. It has I - 1 degrees of freedom at
    most, and fewer where a few persons carry most of it (an AUC near 1 rests on the few who are on the wrong side):
    Var of a sum of squares is read off the fourth powers.
    """
    mean = combine([(1 / len(statistics), statistic) for statistic in statistics])
    total, spread = 0.0, 0.0
    for stratum, effect in mean.effects.items():
        size = mean.sizes[stratum]
        if size < 2:
            return 0.0
        part = float((effect**2).sum())
        uneven = (float((effect**4).sum()) - part**2 / size) * size / (size - 1) / 2
        total += part
        spread += max(part**2 / (size - 1), uneven)
    return total**2 / spread if spread > 0 else np.inf


def _contributions(
    high: np.ndarray, low: np.ndarray
) -> tuple[float, tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The AUC of `high` over `low`, and (effects, null effects) of either side's pictures."""
    m, n = high.size, low.size
    high_rank, low_rank = np.argsort(high), np.argsort(low)
    high_sorted, low_sorted = high[high_rank], low[low_rank]
    above = _back_in_order(placements(high_sorted, low_sorted, is_sorted=True), high_rank)
    below = 2 * m - _back_in_order(placements(low_sorted, high_sorted, is_sorted=True), low_rank)
    own_high = _back_in_order(placements(high_sorted, high_sorted, is_sorted=True), high_rank)
    own_low = 2 * n - _back_in_order(placements(low_sorted, low_sorted, is_sorted=True), low_rank)
    value = int(above.sum()) / (2 * m * n)
    of_high = (above / (2 * n) - value) / m, (own_high / (2 * m) - 0.5) / m
    of_low = (below / (2 * m) - value) / n, (own_low / (2 * n) - 0.5) / n
    return value, of_high, of_low


def _back_in_order(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Undoes a sort (queries are sorted because a million random look-ups in memory cost more than sorting)."""
    result = np.empty_like(values)
    result[order] = values
    return result


def _summed(
    value: float, persons: np.ndarray, rows: Iterable[tuple[str, np.ndarray, np.ndarray, np.ndarray]]
) -> Statistic:
    num = len(persons)
    effects: dict[str, np.ndarray] = {}
    nulls: dict[str, np.ndarray] = {}
    present: dict[str, np.ndarray] = {}
    for stratum, code, effect, null in rows:
        effects[stratum] = effects.get(stratum, 0) + np.bincount(code, effect, num)
        nulls[stratum] = nulls.get(stratum, 0) + np.bincount(code, null, num)
        present[stratum] = present.get(stratum, False) | (np.bincount(code, minlength=num) > 0)
    return Statistic(value, persons, effects, nulls, {stratum: int(mask.sum()) for stratum, mask in present.items()})


def _codes(groups: Sequence[Sequence[str]]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Unique persons over all groups, and per group the persons' positions in that list."""
    everyone = [person for group in groups for person in group]
    place = dict.fromkeys(everyone)
    if len(place) == len(everyone):  # one picture a person: nothing to look up, which a million pictures notice
        ends = np.cumsum([0, *map(len, groups)])
        codes = [np.arange(start, stop) for start, stop in itertools.pairwise(ends)]
    else:
        place = {person: code for code, person in enumerate(place)}
        codes = [np.fromiter(map(place.__getitem__, group), np.int64, len(group)) for group in groups]
    persons = np.empty(len(place), dtype=object)
    persons[:] = list(place)
    return persons, codes


def _on_one_list(statistics: Sequence[Statistic]) -> tuple[np.ndarray, list[Statistic]]:
    first = statistics[0].persons
    if all(s.persons is first or np.array_equal(s.persons, first) for s in statistics[1:]):
        return first, list(statistics)
    persons, index = _codes([s.persons.tolist() for s in statistics])
    num = len(persons)

    def spread(values: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
        wide = {}
        for stratum, effect in values.items():
            wide[stratum] = np.zeros(num)
            wide[stratum][rows] = effect
        return wide

    return persons, [
        Statistic(s.value, persons, spread(s.effects, rows), spread(s.nulls, rows), s.sizes)
        for s, rows in zip(statistics, index, strict=True)
    ]
