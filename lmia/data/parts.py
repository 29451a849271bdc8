"""Splitting people into parts, and what may not happen across a split: the same person or the same picture twice."""

import functools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL import Image

from lmia.seeds import seed_of
from lmia.specs import RequestError


def assign(identities: Sequence[str], people: Mapping[str, int], seed: int) -> dict[str, list[str]]:
    """Disjoint parts of the people, e.g. ``{"A": 40, "B": 40, "C": 30}``.

    Every person gets a place in line from (seed, identity); the parts take from the front in the order of their
    names. So neither the order of `identities` nor of `people` matters.

    Returns:
        For each part its persons, sorted.

    Raises:
        RequestError: there are fewer people than needed, a person is listed twice, or a count is negative.
    """
    twice = _first_repeated(identities)
    if twice is not None:
        raise RequestError(f"identity {twice!r} is listed twice")
    negative = {part: count for part, count in people.items() if count < 0}
    if negative:
        raise RequestError(f"people = {negative}: a part cannot have fewer than 0 people")
    needed = sum(people.values())
    if needed > len(identities):
        counts = ", ".join(f"{part} {count}" for part, count in sorted(people.items()))
        raise RequestError(f"there are {len(identities)} people, but {needed} are needed ({counts})")
    line = _line(tuple(identities), seed)
    parts, start = {}, 0
    for part in sorted(people):
        parts[part] = sorted(line[start : start + people[part]])
        start += people[part]
    return {part: parts[part] for part in people}


@functools.lru_cache(maxsize=64)  # planning asks for the same few lines hundreds of times
def _line(identities: tuple[str, ...], seed: int) -> list[str]:
    return sorted(identities, key=lambda identity: (seed_of("part", seed, identity), identity))


def _first_repeated(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


# ---------------------------------------------------------------------------------------------------------------
# Near-duplicates: one picture stored twice, perhaps compressed, resized, brightened, mirrored or slightly cropped.
# Compared are thumbnails of brightness and two colour differences without their means, by the cosine of their
# angle, on two grids. The limits lie between what such changes do (cosines of at least .977 and .965 on synthetic
# portraits) and the most alike pictures of different people (.964 and .954 among 2,400).

_GRIDS = {12: 0.975, 24: 0.96}
_FAINT = 4.0  # with less contrast than this (of 255) there is nothing to recognise a picture by


def thumbnail(image: np.ndarray) -> np.ndarray:
    """What near-duplicates are compared by.

    Args:
        image: uint8 [H, W, 3].

    Returns:
        float32 [D]: for each grid a unit vector (shorter, and so like nothing, without contrast), one after the other.
    """
    vectors = []
    for side in _GRIDS:
        small = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BOX), dtype=np.float32)
        grey = small @ np.array([0.299, 0.587, 0.114], np.float32)
        channels = np.stack([grey, (small[..., 0] - small[..., 2]) / 2, (small[..., 1] - grey) / 2])
        channels -= channels.mean(axis=(1, 2), keepdims=True)
        vectors.append(channels.ravel() / max(float(np.linalg.norm(channels)), _FAINT * side))
    return np.concatenate(vectors)


def near_duplicates(thumbnails: np.ndarray, groups: Sequence[object]) -> list[tuple[int, int, float]]:
    """Pairs of rows of *different* groups that show nearly the same picture, also mirrored.

    Args:
        thumbnails: float32 [N, D] from `thumbnail`.
        groups: what a duplicate may not cross: a part or a person per row.

    Returns:
        (row, later row, cosine on the coarse grid), in order of rows.
    """
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    group = np.array([numbers[name] for name in groups])
    mirrored = _mirror(thumbnails)
    found = []
    for start in range(0, len(thumbnails), 1024):
        block = thumbnails[start : start + 1024]
        for other in (thumbnails[start:], mirrored[start:]):
            alike = np.ones((len(block), len(other)), dtype=bool)
            cosine, at = None, 0
            for side, limit in _GRIDS.items():
                wide = slice(at, at + 3 * side * side)
                at = wide.stop
                grid_cosine = block[:, wide] @ other[:, wide].T
                cosine = grid_cosine if cosine is None else cosine
                alike &= grid_cosine >= limit
                if not alike.any():
                    break
            assert cosine is not None
            alike &= group[start : start + len(block), None] != group[None, start:]
            for row, column in zip(*np.nonzero(alike), strict=True):
                if column > row:
                    found.append((start + int(row), start + int(column), float(cosine[row, column])))
    best: dict[tuple[int, int], float] = {}
    for row, later, cosine in found:
        best[row, later] = max(cosine, best.get((row, later), 0.0))
    return [(row, later, cosine) for (row, later), cosine in sorted(best.items())]


def _mirror(thumbnails: np.ndarray) -> np.ndarray:
    parts, at = [], 0
    for side in _GRIDS:
        grid = thumbnails[:, at : at + 3 * side * side].reshape(-1, 3, side, side)
        parts.append(grid[:, :, :, ::-1].reshape(len(thumbnails), -1))
        at += 3 * side * side
    return np.concatenate(parts, axis=1)
