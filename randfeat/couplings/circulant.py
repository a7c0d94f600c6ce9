"""Rows of random circulant matrices with random signs."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import as_generator
from randfeat.couplings.base import Coupling, block_sizes, register_coupling
from randfeat.couplings.hadamard import random_signs
from randfeat.couplings.laws import PairLaw


@dataclass(frozen=True)
class Circulant(Coupling):
    """Rows of `C B` in blocks of d: `w_il = b_l g_{l-i}`, indices mod d, g ~ N(0, I_d), b random signs.

    C is the circulant matrix of g: each row is the one above, shifted by one place. B = diag(b). A block is drawn from
    d Gaussian numbers and d signs. Any number of rows: blocks are independent, and the last one is cut off.

    Each row alone is exactly N(0, I): it is g with entries permuted and signs changed. All rows of a block have the
    length |g|. Given the signs, two rows are jointly Gaussian. With `r = Σ_l b_l b_{l+k} v_l v_{l+k}` for rows k apart

        Cov(exp(v·w_i), exp(v·w_{i+k})) / e^{|v|²} = E[e^r] - 1 >= 0,

    and for cosines

        Cov(cos(v·w_i), cos(v·w_{i+k})) / e^{-|v|²} = E[cosh r] - 1 >= 0.

    Both are non-negative because r has mean 0: for positive and trigonometric features these rows are never better than
    independent ones. They save time and memory. The covariance depends on the axes, not on |v| alone, so `variance`
    raises NoClosedForm; `randfeat.montecarlo.sample_errors` measures it.
    For: large d: a block takes d random numbers, where independent rows take d².
    Source: Yu et al. 2015, "Compact Nonlinear Maps and Circulant Extensions"; Yu et al. 2016, "Orthogonal Random
    Features", compare it with orthogonal rows.

    >>> rows = Circulant().sample(3, 3, rng=np.random.default_rng(0))
    >>> bool(np.allclose(np.roll(np.abs(rows), -1, axis=1)[1:], np.abs(rows)[:-1]))
    True
    """

    rotation_invariant = False

    def sample(self, num_rows: int, dim: int, *, rng: Any = None, batch_shape: tuple[int, ...] = ()) -> np.ndarray:
        rng = as_generator(rng)
        blocks, rest = block_sizes(num_rows, dim)
        shape = (*batch_shape, blocks + bool(rest))
        places = np.arange(dim) - np.arange(dim)[:, None]  # l - i; negative indices count from the end
        rows = rng.standard_normal((*shape, dim))[..., places] * random_signs((*shape, 1, dim), rng)
        return rows.reshape(*batch_shape, shape[-1] * dim, dim)[..., :num_rows, :]

    def pair_laws(self, num_rows: int, dim: int) -> list[tuple[float, PairLaw]]:
        return [] if dim == 1 else super().pair_laws(num_rows, dim)


register_coupling("circulant", Circulant)
