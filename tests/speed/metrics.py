"""How fast the metrics are, beside scikit-learn's own AUC. Run with one thread: OMP_NUM_THREADS=1 python <this file>.

Prints CPU seconds of this process (the best of a few), which other work on the machine disturbs less than the clock.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from sklearn.metrics import roc_auc_score

from lmia.metrics.bootstrap import auc_replicates, tpr_replicates, tpr_replicates_unclustered
from lmia.metrics.estimands import auc_estimate, paired
from lmia.metrics.low_fpr import low_fpr
from lmia.metrics.roc import auc, roc_curve, tpr_at_fpr
from lmia.metrics.scores import ScoreSet
from lmia.metrics.sets import set_p_value


def sample(num: int, photos: int = 1) -> ScoreSet:
    """`num` pictures, half of them members."""
    random = np.random.default_rng(num)
    member = random.permutation(num) < num // 2
    persons = [f"{m}{i // photos}" for i, m in enumerate(member)] if photos > 1 else None
    return ScoreSet([str(i) for i in range(num)], random.normal(size=num) + 0.3 * member, member, persons)


def seconds(call: Callable[[], object], repeat: int) -> float:
    """CPU seconds of the fastest call."""
    times = []
    for _ in range(repeat):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    repeat = parser.parse_args().repeat
    million, small, clustered = sample(10**6), sample(2000), sample(2000, 8)
    scores, member = million.scores, million.member
    random = np.random.default_rng(0)
    rows: list[tuple[str, Callable[[], object]]] = [
        ("AUC, 10^6 scores: scikit-learn", lambda: roc_auc_score(member, scores)),
        ("AUC, 10^6 scores: lmia", lambda: auc(scores, member)),
        ("ROC curve, 10^6 scores", lambda: roc_curve(scores, member)),
        ("TPR at FPR .001, 10^6 scores", lambda: tpr_at_fpr(scores, member, 0.001)),
        ("checking 10^6 scores (ScoreSet)", lambda: ScoreSet(million.ids, scores, member)),
        ("AUC and DeLong interval, 10^6 scores", lambda: auc_estimate([million])),
    ]
    for num in (10**4, 10**5):
        part = sample(num)
        rows.append((f"AUC and DeLong interval, {num:,} scores", lambda part=part: auc_estimate([part])))
    people = sample(10**6, 8)
    rows += [
        ("AUC and clustered interval, 10^6 scores, 8 photos a person", lambda: auc_estimate([people])),
        ("paired difference, 10^5 scores", lambda part=part: paired([(part, part)])),
        ("TPR and intervals at three FPRs, 10^6 scores", lambda: low_fpr([[million]])),
        ("10^4 bootstrap replicates of the AUC, 2,000 pictures", lambda: auc_replicates([small], 10**4, random)),
        (
            "10^4 bootstrap replicates of TPRs, 2,000 pictures",
            lambda: tpr_replicates([small], (0.1, 0.01, 0.001), 10**4, random),
        ),
        (
            "10^4 bootstrap replicates of TPRs, 2,000 pictures of 250 people",
            lambda: tpr_replicates([clustered], (0.1, 0.01, 0.001), 10**4, random),
        ),
        (
            "10^4 bootstrap replicates of TPRs, 2,000 pictures, by order statistics",
            lambda: tpr_replicates_unclustered(small, (0.1, 0.01, 0.001), 10**4, random),
        ),
        ("set test, 9,999 permutations of 2,000 people", lambda: set_p_value(small.members(), small.nonmembers())),
    ]
    width = max(len(name) for name, _ in rows)
    for name, call in rows:
        print(f"{name:<{width}}  {seconds(call, repeat):8.3f} s", flush=True)


if __name__ == "__main__":
    main()
