"""The fit of one head: shifts, balance, and anchors, the means of clusters of queries."""

from dataclasses import dataclass

import numpy as np

from randfeat.compressed.means import nearest, weighted_sums
from randfeat.estimators.balanced import Balance
from randfeat.estimators.proposals import log_sum_exp

SWEEPS = 5
"""Assignments of queries to clusters, after a start from random queries."""


@dataclass(frozen=True, eq=False)
class HeadFit:
    """The fit of one head: shifts, balance, and in balanced coordinates queries, keys, anchors."""

    query_shift: np.ndarray
    key_shift: np.ndarray
    matrix: np.ndarray
    query_moment: np.ndarray
    """Mean of x xᵀ in balanced coordinates."""
    key_moment: np.ndarray
    """Mean of y yᵀ in balanced coordinates, weighted by attention at the levels "weighted" and "posterior"."""
    anchors: np.ndarray
    masses: np.ndarray
    keys: np.ndarray
    biases: np.ndarray

    @classmethod
    def of(
        cls,
        x: np.ndarray,
        y: np.ndarray,
        present: np.ndarray,
        *,
        level: str,
        num_anchors: int,
        rng: np.random.Generator,
    ) -> "HeadFit":
        """Fit to queries x (L, d) and keys y (S, d) in kernel units; only keys that are `present` are used."""
        dim = x.shape[-1]
        weights = present / present.sum()
        query_shift, key_shift = x.mean(axis=0), weights @ y
        x, y = x - query_shift, np.where(present[:, None], y - key_shift, 0.0)
        moment = x.T @ x / len(x)
        matrix = np.eye(dim)
        anchors, masses = np.zeros((1, dim)), np.ones(1)
        if level != "center":
            balance, key_moment = Balance.of(moment), (y * weights[:, None]).T @ y
            if level in ("weighted", "posterior"):
                metric = balance.metric(key_moment)
                anchors, masses = anchor_queries(x, x @ metric.T, min(num_anchors, len(x) // 4), rng)
                logits = np.where(present, (anchors + query_shift) @ y.T, -np.inf)
                weights = masses @ np.exp(logits - log_sum_exp(logits)[:, None])
                attended = weights @ y
                key_shift, y = key_shift + attended, np.where(present[:, None], y - attended, 0.0)
                key_moment = (y * weights[:, None]).T @ y
            matrix = balance.transform(key_moment)
        biases = np.where(present, y @ query_shift, -np.inf)
        y = y @ np.linalg.inv(matrix)
        key_moment = (y * weights[:, None]).T @ y
        return cls(
            query_shift,
            key_shift,
            matrix,
            matrix @ moment @ matrix.T,
            key_moment,
            anchors @ matrix.T,
            masses,
            y,
            biases,
        )

    @property
    def mean_squares(self) -> tuple[float, float]:
        """The means of |x|²/d and |y|²/d, in balanced coordinates."""
        dim = len(self.matrix)
        return float(np.trace(self.query_moment)) / dim, float(np.trace(self.key_moment)) / dim

    def scaled(self, s: float) -> "HeadFit":
        """Queries times s, keys over s."""
        return HeadFit(
            self.query_shift,
            self.key_shift,
            s * self.matrix,
            s**2 * self.query_moment,
            self.key_moment / s**2,
            s * self.anchors,
            self.masses,
            self.keys / s,
            self.biases,
        )


def anchor_queries(
    x: np.ndarray, metric: np.ndarray, num: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Means (C, d) of the k-means clusters of `metric`, at most `num`, and their shares of the queries."""
    num = max(num, 1)
    sample = np.sort(rng.permutation(len(x))[: 8 * num])  # enough for the centers, however long the input
    x, metric = x[sample], metric[sample]
    metric = (metric / (np.max(np.abs(metric)) or 1.0)).astype(np.float32)  # clusters do not depend on its unit
    centers = metric[rng.permutation(len(metric))[:num]]
    labels = nearest(metric, centers)
    for _ in range(SWEEPS - 1):
        means, used = means_of(metric, labels, num)
        centers[used] = means  # a center that no query is nearest to stays where it is
        labels = nearest(metric, centers)
    anchors, used = means_of(x, labels, num)
    return anchors, np.bincount(labels, minlength=num)[used] / len(x)


def means_of(points: np.ndarray, labels: np.ndarray, num_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """The means of the points of each label that occurs, and which labels these are, bool (num_labels,)."""
    sums, counts = weighted_sums(points, np.ones(len(points), points.dtype), labels, num_labels)
    used = counts > 0
    return sums[used] / counts[used, None], used
