"""The blind control: how well can two groups of people be told apart from their pictures alone?

Paper: none; the check of Das, Zhang, Tramer: Blind Baselines Beat Membership Inference Attacks (2024).
Equation: logistic regression on standardised frozen features phi(x); score = its decision value.
    phi(x) = [an 8 x 8 RGB thumbnail (area mean); per channel mean, standard deviation and 5 quantiles; per channel
    the mean absolute Laplacian at full, half and quarter resolution (sharpness, noise, compression)], on [0, 1].
Access: none. It never sees a target: whatever it achieves is a property of the pictures, not of a model.
Sign: higher = more like the positives it was fitted on.
Deviations: a control, not an attack. Fitted on people who are not in the query set; for two halves of one source,
    where no other people stand for a half, `crossfit` predicts each person from the others.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from lmia.attacks import Access, Attack, FitInputs, FitRun, Learned, Need, ScoreInputs, Scorer, to_arrays, to_tensors
from lmia.seeds import seed_of
from lmia.specs import RequestError

if TYPE_CHECKING:
    from lmia.data.pictures import Pictures

THUMBNAIL = 8
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Blind(Attack, name="blind"):
    """Logistic regression on features of pictures only."""

    version = 1
    paper = "control, after Das et al. 2024"
    role = "control"
    access: ClassVar[Access] = "none"
    needs: ClassVar[frozenset[Need]] = frozenset({"positives", "negatives"})

    c: float = Field(0.1, gt=0, description="inverse of the ridge penalty, on standardised features")
    seed: int = Field(0, ge=0, description="who falls into which fold of `crossfit`")

    def fit(self, inputs: FitInputs, run: FitRun) -> Learned:
        """Scaler and coefficients."""
        positives = self.need(inputs.positives, "positives")
        negatives = self.need(inputs.negatives, "negatives")
        return to_tensors(regress(self.c, features(positives), features(negatives)))

    def scorer(self, inputs: ScoreInputs) -> Scorer:
        """The decision value."""
        fitted = to_arrays(inputs.learned)
        return lambda target: decide(fitted, features(target.pictures))


def features(pictures: "Pictures") -> np.ndarray:
    """The features phi of the docstring above: float64 [N, 222]. The thumbnail cuts sides to multiples of 8."""
    rows = []
    for image in pictures.images():
        x = image.astype(np.float64) / 255
        height, width = (side // THUMBNAIL for side in x.shape[:2])
        if not height or not width:
            raise RequestError(f"blind control: pictures of {x.shape[1]} x {x.shape[0]} px are under 8 px a side")
        tiles = x[: height * THUMBNAIL, : width * THUMBNAIL]
        thumbnail = tiles.reshape(THUMBNAIL, height, THUMBNAIL, width, 3).mean(axis=(1, 3))
        flat = x.reshape(-1, 3)
        levels = [flat.mean(axis=0), flat.std(axis=0), *np.quantile(flat, QUANTILES, axis=0)]
        rows.append(np.concatenate([thumbnail.ravel(), *levels, *(_sharpness(x, s) for s in (1, 2, 4))]))
    return np.stack(rows)


def regress(c: float, positives: np.ndarray, negatives: np.ndarray) -> dict[str, np.ndarray]:
    """Standardisation and logistic regression of features [P, F] against [Q, F]: mean, scale, weight, bias.

    `c` is the inverse of the ridge penalty on standardised features.
    """
    from sklearn.linear_model import LogisticRegression

    x = np.concatenate([positives, negatives])
    y = np.repeat([1, 0], [len(positives), len(negatives)])
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 1e-12, scale, 1.0)  # a constant feature stays 0
    model = LogisticRegression(C=c, max_iter=2000, tol=1e-6).fit((x - mean) / scale, y)
    return {"mean": mean, "scale": scale, "weight": model.coef_[0], "bias": model.intercept_}


def decide(fitted: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Decision values of features [N, F]: float64 [N], higher = positive."""
    return ((x - fitted["mean"]) / fitted["scale"]) @ fitted["weight"] + float(fitted["bias"][0])


def words(pictures: "Pictures", vocabulary: Sequence[str]) -> np.ndarray:
    """Which words of a vocabulary stand in each picture's caption: float64 [N, W], 0 or 1."""
    said = [set((caption or "").lower().split()) for caption in pictures.captions]
    return np.array([[float(word in caption) for word in vocabulary] for caption in said])


def crossfit(
    blind: Blind,
    positives: "Pictures",
    negatives: "Pictures",
    folds: int = 5,
    see: Literal["pictures", "captions"] = "pictures",
) -> tuple[np.ndarray, np.ndarray]:
    """Blind scores of two groups of people, each person scored by a model that saw none of their pictures.

    It looks at the pictures, or at the words of their captions alone (validity rule 16: captions are side information).

    People are dealt to folds by a hash of (seed, person), evenly and separately on both sides, so that no fold's
    class balance gives its labels away. A picture without an identity is a person of its own.

    Returns:
        (scores of the positives, of the negatives), float64, higher = looks like a positive.

    Raises:
        RequestError: fewer than 2 people on a side, or somebody on both.
    """
    sides = (positives, negatives)
    people = [[who or record for who, record in zip(side.identities, side.ids, strict=True)] for side in sides]
    both = sorted(set(people[0]) & set(people[1]))
    if both:
        raise RequestError(f"blind control: {both[0]!r} is on both sides ({len(both)} people are)")
    folds = min(folds, len(set(people[0])), len(set(people[1])))
    if folds < 2:
        raise RequestError("blind control: cross-fitting needs at least 2 people on each side")
    if see == "captions":
        said = sorted({word for side in sides for caption in side.captions for word in (caption or "").lower().split()})
        if not said:
            raise RequestError("blind control: there are no captions to look at")
        phi = [words(side, said) for side in sides]
    else:
        phi = [features(side) for side in sides]
    fold = [_folds(blind.seed, names, folds) for names in people]
    scores = (np.empty(len(positives)), np.empty(len(negatives)))
    for k in range(folds):
        fitted = regress(blind.c, phi[0][fold[0] != k], phi[1][fold[1] != k])
        for side in (0, 1):
            scores[side][fold[side] == k] = decide(fitted, phi[side][fold[side] == k])
    return scores


def _folds(seed: int, people: list[str], folds: int) -> np.ndarray:
    dealt = sorted(set(people), key=lambda person: seed_of(seed, "fold", person))
    fold = {person: index % folds for index, person in enumerate(dealt)}
    return np.array([fold[person] for person in people])


def _sharpness(x: np.ndarray, shrink: int) -> np.ndarray:
    """Mean absolute Laplacian per channel after averaging shrink x shrink pixels; 0 where nothing is left."""
    height, width = (side // shrink for side in x.shape[:2])
    if height < 3 or width < 3:
        return np.zeros(3)
    x = x[: height * shrink, : width * shrink].reshape(height, shrink, width, shrink, 3).mean(axis=(1, 3))
    laplacian = x[:-2, 1:-1] + x[2:, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:] - 4 * x[1:-1, 1:-1]
    return np.abs(laplacian).mean(axis=(0, 1))
