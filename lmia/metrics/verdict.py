"""The verdict of an audit: was this set of pictures used to tune this model, and may anything be said at all?

There is no twin here, so several differences stand for it (validity rule 3): AUC - 1/2, AUC - the base model's, AUC -
each blind classifier's. Use is claimed only if, for one attack, the smallest of their one-sided lower limits is above
0 at alpha / K for K attacks (each difference has to be positive, so no level is divided among them), and the set-level
permutation test agrees after Holm.

A blind classifier that tells the two sets apart says that they differ in style. A model that learned the members'
style from other pictures would then tell them apart, too, and perhaps better than our classifier does. So a blind
control that is plainly above chance counts `STYLE_MARGIN` times, persons are not permuted, and where the claim fails
nothing is said in either direction. A vouched random split makes every difference between the sets an accident: then
the blind controls count once and no base is needed.

A control has to be one. A base whose scores are the model's own is the model again (or an adapter changed nothing),
and a base that tells the members itself, where the blind classifiers do not, has seen them or finds them easier: in
neither case does a small difference mean that nothing leaked.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lmia.metrics.estimands import Uncontrolled, auc_estimate, excess, uncontrolled
from lmia.metrics.estimates import Estimate, t_quantile
from lmia.metrics.judge import gains
from lmia.metrics.low_fpr import LowFpr, low_fpr
from lmia.metrics.multiplicity import holm
from lmia.metrics.scores import Scores, ScoreSet
from lmia.metrics.sets import set_p_value

Outcome = Literal["leak", "no leak found", "undetermined"]
SMALLEST = 8
"""Persons on a side below which no interval of ours was shown to cover."""
RELIABLE = 0.5
"""Lower limit of the TPR from which single pictures may be judged."""


EVIDENT = 0.01
"""Level, over all blind controls, at which they are said to tell the sets apart: so few fair audits end without one."""
STYLE_MARGIN = 2.0
"""How many times the excess of an evident blind control is taken off: an attack may read the style better than it."""
SAME = 1e-3
"""Spread of target minus base scores, in that of the base's, below which the two are one model."""


@dataclass(frozen=True)
class Evidence:
    """One attack's scores of the audited pictures.

    Attributes:
        attack: its name.
        target: scores on the audited model.
        base: the same attack on the model before tuning, or None.
        no_base: why a base control has no meaning for this attack (it subtracts the base's score already, or its
            negatives are the base's own pictures); None where it has.
    """

    attack: str
    target: ScoreSet
    base: ScoreSet | None = None
    no_base: str | None = None


@dataclass(frozen=True)
class Finding:
    """What one attack says.

    Attributes:
        attack: its name.
        controls: AUC and the differences with their intervals.
        limit: smallest of the one-sided lower limits, simultaneous over the attacks; None if a control is missing.
        against: which difference it belongs to: chance, base, blind (pictures) or blind (captions).
        p_value: set level, one-sided: persons permuted between the two sets, on the score's gain over the base model
            where there is one; None where the sets are not known to be exchangeable.
        p_adjusted: the same, Holm over the attacks.
        tpr: picture level by FPR: TPR, or the reason why it is refused.
        mde: smallest AUC - 1/2 that would have been found with probability .8.
        found: whether it alone supports the claim.
        no_base: as in the evidence.
    """

    attack: str
    controls: Uncontrolled
    limit: float | None
    against: str
    p_value: float | None
    p_adjusted: float | None
    tpr: dict[str, LowFpr | str]
    mde: float | None
    found: bool
    no_base: str | None = None


@dataclass(frozen=True)
class Verdict:
    """The answer.

    Attributes:
        outcome: leak, no leak found, or undetermined.
        reasons: why.
        remedies: what would make an undetermined case determinable.
        findings: one per attack, the strongest first.
        blind: what is told apart without the model, by what was looked at ("pictures", "captions"): AUC.
        picture_level: reliable, weak or not reliable; None where the outcome is not a leak.
        mde: smallest AUC - 1/2 that any of the attacks would have been credited with, with probability .8.
        alpha: level of the claim, over all attacks together.
    """

    outcome: Outcome
    reasons: tuple[str, ...]
    remedies: tuple[str, ...]
    findings: tuple[Finding, ...]
    blind: dict[str, Estimate]
    picture_level: Literal["reliable", "weak", "not reliable"] | None
    mde: float | None
    alpha: float


def conclude(
    evidence: Sequence[Evidence],
    blind: dict[str, ScoreSet],
    *,
    fpr: float = 0.01,
    alpha: float = 0.05,
    random_split: bool = False,
    seed: int = 0,
) -> Verdict:
    """The verdict on members against non-members.

    Args:
        evidence: one entry per attack, all of the same pictures.
        blind: cross-fitted scores of classifiers that never saw the model, by what they looked at; "pictures" is
            needed for a verdict.
        fpr: false positive rate of the picture-level statement.
        alpha: level of the claim.
        random_split: somebody vouches that the two sets are a random split of one pool: then the base control is not
            needed, since the blind control and the permutation test rest on that alone.
        seed: of permutations and bootstrap.
    """
    if random_split:  # no base is needed then, and one that is the model would take all away
        evidence = [replace(one, base=None) if one.base is not None and _is_same(one) else one for one in evidence]
    blinds = {name: auc_estimate([scores]) for name, scores in blind.items()}
    evident = () if random_split else _evident(blinds)
    obstacles, remedies = _obstacles(evidence, blind, random_split)
    exchangeable = not obstacles and not evident
    p_values = [set_p_value(*_gains(one), seed=seed) if exchangeable else None for one in evidence]
    adjusted = (
        list(map(float, holm([p for p in p_values if p is not None]))) if exchangeable else [None] * len(evidence)
    )
    judged = []
    for one, p, p_adjusted in zip(evidence, p_values, adjusted, strict=True):
        controls = uncontrolled(
            [one.target],
            None if one.base is None else [one.base],
            [blind["pictures"]] if "pictures" in blind else None,
        )
        over_blinds = {
            name: excess(one.target, scores, STYLE_MARGIN if name in evident else 1.0) for name, scores in blind.items()
        }
        limit, against = _limit(controls, over_blinds, one, alpha / len(evidence), random_split)
        judged.append(
            Finding(
                attack=one.attack,
                controls=controls,
                limit=limit,
                against=against,
                p_value=p,
                p_adjusted=p_adjusted,
                tpr=low_fpr([[one.target]], (fpr,), seed=seed),
                mde=_mde(controls, over_blinds, alpha / len(evidence)),
                found=not obstacles
                and limit is not None
                and limit > 0
                and (bool(evident) if p_adjusted is None else p_adjusted <= alpha),
                no_base=one.no_base,
            )
        )
    judged.sort(key=lambda f: (not f.found, -(f.limit if f.limit is not None else -math.inf), -(_value(f))))
    if not obstacles and not any(finding.found for finding in judged):
        obstacles, remedies = _undecided(evidence, blinds, evident, random_split)
    outcome, reasons = _outcome(judged, obstacles, alpha)
    mdes = [finding.mde for finding in judged if finding.mde is not None]
    return Verdict(
        outcome=outcome,
        reasons=tuple(reasons),
        remedies=tuple(remedies),
        findings=tuple(judged),
        blind=blinds,
        picture_level=_picture_level(judged[0], fpr) if outcome == "leak" else None,
        mde=max(mdes) if mdes else None,
        alpha=alpha,
    )


def _evident(blinds: dict[str, Estimate]) -> tuple[str, ...]:
    """The blind controls that are plainly above chance."""
    limits = {name: estimate.lower_bound(EVIDENT / len(blinds)) for name, estimate in blinds.items()}
    return tuple(name for name, limit in limits.items() if limit is not None and limit > 0.5)


def _is_same(one: Evidence) -> bool:
    """Whether the base gives every picture what the target gives it; without a base, whether nothing is left of it."""
    own = one.target.scores
    if one.base is None:
        return one.no_base is not None and float(own.max() - own.min()) == 0.0
    base = dict(zip(one.base.ids, one.base.scores, strict=True))
    other = np.array([base[i] for i in one.target.ids])
    return float(np.std(own - other)) <= SAME * float(np.std(other))


def _obstacles(
    evidence: Sequence[Evidence], blind: dict[str, ScoreSet], random_split: bool
) -> tuple[list[str], list[str]]:
    """What stands in the way of any verdict, and what would remove it."""
    obstacles, remedies = [], []
    first = evidence[0].target
    persons = [len(set(side.persons())) for side in (first.members(), first.nonmembers())]
    if min(persons) < SMALLEST:
        obstacles.append(f"{persons[0]} people among the members and {persons[1]} among the non-members are too few")
        remedies.append(f"give pictures of at least {SMALLEST} people on each side")
    if "pictures" not in blind:
        obstacles.append("there is no blind control: whether the sets differ without the model is not known")
        remedies.append("give pictures of several people on each side, so that the sets can be compared without it")
    if random_split:
        return obstacles, remedies
    same = [one.attack for one in evidence if _is_same(one)]
    if same:
        obstacles.append(
            f"the base model is no control: it scores every picture as the model does ({', '.join(same)}), so it is "
            "the model itself, or the adapter changes nothing"
        )
        remedies.append("name with --base the model as it was before it was tuned on anything that is asked about")
    if not any(one.base is not None or one.no_base for one in evidence):
        obstacles.append(
            "there is no base model to compare with, so a difference in how hard the pictures are for any"
            " model cannot be told from use"
        )
        remedies.append(
            "name the model before tuning with --base; or, if the two sets are a random split of one pool, say so "
            "with --random-split"
        )
    return obstacles, remedies


def _undecided(
    evidence: Sequence[Evidence], blinds: dict[str, Estimate], evident: Sequence[str], random_split: bool
) -> tuple[list[str], list[str]]:
    """Why nothing found is not yet nothing there, and what would decide it."""
    obstacles, remedies = [], []
    for name in evident:
        estimate = blinds[name]
        obstacles.append(
            f"the two sets can be told apart by their {name} alone, without the model "
            f"(blind AUC {estimate.value:.2f}, 95 % from {estimate.low:.2f} to {estimate.high:.2f}), and no attack "
            "exceeds that by enough"
        )
    if evident:
        remedies.append(
            "choose non-members of the same kind as the members: same institution, period, camera, cropping, file "
            "format and way of captioning; best of all, split one pool at random before the model is tuned"
        )
    bases = {one.attack: one.base for one in evidence if one.base is not None}
    level = EVIDENT / max(1, len(bases))
    knowing = [] if random_split else [n for n, b in bases.items() if (_low(b, level) or 0.0) > 0.5]
    if knowing:
        obstacles.append(
            f"the base model itself tells the members from the non-members ({', '.join(knowing)}): it has seen them, "
            "or they are easier for any model; then a model that differs little from it is no sign that nothing leaked"
        )
        remedies.append("name a base that cannot have seen the pictures, or split one pool at random before tuning")
    return obstacles, remedies


def _low(scores: ScoreSet, alpha: float) -> float | None:
    return auc_estimate([scores]).lower_bound(alpha)


def _mde(controls: Uncontrolled, over_blinds: dict[str, Estimate], alpha: float) -> float | None:
    """Smallest AUC - 1/2 whose every lower limit at `alpha`, one-sided, is above 0 with probability .8."""
    known = [e.se for e in (controls.over_chance, controls.over_base, *over_blinds.values()) if e.se]
    if not known:
        return None
    strict = t_quantile(1 - alpha) + t_quantile(0.8)
    found = [strict * se for se in known]
    if controls.mde is not None:  # two-sided at .05, and sees to it that an attack that separates well looks no sharper
        found.append(controls.mde * strict / (t_quantile(0.975) + t_quantile(0.8)))
    return max(found)


def _limit(
    controls: Uncontrolled, over_blinds: dict[str, Estimate], one: Evidence, alpha: float, random_split: bool
) -> tuple[float | None, str]:
    differences = {"chance": controls.over_chance}
    differences |= {f"blind ({name})": estimate for name, estimate in over_blinds.items()}
    if not over_blinds:
        differences["blind (pictures)"] = controls.over_blind
    if not random_split and (one.base is not None or not one.no_base):
        differences["base"] = controls.over_base
    limits = {name: e.lower_bound(alpha) for name, e in differences.items()}
    if any(limit is None for limit in limits.values()):
        return None, next(name for name, limit in limits.items() if limit is None)
    against = min(limits, key=lambda name: limits[name] or 0.0)
    return limits[against], against


def _gains(one: Evidence) -> tuple[Scores, Scores]:
    """What the target gives each picture above what the base gives it; the score itself without a base."""
    gained = one.target
    if one.base is not None:
        gained = gains([(one.target, one.base)])
    return gained.members(), gained.nonmembers()


def _outcome(judged: Sequence[Finding], obstacles: list[str], alpha: float) -> tuple[Outcome, list[str]]:
    if obstacles:
        return "undetermined", obstacles
    found = [finding for finding in judged if finding.found]
    if found:
        best = found[0]
        return "leak", [
            f"{len(found)} of {len(judged)} attacks tell the members from the non-members ({_names(found)})",
            f"for {best.attack!r} the smallest one-sided lower limit over chance, base and blind control is "
            f"{best.limit:+.2f} (over {best.against}), at level {alpha:g} for all {len(judged)} attacks together",
        ]
    return "no leak found", [
        f"none of {len(judged)} attacks beats chance and its controls at level {alpha:g} for all attacks together"
    ]


def _picture_level(finding: Finding, fpr: float) -> Literal["reliable", "weak", "not reliable"]:
    rate = next(iter(finding.tpr.values()))
    if isinstance(rate, str) or rate.ci is None:
        return "not reliable"
    return "reliable" if rate.ci[0] >= RELIABLE else "weak" if rate.ci[0] > 2 * fpr else "not reliable"


def _value(finding: Finding) -> float:
    value = finding.controls.auc.value
    return -math.inf if value is None else value


def _names(findings: Sequence[Finding]) -> str:
    return ", ".join(finding.attack for finding in findings)
