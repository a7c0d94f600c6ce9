"""Features of monomials with random exponents: what Poisson and geometric features share."""

import abc
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from randfeat._array import Array, Arrays, Drawn, cast, namespace, squared_norm
from randfeat.couplings import Coupling, Independent
from randfeat.estimators.parametric import Parametric
from randfeat.estimators.softmax import SoftmaxEstimator
from randfeat.estimators.statistics import unit_pair
from randfeat.estimators.uncoupled import UncoupledEstimator
from randfeat.features import Features
from randfeat.kernels import SoftmaxFamily, SoftmaxKernel
from randfeat.variance import unit_inputs


@dataclass(frozen=True, eq=False, repr=False)
class CountFeatures(Parametric, UncoupledEstimator, SoftmaxEstimator):
    """Features `φ_i(x) = Π_l x_l^{c_il} / √(c_i1! .. c_id! p(c_i) m)` of independent counts c_i ~ p.

    `exp(x·y) = Σ_c Π_l (x_l y_l)^{c_l} / c_l!` is a sum over all vectors of counts; drawing the terms from p and
    dividing by their probabilities is unbiased for every p that is nowhere 0.
    """

    kernel: SoftmaxFamily = field(default_factory=SoftmaxKernel)
    coupling: Coupling | str = field(init=False, repr=False, default_factory=Independent)

    kernel_type: ClassVar[type] = SoftmaxFamily

    @abc.abstractmethod
    def draw_counts(self, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Counts (*batch_shape, m, d), and for each `-½ log(c! p(c))`."""

    @abc.abstractmethod
    def log_second_moment(self, product: np.ndarray) -> np.ndarray:
        """`log E S² / K²` of one feature, from the products x_l y_l (..., d) in kernel units."""

    def draw_arrays(self, dim: int, num_rows: int, rng: np.random.Generator, batch_shape: tuple[int, ...]) -> Drawn:
        counts, log_weights = self.draw_counts((*batch_shape, num_rows, dim), rng)
        log_weights = np.sum(log_weights, axis=-1)[..., None, :] - math.log(num_rows) / 2
        return {"counts": counts.astype(np.float64), "log_weights": log_weights}

    def query_features(self, arrays: Arrays, x: Array) -> Features:
        """Sign and logarithm of the monomials, each by one matrix product; a factor `0^c` is 1 for c = 0, else 0."""
        xp = namespace(x)
        counts = xp.matrix_transpose(arrays["counts"])
        zero = x == 0
        logs = xp.log(xp.where(zero, xp.ones_like(x), xp.abs(x)))
        num_zero = cast(zero, x.dtype) @ cast(counts > 0, x.dtype)
        num_negative = cast(x < 0, x.dtype) @ xp.remainder(counts, xp.ones_like(counts) * 2)
        sign = 1 - 2 * xp.remainder(num_negative, xp.ones_like(num_negative) * 2)
        values = xp.where(num_zero > 0, xp.zeros_like(sign), sign)
        log_scale = logs @ counts + arrays["log_weights"] + self.kernel.log_envelope(squared_norm(x))
        return Features(values, log_scale)

    def variance_over_reference(self, x: Any, y: Any, num_features: int) -> np.ndarray:
        """`(E S² / K² - 1) / m`."""
        x, y = unit_inputs(self.kernel, x, y)
        return np.expm1(self.log_second_moment(x * y)) / num_features


def product_scales(query: Any, key: Any, *, kernel: SoftmaxFamily, scale: float | None) -> np.ndarray:
    """Root mean square of x_l y_l over all pairs, (..., d): mean of x_l² times mean of y_l², in O((L + S) d)."""
    x, y = unit_pair(query, key, kernel=kernel, scale=scale)
    scales = np.sqrt(np.mean(x * x, axis=-2) * np.mean(y * y, axis=-2))
    if not np.all(np.any(scales > 0, axis=-1)):
        raise ValueError("all products of queries and keys vanish along every axis; there is nothing to fit to.")
    return scales
