"""Gradient-boosted trees as plain tensors, so that what an attack learned is safetensors and never pickle."""

from collections.abc import Callable, Mapping

import numpy as np
from pydantic import Field

from lmia.attacks import FitRun, Learned, to_arrays, to_tensors
from lmia.attacks.shadows import Labelled, ShadowTrained


class BoostedTrees(ShadowTrained):
    """An attack that fits boosted trees on what it measures on shadow targets; the score is their logit."""

    trees: int = Field(100, ge=1, description="boosting rounds")
    depth: int = Field(3, ge=1, le=10, description="of each tree")
    rate: float = Field(0.1, gt=0, le=1, description="shrinkage of each tree")
    seed: int = Field(0, ge=0, description="attack seed: ties between features")

    def features(self, values: np.ndarray) -> np.ndarray:
        """Features [N, F] of what was measured."""
        raise NotImplementedError

    def learn(self, data: Labelled, run: FitRun) -> Learned:
        """The trees."""
        x = self.features(data.values)
        return to_tensors(fit_trees(x, data.labels, trees=self.trees, depth=self.depth, rate=self.rate, seed=self.seed))

    def decision(self, learned: Learned, device: str) -> Callable[[np.ndarray], np.ndarray]:
        """The trees' logit."""
        fitted = to_arrays(learned)
        return lambda values: decide_trees(fitted, self.features(values))


def fit_trees(x: np.ndarray, labels: np.ndarray, *, trees: int, depth: int, rate: float, seed: int) -> dict:
    """Fits scikit-learn's gradient boosting on features [N, F] and labels 0/1 [N].

    Returns:
        Arrays by name: "left", "right", "feature" int64 and "threshold", "value" float64, each [trees, nodes]
        (padded); "bias" float64 [1], the prior's logit. A leaf points to itself; values carry the learning rate.
    """
    from sklearn.ensemble import GradientBoostingClassifier

    model = GradientBoostingClassifier(n_estimators=trees, max_depth=depth, learning_rate=rate, random_state=seed)
    model.fit(x, labels)
    grown = [estimator.tree_ for estimator in model.estimators_[:, 0]]
    nodes = max(tree.node_count for tree in grown)
    itself = np.arange(nodes)
    out = {name: np.tile(itself, (len(grown), 1)) for name in ("left", "right")}
    out["feature"] = np.zeros((len(grown), nodes), dtype=np.int64)
    out["threshold"] = np.zeros((len(grown), nodes))
    out["value"] = np.zeros((len(grown), nodes))
    for row, tree in enumerate(grown):
        inner = np.flatnonzero(tree.children_left >= 0)
        out["left"][row, inner] = tree.children_left[inner]
        out["right"][row, inner] = tree.children_right[inner]
        out["feature"][row, inner] = tree.feature[inner]
        out["threshold"][row, inner] = tree.threshold[inner]
        out["value"][row, : tree.node_count] = rate * tree.value[:, 0, 0]
    member = labels.mean()
    out["bias"] = np.array([np.log(member / (1 - member))])
    return out


def decide_trees(fitted: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Logits of features [N, F]: float64 [N]. Features are compared in single precision, as they were fitted."""
    x = x.astype(np.float32)
    rows = np.arange(len(x))[:, None]
    trees = np.arange(len(fitted["left"]))[None, :]
    node = np.zeros((len(x), trees.shape[1]), dtype=np.int64)
    while True:
        below = x[rows, fitted["feature"][trees, node]] <= fitted["threshold"][trees, node]
        following = np.where(below, fitted["left"][trees, node], fitted["right"][trees, node])
        if np.array_equal(following, node):
            return fitted["bias"][0] + fitted["value"][trees, node].sum(axis=1)
        node = following
