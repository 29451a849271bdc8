"""Set level: was this set of people used? A suspected set against a known-unseen set of the same source.

People are the unit: a person's pictures are pooled first, then persons are permuted. The p-value means something only
where suspected and unseen people are exchangeable under "not used", which two sources never are.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from lmia.metrics.scores import Scores
from lmia.seeds import rng
from lmia.specs import RequestError

PERMUTATIONS = 9_999
CHUNK = 2_000_000


@dataclass(frozen=True)
class PowerCurve:
    """Power of the Welch test against the number of suspected people, by resampling observed people.

    Attributes:
        sizes: Numbers of suspected persons.
        power: Share of resampled sets with p below alpha, per size.
        alpha: Level of the test.
        smallest: Smallest size with the power asked for; None where none up to the largest tried has it.
        note: Why `smallest` is None.
    """

    sizes: list[int]
    power: list[float]
    alpha: float
    smallest: int | None
    note: str


def set_p_value(suspected: Scores, unseen: Scores, *, permutations: int = PERMUTATIONS, seed: int = 0) -> float:
    """One-sided permutation p-value of "suspected people score higher than unseen ones".

    The statistic is the difference of the mean person scores; persons are permuted between the two sets, all ways
    where these are fewer than `permutations`. Exact: under the null P(p <= a) <= a.

    Raises:
        RequestError: A person is in both sets.
    """
    high, low = _two_groups(suspected, unseen)
    values = np.concatenate([high, low])
    n = high.size
    # With the total fixed, the difference of means grows with the sum over the suspected set.
    observed = math.fsum(high)
    slack = 1e-9 * max(float(np.abs(values).sum()), 1e-300)
    if math.comb(values.size, n) <= permutations:
        sums = [math.fsum(c) for c in itertools.combinations(values.tolist(), n)]
        return sum(s >= observed - slack for s in sums) / len(sums)
    generator = rng("set_p_value", seed)
    step = max(1, CHUNK // values.size)
    reached = 0
    for start in range(0, permutations, step):
        keys = generator.random((min(step, permutations - start), values.size))
        chosen = np.argpartition(keys, n - 1, axis=1)[:, :n]
        reached += int((values[chosen].sum(axis=1) >= observed - slack).sum())
    return (1 + reached) / (1 + permutations)


def power_curve(
    suspected: Scores,
    unseen: Scores,
    sizes: Sequence[int] = (2, 5, 10, 20, 50, 100, 200, 500, 1000),
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    draws: int = 2_000,
    seed: int = 0,
) -> PowerCurve:
    """How large must the suspected set be? Welch's test on resampled people, the unseen set at its own size.

    Args:
        suspected: Scores of people known to have been used.
        unseen: Scores of people known not to have been.
        sizes: Numbers of suspected persons tried (2 at least); `smallest` is searched between them.
        alpha: Level of the test.
        power: Asked of `smallest`.
        draws: Resampled sets a size.
        seed: Of the resampling.
    """
    high, low = _two_groups(suspected, unseen)
    if min(high.size, low.size) < 2:
        raise RequestError("power curve: at least two persons are needed on each side")
    sizes = sorted({int(size) for size in sizes})
    if not sizes or sizes[0] < 2:
        raise RequestError(f"sizes = {sizes}: each must be at least 2")

    def power_of(size: int) -> float:
        generator = rng("power_curve", seed, size)
        rejected, done, step = 0, 0, max(1, CHUNK // (size + low.size))
        while done < draws:
            batch = min(step, draws - done)
            p = _welch(
                high[generator.integers(high.size, size=(batch, size))],
                low[generator.integers(low.size, size=(batch, low.size))],
            )
            rejected += int((p <= alpha).sum())
            done += batch
        return rejected / draws

    curve = [power_of(size) for size in sizes]
    first = next((i for i, reached in enumerate(curve) if reached >= power), None)
    if first is None:
        note = f"power {power:g} at level {alpha:g} is not reached with {sizes[-1]} people"
        return PowerCurve(sizes, curve, alpha, None, note)
    below, enough = (sizes[first - 1] if first else 1), sizes[first]
    while enough - below > 1:
        middle = (below + enough) // 2
        below, enough = (below, middle) if power_of(middle) >= power else (middle, enough)
    return PowerCurve(sizes, curve, alpha, enough, "")


def _two_groups(suspected: Scores, unseen: Scores) -> tuple[np.ndarray, np.ndarray]:
    (high_names, high), (low_names, low) = _pooled(suspected), _pooled(unseen)
    shared = sorted(set(high_names) & set(low_names))
    if shared:
        raise RequestError(f"identity: people in both the suspected and the unseen set: {', '.join(shared[:5])}")
    return high, low


def _pooled(scores: Scores) -> tuple[list[str], np.ndarray]:
    persons = scores.persons()
    names = sorted(set(persons))
    place = {name: row for row, name in enumerate(names)}
    code = np.array([place[p] for p in persons])
    return names, np.bincount(code, scores.scores) / np.bincount(code)


def _welch(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """One-sided p-values [B] of Welch's test for samples [B, n] and [B, m]."""
    a, b = high.var(axis=1, ddof=1) / high.shape[1], low.var(axis=1, ddof=1) / low.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (high.mean(axis=1) - low.mean(axis=1)) / np.sqrt(a + b)
        df = (a + b) ** 2 / (a**2 / (high.shape[1] - 1) + b**2 / (low.shape[1] - 1))
    return special.stdtr(df, -t)
