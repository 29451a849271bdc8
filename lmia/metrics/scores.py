"""Per-picture scores, validated once at the door: float64, higher = member, no NaN, no infinity."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmia.specs import RequestError

NAMED = 5  # ids spelled out in an error message


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of pictures whose membership is not at issue (another source, a suspected set).

    Attributes:
        ids: One name per picture, unique.
        scores: float64 [N], higher = more likely a member.
        identity: The person on each picture; None (whole or single entries) where nobody knows: such a
            picture counts as its own person.
    """

    ids: Sequence[str]
    scores: np.ndarray
    identity: Sequence[str | None] | None = None

    def __post_init__(self) -> None:
        """Converts to float64 and refuses what no metric can use."""
        object.__setattr__(self, "scores", _checked(self.ids, self.scores, self.identity))

    def __len__(self) -> int:
        return len(self.ids)

    def persons(self) -> list[str]:
        """The unit that is resampled, one a picture: its person, or the picture itself where none is known."""
        return _persons(self.ids, self.identity)

    def take(self, rows: np.ndarray) -> "Scores":
        """The given rows, in that order."""
        identity = None if self.identity is None else [self.identity[i] for i in rows.tolist()]
        return Scores([self.ids[i] for i in rows.tolist()], self.scores[rows], identity)


@dataclass(frozen=True, eq=False)
class ScoreSet:
    """Scores of pictures with their membership; both classes are present.

    Attributes:
        ids: One name per picture, unique.
        scores: float64 [N], higher = more likely a member.
        member: bool [N].
        identity: As in `Scores`; with it, every interval treats a person's pictures as one cluster.
    """

    ids: Sequence[str]
    scores: np.ndarray
    member: np.ndarray
    identity: Sequence[str | None] | None = None

    def __post_init__(self) -> None:
        """Converts to float64 and bool and refuses what no metric can use."""
        object.__setattr__(self, "scores", _checked(self.ids, self.scores, self.identity))
        member = np.asarray(self.member)
        if member.shape != self.scores.shape:
            raise RequestError(f"member: {member.shape[0] if member.ndim else 0} values for {len(self.ids)} ids")
        if member.dtype != np.bool_:
            odd = [i for i, value in zip(self.ids, member.tolist(), strict=True) if value not in (0, 1)]
            if odd:
                raise RequestError(f"member: neither bool nor 0/1 at ids {_some(odd)}")
            member = member.astype(bool)
        if member.all() or not member.any():
            only = "members" if member.any() else "non-members"
            raise RequestError(f"member: only {only} among the {len(self.ids)} pictures; both classes are needed")
        object.__setattr__(self, "member", member)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_members(self) -> int:
        """Pictures that the target was trained on."""
        return int(self.member.sum())

    @property
    def num_nonmembers(self) -> int:
        """Pictures that it was not trained on."""
        return len(self.ids) - self.num_members

    @property
    def num_identities(self) -> int:
        """Different persons; pictures without one count as one each."""
        return len(set(self.persons()))

    def persons(self) -> list[str]:
        """The unit that is resampled, one a picture: its person, or the picture itself where none is known."""
        return _persons(self.ids, self.identity)

    def take(self, rows: np.ndarray) -> "ScoreSet":
        """The given rows, in that order."""
        identity = None if self.identity is None else [self.identity[i] for i in rows.tolist()]
        return ScoreSet([self.ids[i] for i in rows.tolist()], self.scores[rows], self.member[rows], identity)

    def members(self) -> Scores:
        """The members alone."""
        return self._part(self.member)

    def nonmembers(self) -> Scores:
        """The non-members alone."""
        return self._part(~self.member)

    def _part(self, mask: np.ndarray) -> Scores:
        rows = np.flatnonzero(mask)
        identity = None if self.identity is None else [self.identity[i] for i in rows.tolist()]
        return Scores([self.ids[i] for i in rows.tolist()], self.scores[rows], identity)


def align(scores: ScoreSet, ids: Sequence[str], what: str) -> ScoreSet:
    """`scores` in the order of `ids`; RequestError naming ids when the two sets of ids differ."""
    if list(scores.ids) == list(ids):
        return scores
    place = {name: row for row, name in enumerate(scores.ids)}
    missing = [name for name in ids if name not in place]
    wanted = set(ids)
    extra = [name for name in scores.ids if name not in wanted]
    if missing or extra:
        parts = [f"{len(missing)} missing (ids {_some(missing)})"] if missing else []
        parts += [f"{len(extra)} too many (ids {_some(extra)})"] if extra else []
        raise RequestError(f"{what}: not the same pictures: {', '.join(parts)}")
    return scores.take(np.array([place[name] for name in ids]))


def _persons(ids: Sequence[str], identity: Sequence[str | None] | None) -> list[str]:
    if identity is None:
        return list(ids)
    return [f"picture {name}" if person is None else person for name, person in zip(ids, identity, strict=True)]


def _checked(ids: Sequence[str], scores: np.ndarray, identity: Sequence[str | None] | None) -> np.ndarray:
    try:
        values = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError):
        raise RequestError("score: not numbers") from None
    if values.shape != (len(ids),):
        raise RequestError(f"score: shape {values.shape} for {len(ids)} ids")
    if identity is not None and len(identity) != len(ids):
        raise RequestError(f"identity: {len(identity)} values for {len(ids)} ids")
    if not len(ids):
        raise RequestError("score: no pictures")
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise RequestError(f"score: NaN or infinite at ids {_some([ids[i] for i in bad.tolist()])}")
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = [name for name in ids if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
        raise RequestError(f"id: given twice: {_some(twice)}")
    return values


def _some(names: Sequence[object]) -> str:
    text = ", ".join(map(str, names[:NAMED]))
    return text if len(names) <= NAMED else f"{text} and {len(names) - NAMED} more"
