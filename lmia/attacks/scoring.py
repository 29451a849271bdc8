"""One pass over a query set for any number of attacks: batches are full and what two attacks share is computed once.

The pass goes through the pictures in chunks. A Probe remembers, for the chunk that it looks at, the latents,
text states, noises, eps_th(z0, 0, c), the DDIM inversion and every other evaluation that has a name; so attacks
that ask for the same evaluation get the same tensor, and scores do not depend on what else is in the pass.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lmia.attacks import ATTACKS, Learned, Shadow
from lmia.specs import RequestError

if TYPE_CHECKING:
    from lmia.data.pictures import Pictures
    from lmia.models.probe import Probe


def attack_of(label: str) -> str:
    """The attack's name in a pass label `NAME` or `NAME:TAG`."""
    return label.split(":", 1)[0]


def nfe_asked(attacks: Iterable[tuple[str, Any]]) -> int:
    """U-Net evaluations per picture if each attack (label, spec) of a pass ran alone: the sum of what they declare."""
    return sum(ATTACKS.get(attack_of(label)).nfe(spec) for label, spec in attacks)


def nfe_shared(attacks: Iterable[tuple[str, Any]]) -> int:
    """U-Net evaluations per picture of one pass: what attacks (label, spec) share is counted once."""
    union: dict[Any, int] = {}
    for label, spec in attacks:
        union |= ATTACKS.get(attack_of(label)).evaluations(spec)
    return sum(union.values())


def score_pass(
    attacks: Sequence[tuple[str, Any, Learned | None]],
    query: "Pictures",
    probe: "Probe | None",
    *,
    base: "Probe | None" = None,
    device: str = "cpu",
    chunk: int = 64,
) -> dict[str, np.ndarray]:
    """Scores of several attacks on one target over one query set.

    Args:
        attacks: (label, spec, learned) each. A label is the attack's name, or `NAME:TAG` where one attack stands
            in the pass with several specs.
        query: the pictures to score.
        probe: the target; may be None if no attack needs it. Its counter `evaluations` grows by what was really
            spent, `nfe_shared`; what the attacks would spend one by one is `nfe_asked`.
        base: the public base model, for attacks that need it.
        device: where offline attacks compute.
        chunk: pictures per step, rounded up to whole batches of the Probe. A matter of memory and speed, not of
            results (up to rounding).

    Returns:
        label -> float64 [N], higher = more likely a member.

    Raises:
        RequestError: for a label given twice, an unmet need, or a picture that an attack cannot score.
    """
    labels = [label for label, _, _ in attacks]
    if len(set(labels)) < len(labels):
        raise RequestError(f"labels of one pass must differ, got {labels}; use NAME:TAG")
    jobs = []
    for label, spec, learned in attacks:
        attack = ATTACKS.get(attack_of(label))
        requires = attack.requires(spec)
        for what, given in (("model", probe), ("base", base), ("learned state", learned)):
            if given is None and (what in requires or (what == "learned state" and attack.fits(spec))):
                raise RequestError(f"attack {label!r} needs a {what}, and none was given")
        attack.check(spec, query.captions_by_id)
        jobs.append((label, attack, spec, attack.prepare(spec, learned, base=base, device=device)))
    if probe is not None:
        chunk = -(-chunk // probe.batch) * probe.batch
    scores = {label: np.full(len(query), np.nan) for label in labels}
    for start in range(0, len(query), chunk):
        rows = range(start, min(start + chunk, len(query)))
        batch = query.take(list(rows))
        for model in (probe, base):
            if model is not None:
                model.show(batch)
        for label, attack, spec, prepared in jobs:
            value = attack.score_batch(spec, batch, prepared=prepared, probe=probe, base=base, device=device)
            assert value.dtype == np.float64 and value.shape == (len(batch),), (label, value.dtype, value.shape)
            scores[label][start : start + len(batch)] = value
    return scores


class Labelled(NamedTuple):
    """What an attack measured on shadow targets, with the truth.

    Attributes:
        values: float64 [N, ...], one row a picture.
        labels: int64 [N], 1 = member of its shadow target.
        keys: one unique name per row.
    """

    values: np.ndarray
    labels: np.ndarray
    keys: list[str]


def on_shadows(
    shadows: Sequence[Shadow], name: Hashable, measure: Callable[["Probe"], np.ndarray], *, chunk: int = 64
) -> Labelled:
    """Applies `measure` to all pictures of all shadow targets, in steps of `chunk` pictures.

    Args:
        shadows: the shadow targets.
        name: what is measured, all that decides its values included; measured once a Shadow.
        measure: from a Probe that looks at some pictures to one row each.
        chunk: pictures per step, a matter of memory.
    """
    values, labels, keys = [], [], []
    for number, shadow in enumerate(shadows):
        if name not in shadow.measured:
            probe = shadow.probe()
            shadow.measured[name] = np.concatenate(
                [
                    measure(probe.show(pictures.take(range(start, min(start + chunk, len(pictures))))))
                    for pictures in (shadow.members, shadow.nonmembers)
                    for start in range(0, len(pictures), chunk)
                ]
            )
        values.append(shadow.measured[name])
        for label, pictures in ((1, shadow.members), (0, shadow.nonmembers)):
            labels += [label] * len(pictures)
            keys += [f"{number}/{label}/{record}" for record in pictures.ids]
    if len(set(labels)) < 2:
        raise RequestError("shadow targets need both members and non-members")
    return Labelled(np.concatenate(values), np.array(labels), keys)
