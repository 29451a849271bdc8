"""Many questions at once: adjusted p-values, and bounds that hold for all attacks together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lmia.metrics.estimates import Estimate, missing, t_quantile, t_tail
from lmia.seeds import rng


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p-values: family-wise error, any dependence. float64 [N]."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    return _unsorted(np.minimum(steps, 1.0), order)


def benjamini_hochberg(p_values: Sequence[float]) -> np.ndarray:
    """Benjamini-Hochberg's adjusted p-values: false discovery rate, independent or positively dependent."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = p[order] * p.size / np.arange(1, p.size + 1)
    return _unsorted(np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 1.0), order)


@dataclass(frozen=True)
class Ranked:
    """One attack's place over a fixed suite of targets.

    Attributes:
        name: The attack.
        delta: Mean over the suite's targets.
        lower: Simultaneous lower bound: with probability 1 - alpha all attacks' bounds hold at once.
        rank: 1 is best.
    """

    name: str
    delta: float
    lower: float
    rank: int


def suite_mean(estimates: Sequence[Estimate]) -> Estimate:
    """Mean over a fixed suite of targets, which are not a sample of targets: no variance between them.

    The standard error is the mean of the standard errors, which holds whatever the targets' people share.
    """
    for e in estimates:
        if e.value is None or e.se is None:
            return missing(f"a target of the suite has no number ({e.note})")
    value = float(np.mean([e.value for e in estimates]))
    se = float(np.mean([e.se for e in estimates]))
    df = min(e.df for e in estimates)
    half = t_quantile(0.975, df) * se
    method = f"mean over a fixed suite of {len(estimates)} targets, standard errors averaged (any dependence)"
    return Estimate(value, value - half, value + half, se, method, df=df)


def simultaneous_lower_bounds(
    estimates: Sequence[Estimate], *, alpha: float = 0.05, correlation: np.ndarray | None = None, seed: int = 0
) -> list[float | None]:
    """Lower bounds that all hold at once with probability 1 - alpha.

    Args:
        estimates: One per attack.
        alpha: Family-wise error.
        correlation: Of the estimates [K, K] (attacks on the same pictures): max-t quantile; None: Bonferroni, which
            holds under any dependence.
        seed: Of the max-t simulation.
    """
    count = sum(e.value is not None and e.se is not None for e in estimates)
    bounds: list[float | None] = []
    level = alpha / max(count, 1)
    if correlation is not None and count > 1:
        draws = rng("max_t", seed).multivariate_normal(
            np.zeros(len(estimates)), correlation, size=200_000, method="eigh"
        )
        level = t_tail(float(np.quantile(draws.max(axis=1), 1 - alpha)))
    for e in estimates:
        bounds.append(e.lower_bound(level))
    return bounds


def rank_attacks(suite: Mapping[str, Sequence[Estimate]], *, alpha: float = 0.05) -> list[Ranked]:
    """Ranks attacks by the simultaneous lower bound of their mean delta, then by delta.

    Args:
        suite: Attack -> its same-source deltas, one per target of the fixed suite, in the same order for all.
        alpha: Family-wise error of the bounds. Attacks without a number are left out (they are listed elsewhere).
    """
    means = {name: suite_mean(estimates) for name, estimates in suite.items()}
    names = [name for name, e in means.items() if e.value is not None]
    bounds = dict(zip(names, simultaneous_lower_bounds([means[n] for n in names], alpha=alpha), strict=True))
    order = sorted(names, key=lambda n: (-_number(bounds[n]), -_number(means[n].value), n))
    return [Ranked(n, _number(means[n].value), _number(bounds[n]), i + 1) for i, n in enumerate(order)]


def _number(value: float | None) -> float:
    return -math.inf if value is None else value


def _unsorted(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    result = np.empty_like(values)
    result[order] = values
    return result
