"""Fastfood rows: Gaussian rows as products of Hadamard and diagonal matrices."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import as_generator
from randfeat.couplings.base import Coupling, block_sizes, chi_norms, register_coupling
from randfeat.couplings.hadamard import random_signs
from randfeat.couplings.laws import PairLaw
from randfeat.couplings.walsh_hadamard import hadamard_matrix, next_power_of_two, walsh_hadamard


@dataclass(frozen=True)
class Fastfood(Coupling):
    """Rows of `S H G Π H B / √d'`: signs B, a random permutation Π, Gaussian G, and lengths S, all diagonal but Π.

    H is the d' × d' Hadamard matrix of signs. d' is d if that is a power of two, else the next one; then each row is
    cut to its first d coordinates. S_ii = r_i / |g| with independent r_i ~ χ_d' gives the rows independent lengths.

    Each row alone is exactly N(0, I): with O = ΠHB/√d' orthogonal and h_i the i-th row of H, row i of HGO is
    `Oᵀ(h_i ∘ g)`, a rotated Gaussian vector; its direction is uniform and independent of its length |g|, which S
    replaces by a new χ_d' length. Rows of one block are uncorrelated, but neither independent nor orthogonal, and their
    joint law is not rotation invariant. Any number of rows: blocks of d' rows are independent, and the last one is cut
    off. A row is drawn in O(d log d), without QR. Estimates are unbiased. Their variance has no closed form:
    `randfeat.montecarlo.sample_errors` measures it.
    For: d in the thousands, without bias.
    Source: Le, Sarlós & Smola 2013, "Fastfood".

    >>> Fastfood().sample(6, 3, rng=np.random.default_rng(0)).shape
    (6, 3)
    """

    rotation_invariant = False

    def sample(self, num_rows: int, dim: int, *, rng: Any = None, batch_shape: tuple[int, ...] = ()) -> np.ndarray:
        rng = as_generator(rng)
        n = next_power_of_two(dim)
        full, rest = block_sizes(num_rows, n)
        shape = (*batch_shape, full + bool(rest))
        gauss = rng.standard_normal((*shape, n))
        permutation = np.argsort(rng.random((*shape, n)), axis=-1)
        mixed = hadamard_matrix(n)[:, :dim][permutation] * random_signs((*shape, 1, dim), rng)
        rows = np.swapaxes(walsh_hadamard(np.swapaxes(gauss[..., None] * mixed, -1, -2)), -1, -2)
        lengths = chi_norms(n, (*shape, n), rng=rng) / np.linalg.norm(gauss, axis=-1)[..., None, None]
        rows = lengths * rows / np.sqrt(n)
        return rows.reshape(*batch_shape, shape[-1] * n, dim)[..., :num_rows, :]

    def pair_laws(self, num_rows: int, dim: int) -> list[tuple[float, PairLaw]]:
        return [] if dim == 1 else super().pair_laws(num_rows, dim)


register_coupling("fastfood", Fastfood)
