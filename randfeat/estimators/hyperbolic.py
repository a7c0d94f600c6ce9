"""Hyperbolic positive features."""

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

__all__ = ["HyperbolicFeatures"]


@dataclass(frozen=True)
class HyperbolicFeatures(SoftmaxEstimator):
    """Hyperbolic positive features, `φ(x) = e^{-|x|²/2} [exp(w_i·x), exp(-w_i·x)]_i / √(2m)`: hyp+.

    For the softmax kernel; x and y in kernel units, `u = |x + y|²`. Positive features with antithetic rows ±w_i.

    Shapes: (..., n, d) -> values (all 1) and log_scale (..., n, 2m), two features per row: `num_features` is even.
    Exact: `E[φ(x)·φ(y)] = E[e^{-(|x|²+|y|²)/2} cosh(w·(x+y))] = exp(x·y)` for every coupling with exact marginals;
        never negative.
    Error: relative variance `2 sinh²(u/2)/m` for m independent rows, at equal width `(1 - e^{-u})` times that of
        positive features: much better for u < 1, the same for large u. Mirror image of trigonometric features.
    Source: Choromanski et al. 2021, "Rethinking Attention with Performers", Lemma 2.

    >>> x = np.array([0.3, 0.0, -0.4])
    >>> HyperbolicFeatures(coupling="independent").relative_variance(x, x, num_features=256).round(6)
    np.float64(0.004243)
    """

    positive: ClassVar[bool] = True
    features_per_row: ClassVar[int] = 2
    acronyms: ClassVar[tuple[str, ...]] = ("hyp+",)

    def query_features(self, arrays: Mapping[str, Array], x: Array) -> Features:
        """`log φ = ±w_i·x - |x|²/2 - log(2m)/2`, all of it in the scale."""
        xp = namespace(x)
        rows, sqnorm = arrays["rows"], squared_norm(x)
        log_norm = self.kernel.log_envelope(sqnorm) - sqnorm / 2 - math.log(2 * rows.shape[-2]) / 2
        projection = x @ xp.matrix_transpose(rows)
        log_scale = xp.concat([projection + log_norm, log_norm - projection], axis=-1)
        return Features(xp.broadcast_to(xp.ones_like(log_norm), log_scale.shape), log_scale)

    def pull_back(
        self, arrays: Mapping[str, Array], x: Array, values: Array, gradient: Array, row: Any, *, keys: bool
    ) -> Array:
        """`Σ_i (g_i - g'_i) w_i - x Σ_i (g_i + g'_i)`, g' for the negative rows, and the envelope's."""
        half = gradient.shape[-1] // 2
        return positive_pull_back(self.kernel, arrays["rows"], x, gradient[..., :half] - gradient[..., half:], row)

    def exponential_form(self, arrays: Mapping[str, Array], *, keys: bool) -> ExponentialForm:
        """`±w_i·x - log(2m)/2`, and `-|x|²/2` with the envelope per row."""
        xp = namespace(arrays["rows"])
        rows = xp.concat([arrays["rows"], -arrays["rows"]], axis=-2)
        shape = (*rows.shape[:-2], 1, rows.shape[-2])
        log_weights = xp.full(shape, -math.log(rows.shape[-2]) / 2, dtype=rows.dtype, device=device_of(rows))
        return ExponentialForm(rows, log_weights, self.kernel.log_gaussian, self.kernel.log_gaussian_slope)

    def relative_row_mean(self, x: np.ndarray, y: np.ndarray, law: PairLaw) -> np.ndarray:
        """`E[cosh(w·(x+y))] e^{-u/2}`."""
        return law.row_mean(np.sum((x + y) ** 2, axis=-1))

    def relative_covariance(self, x: np.ndarray, y: np.ndarray, law: PairLaw, *, same_row: bool) -> np.ndarray:
        """`Cov(cosh(w1·(x+y)), cosh(w2·(x+y))) e^{-u}`."""
        return law.even_covariance(np.sum((x + y) ** 2, axis=-1))

    def exponential_terms(self, x: np.ndarray, y: np.ndarray) -> ExponentialSum:
        """`½ exp(±w·(x+y) - u/2)`."""
        z = x + y
        return ExponentialSum.of(-np.sum(z**2, axis=-1) / 2, [z, -z])

    def log_joint_moment(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """`log cosh(z_j·z_k)`, z_j = x + y_j."""
        z = x + y
        return np.logaddexp(z @ z.T, -z @ z.T) - math.log(2)

    def row_kurtosis(self, x: Any, y: Any) -> np.ndarray:
        """Fourth over squared second central moment of `cosh(a)`, a ~ N(0, u)."""
        x, y = unit_inputs(self.kernel, x, y)
        u = np.clip(np.sum((x + y) ** 2, axis=-1), 0.02, 85.0)  # 15 in the limit u -> 0, where the difference cancels
        mean, second, third, fourth = (np.exp(k * k * u / 2) for k in (1, 2, 3, 4))
        central = (fourth + 4 * second + 3) / 8 - mean * (third + 3 * mean) + 3 * mean**2 * (1 + second) - 3 * mean**4
        return central / (2 * np.sinh(u / 2) ** 2 * np.exp(u)) ** 2
