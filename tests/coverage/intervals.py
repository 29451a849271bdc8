"""Coverage of every interval in the stated designs, by simulation: results/metrics/coverage.csv.

    python tests/coverage/intervals.py [--replicates 2000] [--out results/metrics] [--num 64,200,1000]

About an hour of one core at 2,000 replicates. It goes round all designs, 25 replicates a round, and writes the table
after each: stopped early, they are whole, with fewer replicates. Replicate r of a design is always the same sample.
`figure.py` draws the naive intervals' failure from the table.
"""

import argparse
import csv
import itertools
import math
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from simulation import Design, Draw, draw, true_tpr

from lmia.metrics.bootstrap import crossed_bootstrap
from lmia.metrics.estimands import delta_statistic
from lmia.metrics.estimates import Estimate, t_quantile
from lmia.metrics.influence import auc_statistic, combine
from lmia.metrics.low_fpr import LowFpr, low_fpr
from lmia.metrics.scores import ScoreSet
from lmia.metrics.worlds import over_worlds
from lmia.seeds import rng

AUCS = (0.5, 0.6, 0.9, 0.99)
CLUSTERS = ((1, 0.0), (8, 0.0), (8, 0.5))
WORLDS = (1, 3, 5)
ROUND = 25
Found = dict[tuple[str, str, int], tuple[float, list[float] | None]]


def judge(design: Design, sample: Draw, replicate: int) -> Found:
    """(estimand, method, worlds) -> (truth, interval) for one simulated sample."""
    found: Found = {}
    statistics = [auc_statistic(s) for s in sample.targets]
    deltas = [delta_statistic(a, b) for a, b in zip(sample.targets, sample.twins, strict=True)]
    values = np.array([s.value for s in statistics])
    for k in WORLDS:
        truth = float(sample.target_auc[0]) if k == 1 else design.auc
        found["auc", "clustered, crossed", k] = truth, over_worlds(statistics[:k], "logit").interval
        truth = float(sample.delta[0]) if k == 1 else design.auc - 0.5
        found["delta", "clustered, crossed", k] = truth, over_worlds(deltas[:k], "delta").interval
        if k > 1:
            found["auc", "naive: seeds only, Student t", k] = design.auc, seeds_only(values[:k])
            found["auc", "naive: seeds only, 1.96 sd / sqrt(K)", k] = design.auc, as_published(values[:k])
            if design.num == 200 and design.auc == 0.6:  # one design: it takes longer than all the others together
                drawn = crossed_bootstrap([[s] for s in sample.targets[:k]], replicates=400, seed=replicate)
                found["auc", "check: crossed bootstrap", k] = design.auc, drawn.interval
            pooled = [over_worlds([s], "logit") for s in statistics[:k]]
            found["auc", "naive: mean of the worlds' own intervals / sqrt(K)", k] = design.auc, shrunk(pooled)
    if design.photos > 1:
        one = sample.targets[0]
        loose = ScoreSet(one.ids, one.scores, one.member)
        found["auc", "naive: unclustered DeLong", 1] = (
            float(sample.target_auc[0]),
            over_worlds([auc_statistic(loose)], "logit").interval,
        )
    difference = combine([(1.0, statistics[1]), (-1.0, statistics[0])])
    truth = float(sample.target_auc[1] - sample.target_auc[0])
    found["difference of two attacks", "clustered, paired", 1] = truth, over_worlds([difference], "linear").interval
    shift = t_quantile(float(sample.target_auc[0])) * math.sqrt(2)
    fprs = [fpr for fpr in (0.1, 0.01) if fpr * design.num >= 1]
    for name, value in low_fpr([[sample.targets[0]]], fprs, seed=replicate, replicates=500).items():
        assert isinstance(value, LowFpr)
        truth = true_tpr(shift, float(name))
        found[f"tpr at fpr {name}", "both classes (bootstrap, exact where few)", 1] = truth, value.ci
        found[f"tpr at fpr {name}", "naive: Clopper-Pearson given this threshold", 1] = truth, value.ci_given_threshold
    return found


def seeds_only(values: np.ndarray) -> list[float]:
    half = t_quantile(0.975, len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return [float(values.mean()) - half, float(values.mean()) + half]


def as_published(values: np.ndarray) -> list[float]:
    half = float(1.96 * values.std(ddof=0) / math.sqrt(len(values)))
    return [float(values.mean()) - half, float(values.mean()) + half]


def shrunk(estimates: list[Estimate]) -> list[float]:
    centre = float(np.mean([e.value for e in estimates]))
    half = 1.96 * math.sqrt(sum(e.se**2 for e in estimates)) / len(estimates)
    return [centre - half, centre + half]


class Tally:
    """Hits and misses of every method in one design."""

    def __init__(self, design: Design):
        self.design = design
        self.counts: dict = defaultdict(lambda: {"low": 0, "high": 0, "width": 0.0, "count": 0})

    def add(self, replicate: int) -> None:
        """Simulates one sample and judges every interval."""
        d = self.design
        sample = draw(d, max(WORLDS), rng("coverage", d.num, d.photos, d.icc, d.auc, replicate))
        for key, (truth, ci) in judge(d, sample, replicate).items():
            assert ci is not None, key
            t = self.counts[key]
            t["count"] += 1
            t["low"] += truth < ci[0]
            t["high"] += truth > ci[1]
            t["width"] += ci[1] - ci[0]

    def rows(self) -> list[dict]:
        """One row per estimand, method and number of worlds."""
        return [
            {
                "pictures_per_class": self.design.num,
                "photos_per_person": self.design.photos,
                "intra_class": self.design.icc,
                "auc": self.design.auc,
                "worlds": worlds,
                "estimand": estimand,
                "method": method,
                "coverage": round(1 - (t["low"] + t["high"]) / t["count"], 4),
                "too_high": round(t["low"] / t["count"], 4),
                "too_low": round(t["high"] / t["count"], 4),
                "mean_width": round(t["width"] / t["count"], 5),
                "replicates": t["count"],
            }
            for (estimand, method, worlds), t in self.counts.items()
        ]


def write(tallies: list[Tally], out: Path) -> None:
    """The table as CSV."""
    rows = [row for tally in tallies for row in tally.rows()]
    out.mkdir(parents=True, exist_ok=True)
    with (out / "coverage.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Parses arguments and simulates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--num", default="64,200,1000")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "results" / "metrics")
    arguments = parser.parse_args()
    designs = itertools.product(map(int, arguments.num.split(",")), CLUSTERS, AUCS)
    tallies = [Tally(Design(num, photos, icc, level)) for num, (photos, icc), level in designs]
    start = time.perf_counter()
    for first in range(0, arguments.replicates, ROUND):
        for tally in tallies:
            for replicate in range(first, min(first + ROUND, arguments.replicates)):
                tally.add(replicate)
        write(tallies, arguments.out)
        print(
            f"{time.perf_counter() - start:6.0f} s  {min(first + ROUND, arguments.replicates)} replicates", flush=True
        )


if __name__ == "__main__":
    main()
