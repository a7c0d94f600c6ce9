"""Assembly: the moments of one estimator × the dependent pairs of one coupling -> exact mean, variance and MSE.

For rows w_1 .. w_m and K̂ = (1/m) Σ_i S(w_i),

    Var K̂ = (1/m²) [ m · Var S(w_1) + Σ_laws count · Cov(S(w_1), S(w_2)) ].

The estimator knows the covariance of S under one joint law of two rows, the coupling lists its laws and their counts,
and one row with itself is a law as well. Everything is relative to the squared kernel, in float64 NumPy, broadcasting
over (..., d), and finite up to |x + y|² (or |x - y|², for trigonometric features) of about 700.
"""

from typing import Any, Protocol

import numpy as np

from randfeat._array import as_host
from randfeat.couplings import Coupling
from randfeat.couplings.laws import NoClosedForm, PairLaw
from randfeat.kernels import Kernel

__all__ = ["NoClosedForm", "relative_mean", "relative_mse", "relative_variance", "unit_inputs"]


class HasMoments(Protocol):
    """What the assembly needs of an estimator."""

    @property
    def kernel(self) -> Kernel:
        """What is estimated."""

    @property
    def coupling(self) -> Any:
        """The joint law of the rows."""

    def num_rows(self, num_features: int) -> int:
        """Rows that make this many features."""
        ...

    def relative_row_mean(self, x: np.ndarray, y: np.ndarray, law: PairLaw) -> np.ndarray:
        """E[S] / kernel for one row."""

    def relative_covariance(self, x: np.ndarray, y: np.ndarray, law: PairLaw, *, same_row: bool) -> np.ndarray:
        """Cov(S(w1), S(w2)) / kernel² under one joint law of two rows."""


def relative_mean(estimator: HasMoments, x: Any, y: Any) -> np.ndarray:
    """`E[K̂] / K`: 1 for unbiased estimators."""
    x, y = unit_inputs(estimator.kernel, x, y)
    coupling: Coupling = estimator.coupling
    return estimator.relative_row_mean(x, y, coupling.row_law(x.shape[-1]))


def relative_variance(estimator: HasMoments, x: Any, y: Any, num_features: int) -> np.ndarray:
    """`Var[K̂] / K²`."""
    x, y = unit_inputs(estimator.kernel, x, y)
    coupling: Coupling = estimator.coupling
    rows, dim = estimator.num_rows(num_features), x.shape[-1]
    total = estimator.relative_covariance(x, y, coupling.row_law(dim), same_row=True) / rows
    for count, law in coupling.pair_laws(rows, dim):
        total = total + estimator.relative_covariance(x, y, law, same_row=False) * (count / rows**2)
    # Couplings that cancel the error exactly leave a rounding error of either sign.
    return np.maximum(total, 0.0)


def relative_mse(estimator: HasMoments, x: Any, y: Any, num_features: int) -> np.ndarray:
    """`E[(K̂ - K)²] / K²`: relative variance plus squared relative bias."""
    bias = relative_mean(estimator, x, y) - 1
    return relative_variance(estimator, x, y, num_features) + bias**2


def times_kernel(kernel: Kernel, relative: np.ndarray, x: Any, y: Any, *, power: int) -> np.ndarray:
    """`relative * kernel^power`, multiplied in logs so that only a result out of range overflows."""
    log_kernel = kernel.log_pairwise(as_host(x, "x"), as_host(y, "y"))
    with np.errstate(divide="ignore", over="ignore"):
        return np.exp(np.log(relative) + power * log_kernel)


def unit_inputs(kernel: Kernel, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Host copies of a pair in the units of the kernel."""
    x, y = as_host(x, "x"), as_host(y, "y")
    for name, array in (("x", x), ("y", y)):
        if array.ndim == 0:
            raise ValueError(f"{name} must have shape (..., d), got a scalar.")
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(f"x and y must share their last dimension, got {x.shape[-1]} and {y.shape[-1]}.")
    return kernel.unit(x), kernel.unit(y)
