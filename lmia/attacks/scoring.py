"""One pass over a query set for any number of attacks: batches are full and what two attacks share is computed once.

The pass goes through the pictures in chunks. A Probe remembers, for the chunk that it looks at, the latents,
text states, noises, eps_th(z0, 0, c), the DDIM inversion and every other evaluation that has a name; so attacks
that ask for the same evaluation get the same tensor, and scores do not depend on what else is in the pass.
"""

from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lmia.attacks import Attack, Learned, ScoreInputs
from lmia.models.probe import Meter, Probe
from lmia.specs import RequestError

if TYPE_CHECKING:
    from lmia.data.pictures import Pictures
    from lmia.models.denoiser import Denoiser


def nfe_asked(attacks: Iterable[Attack]) -> int:
    """U-Net evaluations per picture if each attack of a pass ran alone: the sum of what they declare."""
    return sum(attack.nfe for attack in attacks)


def nfe_shared(attacks: Iterable[Attack]) -> int:
    """U-Net evaluations per picture of one pass: what attacks share is counted once."""
    union: dict[Hashable, int] = {}
    for attack in attacks:
        union |= attack.evaluations
    return sum(union.values())


class Scored(NamedTuple):
    """What a pass gave.

    Attributes:
        scores: per attack, in the order given: float64 [N], higher = more likely a member.
        evaluations: U-Net evaluations that were spent in all, on target and base.
    """

    scores: list[np.ndarray]
    evaluations: int


def score_pass(
    attacks: Sequence[tuple[Attack, Learned | None]],
    query: "Pictures",
    model: "Denoiser | None",
    *,
    base: "Denoiser | None" = None,
    noise_seed: int = 0,
    batch: int = 16,
    device: str = "cpu",
    chunk: int = 64,
) -> Scored:
    """Scores of several attacks on one target over one query set.

    Args:
        attacks: each with what it learned (None or nothing if it does not learn).
        query: the pictures to score.
        model: the target; may be None if no attack needs it.
        base: the public base model, for attacks that need it.
        noise_seed: seed of the noises.
        batch: pictures per U-Net call.
        device: where offline attacks compute.
        chunk: pictures per step, rounded up to whole batches. A matter of memory and speed, not of results (up to
            rounding).

    Returns:
        The scores, and what was spent on them, which is `nfe_shared` per picture; `nfe_asked` is what the attacks
        would spend one by one.

    Raises:
        RequestError: for an unmet need, or a picture that an attack cannot score.
    """
    for attack, learned in attacks:
        needs = attack.needs
        for what, missing in (
            ("model", model is None and "model" in needs),
            ("base", base is None and "base" in needs),
            ("learned state", not learned and attack.learns),
        ):
            if missing:
                raise RequestError(f"attack {attack.name!r} needs a {what}, and none was given")
        attack.check(query.captions_by_id)
    scorers = [attack.scorer(ScoreInputs(learned or {}, base, device)) for attack, learned in attacks]
    if model is not None:
        chunk = -(-chunk // batch) * batch
    meter = Meter()
    rows: list[list[np.ndarray]] = [[] for _ in attacks]
    for part in query.chunks(chunk):
        target = Probe(model, part, base=base, noise_seed=noise_seed, batch=batch, meter=meter)
        for (attack, _), scorer, found in zip(attacks, scorers, rows, strict=True):
            value = scorer(target)
            assert value.dtype == np.float64 and value.shape == (len(part),), (attack, value.dtype, value.shape)
            found.append(value)
    return Scored([np.concatenate(found) if found else np.empty(0) for found in rows], meter.evaluations)
