"""How often an audit's verdict is wrong, by simulation: results/audit/simulation.csv.

    python tests/coverage/verdicts.py [--audits 1000] [--sizes 16,32,64,100,200,500] [--out results/audit]

An audit of N members and N non-members, one picture a person, three attacks. A picture's score is its difficulty (which
target and base share), its style as the model reads it, noise, and for members the leak. Style is a normal variable
whose mean differs between the sets; the blind classifier sees it under noise. `style` names the blind classifier's true
AUC: .50 is a fair audit. The leak of a design is the median smallest detectable effect that its own audits without a
leak state; 'missed' counts the audits with a leak that say "no leak found" though their own stated effect is at most
the true one. Audit r of a design is always the same sample; the table is written after each round of 25.
"""

import argparse
import csv
import itertools
import os
from collections import Counter
from pathlib import Path

import numpy as np
from scipy.stats import norm

from lmia.metrics.scores import ScoreSet
from lmia.metrics.verdict import Evidence, Verdict, conclude
from lmia.seeds import rng

STYLES = (0.5, 0.6, 0.75)
ATTACKS = ("one", "two", "three")
NOISE = 0.5  # of an attack's score, beside the difficulty's 1 and the style's 1
READS = 1.0  # how strongly the target reads the style, which it has learned
BASE_READS = 0.3
SPREAD = float(np.sqrt(1 + READS**2 + NOISE**2))  # of a target's scores
ROUND = 25
PILOTS = 40


def audit(size: int, style: float, effect: float, replicate: int) -> Verdict:
    """The verdict of one simulated audit whose attacks have a true AUC of .5 + effect beyond the style's."""
    draw = rng(0, "verdicts", size, style, replicate)
    member = np.repeat([True, False], size)
    ids = [f"{side}/{n}" for side in ("in", "out") for n in range(size)]
    gap = 2 * norm.ppf(style)  # the blind classifier sees the style under as much noise again
    seen = draw.standard_normal(2 * size) + gap * member
    difficulty = draw.standard_normal(2 * size)
    shift = np.sqrt(2) * SPREAD * norm.ppf(min(0.5 + effect, 0.999)) * member
    found = []
    for name in ATTACKS:
        target, base = (NOISE * draw.standard_normal(2 * size) for _ in range(2))
        target += difficulty + READS * seen + shift
        base += difficulty + BASE_READS * seen
        found.append(Evidence(name, ScoreSet(ids, target, member, ids), ScoreSet(ids, base, member, ids)))
    blind = {
        "pictures": ScoreSet(ids, seen + draw.standard_normal(2 * size), member, ids),
        "captions": ScoreSet(ids, draw.standard_normal(2 * size), member, ids),
    }
    return conclude(found, blind, fpr=0.1, seed=replicate)


def main() -> None:
    """Go round all designs and write the table after each round."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--audits", type=int, default=1000)
    options.add_argument("--sizes", default="16,32,64,100,200,500")
    options.add_argument("--out", type=Path, default=Path("results/audit"))
    asked = options.parse_args()
    designs = list(itertools.product(map(int, asked.sizes.split(",")), STYLES))
    effects = {
        (size, style): float(np.median([audit(size, style, 0.0, 10**6 + r).mde or 0.5 for r in range(PILOTS)]))
        for size, style in designs
    }
    outcomes: dict[tuple[int, float], Counter[str]] = {design: Counter() for design in designs}
    for first in range(0, asked.audits, ROUND):
        for size, style in designs:
            count = outcomes[size, style]
            for replicate in range(first, min(first + ROUND, asked.audits)):
                count["audits"] += 1
                count[f"without a leak: {audit(size, style, 0.0, replicate).outcome}"] += 1
                effect = effects[size, style]
                verdict = audit(size, style, effect, replicate)
                count[f"with a leak: {verdict.outcome}"] += 1
                if verdict.outcome == "no leak found" and verdict.mde is not None and verdict.mde <= effect:
                    count["missed"] += 1
        write(asked.out / "simulation.csv", outcomes, effects)


def write(path: Path, outcomes: dict[tuple[int, float], Counter[str]], effects: dict[tuple[int, float], float]) -> None:
    """The shares of each outcome, one design a row."""
    kinds = ("leak", "no leak found", "undetermined")
    columns = [f"{what}: {kind}" for what in ("without a leak", "with a leak") for kind in kinds]
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{path}.tmp", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["size", "style", "audits", "effect", *columns, "missed"])
        for (size, style), count in outcomes.items():
            shares = [count[column] / max(1, count["audits"]) for column in (*columns, "missed")]
            table.writerow([size, style, count["audits"], f"{effects[size, style]:.3f}", *(f"{s:.3f}" for s in shares)])
    os.replace(f"{path}.tmp", path)


if __name__ == "__main__":
    main()
