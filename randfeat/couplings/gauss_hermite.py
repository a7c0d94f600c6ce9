"""Tensor Gauss-Hermite quadrature under a random rotation."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import as_generator
from randfeat._hints import short
from randfeat.couplings.base import Coupling, haar_rows, register_coupling
from randfeat.couplings.fixed_pairs import FixedPairs
from randfeat.couplings.laws import PairLaw

MOST_NODES = 32
MOST_ROWS = 4096


@dataclass(frozen=True)
class GaussHermite(Coupling):
    """The n^d nodes of the tensor Gauss-Hermite rule with their weights, under one Haar rotation per draw.

    nodes : n >= 2, the number of nodes on each axis. There are m = n^d rows, at most 4096, so d must be small.

    Every draw is exact for polynomials in w of degree at most 2n - 1: the rule is exact on each axis, and a rotation
    does not change the degree. The random rotation makes the error random and independent of the axes of the data.
    Terms of higher degree bias the estimate, by an amount that depends on n. So the closed forms `mean` and `variance`
    need `num_features`. Feature maps contain the square roots of the weights.
    For: smooth kernels in at most about four dimensions.
    Source: Dao, De Sa & Ré 2017, "Gaussian Quadrature for Kernel Features" (without the rotation).

    >>> rule = GaussHermite(2)
    >>> rows, weights = rule.sample(4, 2, rng=np.random.default_rng(0)), rule.weights(4, 2)
    >>> (weights @ (rows @ np.array([3.0, 4.0])) ** 2).round(9)
    np.float64(25.0)
    """

    nodes: int = 3

    def __post_init__(self) -> None:
        if not (isinstance(self.nodes, int) and 2 <= self.nodes <= MOST_NODES):
            raise ValueError(f"nodes must be an integer from 2 to {MOST_NODES}, got {short(self.nodes)}.")

    exact_marginals = False

    def sample(self, num_rows: int, dim: int, *, rng: Any = None, batch_shape: tuple[int, ...] = ()) -> np.ndarray:
        """Draw rows (*batch_shape, num_rows, dim), to be used with `weights`."""
        self._check(num_rows, dim)
        nodes, _ = hermite_rule(self.nodes)
        grid = np.stack(np.meshgrid(*[nodes] * dim, indexing="ij"), axis=-1).reshape(num_rows, dim)
        return grid @ haar_rows(dim, dim, rng=as_generator(rng), batch_shape=batch_shape)

    def weights(self, num_rows: int, dim: int) -> np.ndarray:
        self._check(num_rows, dim)
        _, weights = hermite_rule(self.nodes)
        return functools.reduce(np.multiply.outer, [weights] * dim).ravel()

    def row_law(self, dim: int, num_rows: int | None = None) -> PairLaw:
        if num_rows is None:
            raise ValueError(f"the bias of {self!r} depends on the number of features; pass num_features.")
        self._check(num_rows, dim)
        nodes, weights = hermite_rule(self.nodes)
        return FixedPairs(dim, *tensor_power(4 * nodes**2, 0 * nodes, weights, dim))

    def own_laws(self, num_rows: int, dim: int) -> list[tuple[float, PairLaw]]:
        return self._laws(num_rows, dim, own=True)

    def pair_laws(self, num_rows: int, dim: int) -> list[tuple[float, PairLaw]]:
        return self._laws(num_rows, dim, own=False)

    def nearest_num_rows(self, num_rows: int, dim: int | None = None) -> tuple[int, ...]:
        if dim is None:
            return (num_rows,)
        if self.nodes**dim > MOST_ROWS:
            raise ValueError(
                f"{self!r} has {self.nodes}^{dim} rows in dimension {dim}, more than {MOST_ROWS}; it is for small "
                "dimensions only, use another coupling."
            )
        return (self.nodes**dim,)

    def _laws(self, num_rows: int, dim: int, *, own: bool) -> list[tuple[float, PairLaw]]:
        row_law = self.row_law(dim, num_rows)
        nodes, weights = hermite_rule(self.nodes)
        pairs = ((nodes[:, None] + nodes) ** 2, (nodes[:, None] - nodes) ** 2, weights[:, None] * weights)
        sums, differences, weight = tensor_power(pairs[0].ravel(), pairs[1].ravel(), pairs[2].ravel(), dim)
        chosen = (differences == 0) == own  # nodes differ, so that only a row with itself has the difference 0
        share = float(weight[chosen].sum())
        law = FixedPairs(dim, sums[chosen], differences[chosen], weight[chosen] / share, row_law)
        return [(num_rows**2 * share, law)]

    def _check(self, num_rows: int, dim: int) -> None:
        if self.nearest_num_rows(num_rows, dim) != (num_rows,):
            raise ValueError(f"{self!r} has {self.nodes**dim} rows in dimension {dim}, got {num_rows}.")


@functools.lru_cache
def hermite_rule(num: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights (sum 1) of the Gauss rule for N(0, 1)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(num)
    return nodes, weights / weights.sum()


def tensor_power(
    first: np.ndarray, second: np.ndarray, weights: np.ndarray, dim: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums over `dim` axes of two quantities that have weights on each axis; values equal to 1e-11 are merged."""
    total: tuple[np.ndarray, np.ndarray, np.ndarray] = (np.zeros(1), np.zeros(1), np.ones(1))
    for _ in range(dim):
        values = np.stack([np.add.outer(t, axis).ravel() for t, axis in zip(total, (first, second), strict=False)])
        _, index, inverse = np.unique(np.round(values, 11), axis=1, return_index=True, return_inverse=True)
        weight = np.bincount(inverse.ravel(), weights=np.multiply.outer(total[2], weights).ravel())
        total = (values[0, index], values[1, index], weight)
    return total


register_coupling("gauss-hermite", GaussHermite)
