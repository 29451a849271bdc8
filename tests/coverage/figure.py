"""Draws results/metrics/coverage.png from coverage.json: what the usual intervals cover where 95 % is printed.

python tests/coverage/figure.py [--out results/metrics]
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

HONEST, NAIVE, WORSE = "#1b7837", "#c51b7d", "#8e6cbf"
PANELS = (
    (
        "8 photos a person, intra-class .5\n(one world, AUC)",
        ("photos_per_person", 8, "intra_class", 0.5, "estimand", "auc", "worlds", 1),
        (("clustered, crossed", HONEST, "by person (shown)"), ("naive: unclustered DeLong", NAIVE, "DeLong, pictures")),
    ),
    (
        "5 training seeds, same pictures\n(1 photo a person, AUC)",
        ("photos_per_person", 1, "intra_class", 0.0, "estimand", "auc", "worlds", 5),
        (
            ("clustered, crossed", HONEST, "seeds x people (shown)"),
            ("naive: mean of the worlds' own intervals / sqrt(K)", WORSE, "pictures / sqrt(seeds)"),
            ("naive: seeds only, 1.96 sd / sqrt(K)", NAIVE, "1.96 sd / sqrt(seeds)"),
        ),
    ),
    (
        "TPR at FPR 10 %\n(one world, 1 photo a person)",
        ("photos_per_person", 1, "intra_class", 0.0, "estimand", "tpr at fpr 0.1", "worlds", 1),
        (
            ("both classes (bootstrap, exact where few)", HONEST, "both classes (shown)"),
            ("naive: Clopper-Pearson given this threshold", NAIVE, "Clopper-Pearson"),
        ),
    ),
)


def main() -> None:
    """Reads the table and writes the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "results" / "metrics")
    out = parser.parse_args().out
    rows = json.loads((out / "coverage.json").read_text())
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.4), sharey=True)
    for axis, (title, where, lines) in zip(axes, PANELS, strict=True):
        wanted = dict(zip(where[::2], where[1::2], strict=True))
        for method, colour, label in lines:
            for size, marker in ((64, "o"), (200, "s"), (1000, "^")):
                mine = [
                    r
                    for r in rows
                    if r["method"] == method
                    and r["pictures_per_class"] == size
                    and all(r[key] == value for key, value in wanted.items())
                ]
                axis.plot(
                    [str(r["auc"]) for r in mine],
                    [r["coverage"] for r in mine],
                    marker=marker,
                    color=colour,
                    linewidth=1,
                    markersize=4,
                    label=f"{label}, N = {size}",
                )
        axis.axhspan(0.93, 0.97, color="0.9", zorder=0)
        axis.axhline(0.95, color="0.6", linewidth=0.8, zorder=0)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("true AUC", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.legend(fontsize=5.5, loc="lower left", frameon=False)
    axes[0].set_ylabel("coverage of a 95 % interval", fontsize=8)
    axes[0].set_ylim(0.2, 1.01)
    figure.tight_layout()
    figure.savefig(out / "coverage.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
