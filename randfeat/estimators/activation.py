"""Activation features: generalized attention."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from randfeat._array import Array, Arrays, namespace
from randfeat.couplings.laws import PairLaw
from randfeat.estimators.base import Estimator
from randfeat.estimators.own_pairs import own_pair, radial_factor
from randfeat.features import Features
from randfeat.kernels import ActivationKernel
from randfeat.kernels.activation import exponential_mean, shifted
from randfeat.kernels.projected_pair import ProjectedPair


@dataclass(frozen=True)
class ActivationFeatures(Estimator):
    """Activation features, `φ_i(x) = (f(w_i·x) + offset) / √m`: generalized attention.

    kernel : has f and the offset; ReLU without offset by default.

    Shapes: (..., n, d) -> values (..., n, m) and log_scale (..., n, 1); for functions that are positive everywhere
        (exp, sigmoid, normal_cdf, elu_plus_one) values 1 and log_scale (..., n, m), so that none underflows.
    Exact: `E[φ(x)·φ(y)] = K_f` (and its offset) for every coupling with exact marginals; for rows of length √d, f
        homogeneous of degree n and no offset, the mean is `d^n / (d (d + 2) ... (d + 2n - 2))` of it.
    Error: variance `(E[h(w·x)² h(w·y)²] - K²)/m` for independent rows, h = f + offset: in closed form for exp, cos,
        sin, and without offset for abs, identity, relu, relu2, sign, square, step; else by quadrature, as for the
        kernel, with an error up to a hundred times its. Antithetic rows: `E[h(a) h(-a) h(b) h(-b)] - K²` for a row and
        its negative, which is -K² for the ReLU, and no gain for even or odd functions.
    Positive, so that normalized attention is a convex combination of the values, where f is, or is never negative and
    has an offset; ReLU features without offset may all vanish at an input.
    Limits: no closed form for rows that are coupled otherwise, except for exp without offset.
    For: linear attention that is trained with another function than the exponential, such as the ReLU.
    Source: Choromanski et al. 2021, "Rethinking Attention with Performers" (generalized attention; ReLU with the offset
        0.001 is its Performer-ReLU).

    >>> performer_relu = ActivationFeatures(ActivationKernel("relu", offset=1e-3))
    >>> phi = performer_relu.draw(dim=3, num_features=256, rng=0)
    >>> x, y = np.array([[0.3, 0.0, -0.4]]), np.array([[0.4, 0.3, 0.0]])
    >>> phi.estimator.positive, phi.estimate(x, y).round(2), phi.estimator.mean(x, y).round(4)
    (True, array([[0.08]]), array([0.0749]))
    """

    kernel: ActivationKernel = field(default_factory=ActivationKernel)

    acronyms = ("GA", "Performer-ReLU")
    kernel_type: ClassVar[type] = ActivationKernel

    @property
    def positive(self) -> bool:
        return self.kernel.function.log is not None or (self.kernel.function.nonnegative and self.kernel.offset > 0)

    @property
    def bounded(self) -> bool:
        return self.kernel.function.bounded

    @property
    def _degree(self) -> int | None:
        """The degree of f + offset, where that is homogeneous."""
        return self.kernel.function.degree if self.kernel.offset == 0 else None

    @property
    def _is_exponential(self) -> bool:
        return self.kernel.function.exponentials == {1: 1.0} and self.kernel.offset == 0

    def query_features(self, arrays: Arrays, x: Array) -> Features:
        xp, rows = namespace(x), arrays["rows"]
        projection, num_rows = x @ xp.matrix_transpose(rows), rows.shape[-2]
        if self.kernel.function.log is None:
            values = (self.kernel.function.value(projection) + self.kernel.offset) / math.sqrt(num_rows)
            return Features(values, xp.zeros_like(values[..., :1]))
        log = self.kernel.function.log(projection)
        if self.kernel.offset > 0:
            log = xp.logaddexp(log, xp.full_like(log, math.log(self.kernel.offset)))
        return Features(xp.ones_like(log), log - math.log(num_rows) / 2)

    def relative_row_mean(self, x: np.ndarray, y: np.ndarray, law: PairLaw) -> np.ndarray:
        if self._is_exponential:
            return law.row_mean(np.sum((x + y) ** 2, axis=-1))
        degree = None if self._degree is None else 2 * self._degree
        return self.kernel.relative(x, y) * radial_factor(law, degree, type(self).__name__)

    def relative_covariance(self, x: np.ndarray, y: np.ndarray, law: PairLaw, *, same_row: bool) -> np.ndarray:
        """`E[h(a) h(±a) h(b) h(±b)] - K²` for a row with itself (+) or its negative (-)."""
        if self._is_exponential:
            return law.covariance(np.sum((x + y) ** 2, axis=-1))
        name = type(self).__name__
        sign, mean = own_pair(law, name), self.relative_row_mean(x, y, law)
        degree = None if self._degree is None else 4 * self._degree
        return self._second_moment(x, y, sign) * radial_factor(law, degree, name) - mean**2

    def _second_moment(self, x: np.ndarray, y: np.ndarray, sign: int) -> np.ndarray:
        """`E[h(a) h(sign·a) h(b) h(sign·b)]` under one Gaussian row, over the squared reference."""
        function, offset = self.kernel.function, self.kernel.offset
        pair, log_reference = ProjectedPair(x, y, gram=False), self.kernel.log_reference(x, y)
        if function.exponentials:
            terms = shifted(function.exponentials, offset)
            return exponential_mean(times_reflected(terms, sign), pair, 2 * log_reference)
        if offset == 0 and function.square is not None:
            if sign < 0 and function.symmetry == "one-sided":
                return np.zeros_like(log_reference)
            return np.asarray(function.square(pair) * np.exp(-2 * log_reference))

        def product(a: np.ndarray) -> np.ndarray:
            return (function.value(a) + offset) * (function.value(sign * a) + offset)

        return np.asarray(pair.mean(product, product) * np.exp(-2 * log_reference))


def times_reflected(terms: dict[complex, complex], sign: int) -> dict[complex, complex]:
    """`h(a) h(sign·a)` of a sum of exponentials, `{exponent: coefficient}`."""
    product: dict[complex, complex] = {}
    for left, first in terms.items():
        for right, second in terms.items():
            exponent = left + sign * right
            product[exponent] = product.get(exponent, 0) + first * second
    return product
