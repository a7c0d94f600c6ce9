"""Rows of randomized Hadamard matrices (SORF)."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from randfeat._array import as_generator
from randfeat._hints import short
from randfeat.couplings.base import Coupling, block_sizes, chi_norms, register_coupling
from randfeat.couplings.walsh_hadamard import hadamard_matrix, next_power_of_two, walsh_hadamard


@dataclass(frozen=True)
class Hadamard(Coupling):
    """Rows of `√d' (HD)^k`: H the normalized d' × d' Hadamard matrix, D independent diagonal matrices of random signs.

    blocks : k >= 1, the number of factors HD; 3 for SORF.
    norms : "constant" for rows of length √d', "chi" for independent χ_d' lengths.

    d' is d if that is a power of two, else the next one; then each row is cut to its first d coordinates. Any number of
    rows: blocks of d' rows are independent, and orthogonal before the cut. From the last block a random subset is
    taken. A row is drawn in O(d log d). The first two moments are exact: every row has mean 0 and `E[w wᵀ] = I`.

    Biased, and not rotation invariant: rows take finitely many directions. For k = 1 and constant norms they are
    Rademacher vectors, `E[exp(w·z)] = Π_l cosh z_l`, so an estimate depends on the axes of the data; larger k is closer
    to uniform directions. There is no closed form otherwise: `randfeat.montecarlo.sample_errors` measures bias and
    variance.
    For: d in the thousands, if a bias is accepted.
    Source: Yu et al. 2016, "Orthogonal Random Features" (SORF); Ailon & Chazelle 2009 for one factor.

    >>> rows = Hadamard(blocks=1, norms="constant").sample(4, 4, rng=np.random.default_rng(0))
    >>> np.abs(rows).tolist() == np.ones((4, 4)).tolist(), bool(np.all(rows @ rows.T == 4 * np.eye(4)))
    (True, True)
    """

    blocks: int = 3
    norms: Literal["chi", "constant"] = "chi"

    def __post_init__(self) -> None:
        if not (isinstance(self.blocks, int) and self.blocks >= 1):
            raise ValueError(f"blocks must be a positive integer, got {short(self.blocks)}.")
        if self.norms not in ("chi", "constant"):
            raise ValueError(f"norms must be 'chi' or 'constant', got {short(self.norms)}.")

    exact_marginals = False
    rotation_invariant = False

    def sample(self, num_rows: int, dim: int, *, rng: Any = None, batch_shape: tuple[int, ...] = ()) -> np.ndarray:
        rng = as_generator(rng)
        padded = next_power_of_two(dim)
        full, rest = block_sizes(num_rows, padded)
        rows = self._products(padded, rng, (*batch_shape, full)).reshape(*batch_shape, full * padded, padded)
        if rest:
            last = self._products(padded, rng, batch_shape)
            chosen = np.argsort(rng.random((*batch_shape, padded)), axis=-1)[..., :rest, None]
            rows = np.concatenate([rows, np.take_along_axis(last, chosen, axis=-2)], axis=-2)
        if self.norms == "chi":
            rows = rows * (chi_norms(padded, (*batch_shape, num_rows), rng=rng) / np.sqrt(padded))
        return np.ascontiguousarray(rows[..., :dim])

    def _products(self, n: int, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """`√n (HD)^k`, (*shape, n, n), with independent D."""
        product = hadamard_matrix(n) * random_signs((*shape, 1, n), rng)
        for _ in range(self.blocks - 1):
            product = walsh_hadamard(product) * random_signs((*shape, 1, n), rng) / np.sqrt(n)
        return product


def random_signs(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Array of independent random signs ±1."""
    return 2.0 * rng.integers(0, 2, size=shape) - 1.0


register_coupling("hadamard", Hadamard)
