"""The quantities that a membership claim is made of, each with interval and minimum detectable effect.

Which one to use is decided by what there is: a twin trained on the other half (`crossover_delta`, the only one that
is ranked), query pictures of another source (`cross_source`), neither (`uncontrolled`), or a model before and after
something was done to it (`amplification`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lmia.metrics.estimates import Estimate, missing
from lmia.metrics.influence import Statistic, auc_statistic, combine, from_rows, two_sample
from lmia.metrics.roc import placements
from lmia.metrics.scores import Scores, ScoreSet, align
from lmia.metrics.worlds import detectable, over_worlds
from lmia.specs import RequestError


@dataclass(frozen=True)
class CrossOver:
    """Same-source, cross-over (the ranked estimand).

    Attributes:
        delta: (AUC_A + AUC_B) / 2 - 1/2; exactly 0 for a score that the twins share.
        auc: (AUC_A + AUC_B) / 2.
        mde: Smallest delta that this design would see with power .8.
    """

    delta: Estimate
    auc: Estimate
    mde: float | None


@dataclass(frozen=True)
class CrossSource:
    """Members against another source: never ranked, always beside its control.

    Attributes:
        auc: Members against the other source, averaged over the twins.
        source_auc: The same scores with unseen people of the members' own source in the members' place.
        difference: auc - source_auc, paired over pictures: what membership adds to "which source".
        mde: Smallest difference that this design would see with power .8.
    """

    auc: Estimate
    source_auc: Estimate
    difference: Estimate
    mde: float | None


@dataclass(frozen=True)
class Uncontrolled:
    """A target without a twin. What may be claimed from it is decided in `lmia.metrics.verdict`.

    Attributes:
        auc: Its AUC.
        over_chance: AUC - 1/2.
        over_base: AUC - the base model's AUC on the same pictures (None value: no base scores).
        over_blind: AUC - a classifier's that never saw the target.
        base_auc: The base model's AUC.
        blind_auc: The blind classifier's AUC.
        mde: Smallest AUC - 1/2 that this design would see with power .8.
    """

    auc: Estimate
    over_chance: Estimate
    over_base: Estimate
    over_blind: Estimate
    base_auc: Estimate
    blind_auc: Estimate
    mde: float | None


@dataclass(frozen=True)
class Paired:
    """Two scores of the same pictures (two attacks, or one attack before and after).

    Attributes:
        first: AUC of the first.
        second: AUC of the second.
        difference: second - first, paired over pictures.
        p_value: Two-sided, of no difference.
        mde: Smallest difference that this design would see with power .8.
    """

    first: Estimate
    second: Estimate
    difference: Estimate
    p_value: float | None
    mde: float | None


def auc_estimate(worlds: Sequence[ScoreSet], *, people: str = "matched") -> Estimate:
    """AUC with its interval, over one or several worlds (or seeds) that may score the same people."""
    return over_worlds([auc_statistic(world) for world in worlds], "logit", people=people)


def crossover_delta(worlds: Sequence[tuple[ScoreSet, ScoreSet]]) -> CrossOver:
    """Delta = (AUC_A + AUC_B) / 2 - 1/2 over worlds.

    Args:
        worlds: Per world the scores of target A on both halves (member = half A) and of its twin B on the same
            pictures (member = half B).

    Raises:
        RequestError: The twins were not scored on the same pictures, or memberships are not complementary.
    """
    _need(worlds)
    statistics = [delta_statistic(target, twin, f"world {k + 1}") for k, (target, twin) in enumerate(worlds)]
    delta = over_worlds(statistics, "delta")
    auc = over_worlds([combine([(1.0, s)], value=s.value + 0.5) for s in statistics], "logit")
    return CrossOver(delta, auc, detectable(statistics))


def cross_source(worlds: Sequence[Sequence[tuple[ScoreSet, Scores]]]) -> CrossSource:
    """AUC against another source beside source_auc, averaged over the twins of each world.

    Args:
        worlds: Per world one entry per target, (scores on the source's own pictures with member = trained on,
            scores of the same target on the other source's pictures). With both twins, source_auc is over the very
            same pictures as auc.
    """
    _need(worlds)
    aucs, sources = [], []
    for targets in worlds:
        _need(targets)
        member, source = [], []
        for same, other in targets:
            # Halves keep their names across twins: a person's contributions through both must meet.
            flip = _is_twin(same, targets[0][0])
            seen, unseen = ("half B", "half A") if flip else ("half A", "half B")
            member.append((1 / len(targets), two_sample(same.members(), other, seen, "other source")))
            source.append((1 / len(targets), two_sample(same.nonmembers(), other, unseen, "other source")))
        aucs.append(combine(member))
        sources.append(combine(source))
    differences = [combine([(1.0, a), (-1.0, s)]) for a, s in zip(aucs, sources, strict=True)]
    return CrossSource(
        over_worlds(aucs, "logit"),
        over_worlds(sources, "logit"),
        over_worlds(differences, "linear"),
        detectable(differences),
    )


def uncontrolled(
    target: Sequence[ScoreSet], base: Sequence[ScoreSet] | None = None, blind: Sequence[ScoreSet] | None = None
) -> Uncontrolled:
    """The three differences of a target without a twin.

    Args:
        target: The target's scores, one set per seed (usually one).
        base: The base model's scores of the same pictures (the same number of sets, or one for all).
        blind: Scores of a classifier fitted on other people that never saw the target; likewise.
    """
    _need(target)
    own = [auc_statistic(s) for s in target]
    auc = over_worlds(own, "logit")
    chance = over_worlds([combine([(1.0, s)], value=s.value - 0.5) for s in own], "delta")
    base_auc, over_base = _against(target, own, base, "no scores of the base model")
    blind_auc, over_blind = _against(target, own, blind, "no scores of a blind classifier")
    return Uncontrolled(auc, chance, over_base, over_blind, base_auc, blind_auc, detectable(own))


def excess(target: ScoreSet, control: ScoreSet, times: float = 1.0) -> Estimate:
    """(AUC - 1/2) - times (AUC of a control on the same pictures - 1/2), paired over pictures."""
    aligned = align(control, target.ids, "control")
    if (aligned.member != target.member).any():
        raise RequestError("control: member differs from the target's")
    own, other = auc_statistic(target), auc_statistic(control)
    value = own.value - 0.5 - times * (other.value - 0.5)
    return over_worlds([combine([(1.0, own), (-times, other)], value=value)], "linear")


def paired(worlds: Sequence[tuple[ScoreSet, ScoreSet]], *, people: str = "matched") -> Paired:
    """AUC of the second minus AUC of the first on the same pictures (DeLong's paired test, clustered)."""
    _need(worlds)
    first, second = [], []
    for k, (one, other) in enumerate(worlds):
        two = align(other, one.ids, f"world {k + 1}" if len(worlds) > 1 else "the second scores")
        if (one.member != two.member).any():
            odd = [name for name, a, b in zip(one.ids, one.member, two.member, strict=True) if a != b]
            raise RequestError(f"member: the two sets of scores disagree at ids {', '.join(map(str, odd[:5]))}")
        first.append(auc_statistic(one))
        second.append(auc_statistic(two))
    differences = [combine([(1.0, b), (-1.0, a)]) for a, b in zip(first, second, strict=True)]
    difference = over_worlds(differences, "linear", people=people)
    return Paired(
        over_worlds(first, "logit", people=people),
        over_worlds(second, "logit", people=people),
        difference,
        difference.p_two_sided(),
        detectable(differences, people=people),
    )


def amplification(worlds: Sequence[tuple[ScoreSet, ScoreSet]]) -> Paired:
    """AUC after minus AUC before: the same pictures, the same attack, (before, after) per world (Shake-to-Leak)."""
    return paired(worlds)


def _is_twin(scores: ScoreSet, first: ScoreSet) -> bool:
    member = align(scores, first.ids, "twin").member
    if (member != first.member).all():
        return True
    if (member == first.member).all():
        return False
    raise RequestError("cross-source: targets of one world must share a half or be twins (opposite halves)")


def delta_statistic(target: ScoreSet, twin: ScoreSet, where: str = "twins") -> Statistic:
    """One world's (AUC_A + AUC_B) / 2 - 1/2 with its influences, strata "half A" and "half B"."""
    twin = align(twin, target.ids, f"{where}, twin")
    if (twin.member == target.member).any():
        odd = [name for name, a, b in zip(target.ids, target.member, twin.member, strict=True) if a == b]
        raise RequestError(f"{where}: pictures on the same side for both twins: ids {', '.join(map(str, odd[:5]))}")
    half_a, half_b = target.members(), target.nonmembers()
    twin_a, twin_b = twin.nonmembers(), twin.members()
    m, n = len(half_a), len(half_b)
    # Twice the wins of each picture over the other half, for target and twin together, in integers: a score that
    # the twins share wins exactly as often as it loses, so all of these are constants and delta is exactly 0.
    wins_a = placements(half_a.scores, half_b.scores) + (2 * n - placements(twin_a.scores, twin_b.scores))
    wins_b = placements(twin_b.scores, twin_a.scores) + (2 * m - placements(half_b.scores, half_a.scores))
    excess = int(wins_a.sum()) - 2 * m * n
    value = excess / (4 * m * n)
    own_a = placements(half_a.scores, half_a.scores) - placements(twin_a.scores, twin_a.scores)
    own_b = placements(twin_b.scores, twin_b.scores) - placements(half_b.scores, half_b.scores)
    rows = [
        ("half A", half_a.persons(), ((wins_a - 2 * n) / (4 * n) - value) / m, own_a / (4 * m) / m),
        ("half B", half_b.persons(), ((wins_b - 2 * m) / (4 * m) - value) / n, own_b / (4 * n) / n),
    ]
    return from_rows(value, rows)


def _against(
    target: Sequence[ScoreSet], own: Sequence[Statistic], control: Sequence[ScoreSet] | None, reason: str
) -> tuple[Estimate, Estimate]:
    if control is None:
        return missing(reason), missing(reason)
    if len(control) not in (1, len(target)):
        raise RequestError(f"controls: {len(control)} sets of scores for {len(target)} of the target")
    sets = list(control) * (len(target) // len(control))
    pairs = list(zip(target, sets, strict=True))
    for one, two in pairs:
        if (align(two, one.ids, "control").member != one.member).any():
            raise RequestError("control: member differs from the target's")
    statistics = [auc_statistic(s) for s in sets]
    differences = [combine([(1.0, a), (-1.0, b)]) for a, b in zip(own, statistics, strict=True)]
    distinct = statistics if len(control) > 1 else statistics[:1]
    return over_worlds(distinct, "logit"), over_worlds(differences, "linear")


def _need(worlds: Sequence[object]) -> None:
    if not worlds:
        raise RequestError("worlds: none given")
