"""The report of an audit: one self-contained HTML file for a reader who is no specialist, and a line for a terminal."""

import base64
import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.audit.request import MEMBERS
from bench.audit.result import Result
from bench.leaderboard import formats
from bench.leaderboard.attachments import Curve
from lmia.attacks import ATTACKS
from lmia.metrics.estimates import Estimate
from lmia.metrics.low_fpr import LowFpr
from lmia.metrics.roc import roc_curve
from lmia.metrics.scores import ScoreSet
from lmia.metrics.verdict import Finding

SHOWN = 8
THUMBNAIL_PX = 112
HEADLINES = {
    "leak": "There is evidence that this set was used to tune the model.",
    "no leak found": "No sign was found that this set was used to tune the model.",
    "undetermined": "Nothing can be said about whether this set was used.",
}
LEVELS = {
    "reliable": "Single pictures can be judged",
    "weak": "Single pictures can hardly be judged",
    "not reliable": "Single pictures cannot be judged",
}


class Exposed(NamedTuple):
    """A member with how far it stands out."""

    image: str
    """PNG as a data address."""
    name: str
    share: float
    """Share of non-members that score lower, 0 to 1."""


def summary(result: Result) -> str:
    """The verdict in a few lines of text."""
    verdict = result.verdict
    lines = [f"Verdict: {verdict.outcome}. {HEADLINES[verdict.outcome]}", *(f"  {t}" for t in _sentences(result))]
    lines += [f"  To find out: {remedy}." for remedy in verdict.remedies]
    return "\n".join(lines) + "\n"


def html(result: Result) -> str:
    """The report as one HTML file: no network, no scripts, every text escaped."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    page = environment.from_string(resources.files("bench.audit").joinpath("page/report.html").read_text("utf-8"))
    verdict, audit = result.verdict, result.plan.audit
    best = verdict.findings[0]
    target = result.evidence[best.attack].target
    return page.render(
        headline=HEADLINES[verdict.outcome],
        tone=verdict.outcome.split()[0],
        outcome=verdict.outcome,
        subject=_subject(result),
        sentences=_sentences(result),
        remedies=verdict.remedies,
        undetermined=verdict.outcome == "undetermined",
        counts={
            "members": target.num_members,
            "nonmembers": target.num_nonmembers,
            "people": [len(set(side.persons())) for side in (target.members(), target.nonmembers())],
        },
        controls=_controls(result),
        rows=[_row(result, finding) for finding in verdict.findings],
        fpr=f"{audit.picture_fpr:.3g}",
        roc=_address(_roc(result)),
        best=_name(best.attack),
        most=[] if verdict.outcome == "undetermined" else _exposed(result, best, most=True),
        least=[] if verdict.outcome == "undetermined" else _exposed(result, best, most=False),
        left_out={_name(name): why for name, why in result.plan.left_out.items()},
        failed={_name(name): why for name, why in result.failed.items()},
        drawn=_sheet(result),
        limits=_limits(result),
        settings=_settings(result),
    )


def write(result: Result, folder: Path) -> list[Path]:
    """Writes scores.parquet, metrics.json and report.html."""
    import json

    from bench.audit.result import metrics, scores_parquet

    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "scores.parquet": scores_parquet(result),
        "metrics.json": (json.dumps(metrics(result), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode(),
        "report.html": html(result).encode(),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]


# ---- words


def _subject(result: Result) -> str:
    audit = result.plan.audit
    if audit.model is not None:
        return f"the model “{Path(audit.model).name}”"
    assert audit.generated is not None
    return f"the model that generated the pictures in “{Path(audit.generated).name}”"


def _sentences(result: Result) -> list[str]:
    verdict = result.verdict
    best = verdict.findings[0]
    if verdict.outcome == "undetermined":
        return [f"{reason[0].upper()}{reason[1:]}." for reason in verdict.reasons]
    found = [f for f in verdict.findings if f.found]
    p = min((f.p_adjusted for f in verdict.findings if f.p_adjusted is not None), default=None)
    texts = []
    if verdict.outcome == "leak":
        p_value = formats.p_text(best.p_adjusted)
        p_value = p_value if p_value.startswith("<") else f"= {p_value}"
        texts.append(
            f"Set level: p {p_value}: this rarely would people exchanged at random between the two sets look as "
            f"different (adjusted for {len(verdict.findings)} attacks, of which {len(found)} agree)."
        )
        texts.append(_picture_sentence(result, best))
        if result.power is not None and result.power.smallest is not None:
            texts.append(
                f"With {_name(best.attack)} a suspected set of about {result.power.smallest} people would have been "
                "enough to notice (power .8)."
            )
        return texts
    texts.append(
        f"Set level: the smallest p over {len(verdict.findings)} attacks is {formats.p_text(p)} (people permuted "
        "between the two sets, adjusted for the number of attacks)."
    )
    texts.append(_detectable(verdict.mde))
    texts.append(f"Picture level: not reliable; {_rate_sentence(best, result.plan.audit.picture_fpr)}.")
    return texts


def _detectable(mde: float | None) -> str:
    if mde is None or mde >= 0.5:
        return (
            "What would have been found: nothing for certain. With this few people and this many attacks even a "
            f"perfect attack need not be credited (minimum detectable effect {formats.number(mde)}; .5 is the most "
            "there is). Give more people."
        )
    return (
        f"What would have been found: with this many people, an attack that reaches an AUC of about "
        f"{formats.number(0.5 + mde)} (.5 is guessing, 1 is certainty; minimum detectable effect "
        f"{formats.number(mde)}). A weaker trace, or one that these attacks cannot see, remains possible."
    )


def _picture_sentence(result: Result, best: Finding) -> str:
    level = result.verdict.picture_level or "not reliable"
    return f"{LEVELS[level]} ({level}): {_rate_sentence(best, result.plan.audit.picture_fpr)}."


def _rate_sentence(finding: Finding, fpr: float) -> str:
    rate = next(iter(finding.tpr.values()))
    if not isinstance(rate, LowFpr):
        return (
            f"there are too few non-members to say how many members are found at {fpr:.3g} false accusations ({rate})"
        )
    ci = formats.interval(tuple(rate.ci)) if rate.ci else ""  # type: ignore[arg-type]
    return (
        f"while at most {fpr:.1%} of non-members are accused, {_name(finding.attack)} finds "
        f"{formats.number(rate.tpr)} {ci} of the members ({rate.false_positives} false accusations)"
    )


def _controls(result: Result) -> list[dict[str, str]]:
    verdict = result.verdict
    lines = []
    for what, estimate in verdict.blind.items():
        told = estimate.low is not None and estimate.low > 0.5
        lines.append(
            {
                "name": f"Blind classifier of the {what}",
                "value": _interval(estimate),
                "says": (
                    f"The sets differ in their {what} alone. Whatever an attack achieves may be that."
                    if told
                    else f"Nothing in the {what} alone tells the sets apart, as far as this classifier sees."
                ),
            }
        )
    best = verdict.findings[0]
    base = best.controls.base_auc
    says = best.no_base or base.note or ""
    if base.value is not None:
        differs = base.low is not None and base.high is not None and not base.low <= 0.5 <= base.high
        says = (
            "These pictures are easier or harder for a model that never saw them; the differences below take that off."
            if differs
            else "The model before tuning does not tell the sets apart, as it should be."
        )
    lines.append(
        {"name": f"Model before tuning, {_name(best.attack)}", "value": _interval(base), "says": _sentence(says)}
    )
    return lines


def _row(result: Result, finding: Finding) -> dict[str, Any]:
    controls = finding.controls
    rate = next(iter(finding.tpr.values()))
    undetermined = result.verdict.outcome == "undetermined"
    return {
        "attack": _name(finding.attack),
        "paper": ATTACKS.get(finding.attack).paper,
        "access": ATTACKS.get(finding.attack)().access,
        "found": finding.found,
        "auc": _interval(controls.auc),
        "base": _interval(controls.base_auc),
        "limit": formats.number(finding.limit, signed=True) if finding.limit is not None else formats.MISSING,
        "against": finding.against if finding.limit is not None else "",
        "p": formats.MISSING if undetermined else formats.p_text(finding.p_adjusted),
        "tpr": formats.number(rate.tpr) if isinstance(rate, LowFpr) else formats.MISSING,
        "why_no_tpr": "" if isinstance(rate, LowFpr) else rate,
        "nfe": formats.amount(result.costs[finding.attack]),
    }


def _limits(result: Result) -> list[str]:
    audit, verdict = result.plan.audit, result.verdict
    texts = [
        "Whether a particular picture was used, unless the picture level above says that it can be told.",
        "That the set was not used. An attack that finds nothing may be too weak; the minimum detectable effect says "
        "what would have been seen.",
        "Who used the pictures, how, or whether that was allowed.",
        "Anything about pictures or people outside of these two sets.",
        "That the two sets are alike in every respect. The blind control looks at colours, light, sharpness and "
        "layout; a difference that it cannot see but a model can would be taken for use"
        + (", which is what the comparison with the model before tuning is for." if audit.base else "."),
    ]
    if audit.random_split:
        texts.append("That the split was random: whoever asked for the audit vouches for it.")
    if audit.base is None and verdict.outcome != "undetermined":
        texts.append("What the model knew before it was tuned: no base model was given.")
    return texts


def _settings(result: Result) -> list[tuple[str, str]]:
    audit = result.plan.audit
    asked = audit.model_dump(mode="json", exclude_defaults=True)
    return [
        *((key.replace("_", " "), str(value)) for key, value in asked.items()),
        ("picture size", f"{result.plan.size} px"),
        ("seed", str(audit.seed)),
        ("lmia revision", result.revision),
        ("made", result.made_at),
        ("numerics", ", ".join(result.numerics)),
    ]


def _interval(estimate: Estimate) -> str:
    ci = None if estimate.low is None or estimate.high is None else (estimate.low, estimate.high)
    return formats.with_interval(estimate.value, ci)


def _name(attack: str) -> str:
    return attack.replace("_", " ")


def _sentence(text: str) -> str:
    text = text.strip()
    return f"{text[0].upper()}{text[1:]}{'' if text.endswith('.') else '.'}" if text else ""


# ---- pictures


def _roc(result: Result) -> bytes:
    from bench.leaderboard.roc import roc_figure

    shown = [(f, result.evidence[f.attack]) for f in result.verdict.findings[:3]]
    lines = [(_curve(one.target), f"{_name(f.attack)}, AUC {formats.number(f.controls.auc.value)}") for f, one in shown]
    first, one = shown[0]
    if one.base is not None:
        lines.append((_curve(one.base), f"model before tuning, {_name(first.attack)}"))
    return roc_figure(lines)


def _curve(scores: ScoreSet) -> Curve:
    curve = roc_curve(scores.scores, scores.member)
    fpr = np.append(0.0, curve.false_positives / scores.num_nonmembers)
    tpr = np.append(0.0, curve.true_positives / scores.num_members)
    return Curve("", fpr.tolist(), tpr.tolist())


def _exposed(result: Result, finding: Finding, *, most: bool) -> list[Exposed]:
    """Members with the highest (or lowest) scores of an attack."""
    target = result.evidence[finding.attack].target
    members = np.flatnonzero(target.member)
    order = members[np.argsort(target.scores[members], kind="stable")]
    chosen = (order[::-1] if most else order)[:SHOWN]
    others = np.sort(target.scores[~target.member])
    images = result.pictures.select([target.ids[n] for n in chosen]).images(THUMBNAIL_PX)
    return [
        Exposed(
            _address(_png(image)),
            target.ids[n].removeprefix(f"{MEMBERS}/"),
            float(np.searchsorted(others, target.scores[n], side="left")) / len(others),
        )
        for n, image in zip(chosen, images, strict=True)
    ]


def _sheet(result: Result) -> str | None:
    """The sets' first pictures, so that a reader sees what was compared."""
    from bench.stages.row import contact_sheet

    sources = np.array(result.pictures.sources)
    rows = [np.flatnonzero(sources == label)[:SHOWN] for label in result.plan.sets]
    images: Sequence[np.ndarray] = [result.pictures.take(row).images(THUMBNAIL_PX) for row in rows]
    padded = [np.concatenate([i, np.full((SHOWN - len(i), *i.shape[1:]), 255, np.uint8)]) for i in images]
    return _address(contact_sheet(np.concatenate(padded), columns=SHOWN))


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(image).save(sink, "PNG", optimize=True)
    return sink.getvalue()


def _address(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
