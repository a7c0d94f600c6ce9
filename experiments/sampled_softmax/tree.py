"""A binary tree of summed features: classes drawn with probability proportional to a feature kernel."""

from dataclasses import dataclass
from typing import Any

import numpy as np

import randfeat as rf

BLOCK = 4096  # draws at a time, so that memory does not grow with their number


@dataclass(frozen=True, eq=False)
class KernelTree:
    """Classes c with the law `q(c | h) = φ(h)·φ(w_c) / Σ_b φ(h)·φ(w_b)`, drawn in O(m log n).

    phi : positive features, so that every sum of weights is one of probabilities.
    num_classes : n.
    log_tops (m,) : the logarithm of each feature's largest value over the classes, taken out of the sums and put back
        on the side of the query, so that nothing overflows, and the weight of the root is at least that of one class.
    sums (2N, m), float64 : node 1 is the root, the children of i are 2i and 2i + 1, class c is the leaf N + c, and N is
        the least power of two not below n. A node holds the sum over its classes of `exp(log φ - log_tops)`; leaves
        beyond n hold zeros and are never drawn.

    Exact: the law above to rounding, by induction over the path: a child is taken with the share of its weight in that
    of its parent. Memory 16 N m bytes, twice that of the features. Limits: a class whose weight is below that of the
    sum by the whole range of float64 has the probability 0.
    Source: Blanc & Rendle 2018, "Adaptive Sampled Softmax with Kernel Based Sampling"; Rawat et al. 2019, "Sampled
    Softmax with Random Fourier Features", both with other features.

    >>> rng = np.random.default_rng(0)
    >>> classes, query = rng.standard_normal((100, 8)) / 3, rng.standard_normal((1, 8)) / 3
    >>> tree = KernelTree.of(rf.PositiveFeatures().draw(8, 64, rng=0), classes)
    >>> drawn, log_law = tree.draw(query, 5, rng=1)
    >>> drawn.shape, bool(np.allclose(log_law, tree.log_law(query)[0, drawn]))
    ((1, 5), True)
    """

    phi: rf.FeatureMap
    num_classes: int
    log_tops: np.ndarray
    sums: np.ndarray

    @classmethod
    def of(cls, phi: rf.FeatureMap, classes: np.ndarray) -> "KernelTree":
        """The tree over the rows of classes (n, d)."""
        if not phi.estimator.positive:
            raise ValueError(
                f"phi must have positive features, got {type(phi.estimator).__name__}: sums of signed features are no "
                "weights; take PositiveFeatures or another estimator with `positive`."
            )
        log_features = log_values(phi.keys(np.asarray(classes, dtype=np.float64)))
        if not np.all(np.isfinite(log_features)):
            raise ValueError("classes must be finite and have features that are not zero.")
        num_classes, num_features = log_features.shape
        log_tops = np.max(log_features, axis=0)
        first_leaf = 1 << max(num_classes - 1, 0).bit_length()
        sums = np.zeros((2 * first_leaf, num_features))
        np.exp(log_features - log_tops, out=sums[first_leaf : first_leaf + num_classes])
        while first_leaf > 1:
            parents = slice(first_leaf // 2, first_leaf)
            np.add(sums[first_leaf : 2 * first_leaf : 2], sums[first_leaf + 1 : 2 * first_leaf : 2], out=sums[parents])
            first_leaf //= 2
        return cls(phi, num_classes, log_tops, sums)

    @property
    def depth(self) -> int:
        """Levels below the root."""
        return len(self.sums).bit_length() - 2

    def query_weights(self, queries: np.ndarray) -> np.ndarray:
        """`φ(h) exp(log_tops)` up to a factor for each query: (b, d) -> (b, m), with 1 as the largest entry."""
        logs = log_values(self.phi.queries(np.asarray(queries, dtype=np.float64))) + self.log_tops
        return np.exp(logs - np.max(logs, axis=-1, keepdims=True))

    def log_law(self, queries: np.ndarray) -> np.ndarray:
        """`log q(c | h)` of every class, in O(n m): (b, d) -> (b, n)."""
        weights, first_leaf = self.query_weights(queries), len(self.sums) // 2
        leaves = weights @ self.sums[first_leaf : first_leaf + self.num_classes].T
        with np.errstate(divide="ignore"):
            return np.log(leaves) - np.log(weights @ self.sums[1])[:, None]

    def draw(self, queries: np.ndarray, num_draws: int, *, rng: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Independent classes for each query, with their log-probabilities: (b, d) -> (b, num_draws) twice."""
        if num_draws < 1:
            raise ValueError(f"num_draws must be at least 1, got {num_draws}.")
        rng = np.random.default_rng(rng)
        weights = self.query_weights(queries)
        owners = np.repeat(np.arange(len(weights)), num_draws)
        blocks = [self._descend(weights[owners[i : i + BLOCK]], rng) for i in range(0, len(owners), BLOCK)]
        classes, log_law = (np.concatenate(part).reshape(len(weights), num_draws) for part in zip(*blocks, strict=True))
        return classes, log_law

    def _descend(self, weights: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One path for each row of weights (b, m): classes (b,), and the log of the weight at the leaf over the root's.

        `u (left + right) >= left` with u < 1 never leads to a child without weight.
        """
        nodes = np.ones(len(weights), dtype=np.intp)
        for _ in range(self.depth):
            nodes *= 2
            left, right = (np.vecdot(weights, self.sums[nodes + side]) for side in (0, 1))
            nodes += rng.random(len(nodes)) * (left + right) >= left
        log_law = np.log(np.vecdot(weights, self.sums[nodes])) - np.log(weights @ self.sums[1])
        return nodes - len(self.sums) // 2, log_law


def log_values(features: rf.Features) -> np.ndarray:
    """The logarithm of positive features, (..., m)."""
    return np.log(features.values) + features.log_scale
