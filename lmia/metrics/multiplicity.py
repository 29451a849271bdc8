"""Many questions at once: adjusted p-values, and an attack's mean over a fixed suite of targets.

Lower bounds that hold for K questions together are `Estimate.lower_bound(alpha / K)` (Bonferroni: any dependence).
"""

from collections.abc import Sequence

import numpy as np

from lmia.metrics.estimates import Estimate


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p-values: family-wise error, any dependence. float64 [N]."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    result = np.empty_like(p)
    result[order] = np.minimum(steps, 1.0)
    return result


def suite_interval(estimates: Sequence[Estimate]) -> tuple[float, float] | None:
    """Interval of the mean over a fixed suite of targets, at the estimates' own level; None where one has none.

    The targets are not a sample of targets, so there is no variance between them; their errors are taken to be one
    and the same error (they share their people), which no correlation can exceed: the mean of the ends.
    """
    ends = [e.interval for e in estimates if e.interval is not None]
    if not ends or len(ends) < len(estimates):
        return None
    low, high = np.mean(ends, axis=0)
    return float(low), float(high)


def suite_lower_bound(estimates: Sequence[Estimate], alpha: float) -> float | None:
    """One-sided lower limit of the same mean at level 1 - alpha; None where an estimate has none."""
    bounds = [e.lower_bound(alpha) for e in estimates]
    known = [bound for bound in bounds if bound is not None]
    return float(np.mean(known)) if known and len(known) == len(bounds) else None
