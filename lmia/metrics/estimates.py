"""From statistics to estimates: a value, its interval, and how it was computed.

One world (one target, or one pair of twins): Obuchowski's variance, Student t with Satterthwaite's degrees of freedom
from the number of persons; the interval speaks of *these* models and of people like these.

Several worlds that score the same people: seeds and people are crossed. The Obuchowski-Rockette analysis with
Hillis' degrees of freedom (Hillis, Statistics in Medicine 2007 and 2014), a world in the part of a reader:
Var(mean) = s^2 / K + Cov, where s^2 is the variance between the K worlds' values and Cov the mean covariance of two
worlds through the people they share. The interval then speaks of new training runs and of new people.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from lmia.metrics.influence import Statistic, covariance, degrees_of_freedom

LEVEL = 0.95
FEW_PERSONS = 20
FEW_WORLDS = 5


@dataclass(frozen=True)
class Estimate:
    """A number with its uncertainty; what could not be computed is None, never NaN, and `note` says why.

    Attributes:
        value: The estimate.
        low: Lower end of the two-sided interval at `level`.
        high: Upper end.
        se: Standard error on the linear scale.
        method: How interval and standard error were computed, in words, for a footnote.
        note: What a reader must know ("one world", "few persons", "perfect separation"); "" if nothing.
        df: Degrees of freedom of se; infinite for the normal.
        scale: "logit" (values in 0 .. 1), "delta" (AUC minus 1/2, computed on the logit of the AUC) or "linear".
        num_worlds: Worlds averaged over.
        level: Coverage aimed at.
    """

    value: float | None
    low: float | None
    high: float | None
    se: float | None
    method: str
    note: str = ""
    df: float = math.inf
    scale: str = "linear"
    num_worlds: int = 1
    level: float = LEVEL

    @property
    def interval(self) -> list[float] | None:
        """[low, high], or None."""
        return None if self.low is None or self.high is None else [self.low, self.high]

    def lower_bound(self, alpha: float = 0.05) -> float | None:
        """One-sided lower limit at level 1 - alpha, on the estimate's scale."""
        if self.value is None or self.se is None or self.low is None:
            return None
        if self.se == 0:
            return self.low
        return interval(self.value, self.se, self.df, self.scale, 1 - 2 * alpha)[0]

    def p_greater(self, null: float = 0.0) -> float | None:
        """One-sided p-value of value > null by the t statistic; None without a standard error."""
        if self.value is None or self.se is None:
            return None
        if self.se == 0:
            return None if self.low != self.high else (1.0 if self.value <= null else 0.0)
        return float(stats.t.sf((self.value - null) / self.se, self.df))

    def p_two_sided(self, null: float = 0.0) -> float | None:
        """Two-sided p-value of value != null."""
        greater = self.p_greater(null)
        if greater is None:
            return None
        return 2 * min(greater, 1 - greater) if self.se else float(self.value == null)


def missing(reason: str) -> Estimate:
    """An estimate that there is not, and why."""
    return Estimate(None, None, None, None, "not computed", reason)


def from_interval(value: float | None, ci: Sequence[float] | None, level: float = LEVEL) -> Estimate:
    """An estimate from a value and a printed interval (a row's `delta_auc`, `delta_auc_ci`), read as a normal one's."""
    if value is None or ci is None:
        return missing("no value or no interval")
    se = (ci[1] - ci[0]) / (2 * float(stats.norm.ppf((1 + level) / 2)))
    return Estimate(value, ci[0], ci[1], se, "read back from its interval", level=level)


def interval(value: float, se: float, df: float, scale: str, level: float = LEVEL) -> tuple[float, float]:
    """Student-t interval; "logit" and "delta" are computed on log(p / (1 - p)), which keeps them inside (0, 1)."""
    t = float(stats.t.ppf((1 + level) / 2, df))
    if scale == "linear":
        return value - t * se, value + t * se
    shift = 0.5 if scale == "delta" else 0.0
    p = value + shift
    if not 0 < p < 1:
        raise ValueError(f"{scale} interval of {value}")
    centre = math.log(p / (1 - p))
    half = t * se / (p * (1 - p))
    return tuple(1 / (1 + math.exp(-_clip(centre + sign * half))) - shift for sign in (-1, 1))  # type: ignore[return-value]


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
    pictures = _shared(covariance(statistics), people)
    between = float(values.var(ddof=1)) / num if num > 1 else 0.0
    variance = between + pictures
    if _at_edge(value, scale) or variance <= 1e-24:
        low, high, note = _degenerate(statistics, value, scale, level)
        return replace(base, low=low, high=high, se=0.0, note="; ".join([*notes, *([note] if note else [])]))
    df_people = degrees_of_freedom(statistics)
    df = _satterthwaite(pictures, df_people, between, num)
    se = math.sqrt(variance)
    low, high = interval(value, se, df, scale, level)
    return replace(base, low=low, high=high, se=se, df=df, note="; ".join(notes))


def detectable(statistics: Sequence[Statistic], *, alpha: float = 0.05, power: float = 0.8) -> float | None:
    """Minimum detectable effect of this very design: the smallest true value it would find with the given power.

    The people's part of the variance is also computed at "nothing leaked" (placements among one's own class), and the
    larger one counts: an attack that separates well must not make its design look sharper than it is. The worlds'
    part is as observed.
    """
    if min(_sizes(statistics).values()) < 2:
        return None
    num = len(statistics)
    between = float(np.var([s.value for s in statistics], ddof=1)) / num if num > 1 else 0.0
    pictures = max(_shared(covariance(statistics, null=null), "matched") for null in (False, True))
    if pictures + between <= 1e-24:
        return 0.0
    df_people = degrees_of_freedom(statistics)
    df = _satterthwaite(pictures, df_people, between, num)
    return mde(math.sqrt(pictures + between), alpha, power, df=df)


def mde(se: float, alpha: float = 0.05, power: float = 0.8, *, df: float = math.inf) -> float:
    """Smallest true effect whose two-sided (1 - alpha) interval excludes 0 with the given power: (t + t') * se."""
    return float(stats.t.ppf(1 - alpha / 2, df) + stats.t.ppf(power, df)) * se


def clopper_pearson(successes: int, trials: int, level: float = LEVEL) -> tuple[float, float]:
    """Exact binomial interval: covers at least `level` whatever the proportion, for independent trials."""
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(stats.beta.ppf(tail, successes, trials - successes + 1))
    high = 1.0 if successes == trials else float(stats.beta.ppf(1 - tail, successes + 1, trials - successes))
    return low, high


def _degenerate(statistics: Sequence[Statistic], value: float, scale: str, level: float) -> tuple[float, float, str]:
    """What can be said without any observed variance.

    Perfect separation of n pairs of different persons has probability AUC^n at most, so (alpha / 2)^(1/n) is an exact
    lower limit; n is the number of persons in the smaller class.
    """
    null = covariance(statistics, null=True)
    if not _at_edge(value, scale) and float(np.abs(null).max()) <= 1e-24:
        return value, value, "no variation: the scores cancel or are constant"
    pairs = min(_sizes(statistics).values())
    limit = ((1 - level) / 2) ** (1 / pairs)
    note = f"perfect separation or no variance: limit from {pairs} independent pairs"
    if scale == "linear":
        return value - (1 - limit), value + (1 - limit), note
    shift = 0.5 if scale == "delta" else 0.0
    if value + shift >= 1:
        return limit - shift, 1 - shift, note
    if value + shift <= 0:
        return -shift, 1 - limit - shift, note
    return max(value - (1 - limit), -shift), min(value + (1 - limit), 1 - shift), note


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
    if scale == "linear":
        return False
    p = value + (0.5 if scale == "delta" else 0.0)
    return not 1e-12 < p < 1 - 1e-12


def _clip(x: float) -> float:
    return min(max(x, -700.0), 700.0)
