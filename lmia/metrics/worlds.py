"""One or several worlds to one estimate.

One world (one target, or one pair of twins): Obuchowski's variance, Student t with Satterthwaite's degrees of freedom
from the number of persons; the interval speaks of *these* models and of people like these.

Several worlds that score the same people: seeds and people are crossed. The Obuchowski-Rockette analysis with
Hillis' degrees of freedom (Hillis, Statistics in Medicine 2007 and 2014), a world in the part of a reader:
Var(mean) = s^2 / K + Cov, where s^2 is the variance between the K worlds' values and Cov the mean covariance of two
worlds through the people they share. The interval then speaks of new training runs and of new people.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lmia.metrics.estimates import LEVEL, NEAR, Estimate, mde, on_scale, zero_of
from lmia.metrics.influence import Statistic, covariance, degrees_of_freedom

FEW_PERSONS = 20
FEW_WORLDS = 5
EDGE = 0.15  # persons' worth of errors below which an interval near 0 or 1 is widened to the exact one from pairs
TINY = 1e-24  # variances below are rounding


def over_worlds(
    statistics: Sequence[Statistic], scale: str, *, level: float = LEVEL, people: str = "matched"
) -> Estimate:
    """The mean of a statistic over worlds with its interval, or the one world's.

    Args:
        statistics: One per world.
        scale: "logit", "delta" or "linear".
        level: Coverage.
        people: "matched": people are recognised across worlds by name. "unknown": they cannot be, so every pair of
            worlds is taken to share all of its people's variation, which can only widen the interval.
    """
    num = len(statistics)
    values = np.array([s.value for s in statistics])
    value = float(values.mean()) if num > 1 else float(statistics[0].value)
    small = [f"{size} in {name}" for name, size in sorted(_sizes(statistics).items()) if size < 2]
    method, notes = _method(statistics, num, people)
    base = Estimate(value, None, None, None, method, "", math.inf, scale, num, level)
    if small:
        return replace(base, note=f"no interval: too few persons ({', '.join(small)})")
    matrix = covariance(statistics)
    pictures = _shared(matrix, people)
    between = float(values.var(ddof=1)) / num if num > 1 else 0.0
    variance = between + pictures
    if _at_edge(value, scale) or variance <= TINY:
        low, high, exact, note = _degenerate(statistics, value, scale, level)
        return replace(base, low=low, high=high, se=0.0, pairs=exact, note="; ".join([*notes, note]))
    df_people = degrees_of_freedom(statistics)
    df = _satterthwaite(pictures, df_people, between, num)
    centre, spread = on_scale(value, variance, scale)
    pairs = None
    if scale != "linear":
        p = value - zero_of(scale)
        slope = p * (1 - p)
        # Near 1 the worlds' spread shrinks with the AUC itself; on the log-odds scale it does not. The larger counts.
        odds = [on_scale(v, m, scale)[0] for v, m in zip(values, np.diag(matrix), strict=True) if _inside(v, m, scale)]
        wide = float(np.var(odds, ddof=1)) / num if len(odds) == num > 1 else 0.0
        wide = max(wide, between / slope**2)
        df = _satterthwaite(pictures / slope**2, df_people, wide, num)
        spread = math.sqrt(pictures / slope**2 + wide)
        smallest = min(_sizes(statistics).values())
        if smallest * min(p, 1 - p) < EDGE:
            pairs = smallest
            notes.append(f"near the edge with {smallest} persons a class: exact limits from as many pairs")
    estimate = replace(
        base, se=math.sqrt(variance), df=df, centre=centre, spread=spread, pairs=pairs, note="; ".join(notes)
    )
    return estimate.with_interval()


def detectable(
    statistics: Sequence[Statistic], *, alpha: float = 0.05, power: float = 0.8, people: str = "matched"
) -> float | None:
    """Minimum detectable effect of this very design: the smallest true value it would find with the given power.

    The people's part of the variance is also computed at "nothing leaked" (placements among one's own class), and the
    larger one counts: an attack that separates well must not make its design look sharper than it is. The worlds'
    part is as observed.
    """
    if min(_sizes(statistics).values()) < 2:
        return None
    num = len(statistics)
    between = float(np.var([s.value for s in statistics], ddof=1)) / num if num > 1 else 0.0
    pictures = max(_shared(covariance(statistics, null=null), people) for null in (False, True))
    if pictures + between <= TINY:
        return 0.0
    df_people = degrees_of_freedom(statistics)
    df = _satterthwaite(pictures, df_people, between, num)
    return mde(math.sqrt(pictures + between), alpha, power, df=df)


def _degenerate(
    statistics: Sequence[Statistic], value: float, scale: str, level: float
) -> tuple[float, float, int | None, str]:
    """What can be said without any observed variance: limits, the number of pairs that they rest on, and why.

    Perfect separation of n pairs of different persons has probability AUC^n at most, so (alpha / 2)^(1/n) is an exact
    lower limit; n is the number of persons in the smaller class.
    """
    null = covariance(statistics, null=True)
    if not _at_edge(value, scale) and float(np.abs(null).max()) <= TINY:
        return value, value, None, "no variation: the scores cancel or are constant"
    pairs = min(_sizes(statistics).values())
    limit = ((1 - level) / 2) ** (1 / pairs)
    note = f"perfect separation or no variance: limit from {pairs} independent pairs"
    if scale == "linear":
        return value - (1 - limit), value + (1 - limit), pairs, note
    p = value - zero_of(scale)
    low, high = (limit, 1.0) if p >= 1 - NEAR else (0.0, 1 - limit) if p <= NEAR else (p - 1 + limit, p + 1 - limit)
    return max(low, 0.0) + zero_of(scale), min(high, 1.0) + zero_of(scale), pairs, note


def _method(statistics: Sequence[Statistic], num: int, people: str) -> tuple[str, list[str]]:
    smallest = min(_sizes(statistics).values())
    notes = [f"few persons ({smallest} in the smaller class)"] if smallest < FEW_PERSONS else []
    variance = "Obuchowski's clustered variance (DeLong's where every person has one picture)"
    if num == 1:
        return f"{variance}, Student t", notes
    if num < FEW_WORLDS:
        notes.append(f"few worlds ({num})")
    shared = "" if people == "matched" else "; pictures not identified across worlds, taken as wholly shared"
    return f"Obuchowski-Rockette over {num} worlds, Hillis' degrees of freedom, {variance}{shared}", notes


def _satterthwaite(pictures: float, df_people: float, between: float, num_worlds: int) -> float:
    spread = pictures**2 / df_people + (between**2 / (num_worlds - 1) if num_worlds > 1 else 0.0)
    return (pictures + between) ** 2 / spread if spread > 0 else math.inf


def _sizes(statistics: Sequence[Statistic]) -> dict[str, int]:
    names = {name for s in statistics for name in s.sizes}
    return {name: min(s.sizes[name] for s in statistics if name in s.sizes) for name in names}


def _shared(matrix: np.ndarray, people: str) -> float:
    """The people's part of the variance of a mean over worlds: the mean covariance of two worlds."""
    num = len(matrix)
    if num == 1 or people == "unknown":
        return float(np.trace(matrix)) / num
    return max(float(matrix.sum() - np.trace(matrix)) / (num * (num - 1)), 0.0)


def _at_edge(value: float, scale: str) -> bool:
    return scale != "linear" and not NEAR < value - zero_of(scale) < 1 - NEAR


def _inside(value: float, variance: float, scale: str) -> bool:
    return variance > TINY and not _at_edge(value, scale)
