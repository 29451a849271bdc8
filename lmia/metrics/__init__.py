"""Metrics: exact ROCs, honest intervals, the estimands of a membership claim, set-level tests. numpy and scipy only.

Usage (every name below is imported from its module; nothing here imports torch):

    from lmia.metrics.scores import Scores, ScoreSet            # ScoreSet(ids, scores, member, identity=None)
    from lmia.metrics.estimands import crossover_delta, cross_source, uncontrolled, amplification, paired, auc_estimate
    from lmia.metrics.low_fpr import low_fpr
    from lmia.metrics.sets import set_p_value

    a = ScoreSet(ids, scores_of_target, member=in_half_a, identity=persons)      # target A on both halves
    b = ScoreSet(ids, scores_of_twin, member=~in_half_a, identity=persons)       # twin B on the same pictures
    result = crossover_delta([(a, b), ...])                                       # one pair per world
    result.delta.value, result.delta.interval, result.auc.value, result.auc.interval, result.mde
    result.delta.method, result.delta.note                                        # footnotes

    tprs = low_fpr([[a, b], ...])           # {"0.1": LowFpr(tpr, ci, false_positives, ...) or a reason (str), ...}

    other = Scores(ids_y, target_on_y, persons_y)                                 # the other source's pictures
    cross = cross_source([[(a, other), (b, other_of_twin)], ...])                 # one or both twins per world
    cross.auc, cross.source_auc, cross.difference                                 # Estimates

    lone = uncontrolled([target], base=[base_scores] or None, blind=[blind_scores] or None)
    lone.auc, lone.over_chance, lone.over_base, lone.over_blind                   # Estimates; no claim

    after = amplification([(before, after), ...]).difference                      # the same pictures
    p = set_p_value(a.members(), a.nonmembers())                                  # one-sided, people permuted

    from lmia.metrics.judge import Question, TargetScores, World, judge           # all of a question's scores at once
    from lmia.metrics.verdict import Evidence, conclude                           # an audit: was this set used?
    from lmia.metrics.multiplicity import holm

An `Estimate` has value, low, high (also `.interval` = [low, high] or None), se, method, note, `.p_greater()` and
`.lower_bound(alpha)`. What could not be computed is None with the reason in `note`; there is no NaN. Bad input raises
`lmia.specs.RequestError`. Which interval is used when, and how well each covers, is in README.md beside this file.
"""
