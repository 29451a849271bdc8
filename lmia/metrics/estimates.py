"""An estimate: a value, its interval, and how it was computed.

Intervals of AUCs are symmetric on the log-odds scale, which keeps them inside (0, 1) and covers near 1 where a linear
one does not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy import special

LEVEL = 0.95
NEAR = 1e-12  # values this near to 0 or 1 are 0 or 1


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
        centre: Middle of the interval on its scale; None: `value`.
        spread: Standard error on that scale; None: `se`.
        pairs: Persons in the smaller class, where the interval is widened to the exact one from as many pairs, or
            (at se 0) rests on nothing else.
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
    centre: float | None = None
    spread: float | None = None
    pairs: int | None = None

    @property
    def interval(self) -> list[float] | None:
        """[low, high], or None."""
        return None if self.low is None or self.high is None else [self.low, self.high]

    def lower_bound(self, alpha: float = 0.05) -> float | None:
        """One-sided lower limit at level 1 - alpha, computed on the estimate's scale."""
        if self.value is None or self.low is None:
            return None
        if self.se:
            return self._at(1 - 2 * alpha)[0]
        if self.pairs is None:
            return self.low
        # `pairs` independent pairs all in order have probability AUC^pairs at most: exact, as the interval itself.
        lowest = -math.inf if self.scale == "linear" else zero_of(self.scale)
        return max(self.value - (1 - alpha ** (1 / self.pairs)), lowest)

    def p_greater(self, null: float = 0.0) -> float | None:
        """One-sided p-value of value > null by the t statistic; None where there is no standard error."""
        if self.value is None or self.se is None:
            return None
        if self.se == 0:
            return None if self.low != self.high else float(self.value <= null)
        return t_tail((self.value - null) / self.se, self.df)

    def p_two_sided(self, null: float = 0.0) -> float | None:
        """Two-sided p-value of value != null."""
        greater = self.p_greater(null)
        if greater is None:
            return None
        return 2 * min(greater, 1 - greater) if self.se else float(self.value == null)

    def with_interval(self) -> "Estimate":
        """The same estimate with low and high from centre, spread, df and pairs."""
        low, high = self._at(self.level)
        return replace(self, low=low, high=high)

    def _at(self, level: float) -> tuple[float, float]:
        assert self.value is not None and self.se is not None
        half = t_quantile((1 + level) / 2, self.df) * (self.se if self.spread is None else self.spread)
        centre = self.value if self.centre is None else self.centre
        low, high = (_back(centre + sign * half, self.scale) for sign in (-1, 1))
        if self.pairs is not None:
            zero = zero_of(self.scale)
            exact = pairs_interval(self.value - zero, self.pairs, level)
            low, high = min(low, exact[0] + zero), max(high, exact[1] + zero)
        # The shrunken centre of a logit interval may lie beyond an estimate with next to no information.
        return min(low, self.value), max(high, self.value)


def missing(reason: str) -> Estimate:
    """An estimate that there is not, and why."""
    return Estimate(None, None, None, None, "not computed", reason)


def from_interval(value: float | None, ci: Sequence[float] | None, level: float = LEVEL) -> Estimate:
    """An estimate from a value and a printed interval (a row's `delta_auc`, `delta_auc_ci`), read as a normal one's."""
    if value is None or ci is None:
        return missing("no value or no interval")
    se = (ci[1] - ci[0]) / (2 * t_quantile((1 + level) / 2))
    method = "read back from its interval"
    return Estimate(value, ci[0], ci[1], se, method, level=level)


def on_scale(value: float, variance: float, scale: str) -> tuple[float, float]:
    """Centre and standard error on the scale on which the interval is symmetric.

    On the logit scale the centre is that of (x + 1/2) / (n + 1), with n the number of independent trials that would
    have this variance: log-odds of small counts are biased outwards, and near 1 that alone costs coverage.
    """
    if scale == "linear":
        return value, math.sqrt(variance)
    p = value - zero_of(scale)
    trials = p * (1 - p) / variance
    shrunk = (p * trials + 0.5) / (trials + 1)
    return float(special.logit(shrunk)), math.sqrt(variance) / (p * (1 - p))


def pairs_interval(p: float, pairs: int, level: float = LEVEL) -> tuple[float, float]:
    """Clopper-Pearson with each person used once: `pairs` pairs of which the share p is in order (a real number).

    No clustering can make an AUC more variable than the AUC of that many independent pairs.
    """
    tail, right = (1 - level) / 2, p * pairs
    low = 0.0 if right <= 0 else float(special.betaincinv(right, pairs - right + 1, tail))
    high = 1.0 if right >= pairs else float(special.betainccinv(right + 1, pairs - right, tail))
    return low, high


def mde(se: float, alpha: float = 0.05, power: float = 0.8, *, df: float = math.inf) -> float:
    """Smallest true effect whose two-sided (1 - alpha) interval excludes 0 with the given power: (t + t') * se."""
    return (t_quantile(1 - alpha / 2, df) + t_quantile(power, df)) * se


def clopper_pearson(successes: int, trials: int, level: float = LEVEL) -> tuple[float, float]:
    """Exact binomial interval: covers at least `level` whatever the proportion, for independent trials."""
    return pairs_interval(successes / trials, trials, level)


def t_quantile(q: float, df: float = math.inf) -> float:
    """Quantile of Student's t; the normal's at infinite degrees of freedom."""
    # scipy.special and not scipy.stats: a hundred times faster a call, and much faster to import.
    return float(special.ndtri(q) if math.isinf(df) else special.stdtrit(df, q))


def t_tail(t: float, df: float = math.inf) -> float:
    """P(T > t)."""
    return float(special.ndtr(-t) if math.isinf(df) else special.stdtr(df, -t))


def zero_of(scale: str) -> float:
    """What an AUC of 0 is on this scale."""
    return -0.5 if scale == "delta" else 0.0


def _back(x: float, scale: str) -> float:
    return x if scale == "linear" else float(special.expit(x)) + zero_of(scale)
