"""Rows from scrambled Sobol' points."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import as_generator
from randfeat.couplings.base import register_coupling
from randfeat.couplings.quasi_random import QuasiRandom

BITS = 52
MAX_DIM = 21_201  # direction numbers known to SciPy
MAX_LOG_ROWS = 30


@dataclass(frozen=True)
class Sobol(QuasiRandom):
    """Rows `Φ^{-1}(p_i)` of scrambled Sobol' points p_i.

    If there are 2^k points, each of 2^k equal intervals of every axis contains exactly one; pairs of axes are covered
    in a similar way. The scrambling is Matoušek's: a random lower triangular binary matrix for each axis, and a random
    digital shift, both with 52 bits. Points lie in the middle of the cells of this grid, so none is 0 or 1. Each row
    alone is N(0, I_d), to one part in 2⁵². Any number m of rows is possible (the first m points), but m should be a
    power of two. The dimension is at most 21 201. Where |x ± y| is small, the error of smooth estimates falls faster
    than 1/√m; this gain gets smaller as d grows. The joint law has no closed form: `randfeat.montecarlo.sample_errors`
    measures variances.
    For: smooth kernels in a few dimensions, with 2^k rows.
    Source: Sobol' 1967; direction numbers of Joe & Kuo 2008, by SciPy; Matoušek 1998, "On the L2-discrepancy for
    anchored boxes" (scrambling).

    >>> from scipy.special import ndtr
    >>> rows = Sobol().sample(8, 2, rng=np.random.default_rng(0))
    >>> np.sort(np.floor(8 * ndtr(rows)), axis=0).T.tolist() == [list(range(8))] * 2
    True
    """

    def points(self, num_rows: int, dim: int, *, rng: Any = None, batch_shape: tuple[int, ...] = ()) -> np.ndarray:
        """Points `shift + Σ_b digit_b · column_b`, added in binary digits without carry."""
        rng = as_generator(rng)
        from scipy.stats.qmc import Sobol as Generator

        digits = (num_rows - 1).bit_length()
        if dim > MAX_DIM or digits > MAX_LOG_ROWS:
            raise ValueError(
                f"Sobol' rows exist up to dimension {MAX_DIM} and 2^{MAX_LOG_ROWS} rows, got {dim} and {num_rows}."
            )
        net = np.ldexp(Generator(dim, scramble=False).random_base2(digits)[:num_rows], digits).astype(np.int64)
        scrambled = rng.integers(0, 2**BITS, size=(*batch_shape, 1, dim))
        for b in range(digits):
            # column b of the triangular matrix: 1 on the diagonal, random below
            column = 2 ** (BITS - 1 - b) + rng.integers(0, 2 ** (BITS - 1 - b), size=(*batch_shape, 1, dim))
            scrambled = scrambled ^ ((net >> (digits - 1 - b) & 1) * column)
        return (scrambled + 0.5) / 2**BITS


register_coupling("sobol", Sobol)
