"""Assembly: the moments of one estimator × the dependent pairs of one coupling -> exact mean, variance and MSE.

For rows w_1 .. w_m and K̂ = (1/m) Σ_i S(w_i),

    Var K̂ = (1/m²) [ m · Var S(w_1) + Σ_laws count · Cov(S(w_1), S(w_2)) ].

The estimator knows the covariance of S under one joint law of two rows, the coupling lists its laws and their counts,
and one row with itself is a law as well. Moments here are over the reference, `exp(kernel.log_reference)`: the kernel
itself in the softmax family, where they are finite up to |x + y|² (or |x - y|², for trigonometric features) of about
700. All is float64 NumPy, broadcasting over (..., d).
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from randfeat._array import as_host
from randfeat.kernels import Kernel

if TYPE_CHECKING:
    from randfeat.estimators.base import Estimator


def assemble_mean(estimator: "Estimator", x: Any, y: Any, num_features: int | None) -> np.ndarray:
    """`E[K̂]` over the reference."""
    x, y = unit_inputs(estimator.kernel, x, y)
    dim = x.shape[-1]
    rows = None if num_features is None else estimator.num_rows(num_features, dim)
    mean = estimator.relative_row_mean(x, y, estimator._coupling.row_law(dim, rows))
    shape = np.broadcast_shapes(np.shape(mean), x.shape[:-1], y.shape[:-1])  # one number stands for all pairs
    return mean if np.shape(mean) == shape else np.broadcast_to(mean, shape).copy()


def assemble_variance(estimator: "Estimator", x: Any, y: Any, num_features: int) -> np.ndarray:
    """`Var[K̂]` over the squared reference."""
    x, y = unit_inputs(estimator.kernel, x, y)
    coupling, dim = estimator._coupling, x.shape[-1]
    rows = estimator.num_rows(num_features, dim)
    total = np.zeros(np.broadcast_shapes(x.shape, y.shape)[:-1])
    for same_row, laws in ((True, coupling.own_laws(rows, dim)), (False, coupling.pair_laws(rows, dim))):
        for count, law in laws:
            total = total + estimator.relative_covariance(x, y, law, same_row=same_row) * (count / rows**2)
    # Couplings that cancel the error exactly leave a rounding error of either sign.
    return np.maximum(total, 0.0)


def times_reference(kernel: Kernel, relative: np.ndarray, x: Any, y: Any, *, power: int) -> np.ndarray:
    """`relative * reference^power`, multiplied in logs so that only a result out of range overflows."""
    return times_exp(relative, power * kernel.log_reference(x, y))


def times_exp(values: np.ndarray, log: np.ndarray) -> np.ndarray:
    """`values * exp(log)`, where only a result out of range overflows, and infinite values stay infinite."""
    with np.errstate(divide="ignore", over="ignore"):
        return np.sign(values) * np.exp(np.log(np.abs(values)) + log)


def times(a: Any, b: Any) -> np.ndarray:
    """`a b`, and 0 where either is 0, even where the other is infinite."""
    zero = (np.asarray(a) == 0) | (np.asarray(b) == 0)
    return np.where(zero, 0.0, np.where(zero, 0.0, a) * np.where(zero, 0.0, b))


def unit_inputs(kernel: Kernel, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Host copies of a pair in the units of the kernel."""
    x, y = host_pair(x, y)
    return kernel.unit(x), kernel.unit(y)


def host_pair(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Host copies of a pair (..., d), checked."""
    x, y = as_host(x, "x"), as_host(y, "y")
    for name, array in (("x", x), ("y", y)):
        if array.ndim == 0:
            raise ValueError(f"{name} must have shape (..., d), got a scalar.")
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(f"x and y must share their last dimension, got {x.shape[-1]} and {y.shape[-1]}.")
    return x, y
