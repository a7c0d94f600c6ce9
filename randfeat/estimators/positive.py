"""Positive features."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from randfeat._array import Array, device_of, namespace, squared_norm
from randfeat.couplings.laws import PairLaw
from randfeat.estimators.exponential_sum import ExponentialSum
from randfeat.estimators.softmax import SoftmaxEstimator
from randfeat.estimators.weighted import positive_pull_back
from randfeat.features import ExponentialForm, Features
from randfeat.variance import unit_inputs

__all__ = ["PositiveFeatures"]


@dataclass(frozen=True)
class PositiveFeatures(SoftmaxEstimator):
    """Positive features, `φ_i(x) = exp(w_i·x - |x|²/2) / √m`: FAVOR+.

    For the softmax kernel; x and y in kernel units, `u = |x + y|²`.

    Shapes: (..., n, d) -> values (all 1) and log_scale (..., n, m), one feature per row.
    Exact: `E[φ(x)·φ(y)] = exp(x·y)` for every m >= 1 and every coupling with exact marginals; never negative.
    Error: relative variance `expm1(u)/m` for independent rows, so exact at y = -x, best for opposed inputs, and of no
        use once u >> log m; unbounded, with log-normal tails: an empirical mean or MSE is falsely low there.
    Biased low for constant norms: the mean is `SMREG = e^{-(|x|²+|y|²)/2} 0F1(; d/2; du/4)`.
    Source: Choromanski et al. 2021, "Rethinking Attention with Performers", Lemmas 1 and 2.

    >>> phi = PositiveFeatures(coupling="orthogonal").draw(dim=3, num_features=256, rng=0)
    >>> x = np.array([[0.3, 0.0, -0.4]])
    >>> bool(np.isclose(phi.estimate(x, -x), np.exp(-0.25)).item())
    True
    >>> PositiveFeatures(coupling="independent").relative_variance(x, x, num_features=256)
    array([0.00671204])
    """

    positive: ClassVar[bool] = True
    acronyms: ClassVar[tuple[str, ...]] = ("FAVOR+", "PRF")

    def query_features(self, arrays: Mapping[str, Array], x: Array) -> Features:
        """`log φ_i = w_i·x - |x|²/2 - log(m)/2`, all of it in the scale."""
        xp = namespace(x)
        rows, sqnorm = arrays["rows"], squared_norm(x)
        log_norm = self.kernel.log_envelope(sqnorm) - sqnorm / 2 - math.log(rows.shape[-2]) / 2
        log_scale = x @ xp.matrix_transpose(rows) + log_norm
        return Features(xp.broadcast_to(xp.ones_like(log_norm), log_scale.shape), log_scale)

    def pull_back(
        self, arrays: Mapping[str, Array], x: Array, values: Array, gradient: Array, row: Any, *, keys: bool
    ) -> Array:
        """`Σ_i g_i w_i - x Σ_i g_i`, and the envelope's."""
        return positive_pull_back(self.kernel, arrays["rows"], x, gradient, row)

    def exponential_form(self, arrays: Mapping[str, Array], *, keys: bool) -> ExponentialForm:
        """`w_i·x - log(m)/2`, and `-|x|²/2` with the envelope per row."""
        xp, rows = namespace(arrays["rows"]), arrays["rows"]
        shape = (*rows.shape[:-2], 1, rows.shape[-2])
        log_weights = xp.full(shape, -math.log(rows.shape[-2]) / 2, dtype=rows.dtype, device=device_of(rows))
        return ExponentialForm(rows, log_weights, self.kernel.log_gaussian, self.kernel.log_gaussian_slope)

    def relative_row_mean(self, x: np.ndarray, y: np.ndarray, law: PairLaw) -> np.ndarray:
        """`E[exp(w·(x+y))] e^{-u/2}`."""
        return law.row_mean(np.sum((x + y) ** 2, axis=-1))

    def relative_covariance(self, x: np.ndarray, y: np.ndarray, law: PairLaw, *, same_row: bool) -> np.ndarray:
        """`Cov(exp(w1·(x+y)), exp(w2·(x+y))) e^{-u}`."""
        return law.covariance(np.sum((x + y) ** 2, axis=-1))

    def exponential_terms(self, x: np.ndarray, y: np.ndarray) -> ExponentialSum:
        """`exp(w·(x+y) - u/2)`."""
        z = x + y
        return ExponentialSum.of(-np.sum(z**2, axis=-1) / 2, [z])

    def log_joint_moment(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """`z_j·z_k`, z_j = x + y_j."""
        z = x + y
        return z @ z.T

    def row_kurtosis(self, x: Any, y: Any) -> np.ndarray:
        """`q⁴ + 2q³ + 3q² - 3`, q = e^u: log-normal."""
        x, y = unit_inputs(self.kernel, x, y)
        q = np.exp(np.minimum(np.sum((x + y) ** 2, axis=-1), 170.0))
        return q**4 + 2 * q**3 + 3 * q**2 - 3
