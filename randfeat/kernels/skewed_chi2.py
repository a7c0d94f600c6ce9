"""The skewed chi-squared kernel."""

import functools
import operator
from dataclasses import dataclass

import numpy as np

from randfeat._array import Array, namespace
from randfeat.kernels.base import check_positive
from randfeat.kernels.distances import zeros_of_gram
from randfeat.kernels.hyperbolic_secant import coordinate_pairs, half_secant, is_any, ratio, secant_frequencies
from randfeat.kernels.spectral import SpectralKernel


@dataclass(frozen=True)
class SkewedChi2Kernel(SpectralKernel):
    """Skewed chi-squared kernel `k(x, y) = Π_l 2 √((x_l + c)(y_l + c)) / (x_l + y_l + 2c)`, for histograms.

    offset : c, positive, in the units of the inputs; scikit-learn's `skewedness`. Every x_l must be above -c. Where c
        is large against the entries, all values are near 1; one or two times their mean is a good first choice.

    It is `Π_l sech(δ_l/2)` with `δ = log(x + c) - log(y + c)`, so its features are waves in log(x + c), of frequencies
    with independent coordinates of the density `sech(πw)`. From 0 to 1, and exactly 1 at equal inputs.
    Error: at most `3 (d + 1) eps` of each value, for an offset that is a number of the dtype. Inputs at or below -c
    raise ValueError; where a function is traced or compiled there are no values to check, and they give NaN.
    Source: Li, Ionescu & Sminchisescu 2010, "Random Fourier Approximations for Skewed Multiplicative Histogram
    Kernels".

    >>> SkewedChi2Kernel(offset=1.0).pairwise(np.array([0.0, 3.0]), np.array([3.0, 0.0])).round(6)
    np.float64(0.64)
    """

    offset: float = 1.0

    takes_negative = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "offset", check_positive("offset", self.offset))

    @property
    def has_logarithm(self) -> bool:
        return True

    def unit(self, x: Array) -> Array:
        """`log(x + c)`."""
        return namespace(x).log(self._shifted(x))

    def unit_pull_back(self, x: Array, gradient: Array) -> Array:
        """`gradient / (x + c)`."""
        return gradient / self._shifted(x)

    def frequencies(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return secant_frequencies(rows)

    def of_squares(self, squares: Array) -> Array:
        """`Π_l sech(δ_l/2)`."""
        return namespace(squares).prod(half_secant(squares), axis=-1)

    def _shifted(self, x: Array) -> Array:
        if is_any(x <= -self.offset):
            raise ValueError(
                f"Negative values in data passed to {self!r}, which is for inputs above -{self.offset}; choose a "
                "larger offset, or shift the inputs."
            )
        return x + self.offset

    def _factors(self, a: Array, b: Array) -> Array:
        """`2 √(ab)/(a + b) = 2r/(1 + r²)` with `r = √a/√b`, in range also where a/b is not."""
        root = namespace(a, b).sqrt
        share = ratio(root(a), root(b))
        return 2 * share / (1 + share * share)

    def _gram(self, x: Array, y: Array) -> Array:
        pairs = coordinate_pairs(self._shifted(x), self._shifted(y))
        return functools.reduce(operator.mul, (self._factors(*pair) for pair in pairs), zeros_of_gram(x, y) + 1.0)

    def _pairwise(self, x: Array, y: Array) -> Array:
        return namespace(x).prod(self._factors(self._shifted(x), self._shifted(y)), axis=-1)

    def _log_gram(self, x: Array, y: Array) -> Array:
        xp, pairs = namespace(x), coordinate_pairs(self._shifted(x), self._shifted(y))
        return functools.reduce(operator.add, (xp.log(self._factors(*pair)) for pair in pairs), zeros_of_gram(x, y))

    def _log_pairwise(self, x: Array, y: Array) -> Array:
        xp = namespace(x)
        return xp.sum(xp.log(self._factors(self._shifted(x), self._shifted(y))), axis=-1)
