"""Gaussian rows with exact sample moments."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from randfeat._array import as_generator
from randfeat._hints import short
from randfeat.couplings.base import Coupling, orthonormal_columns, register_coupling
from randfeat.couplings.laws import PairLaw
from randfeat.couplings.matched_laws import ScaledGaussianPair, WhitenedPair


@dataclass(frozen=True)
class MomentMatched(Coupling):
    """Gaussian rows, corrected so that their sample moments are those of N(0, I).

    order : with 1, `w_i = g_i - ḡ`, and the mean of the rows is exactly 0. With 2 rows are centered and whitened, and
        also the mean of `w_i w_iᵀ` is exactly I. Polynomials in w up to this degree are estimated without any error.

    Any number of rows m >= 2 for order 1, m >= d + 1 for order 2 (for m = d + 1 they are the vertices of a regular
    simplex, of length √d). The correction changes the law of a single row, so softmax estimates are biased, by a factor
    that depends on m: `e^{-u/2m}` for positive features with order 1. Mean and variance have closed forms.
    `CenteredGaussian` is like order 1, but unbiased.
    Cost: one QR of m × d numbers for order 2.
    For: a smaller error at the price of a bias, both known in closed form.
    Source: second-moment matching is Barraquand 1995, "Numerical Valuation of High Dimensional Multivariate European
    Securities".

    >>> rows = MomentMatched().sample(8, 3, rng=np.random.default_rng(0))
    >>> bool(np.allclose(rows.sum(axis=0), 0)), bool(np.allclose(rows.T @ rows / 8, np.eye(3)))
    (True, True)
    """

    order: Literal[1, 2] = 2

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise ValueError(f"order must be 1 or 2, got {short(self.order)}.")

    exact_marginals = False

    def sample(self, num_rows: int, dim: int, *, rng: Any = None, batch_shape: tuple[int, ...] = ()) -> np.ndarray:
        rng = as_generator(rng)
        self._check(num_rows, dim)
        rows = rng.standard_normal((*batch_shape, num_rows, dim))
        rows -= rows.mean(axis=-2, keepdims=True)
        return rows if self.order == 1 else np.sqrt(num_rows) * orthonormal_columns(rows)

    def row_law(self, dim: int, num_rows: int | None = None) -> PairLaw:
        if num_rows is None:
            raise ValueError(f"the bias of {self!r} depends on the number of features; pass num_features.")
        return self._law(num_rows, dim, own=True)

    def pair_laws(self, num_rows: int, dim: int) -> list[tuple[float, PairLaw]]:
        return [(num_rows * (num_rows - 1), self._law(num_rows, dim, own=False))]

    def nearest_num_rows(self, num_rows: int, dim: int | None = None) -> tuple[int, ...]:
        return (max(num_rows, self._least(dim)),)

    def _law(self, num_rows: int, dim: int, *, own: bool) -> PairLaw:
        self._check(num_rows, dim)
        cosine = 1.0 if own else -1 / (num_rows - 1)
        if self.order == 1:
            return ScaledGaussianPair(variance=1 - 1 / num_rows, correlation=cosine)
        return WhitenedPair(num_rows, cosine)

    def _least(self, dim: int | None) -> int:
        return 2 if self.order == 1 or dim is None else dim + 1

    def _check(self, num_rows: int, dim: int) -> None:
        if num_rows < self._least(dim):
            raise ValueError(f"{self!r} needs at least {self._least(dim)} rows in dimension {dim}, got {num_rows}.")


register_coupling("moment-matched", MomentMatched)
