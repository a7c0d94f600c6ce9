"""Arc-cosine features."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from randfeat._array import Array, Arrays, cast, namespace
from randfeat.couplings.laws import PairLaw
from randfeat.estimators.base import Estimator
from randfeat.estimators.own_pairs import own_pair, radial_factor
from randfeat.features import Features
from randfeat.kernels import ArcCosineKernel
from randfeat.kernels.arc_cosine import arc_cosine, parallel_value
from randfeat.kernels.projected_pair import ProjectedPair


@dataclass(frozen=True)
class ArcCosineFeatures(Estimator):
    """Arc-cosine features, `φ_i(x) = √(2/m) Θ(w_i·x) (w_i·x)^n`, n the order of the kernel.

    One layer of a random network: order 0 has step units, order 1 rectified linear ones.

    Shapes: (..., n, d) -> values (..., n, m), never negative, zero where w_i·x <= 0; log_scale (..., n, 1).
    Exact: `E[φ(x)·φ(y)] = k_n(x, y)` for every coupling with exact marginals; for rows of length √d in orders 0 and 1
        too, and in order n in general times `d^n / (d (d + 2) ... (d + 2n - 2))`.
    Error: variance `(2 k_2n - k_n²)/m` for independent rows, whose standard deviation over the kernel grows with n; 0
        at opposite inputs. Antithetic rows have products 0 with each other, so the covariance of a pair is `-k_n²`.
    Limits: no closed form for rows that are coupled otherwise. Zero features: all of them may vanish at an input.
    For: the kernels of wide ReLU networks, in regression and classification.
    Source: Cho & Saul 2009, "Kernel Methods for Deep Learning".

    >>> estimator = ArcCosineFeatures(ArcCosineKernel(order=0), coupling="antithetic")
    >>> x = np.array([[0.3, 0.0, -0.4]])
    >>> estimator.draw(dim=3, num_features=10, rng=0).estimate(x, 2 * x)
    array([[1.]])
    >>> estimator.variance(x, 2 * x, num_features=10)
    array([0.])
    """

    kernel: ArcCosineKernel = field(default_factory=ArcCosineKernel)

    kernel_type: ClassVar[type] = ArcCosineKernel

    @property
    def bounded(self) -> bool:
        return self.kernel.order == 0

    def query_features(self, arrays: Arrays, x: Array) -> Features:
        xp, rows = namespace(x), arrays["rows"]
        projection = x @ xp.matrix_transpose(rows)
        positive = xp.where(xp.isnan(projection), projection, cast(projection > 0, projection.dtype))
        if self.kernel.order:
            positive = xp.where(projection < 0, xp.zeros_like(projection), projection) ** self.kernel.order
        values = positive * math.sqrt(2 / rows.shape[-2])
        return Features(values, xp.zeros_like(values[..., :1]))

    def relative_row_mean(self, x: np.ndarray, y: np.ndarray, law: PairLaw) -> np.ndarray:
        """`J_n(θ)/J_n(0)`, times a factor that depends on the lengths of the rows if they are not Gaussian."""
        return self.kernel.relative(x, y) * radial_factor(law, 2 * self.kernel.order, type(self).__name__)

    def relative_covariance(self, x: np.ndarray, y: np.ndarray, law: PairLaw, *, same_row: bool) -> np.ndarray:
        """`2 k_2n - k_n²` of a row with itself, `-k_n²` of a row with its negative."""
        name = type(self).__name__
        sign, mean = own_pair(law, name), self.relative_row_mean(x, y, law)
        if sign < 0:
            return -(mean**2)
        second = (
            2
            * arc_cosine(2 * self.kernel.order, ProjectedPair(x, y, gram=False))
            / parallel_value(self.kernel.order) ** 2
        )
        return second * radial_factor(law, 4 * self.kernel.order, name) - mean**2
