"""The additive chi-squared kernel."""

import functools
import operator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from randfeat._array import Array, as_host, namespace
from randfeat.kernels.distances import zeros_of_gram
from randfeat.kernels.hyperbolic_secant import coordinate_pairs, half_secant, is_any, ratio, secant_frequencies
from randfeat.kernels.spectral import SpectralKernel


@dataclass(frozen=True)
class AdditiveChi2Kernel(SpectralKernel):
    """Additive chi-squared kernel `k(x, y) = Σ_l 2 x_l y_l / (x_l + y_l)`, for histograms; 0/0 counts as 0.

    For inputs that are not negative. It has no scale: `k(c x, c y) = c k(x, y)`, and `k(x, x) = Σ_l x_l`. The distance
    in its feature space is the chi-squared distance, `Σ_l (x_l - y_l)²/(x_l + y_l)`.

    It is `Σ_l √(x_l y_l) sech(δ_l/2)` with `δ_l = log x_l - log y_l`, so its features are waves in log x_l times √x_l,
    of frequencies with the density `sech(πw)`. Coordinates that are 0 have features that are exactly 0.
    Error: at most `(d + 4) eps / 2` of each value. Negative inputs raise ValueError; where a function is traced or
    compiled there are no values to check, and they give NaN or numbers without a meaning.
    Source: Vedaldi & Zisserman 2012, "Efficient Additive Kernels via Explicit Feature Maps".

    >>> AdditiveChi2Kernel().pairwise(np.array([1.0, 2.0, 0.0]), np.array([3.0, 0.0, 0.0]))
    np.float64(1.5)
    """

    homogeneous: ClassVar[bool] = True
    takes_negative = False

    def unit(self, x: Array) -> Array:
        """The input itself; ValueError if an entry is negative."""
        if is_any(x < 0):
            raise ValueError(
                f"Negative values in data passed to {type(self).__name__}, which is for inputs from 0 on, counts and "
                "frequencies; use another kernel, or SkewedChi2Kernel with a large offset."
            )
        return x

    def unit_pull_back(self, x: Array, gradient: Array) -> Array:
        return gradient

    def frequencies(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return secant_frequencies(rows)

    def of_squares(self, squares: Array) -> Array:
        """`sech(δ_l/2)`."""
        return half_secant(squares)

    def wave_pair(self, x: np.ndarray, y: np.ndarray) -> tuple[Any, np.ndarray]:
        """`√(x_l y_l)` over the reference, and `log x_l - log y_l`, 0 where x_l or y_l is 0."""
        reference = np.exp(self.log_reference(x, y) / 2)[..., None]
        present = (x != 0) & (y != 0)
        logs = [np.log(np.where(present, side, 1.0)) for side in (x, y)]
        return np.sqrt(x) / reference * (np.sqrt(y) / reference), logs[0] - logs[1]

    def sum_of_waves(self, values: np.ndarray) -> np.ndarray:
        return np.sum(values, axis=-1)

    def log_reference(self, x: Any, y: Any) -> np.ndarray:
        """`½ log(k(x, x) k(y, y))`, k(x, x) the sum of the coordinates, and 1 in place of it for zero vectors."""
        totals = (np.sum(self.unit(as_host(side, name)), axis=-1) for name, side in (("x", x), ("y", y)))
        logs = (np.log(np.where(total == 0, 1.0, total)) for total in totals)
        return functools.reduce(operator.add, logs) / 2

    def _gram(self, x: Array, y: Array) -> Array:
        pairs = coordinate_pairs(self.unit(x), self.unit(y))
        return functools.reduce(operator.add, (harmonic_mean(*pair) for pair in pairs), zeros_of_gram(x, y))

    def _pairwise(self, x: Array, y: Array) -> Array:
        return namespace(x).sum(harmonic_mean(self.unit(x), self.unit(y)), axis=-1)


def harmonic_mean(a: Array, b: Array) -> Array:
    """`2ab/(a + b)`, 0 at 0, where no intermediate result overflows: the smaller, times `2/(1 + ratio)`."""
    return namespace(a, b).minimum(a, b) * (2 / (1 + ratio(a, b)))
