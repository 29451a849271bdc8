"""Judging: from the scores of a question's worlds to its numbers, controls, and reasons for what there is not.

A question has one estimand. Where a twin was trained on the other half (`same_source`, `person`) it is the cross-over
Delta; members against another source (`cross_source`) stand beside the same scores with unseen people of their own
source in their place; of pictures that models drew (`uncontrolled`) an AUC is all there is; a model before and after
something was done to it (`amplification`) is compared on the same pictures. Nothing here reads a file.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from lmia.metrics.estimands import amplification, auc_estimate, cross_source, crossover_delta
from lmia.metrics.estimates import Estimate
from lmia.metrics.low_fpr import LowFpr, low_fpr
from lmia.metrics.roc import FPRS
from lmia.metrics.scores import Scores, ScoreSet, align
from lmia.metrics.sets import set_p_value
from lmia.specs import RequestError

Estimand = Literal["same_source", "person", "cross_source", "uncontrolled", "amplification"]

SMALLEST = 8
"""Pictures on a side below which no interval of ours was shown to cover."""
CROSS_SOURCE_ONLY = "applies to members against another source only"
SAME_SOURCE_ONLY = "not defined against another source: style and membership cannot be told apart"


@dataclass(frozen=True, eq=False)
class TargetScores:
    """What an attack says of one target's query pictures.

    Attributes:
        same: members and unseen people of the same source; for drawn pictures the target's own against others.
        other: pictures of another source; only where they are asked about.
        base_same: the attack on the base model (for amplification: on the model before), same pictures.
        base_other: likewise, the other source's pictures.
        loss_gap: mean denoising loss of unseen pictures minus that of trained ones: how over-trained the target is.
    """

    same: ScoreSet
    other: Scores | None = None
    base_same: ScoreSet | None = None
    base_other: Scores | None = None
    loss_gap: float | None = None


@dataclass(frozen=True, eq=False)
class World:
    """One realisation of a question.

    Attributes:
        targets: target A and its twin B, scored on the same pictures; for amplification one target.
        seed: worlds of one seed are conditions of one world (marked and clean pictures), not several.
    """

    targets: Sequence[TargetScores]
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Question:
    """All scores that answer a question.

    Attributes:
        estimand: what is asked for.
        worlds: one at least.
        blind: scores, by a classifier that never saw a target, of the first target's pictures.
        absent: field -> why a control has no meaning here.
    """

    estimand: Estimand
    worlds: Sequence[World]
    blind: ScoreSet | None = None
    absent: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Measured:
    """The answer.

    Attributes:
        status: undersized where no interval is worth its name.
        estimates: "auc", "delta_auc", "source_auc", "base_auc", "blind_auc", and "difference" (cross-source: AUC minus
            source AUC); those that the question has.
        mde: smallest Delta that this design would see with power .8; None where there is no Delta.
        set_p_value: one-sided, persons permuted; None where members and non-members are not exchangeable.
        tpr_at_fpr: by FPR: the TPR, or why it is refused.
        loss_gap: mean over the targets.
        num_members: pictures of the first target.
        num_nonmembers: likewise.
        num_identities: likewise, persons.
        num_models: targets, conditions of one seed counted once.
        reasons: field of a row ("" for all of it) -> why it has no number, in the order in which they came up.
        sets: per world and target what its AUC is of.
    """

    status: Literal["ok", "undersized"]
    estimates: dict[str, Estimate]
    mde: float | None
    set_p_value: float | None
    tpr_at_fpr: dict[str, LowFpr | str]
    loss_gap: float | None
    num_members: int
    num_nonmembers: int
    num_identities: int
    num_models: int
    reasons: dict[str, str]
    sets: list[list[ScoreSet]]


def judge(question: Question) -> Measured:
    """The numbers that answer a question.

    Raises:
        RequestError: no worlds, or scores that do not belong together (other pictures, twins that share a half).
    """
    if not question.worlds:
        raise RequestError("worlds: none given")
    answer = {
        "cross_source": _cross_source,
        "uncontrolled": _uncontrolled,
        "amplification": _amplification,
    }.get(question.estimand, _crossover)(question)
    first = answer.sets[0][0]
    tprs = low_fpr(answer.sets, FPRS)
    refused = [rate for rate in tprs.values() if isinstance(rate, str)]
    if refused:
        answer.reasons["tpr_at_fpr"] = "; ".join(dict.fromkeys(refused))
    smallest = min(first.num_members, first.num_nonmembers)
    if smallest < SMALLEST:
        answer.reasons[""] = f"{smallest} pictures on a side: fewer than {SMALLEST} support no interval"
    gaps = [t.loss_gap for world in question.worlds for t in world.targets if t.loss_gap is not None]
    return Measured(
        status="undersized" if smallest < SMALLEST else "ok",
        estimates=answer.estimates,
        mde=answer.mde,
        set_p_value=answer.set_p_value,
        tpr_at_fpr=tprs,
        loss_gap=float(np.mean(gaps)) if gaps else None,
        num_members=first.num_members,
        num_nonmembers=first.num_nonmembers,
        num_identities=first.num_identities,
        num_models=len(question.worlds[0].targets) * len({world.seed for world in question.worlds}),
        reasons=answer.reasons,
        sets=answer.sets,
    )


def labelled(seen: Scores, unseen: Scores, pictures: AbstractSet[str], persons: AbstractSet[str] | None) -> ScoreSet:
    """Scores with their membership, which is checked against what the model was trained on.

    Args:
        seen: scores of the members.
        unseen: scores of the non-members.
        pictures: ids that the model was trained on.
        persons: persons that it was trained on, where these are asked about and the photos are held back; None where
            the photos themselves are.

    Raises:
        RequestError: a query set is not what its name says.
    """
    for scores, expected in ((seen, True), (unseen, False)):
        member = [i in pictures for i in scores.ids] if persons is None else [p in persons for p in scores.persons()]
        odd = [i for i, found in zip(scores.ids, member, strict=True) if found != expected]
        if odd:
            known = "not trained on, though among the members" if expected else "trained on, though not among them"
            raise RequestError(f"query: {len(odd)} pictures are {known}: {', '.join(odd[:3])}")
        trained = [i for i in scores.ids if i in pictures] if persons is not None else []
        if trained:
            raise RequestError(f"query: {len(trained)} held-back photos were trained on: {', '.join(trained[:3])}")
    return joined(seen, unseen)


def joined(members: Scores, nonmembers: Scores) -> ScoreSet:
    """Two sets of scores as one with labels."""
    identity: list[str | None] | None = None
    if members.identity is not None or nonmembers.identity is not None:
        identity = [*members.persons(), *nonmembers.persons()]
    return ScoreSet(
        [*members.ids, *nonmembers.ids],
        np.concatenate([members.scores, nonmembers.scores]),
        np.arange(len(members) + len(nonmembers)) < len(members),
        identity,
    )


def gains(pairs: Sequence[tuple[ScoreSet, ScoreSet]]) -> ScoreSet:
    """What one model gives each picture above what another gives it, in units of its spread, summed over the worlds.

    What both see in a picture (its style, its difficulty) drops out. If neither of two twins knows its own half, the
    halves' gains are exchangeable, which is what `set_p_value` needs; scale and offset of a world's scores, on which
    nothing depends, do not decide how much the world counts.

    Args:
        pairs: per world (target, twin) or (after, before): scores of the same pictures in every world.

    Returns:
        One gain a picture, with the first set's membership and persons.
    """
    first = pairs[0][0]
    total = np.zeros(len(first))
    for own, other in pairs:
        gain = align(own, first.ids, "target").scores - align(other, first.ids, "compared with").scores
        spread = float(gain.std())
        total += gain / spread if spread > 0 else 0.0
    return ScoreSet(first.ids, total, first.member, first.identity)


@dataclass(eq=False)
class _Answer:
    """What the estimands add to, one after the other: the order of reasons is the order of a row's."""

    sets: list[list[ScoreSet]]
    reasons: dict[str, str]
    estimates: dict[str, Estimate] = field(default_factory=dict)
    mde: float | None = None
    set_p_value: float | None = None

    def add(self, name: str, estimate: Estimate) -> None:
        self.estimates[name] = estimate
        if estimate.value is None:
            self.reasons[name] = estimate.note or "could not be computed"
        elif estimate.interval is None:
            self.reasons[f"{name}_ci"] = estimate.note or "could not be computed"

    def control(self, name: str, sets: Sequence[ScoreSet]) -> None:
        if sets:
            self.add(name, auc_estimate(sets))
        else:
            self.lacks("not asked for", name)

    def lacks(self, why: str, *names: str) -> None:
        for name in names:
            self.reasons.setdefault(name, why)


def _crossover(question: Question) -> _Answer:
    twins = [_twins(world) for world in question.worlds]
    pairs = [(target.same, twin.same) for target, twin in twins]
    answer = _Answer([list(pair) for pair in pairs], dict(question.absent))
    found = crossover_delta(pairs)
    answer.add("delta_auc", found.delta)
    answer.add("auc", found.auc)
    answer.mde = found.mde
    gained = gains(pairs)
    answer.set_p_value = set_p_value(gained.members(), gained.nonmembers())
    answer.lacks(CROSS_SOURCE_ONLY, "source_auc")
    answer.control("base_auc", [target.base_same for target, _ in twins if target.base_same is not None])
    answer.control("blind_auc", [] if question.blind is None else [question.blind])
    return answer


def _cross_source(question: Question) -> _Answer:
    worlds = [[(target.same, _other(target)) for target in _twins(world)] for world in question.worlds]
    sets = [[joined(same.members(), other) for same, other in targets] for targets in worlds]
    answer = _Answer(sets, dict(question.absent))
    found = cross_source(worlds)
    answer.add("auc", found.auc)
    answer.add("source_auc", found.source_auc)
    answer.estimates["difference"] = found.difference
    first = [world.targets[0] for world in question.worlds]
    based = [(t.base_same, t.base_other) for t in first]
    answer.control(
        "base_auc", [joined(same.members(), other) for same, other in based if same is not None and other is not None]
    )
    answer.control("blind_auc", [] if question.blind is None else [question.blind])
    answer.lacks(SAME_SOURCE_ONLY, "delta_auc", "mde", "set_p_value")
    return answer


def _uncontrolled(question: Question) -> _Answer:
    sets = [[target.same for target in world.targets] for world in question.worlds]
    answer = _Answer(sets, dict(question.absent))
    why = "the query pictures are generated: nobody's membership is asked for"
    answer.lacks(why, "delta_auc", "mde", "set_p_value", "source_auc")
    answer.add("auc", auc_estimate([scores for world in sets for scores in world]))
    return answer


def _amplification(question: Question) -> _Answer:
    """AUC after minus AUC before; the model before stands in the base model's place."""
    pairs = []
    for world in question.worlds:
        if len(world.targets) != 1:
            raise RequestError(f"amplification: {len(world.targets)} targets, one is needed in each world")
        target = world.targets[0]
        if target.base_same is None:
            raise RequestError("amplification: no scores of the model before")
        pairs.append((target.base_same, target.same))
    answer = _Answer([[after] for _, after in pairs], dict(question.absent))
    found = amplification(pairs)
    answer.add("delta_auc", found.difference)
    answer.add("auc", found.second)
    answer.add("base_auc", found.first)
    answer.mde = found.mde
    gained = gains([(after, before) for before, after in pairs])
    if set(gained.members().persons()) & set(gained.nonmembers().persons()):
        answer.lacks("members and non-members are photos of the same people", "set_p_value")
    else:
        answer.set_p_value = set_p_value(gained.members(), gained.nonmembers())
    answer.lacks(CROSS_SOURCE_ONLY, "source_auc")
    answer.control("blind_auc", [] if question.blind is None else [question.blind])
    return answer


def _twins(world: World) -> tuple[TargetScores, TargetScores]:
    if len(world.targets) != 2:
        raise RequestError(f"worlds: {len(world.targets)} targets, a target and its twin are needed")
    return world.targets[0], world.targets[1]


def _other(target: TargetScores) -> Scores:
    if target.other is None:
        raise RequestError("cross-source: no scores of the other source's pictures")
    return target.other
