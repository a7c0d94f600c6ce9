"""Exponentials of projections: what positive features share."""

import abc
import math
from typing import Any

import numpy as np

from randfeat._array import Array, Arrays
from randfeat.couplings.laws import PairLaw
from randfeat.estimators.softmax import SoftmaxEstimator
from randfeat.features import ExponentialForm, Features, Quadratic
from randfeat.kernels import SoftmaxFamily
from randfeat.kernels.base import stated_for


class ExponentialEstimator(SoftmaxEstimator):
    """An estimator whose features are exponentials of affine maps of the inputs, times a factor of each input.

    `exponential_form` states them; features and gradients follow. Here it is that of importance-sampled positive
    features,

        φ_i(x) = exp(w_i·x - |x|²/2 + b_i),     b_i = ½ log(N(w_i; 0, I) / (m p_i(w_i)))     for w_i ~ p_i:

    unbiased for exp(x·y), because `exp(w·x - |x|²/2) exp(w·y - |y|²/2)` has that mean under N(0, I). The weight of a
    row is split evenly between its query and its key feature. `draw_arrays` gives "rows" w, and "log_weights" b
    (*batch_shape, 1, m); without log_weights b is -½ log m, for rows that are N(0, I).

    Beside the form an author writes the two moments, or says by NoClosedForm that they are not known.
    """

    positive = True

    @property
    def antithetic(self) -> bool:
        """Whether each row makes two features, w_i and -w_i; m is then the number of both."""
        return False

    @property
    def features_per_row(self) -> int:
        return 2 if self.antithetic else 1

    def exponential_form(self, arrays: Arrays, *, keys: bool) -> ExponentialForm:
        """`±w_i·x + b_i`, and `-|x|²/2` with the envelope per row."""
        rows, kernel = arrays["rows"], self.kernel
        log_weights = arrays.get("log_weights", -math.log(self.features_per_row * rows.shape[-2]) / 2)
        return ExponentialForm(
            rows,
            log_weights,
            kernel.log_gaussian,
            kernel.log_gaussian_slope,
            antithetic=self.antithetic,
            quadratic=None if (factor := known_factor(kernel)) is None else Quadratic(factor),
        )

    def query_features(self, arrays: Arrays, x: Array) -> Features:
        return self.exponential_form(arrays, keys=False).features(x)

    def key_features(self, arrays: Arrays, y: Array) -> Features:
        if self.symmetric:
            return self.query_features(arrays, y)
        return self.exponential_form(arrays, keys=True).features(y)

    def pull_back(self, arrays: Arrays, x: Array, values: Array, gradient: Array, row: Any, *, keys: bool) -> Array:
        return self.exponential_form(arrays, keys=keys).pull_back(x, gradient, row)

    @abc.abstractmethod
    def relative_row_mean(self, x: np.ndarray, y: np.ndarray, law: PairLaw) -> np.ndarray: ...

    @abc.abstractmethod
    def relative_covariance(self, x: np.ndarray, y: np.ndarray, law: PairLaw, *, same_row: bool) -> np.ndarray: ...


def known_factor(kernel: SoftmaxFamily) -> float | None:
    """The `envelope_factor` of a kernel, unless a subclass changed the envelope and inherits the factor of another."""
    return kernel.envelope_factor if stated_for(kernel, "envelope_factor", "log_envelope", "log_gaussian") else None
