"""Simplex rows: directions to the vertices of a regular simplex."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import as_generator
from randfeat.couplings.base import Coupling, block_sizes, chi_norms, haar_rows, register_coupling
from randfeat.couplings.laws import PairLaw, RadialPair


@dataclass(frozen=True)
class Simplex(Coupling):
    """Rows `w_i = r_i s_i R` in blocks of b <= d: s_i the vertices of a regular simplex, r_i ~ χ_d, R Haar.

    Each row alone is exactly N(0, I_d); directions within a block of b rows meet at cosine -1/(b-1), as far apart as b
    directions can be. Any number of rows: blocks are independent; if the last has fewer than d rows, it is a smaller
    simplex. The variance is lower than with orthogonal rows for positive features, and higher for trigonometric ones.
    For: 4 to d positive features: the least variance without bias for |x + y|² >= 1, or at most 1 % more.
    Source: Reid et al. 2023, "Simplex Random Features" (SimRF).

    >>> rows = Simplex().sample(3, 3, rng=np.random.default_rng(0))
    >>> directions = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    >>> bool(np.allclose(directions @ directions.T, 1.5 * np.eye(3) - 0.5))
    True
    """

    def sample(self, num_rows: int, dim: int, *, rng: Any = None, batch_shape: tuple[int, ...] = ()) -> np.ndarray:
        rng = as_generator(rng)
        blocks, rest = block_sizes(num_rows, dim)
        directions = simplex_vertices(dim) @ haar_rows(dim, dim, rng=rng, batch_shape=(*batch_shape, blocks))
        directions = directions.reshape(*batch_shape, blocks * dim, dim)
        if rest:
            last = simplex_vertices(rest) @ haar_rows(rest, dim, rng=rng, batch_shape=batch_shape)
            directions = np.concatenate([directions, last], axis=-2)
        return chi_norms(dim, (*batch_shape, num_rows), rng=rng) * directions

    def pair_laws(self, num_rows: int, dim: int) -> list[tuple[float, PairLaw]]:
        blocks, rest = block_sizes(num_rows, dim)
        laws: list[tuple[float, PairLaw]] = []
        for count, size in ((blocks * dim * (dim - 1), dim), (rest * (rest - 1), rest)):
            if count:
                laws.append((count, RadialPair(dim, cosine=-1 / (size - 1))))
        return laws


def simplex_vertices(size: int) -> np.ndarray:
    """`size` unit vectors in R^size with pairwise inner product -1/(size-1): the rows of the result."""
    if size == 1:
        return np.ones((1, 1))
    centered = np.eye(size) - 1 / size
    return centered * np.sqrt(size / (size - 1))


register_coupling("simplex", Simplex)
