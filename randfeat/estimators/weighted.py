"""Positive features from rows of any proposal, each with its weight."""

import abc
from collections.abc import Mapping
from typing import Any

import numpy as np

from randfeat._array import Array, namespace, squared_norm
from randfeat.estimators.softmax import SoftmaxEstimator
from randfeat.features import ExponentialForm, Features
from randfeat.kernels import SoftmaxFamily

__all__ = ["WeightedPositiveEstimator", "positive_pull_back", "weighted_form", "weighted_positive_features"]


def weighted_positive_features(kernel: SoftmaxFamily, arrays: Mapping[str, Array], x: Array) -> Features:
    """`log φ_i(x) = w_i·x - |x|²/2 + log_weights_i`: importance-sampled positive features.

    For rows w_i ~ p_i and `log_weights_i = ½ log(N(w_i; 0, I)/(m p_i(w_i)))` the inner product of features is unbiased
    for exp(x·y), because `exp(w·x - |x|²/2) exp(w·y - |y|²/2)` has that mean under N(0, I). The weight of a row is
    split evenly between its query and its key feature.
    """
    xp = namespace(x)
    sqnorm = squared_norm(x)
    per_row: Any = kernel.log_envelope(sqnorm) - sqnorm / 2
    log_scale = x @ xp.matrix_transpose(arrays["rows"]) + arrays["log_weights"] + per_row
    return Features(xp.broadcast_to(xp.ones_like(sqnorm), log_scale.shape), log_scale)


def positive_pull_back(kernel: SoftmaxFamily, rows: Array, x: Array, gradient: Array, row: Any) -> Array:
    """`Σ_i g_i w_i - r x (1 - 2e')`: the gradient in x of `exp(w_i·x - |x|²/2 + log e(|x|²))`, e' that of log e.

    gradient (..., n, m) : g, the derivatives in the logarithms of the features. row : r, their sum (..., n, 1), or 0.0.
    """
    return gradient @ rows + row * kernel.log_gaussian_slope(x)


def weighted_form(kernel: SoftmaxFamily, arrays: Mapping[str, Array]) -> ExponentialForm:
    """The exponential form of `weighted_positive_features`."""
    return ExponentialForm(arrays["rows"], arrays["log_weights"], kernel.log_gaussian, kernel.log_gaussian_slope)


class WeightedPositiveEstimator(SoftmaxEstimator):
    """An estimator whose features are `weighted_positive_features` of its drawn rows and log-weights."""

    @abc.abstractmethod
    def draw_arrays(
        self, num_rows: int, dim: int, rng: np.random.Generator, batch_shape: tuple[int, ...]
    ) -> dict[str, np.ndarray]:
        return super().draw_arrays(num_rows, dim, rng, batch_shape)

    def query_features(self, arrays: Mapping[str, Array], x: Array) -> Features:
        return weighted_positive_features(self.kernel, arrays, x)

    def pull_back(
        self, arrays: Mapping[str, Array], x: Array, values: Array, gradient: Array, row: Any, *, keys: bool
    ) -> Array:
        """`Σ_i g_i w_i - x Σ_i g_i`, and the envelope's."""
        return positive_pull_back(self.kernel, arrays["rows"], x, gradient, row)

    def exponential_form(self, arrays: Mapping[str, Array], *, keys: bool) -> ExponentialForm:
        return weighted_form(self.kernel, arrays)
