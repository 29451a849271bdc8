"""A threshold is chosen on one split and judged on another; nothing is ever picked on the pictures it is judged on."""

from dataclasses import dataclass, replace

import numpy as np

from lmia.metrics.estimates import Estimate, clopper_pearson
from lmia.metrics.influence import Statistic, from_rows
from lmia.metrics.roc import roc_curve
from lmia.metrics.scores import ScoreSet
from lmia.metrics.worlds import over_worlds


@dataclass(frozen=True, eq=False)
class Decision:
    """What a carried-over threshold does on the report split.

    Attributes:
        threshold: Scores >= threshold are called members; chosen on the calibration split.
        balanced_accuracy: (TPR + TNR) / 2 on the report split, with an interval given this threshold.
        tpr: Realised on the report split.
        fpr: Realised on the report split, whatever was aimed at.
        tpr_ci: Clopper-Pearson, given this threshold, pictures independent.
        fpr_ci: Likewise.
        true_positives: Members called members.
        false_positives: Non-members called members.
        statistic: Balanced accuracy with its influences, for averaging over worlds.
    """

    threshold: float
    balanced_accuracy: Estimate
    tpr: float
    fpr: float
    tpr_ci: list[float]
    fpr_ci: list[float]
    true_positives: int
    false_positives: int
    statistic: Statistic


def best_threshold(calibration: ScoreSet) -> float:
    """The threshold with the highest balanced accuracy on the calibration split; the highest such, on a tie.

    Halfway down to the next lower score, so that a report score just below the accepted ones is judged evenly.
    """
    curve = roc_curve(calibration.scores, calibration.member)
    gain = curve.true_positives * calibration.num_nonmembers - curve.false_positives * calibration.num_members
    best = int(np.argmax(gain))
    if best + 1 == len(curve.threshold):
        return float(curve.threshold[best])
    return float(curve.threshold[best] / 2 + curve.threshold[best + 1] / 2)


def decide(report: ScoreSet, threshold: float) -> Decision:
    """Applies a threshold that was chosen elsewhere."""
    accepted = report.scores >= threshold
    members, nonmembers = report.num_members, report.num_nonmembers
    true, false = int(accepted[report.member].sum()), int(accepted[~report.member].sum())
    tpr, fpr = true / members, false / nonmembers
    tpr_ci, fpr_ci = clopper_pearson(true, members), clopper_pearson(false, nonmembers)
    persons = np.array(report.persons(), dtype=object)
    effects = {"member": (report.member, tpr, members, 0.5), "nonmember": (~report.member, fpr, nonmembers, -0.5)}
    rows = []
    for name, (of_class, rate, size, sign) in effects.items():
        effect = sign * (accepted[of_class] - rate) / size
        rows.append((name, list(persons[of_class]), effect, effect))
    statistic = from_rows((tpr + 1 - fpr) / 2, rows)
    balanced = over_worlds([statistic], "logit")
    if balanced.se == 0:  # a rate of 0 or 1 shows no variance, but is not known exactly
        low, high = (tpr_ci[0] + 1 - fpr_ci[1]) / 2, (tpr_ci[1] + 1 - fpr_ci[0]) / 2
        balanced = replace(balanced, low=low, high=high, method="both Clopper-Pearson intervals at their ends", note="")
    return Decision(threshold, balanced, tpr, fpr, list(tpr_ci), list(fpr_ci), true, false, statistic)
