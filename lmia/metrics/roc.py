"""ROC on exact sorted scores. Ties are never broken: pictures with one score share one threshold.

Everything is counted in integers and divided once, so that results do not depend on summation order.
"""

import math
from dataclasses import dataclass

import numpy as np

from lmia.specs import RequestError

FPRS = (0.1, 0.01, 0.001)


@dataclass(frozen=True, eq=False)
class RocCurve:
    """The whole curve: accepting scores >= threshold[i] gives these counts.

    Attributes:
        threshold: float64 [T], the distinct scores, falling.
        true_positives: int64 [T], members accepted.
        false_positives: int64 [T], non-members accepted.
    """

    threshold: np.ndarray
    true_positives: np.ndarray
    false_positives: np.ndarray

    @property
    def tpr(self) -> np.ndarray:
        """float64 [T]."""
        return self.true_positives / self.true_positives[-1]

    @property
    def fpr(self) -> np.ndarray:
        """float64 [T]."""
        return self.false_positives / self.false_positives[-1]


@dataclass(frozen=True)
class OperatingPoint:
    """The best that can be done at a bounded false-positive rate.

    Attributes:
        tpr: max{TPR : FPR <= a}; None where a is below 1/N (see `note`).
        true_positives: Members accepted.
        false_positives: Non-members accepted.
        threshold: Scores *above* it are accepted; None when everything is.
        note: Why there is no number, or why it should not be leaned on; "" if neither.
    """

    tpr: float | None
    true_positives: int | None
    false_positives: int | None
    threshold: float | None
    note: str


def placements(scores: np.ndarray, reference: np.ndarray, *, is_sorted: bool = False) -> np.ndarray:
    """int64 [N]: 2 * #(reference < score) + #(reference == score), in O((N + R) log R)."""
    ordered = reference if is_sorted else np.sort(reference)
    return np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")


def auc(scores: np.ndarray, member: np.ndarray) -> float:
    """Mann-Whitney: P(member's score > non-member's) + P(equal) / 2."""
    scores, member = _arrays(scores, member)
    # Sorted queries walk through memory once, which is what makes a million scores take a fraction of a second.
    positive = np.sort(scores[member])
    negative = np.sort(scores[~member])
    twice = int(placements(positive, negative, is_sorted=True).sum())
    return twice / (2 * positive.size * negative.size)


def roc_curve(scores: np.ndarray, member: np.ndarray) -> RocCurve:
    """The ROC at every distinct score."""
    scores, member = _arrays(scores, member)
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    true = np.cumsum(member[order])[last]
    return RocCurve(ordered[last], true, last + 1 - true)


def allowed_false_positives(fpr: float, num_nonmembers: int) -> int:
    """The largest k with k / N <= fpr, decided on the quotient itself (.29 of 100 is 29, not 28)."""
    k = min(num_nonmembers, max(0, math.floor(fpr * num_nonmembers) - 1))
    while k < num_nonmembers and (k + 1) / num_nonmembers <= fpr:
        k += 1
    return k


def tpr_at_fpr(scores: np.ndarray, member: np.ndarray, fpr: float) -> OperatingPoint:
    """max{TPR : FPR <= fpr} on the exact scores; refused below 1/N non-members, flagged below 10/N."""
    if not 0 < fpr <= 1:
        raise RequestError(f"fpr = {fpr}: must be above 0 and at most 1")
    scores, member = _arrays(scores, member)
    negative = scores[~member]
    num = negative.size
    k = allowed_false_positives(fpr, num)
    if k == 0:
        reason = f"FPR {fpr:g} is below 1/N: it needs at least {math.ceil(1 / fpr)} non-members, there are {num}"
        return OperatingPoint(None, None, None, None, reason)
    note = f"FPR {fpr:g} rests on at most {k} false positives of {num} (fewer than 10)" if k < 10 else ""
    if k >= num:
        count = int(member.sum())
        return OperatingPoint(1.0, count, num, None, note)
    # Accept what lies strictly above the (k + 1)-th highest non-member; ties with it stay outside.
    threshold = float(np.partition(negative, num - k - 1)[num - k - 1])
    true = int((scores[member] > threshold).sum())
    return OperatingPoint(true / int(member.sum()), true, int((negative > threshold).sum()), threshold, note)


def _arrays(scores: np.ndarray, member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores = np.asarray(scores, dtype=np.float64)
    member = np.asarray(member, dtype=bool)
    if scores.shape != member.shape or scores.ndim != 1:
        raise RequestError(f"score and member: shapes {scores.shape} and {member.shape}")
    if not np.isfinite(scores).all():
        raise RequestError(f"score: NaN or infinite at rows {np.flatnonzero(~np.isfinite(scores))[:5].tolist()}")
    if member.all() or not member.any():
        raise RequestError("member: both classes are needed")
    return scores, member
