"""From coverage.csv: coverage.png (what the usual intervals cover where 95 % is printed) and coverage.md (averages).

python tests/coverage/figure.py [--out results/metrics]
"""

import argparse
import csv
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


def averages(rows: list[dict]) -> str:
    """Markdown: coverage averaged over sizes, and averaged over AUCs per size."""
    levels = sorted({r["auc"] for r in rows})
    sizes = sorted({r["pictures_per_class"] for r in rows})
    lines = [
        f"Coverage of 95 % intervals, {rows[0]['replicates']} replicates a design (coverage.csv has every design).",
        "",
        "| estimand | method | worlds | photos a person, intra-class |"
        + "".join(f" AUC {level} |" for level in levels)
        + "".join(f" N = {size} |" for size in sizes),
        "|---" * (4 + len(levels) + len(sizes)) + "|",
    ]
    kinds = dict.fromkeys(
        (r["estimand"], r["method"], r["worlds"], f"{r['photos_per_person']}, {r['intra_class']}") for r in rows
    )
    for kind in sorted(kinds, key=lambda k: (k[0], k[1].startswith("naive"), *k)):
        mine = [
            r
            for r in rows
            if (r["estimand"], r["method"], r["worlds"], f"{r['photos_per_person']}, {r['intra_class']}") == kind
        ]
        cells = [_mean(mine, "auc", level) for level in levels]
        cells += [_mean(mine, "pictures_per_class", size) for size in sizes]
        lines.append("| " + " | ".join([*map(str, kind), *cells]) + " |")
    return "\n".join(lines) + "\n"


def _value(cell: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell


def _mean(rows: list[dict], key: str, value: float) -> str:
    found = [r["coverage"] for r in rows if r[key] == value]
    return f"{sum(found) / len(found):.3f}" if found else ""


def main() -> None:
    """Reads the table and writes figure and averages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "results" / "metrics")
    out = parser.parse_args().out
    with (out / "coverage.csv").open() as file:
        rows = [{key: _value(cell) for key, cell in row.items()} for row in csv.DictReader(file)]
    (out / "coverage.md").write_text(averages(rows))
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
                    label=label if size == 64 else None,
                )
        axis.axhspan(0.93, 0.97, color="0.9", zorder=0)
        axis.axhline(0.95, color="0.6", linewidth=0.8, zorder=0)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("true AUC", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.legend(fontsize=7, loc="lower left", frameon=False)
    axes[0].set_ylabel("coverage of a 95 % interval", fontsize=8)
    axes[0].set_ylim(0.25, 1.01)
    figure.supxlabel("pictures per class: circle 64, square 200, triangle 1000; grey: .93 to .97", fontsize=7)
    figure.tight_layout()
    figure.savefig(out / "coverage.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
