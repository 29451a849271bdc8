"""Realistic rows without any model: scores of a binormal attack, so that curves and numbers agree."""

import io
from statistics import NormalDist

import numpy as np
from PIL import Image, ImageDraw

from bench.leaderboard.attachments import Attachments, Curve, ModelRef
from bench.leaderboard.rank import Campaign
from bench.leaderboard.row import Row, join_reasons
from lmia.seeds import rng

ACCESS = {"generated_set_classifier": "text-to-image", "generated_set_nearest": "text-to-image", "loss": "eps"}
SHADOW = {"shadow": "another source", "part_c": "same source", "real": "another source"}
HEADLINE = {
    "source": "north",
    "aux": "shadow",
    "target_mark": "none",
    "member_mark": "none",
    "nonmember_mark": "none",
    "guidance": 7.5,
    "prompt": "class",
    "steps": 12,
    "epochs": 60,
    "method": "full",
    "attack": "generated_set_classifier",
    "captions": None,
    "query": "same_source",
    "base": "tiny",
}


def one(cell, axes, auc, *, estimand="same_source", role="ranked", status="ok", flags=(), reason=None, **more):
    """One row of 120 + 120 pictures of 60 people whose target is `auc`; `more` overrides what is measured."""
    half = 0.045 * (1 - abs(auc - 0.5))
    blind = 0.5 + rng("blind", cell).normal(0, 0.015)

    def ci(value, width=half):
        return [max(0.0, value - width), min(1.0, value + width)]

    measured = {
        "num_members": 120,
        "num_nonmembers": 120,
        "num_identities": 60,
        "worlds": 2,
        "auc": auc,
        "auc_ci": ci(auc),
        "blind_auc": blind,
        "blind_auc_ci": ci(blind, 0.04),
        "base_auc": 0.5,
        "base_auc_ci": [0.46, 0.54],
        "tpr_at_fpr": {
            "0.1": {"tpr": round(max(0.0, auc - 0.35), 3), "ci": [0.02, 0.9], "false_positives": 12},
            "0.01": {"tpr": round(max(0.0, (auc - 0.5) / 2), 3), "ci": [0.0, 0.4], "false_positives": 1},
            "0.001": None,
        },
        "metrics": {"fid": 48.25, "loss_gap": 0.0123},
    }
    if estimand in ("same_source", "person"):
        delta = auc - 0.5
        measured |= {"delta_auc": delta, "delta_auc_ci": [delta - half, delta + half], "mde": 1.27 * half}
        measured["set_p_value"] = 1 - NormalDist().cdf(delta / (half / 1.96))
    if estimand == "cross_source":
        style = auc - 0.02
        measured |= {"source_auc": style, "source_auc_ci": ci(style)}
        measured["metrics"] |= {"left_low": -0.01, "left_high": 0.05}
    reasons = {}
    if axes.get("aux") == "base":
        measured |= {"base_auc": None, "base_auc_ci": None}
        reasons["base_auc"] = "the negatives are the base model's own pictures"
    if status == "failed":
        measured = {}
    if reason:
        reasons[""] = reason
    return Row.of(
        {
            "schema_version": 1,
            "cell": cell,
            "axes": axes,
            "estimand": estimand,
            "level": "picture",
            "role": role,
            "status": status,
            "flags": list(flags),
            "reason": join_reasons(reasons),
            "measured": measured | more,
            "cost": {
                "nfe": 0 if axes.get("attack") != "loss" else 5,
                "nfe_offline": 0 if axes.get("attack") == "loss" else 160 * 24,
                "seconds": 12.3,
                "peak_memory_mb": 512.5,
            },
            "provenance": {
                "revision": "0123abc",
                "numerics": {"device": "cpu", "torch": "2.10.0"},
                "scores": [f"scores-{cell}-A", f"scores-{cell}-B"],
                "evidence": "synthetic",
                "made_at": "2026-11-21T21:00:00Z",
            },
        }
    )


def quick(seed=0):
    """About 42 rows as the demo has them: every section, role, status and flag."""
    draw = rng("fake quick", seed)
    rows = []

    def add(axes, auc, **more):
        axes = HEADLINE | axes
        rows.append(one(f"cell{len(rows):04d}", axes, min(1.0, max(0.0, auc)), **more))

    settings = [
        ({}, 0.515, 0.93),
        ({"aux": "real"}, 0.49, 0.99),
        ({"aux": "part_c"}, 0.61, 0.55),
        ({"aux": "base"}, 0.505, 0.74),
        ({"guidance": 0.0}, 0.50, 0.71),
        ({"guidance": 1.0}, 0.512, 0.86),
        ({"prompt": "generic"}, 0.507, 0.8),
        ({"epochs": 15}, 0.498, 0.88),
        ({"steps": 25}, 0.52, 0.92),
    ]
    offline = {"aux": None, "guidance": None, "prompt": None, "steps": None}
    for change, same, other in settings:
        add(change, same + draw.normal(0, 0.012))
        add({**change, "query": "other_source"}, other, estimand="cross_source", role="reference")
        add(
            {**change, "query": "member_person"},
            0.5 + draw.normal(0, 0.01),
            estimand="person",
            role="reference",
            base_auc=None,
            base_auc_ci=None,
        )
    for epochs, auc in ((15, 0.55), (60, 0.68)):
        add({"attack": "loss", "captions": "caption", "epochs": epochs, **offline}, auc)
    add(
        {"attack": "loss", "captions": "caption", "query": "other_source", **offline},
        0.94,
        estimand="cross_source",
        role="reference",
        source_auc=0.71,
        source_auc_ci=[0.67, 0.75],
        metrics={"left_low": 0.2, "left_high": 0.26},
    )
    for epochs, auc in ((15, 0.51), (60, 0.56)):
        add({"attack": "generated_set_nearest", "aux": None, "epochs": epochs}, auc)
    add(
        {"attack": "generated_set_nearest", "aux": None, "query": "other_source"},
        0.85,
        estimand="cross_source",
        role="reference",
    )
    for attack, auc in (("generated_set_classifier", 0.76), ("loss", 0.99), ("generated_set_nearest", 0.93)):
        extra = {"aux": "part_c"} if attack == "generated_set_classifier" else {"aux": None}
        add({"attack": attack, "epochs": 300, **extra}, auc, role="planted")
    add({"aux": "shadow", "epochs": 300}, 0.53, role="planted")
    add({"epochs": 1}, 0.5, role="control")
    for mark in ("visible", "hidden"):
        add({"target_mark": mark, "member_mark": mark, "nonmember_mark": mark}, 0.51)
        add(
            {"target_mark": mark, "member_mark": mark, "query": "same_source"},
            1.0 if mark == "visible" else 0.83,
            flags=["confounded"],
            reason="only the members carry the target's mark",
        )
    add({"guidance": 16.0}, 0.5, status="failed", reason="generation failed 3 times: CUDA out of memory <4 GiB>")
    add(
        {"method": "lora"},
        0.55,
        status="undersized",
        reason="8 non-members, at least 64 are needed",
        num_nonmembers=8,
        set_p_value=None,
    )
    return rows


def many(count, seed=0):
    """`count` rows over a wide grid, for size and speed."""
    draw = rng("fake many", seed)
    rows = []
    for index in range(count):
        axes = HEADLINE | {
            "attack": f"attack_{index % 12:02d}",
            "epochs": [50, 100, 200, 400][index // 12 % 4],
            "method": ["full", "lora"][index // 48 % 2],
            "captions": ["caption", "class", "empty"][index // 96 % 3],
            "source": f"source {index // 288:02d}",
        }
        auc = float(np.clip(0.5 + abs(draw.normal(0, 0.1)), 0, 1))
        rows.append(one(f"many{index:05d}", axes, auc, role="ranked" if index % 7 else "reference"))
    return rows


def sheet(name, columns=8, rows=3, size=64):
    """A PNG of cartoon faces, like what a target drew."""
    draw = rng("sheet", name)
    picture = Image.new("RGB", (columns * size, rows * size))
    pen = ImageDraw.Draw(picture)
    for y in range(rows):
        for x in range(columns):
            box = (x * size, y * size, (x + 1) * size, (y + 1) * size)
            pen.rectangle(box, fill=tuple(int(v) for v in draw.integers(60, 220, 3)))
            pen.ellipse(
                (box[0] + 14, box[1] + 8, box[2] - 14, box[3] - 6), fill=(224, 172, int(draw.integers(90, 170)))
            )
            for eye in (24, 40):
                pen.ellipse((box[0] + eye - 3, box[1] + 26, box[0] + eye + 3, box[1] + 32), fill=(30, 30, 30))
            pen.arc((box[0] + 22, box[1] + 34, box[0] + 42, box[1] + 50), 20, 160, fill=(120, 30, 30), width=3)
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def curve(world, auc, seed):
    """The empirical ROC curve of a binormal attack."""
    draw = rng("curve", world, seed)
    shift = NormalDist().inv_cdf(min(max(auc, 0.001), 0.999)) * 2**0.5
    members, others = draw.normal(shift, 1, 120), draw.normal(0, 1, 120)
    thresholds = np.concatenate([[np.inf], np.sort(np.concatenate([members, others]))[::-1]])
    return Curve(
        world,
        fpr=[float((others >= t).mean()) for t in thresholds],
        tpr=[float((members >= t).mean()) for t in thresholds],
        auc=auc,
        target=f"target-{world}",
        attack_model=f"attack-{seed}-{world}",
        scores=f"scores-{seed}-{world}",
    )


def attachments_for(rows, sheets=True):
    """What is shown beside rows that have numbers."""
    found = {}
    for row in rows:
        auc = row.measured.auc
        key = f"{row.axes.source}-{row.axes.epochs}-{row.axes.method}-{row.axes.target_mark}"
        found[row.cell] = Attachments(
            curves=() if auc is None else (curve("A", auc, row.cell), curve("B", auc, row.cell)),
            sheet=sheet(key) if sheets and auc is not None else None,
            sheet_title=f"{row.axes.source}, {row.axes.epochs} epochs, {row.axes.method}, mark {row.axes.target_mark}",
            access=ACCESS.get(str(row.axes.attack)),
            shadow=SHADOW.get(str(row.axes.aux)),
        )
    return found


def campaign(name="quick"):
    return Campaign(
        name,
        title="Does a fine-tuned diffusion model give away whose portrait it was trained on?",
        description="Tiny Stable Diffusion models, fine-tuned on drawn faces of two institutions.",
        default=HEADLINE,
    )


def models():
    return [
        ModelRef(
            address=f"target-{world}",
            name=f"north, 60 epochs, world {world}",
            kind="target",
            uri=f"file:///store/models/target-{world}",
            params={"method": "full", "epochs": 60},
            metrics={"train_loss": 0.05, "holdout_loss": None},
        )
        for world in "AB"
    ]
