"""What the report of an audit says, for a reader who is no specialist.

Everything here follows from `metrics.json` and the curves, so that a report can be made again and compared.
"""

from collections.abc import Sequence
from pathlib import Path

from bench.audit.document import (
    Block,
    Bullets,
    Code,
    Column,
    Document,
    Gallery,
    Line,
    Roc,
    Section,
    Table,
    Terms,
    Text,
    Thumb,
)
from bench.audit.record import AttackRecord, AuditRecord, Judgement, Measured, Rate
from bench.audit.request import MEMBERS, NONMEMBERS, Audit
from bench.leaderboard import formats
from lmia.attacks import ATTACKS, Access

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
ACCESS: dict[Access, str] = {
    "none": "looks at pictures only, never at the model",
    "text-to-image": "lets the model draw pictures from texts (access: text-to-image)",
    "img2img": "lets the model draw the picture again (access: img2img)",
    "eps": "asks the model what it takes for noise in the picture (access: eps, the noise prediction)",
    "gradient": "asks how the model would change if it learned the picture (access: gradient)",
}
AUC = (
    "AUC: how often a random picture of the first set scores higher than a random one of the second; .5 is guessing, "
    "1 is always"
)
SHA256 = (
    "SHA-256 is a fingerprint: whoever changes one bit of a file changes it. Of several files it is the fingerprint of "
    "the list of theirs, as the program sha256sum writes it, sorted by name. That of each single picture and file is "
    "in metrics.json."
)


def document(
    record: AuditRecord, lines: Sequence[Line], thumbs: dict[str, Thumb], repeat: str, digest: str
) -> Document:
    """The report.

    Args:
        record: what was concluded.
        lines: ROC curves.
        thumbs: the pictures to be shown, by id.
        repeat: the audit.yaml that asks the same again.
        digest: SHA-256 of metrics.json.
    """
    undetermined = record.verdict == "undetermined"
    sections = [
        Section("How sure that is", tuple(map(Text, _sure(record)))),
        Section("What would change it", (Bullets(tuple(_changes(record))),)),
        Section("Is it only the pictures' style?", tuple(_style(record))),
        Section("What the attacks found", tuple(_attacks(record, lines, undetermined))),
    ]
    if thumbs:
        sections.append(_pictures(record, thumbs))
    sections.append(Section("What this report does not show", (Bullets(tuple(_limits(record))),)))
    if record.left_out:
        sections.append(Section("Attacks that were not made", (Terms(_named(record.left_out)),)))
    if record.failed:
        sections.append(Section("Attacks that failed", (Terms(_named(record.failed)),)))
    sections += _evidence(record, repeat, digest)
    return Document(
        kicker=f"Report of an audit with lmia, {_date(record.provenance.made_at)}",
        tone=record.verdict.split()[0],
        tag=record.verdict,
        headline=HEADLINES[record.verdict],
        question=_question(record),
        lead=tuple(found_sentences(record)),
        sections=tuple(sections),
        footer=f"lmia audit, {_date(record.provenance.made_at)}; SHA-256 of metrics.json {digest}",
    )


def summary(record: Judgement) -> str:
    """The verdict in a few lines of text, for a terminal."""
    lines = [f"Verdict: {record.verdict}. {HEADLINES[record.verdict]}"]
    lines += [f"  {text}" for text in (*found_sentences(record), *_sure(record)[:-1])]
    lines += [f"  To find out: {remedy}." for remedy in record.remedies]
    return "\n".join(lines) + "\n"


# ---- the answer


def _question(record: AuditRecord) -> str:
    sets, audit = record.materials.sets, record.request
    first, second = sets[MEMBERS], sets[NONMEMBERS]
    base = (
        f" The model before tuning, “{_short(audit.base)}”, was asked as well, so that what is easy for any model is "
        "not taken for use."
        if audit.base
        else " No model from before the tuning was given."
    )
    split = " Whoever asked vouches that the two sets are a random split of one pool." if audit.random_split else ""
    return (
        f"Asked: were the {len(first.pictures):,d} pictures of {first.num_people:,d} people in "
        f"“{_short(first.folder)}” used to tune {_subject(audit)}? They were compared with "
        f"{len(second.pictures):,d} pictures of {second.num_people:,d} other people in "
        f"“{_short(second.folder)}”, of which whoever asked says "
        f"that they were certainly not used.{base}{split}"
    )


def _subject(audit: Audit) -> str:
    if audit.model is not None:
        return f"the model “{_short(audit.model)}”"
    return f"the model that drew the pictures in “{_short(str(audit.generated))}”"


def found_sentences(record: Judgement) -> list[str]:
    """What was found."""
    if record.verdict == "undetermined":
        return [_sentence(reason) for reason in record.reasons]
    best, count = record.attacks[0], len(record.attacks)
    strongest = ""
    if best.auc is not None:
        strongest = (
            f" The strongest, “{_name(best.attack)}”, gives a random picture of the first set a higher score than a "
            f"random one of the second in {100 * best.auc.value:.0f} of 100 cases (AUC {_number(best.auc)}; 50 of 100 "
            "is guessing)."
        )
    what = "An attack is a test that scores each picture: the higher, the more the model behaves as if it had seen it."
    if record.verdict == "leak":
        found = sum(attack.found for attack in record.attacks)
        return [
            f"Found: {found} of {count} attacks tell the first set from the second by more than chance and all "
            f"controls explain.{strongest} {what}",
            f"At least {formats.number(best.lower_limit, signed=True)} of AUC is left of it after the strictest "
            f"comparison ({_over(best.lower_limit_over)}), at a level of {record.alpha:.0%} for all attacks together.",
            _picture_sentence(record, best),
        ]
    return [
        f"Found: none of {count} attacks tells the first set from the second by more than chance and all controls "
        f"explain.{strongest} {what}",
        f"Single pictures cannot be judged: {_rate_sentence(best, record.num_nonmembers)}.",
    ]


def _sure(record: Judgement) -> list[str]:
    """How sure the answer is; the last sentence says where the rule was tried."""
    texts = []
    ps = [attack.set_p_adjusted for attack in record.attacks if attack.set_p_adjusted is not None]
    if record.verdict == "undetermined":
        texts.append("The numbers of this report are no evidence in either direction.")
    elif ps:
        texts.append(
            f"Set p {_equals(min(ps))}: if people were exchanged at random between the two sets, which changes nothing "
            f"where nobody's pictures were used, a difference as large would come up in {_odds(min(ps))} cases "
            f"(counted for all {len(record.attacks)} attacks together)."
        )
    else:
        texts.append(
            "People could not be exchanged between the two sets, since these differ in style, too; the answer rests on "
            "the differences from the controls alone."
        )
    if record.verdict == "leak" and record.people_needed is not None:
        texts.append(
            f"With “{_name(record.attacks[0].attack)}” a suspected set of about {record.people_needed} people would "
            "have been enough to notice in 4 of 5 such audits."
        )
    if record.verdict == "no leak found":
        texts.append(_detectable(record.mde))
    texts.append(
        "How often such a verdict is right or wrong can be tried on simulated audits whose answer is known, with "
        "tests/coverage/verdicts.py of lmia's source."
    )
    return texts


def _detectable(mde: float | None) -> str:
    if mde is None or mde >= 0.5:
        return (
            "What would have been found: nothing for certain. With this few people and this many attacks even a "
            f"perfect attack need not be credited (minimum detectable effect {formats.number(mde)}; .5 is the most "
            "there is). Give more people."
        )
    return (
        f"What would have been found in 4 of 5 such audits: an attack that reaches an AUC of about "
        f"{formats.number(0.5 + mde)} (.5 is guessing, 1 is certainty; the difference from guessing, "
        f"{formats.number(mde)}, is called the minimum detectable effect). A weaker trace, or one that these attacks "
        "cannot see, remains possible."
    )


def _picture_sentence(record: Judgement, best: AttackRecord) -> str:
    level = record.picture_level or "not reliable"
    return f"{LEVELS[level]}: {_rate_sentence(best, record.num_nonmembers)}."


def _rate_sentence(attack: AttackRecord, num_nonmembers: int) -> str:
    (fpr, rate) = next(iter(attack.tpr_at_fpr.items()))
    if rate is None:
        return (
            f"with {num_nonmembers} pictures that were not used it cannot be measured how many of the used ones are "
            f"found while {formats.percent(fpr)} of the others are accused wrongly"
        )
    ci = f" [{formats.number(rate.ci[0])}, {formats.number(rate.ci[1])}]" if rate.ci else ""
    return (
        f"while at most {formats.percent(fpr)} of the pictures that were not used are accused wrongly, "
        f"“{_name(attack.attack)}” finds a share of {formats.number(rate.tpr)}{ci} of the suspected ones "
        f"({rate.false_positives} wrong accusations)"
    )


def _changes(record: AuditRecord) -> list[str]:
    if record.verdict == "undetermined":
        return [_sentence(remedy) for remedy in record.remedies]
    texts = [
        "If pictures of the second set were used after all, the two sets look more alike than they are.",
        "If the two sets differ in a way that no control sees, the second set is no measure for the first.",
    ]
    if record.request.base:
        texts.append("If the model named as the one before tuning had seen the pictures, or is of another kind.")
    if record.verdict == "no leak found":
        texts.append("With more people on both sides a weaker trace would be found.")
        if record.left_out:
            texts.append("The attacks that were not made (below) may see what these do not.")
    return texts


# ---- numbers


def _style(record: AuditRecord) -> list[Block]:
    rows = []
    for what, value in record.blind.items():
        told = value is not None and value.ci is not None and value.ci[0] > 0.5
        says = (
            f"The sets differ in their {what} alone; only what an attack finds beyond that counts."
            if told
            else f"Nothing in the {what} alone tells the sets apart, as far as this control sees."
        )
        rows.append((f"Blind classifier of the {what}", _with_ci(value), says))
    best = record.attacks[0]
    if best.base_auc is not None:
        differs = best.base_auc.ci is not None and not best.base_auc.ci[0] <= 0.5 <= best.base_auc.ci[1]
        says = (
            "These pictures are easier or harder for a model that was not tuned; the differences take that off."
            if differs
            else "The model before tuning does not tell the sets apart, as it should be."
        )
    else:
        says = _sentence((best.reason or {}).get("base_auc", ""))
    rows.append((f"Model before tuning, {_name(best.attack)}", _with_ci(best.base_auc), says))
    columns = (
        Column("control", text=True, width=1.6),
        Column("AUC [95 %]", width=1.1),
        Column("what it says", text=True, width=3),
    )
    return [
        Text(
            "An attack says something about use only if the two sets could be exchanged for one another. Blind "
            f"classifiers never see the audited model. {AUC}. [95 %]: where the true value lies with 95 % certainty.",
            soft=True,
        ),
        Table(columns, tuple(rows)),
    ]


def _attacks(record: AuditRecord, lines: Sequence[Line], undetermined: bool) -> list[Block]:
    fpr = formats.percent(next(iter(record.attacks[0].tpr_at_fpr)))
    columns = (
        Column("attack", text=True, width=1.7),
        Column("AUC [95 %]", f"{AUC}; in brackets where the true value lies with 95 % certainty", width=1.4),
        Column("before tuning", "the same of the model before tuning: what is easy or hard for any model", width=1.4),
        Column(
            "lower limit",
            "the smallest advantage over guessing, over the blind controls and over the model before tuning that is "
            "still compatible with the data, for all attacks at once; use is claimed above 0 only",
        ),
        Column(
            "set p",
            "how often as large a difference comes up if people are exchanged at random between the sets, counted for "
            "all attacks together; a dash where the sets cannot be exchanged",
            width=0.7,
        ),
        Column(
            f"found at {fpr} FPR",
            f"share of the suspected pictures that are found while {fpr} of those that were not used are accused "
            "wrongly (FPR, the false positive rate); a dash where there are too few pictures to measure it",
            width=0.9,
        ),
        Column(
            "detectable",
            "minimum detectable effect: how far above .5 an AUC must lie to be found in 4 of 5 such audits",
            width=1.0,
        ),
    )
    rows = tuple(_row(attack, undetermined) for attack in record.attacks)
    marked = frozenset(at for at, attack in enumerate(record.attacks) if attack.found)
    blocks: list[Block] = []
    if undetermined:
        blocks.append(
            Text(
                "These numbers are not evidence: whether they come from use or from something else cannot be told.",
            )
        )
    blocks += [Table(columns, rows, marked)]
    if lines:
        blocks += [
            Text(
                "ROC curves: going right, more of the pictures that were not used are accused; going up, more of the "
                "suspected ones are found. The dotted line is guessing.",
                soft=True,
            ),
            Roc(tuple(lines)),
        ]
    blocks.append(
        Terms(
            tuple(
                (
                    _name(attack.attack),
                    f"{_sentence(ATTACKS.get(attack.attack).paper)} It {ACCESS[attack.access]}; "
                    f"{formats.amount(attack.nfe)} questions a picture.",
                )
                for attack in record.attacks
            )
        )
    )
    return blocks


def _row(attack: AttackRecord, undetermined: bool) -> tuple[str, ...]:
    rate: Rate | None = next(iter(attack.tpr_at_fpr.values()))
    limit = formats.MISSING
    if attack.lower_limit is not None:
        limit = f"{formats.number(attack.lower_limit, signed=True)} ({_over(attack.lower_limit_over)})"
    return (
        _name(attack.attack),
        _with_ci(attack.auc),
        _with_ci(attack.base_auc),
        limit,
        formats.MISSING if undetermined else formats.p_text(attack.set_p_adjusted),
        formats.MISSING if rate is None else formats.number(rate.tpr),
        formats.number(attack.mde),
    )


def _pictures(record: AuditRecord, thumbs: dict[str, Thumb]) -> Section:
    blocks: list[Block] = []
    for label, title in ((MEMBERS, "Pictures that may have been used:"), (NONMEMBERS, "Pictures that were not:")):
        own = tuple(thumb for name, thumb in thumbs.items() if name.startswith(f"{label}/"))
        blocks += [Text(title), Gallery(own)] if own else []
    note = "In the order of their names, shown since it was asked for; their order says nothing about use."
    return Section("The pictures", (Text(note, soft=True), *blocks))


def _limits(record: AuditRecord) -> list[str]:
    audit = record.request
    texts = [
        "Whether a particular picture was used, unless it says above that single pictures can be judged.",
        "That the set was not used. An attack that finds nothing may be too weak; the minimum detectable effect says "
        "what would have been seen.",
        "Who used the pictures, how, or whether that was allowed.",
        "Anything about pictures or people outside of these two sets.",
        "That the two sets are alike in every respect. The blind controls look at colours, light, sharpness, layout "
        "and captions; a difference that they cannot see but a model can would be taken for use"
        + (", which is what the comparison with the model before tuning is for." if audit.base else "."),
    ]
    if audit.random_split:
        texts.append("That the split was random: whoever asked for the audit vouches for it.")
    if audit.base is None and record.verdict != "undetermined":
        texts.append("What the model knew before it was tuned: no such model was given.")
    return texts


# ---- the chain of evidence


def _evidence(record: AuditRecord, repeat: str, digest: str) -> list[Section]:
    made, given = record.provenance, record.materials
    columns = (
        Column("what", text=True, width=1.2),
        Column("given as", text=True, width=1.6),
        Column("files", width=0.6),
        Column("SHA-256", text=True, width=3),
    )
    rows = [
        (what, model.reference, str(len(model.files)), model.sha256 or "has no files")
        for what, model in (("model", given.model), ("base (before tuning)", given.base))
        if model is not None
    ]
    rows += [(label, one.folder, str(len(one.pictures)), one.sha256) for label, one in given.sets.items()]
    rows += [
        ("scores of all attacks", "scores.parquet", "1", record.scores_sha256),
        ("all numbers", "metrics.json", "1", digest),
    ]
    pairs = [
        ("date", _date(made.made_at)),
        ("command", made.command or "asked for by a program, not on the command line"),
        ("lmia, git revision", made.revision),
        ("versions", ", ".join(f"{name} {version}" for name, version in made.versions.items())),
        ("computed on", ", ".join(made.numerics)),
        ("picture size", f"{record.size_px} px"),
        ("seed of all random draws", str(record.request.seed)),
    ]
    if record.request.credit:
        pairs.append(("the pictures", record.request.credit))
    return [
        Section(
            "Chain of evidence",
            (
                Terms(tuple(pairs)),
                Table(columns, tuple(rows)),
                Text(SHA256, soft=True),
                Text(
                    "“lmia audit --check FOLDER”, FOLDER being where this report lies, computes these digests and all "
                    "numbers again and says line by line what agrees. It cannot notice that everything was replaced "
                    "together: keep the last digest of the table (that of metrics.json) in another place.",
                    soft=True,
                ),
            ),
        ),
        Section(
            "To repeat this audit",
            (
                Text("“lmia audit --file audit.yaml”, with this audit.yaml (it lies beside the report):", soft=True),
                Code(repeat),
            ),
        ),
    ]


# ---- small words


def _date(made_at: str) -> str:
    return made_at.replace("T", " ").removesuffix("Z") + " UTC"


def _short(reference: str) -> str:
    return Path(reference).name or reference


def _over(against: str) -> str:
    return {
        "chance": "over guessing",
        "base": "over the model before tuning",
        "blind": "over the blind control",
    }.get(against, f"over the blind control of the {against.removeprefix('blind (').removesuffix(')')}")


def _odds(p: float) -> str:
    return "fewer than 1 in 1,000" if p < 0.001 else f"about {1000 * p:.0f} in 1,000"


def _equals(p: float) -> str:
    text = formats.p_text(p)
    return text if text.startswith("<") else f"= {text}"


def _number(measured: Measured) -> str:
    return formats.number(measured.value)


def _with_ci(measured: Measured | None) -> str:
    return formats.MISSING if measured is None else formats.with_interval(measured.value, measured.ci)


def _name(attack: str) -> str:
    return attack.replace("_", " ")


def _named(reasons: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((_name(name), _sentence(why)) for name, why in reasons.items())


def _sentence(text: str) -> str:
    text = text.strip()
    return f"{text[0].upper()}{text[1:]}{'' if text.endswith('.') else '.'}" if text else ""
