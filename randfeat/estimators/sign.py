"""Sign features."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from randfeat._array import Array, Arrays, namespace
from randfeat.couplings.laws import PairLaw
from randfeat.estimators.base import Estimator
from randfeat.estimators.own_pairs import own_pair, radial_factor
from randfeat.features import Features
from randfeat.kernels import AngularKernel, Kernel
from randfeat.kernels.projected_pair import ProjectedPair


@dataclass(frozen=True)
class SignFeatures(Estimator):
    """Sign random projections, `φ_i(x) = sgn(w_i·x) / √m`: one bit for each feature.

    Shapes: (..., n, d) -> values (..., n, m), ±1/√m (0 for zero vectors); log_scale (..., n, 1).
    Exact: `E[φ(x)·φ(y)] = 1 - 2θ/π` for every coupling with exact marginals, and for rows of any lengths whose
        directions are uniform; in each draw at parallel and at opposite inputs. Only directions of the inputs matter.
    Error: variance `(1 - (1 - 2θ/π)²)/m` for independent rows; antithetic rows repeat each other.
    Limits: no closed form for rows that are coupled otherwise.
    For: angles between vectors, with one bit for each feature.
    Source: Charikar 2002, "Similarity estimation techniques from rounding algorithms" (SimHash).

    >>> x = np.array([[0.3, 0.0, -0.4], [0.4, 0.0, 0.3]])
    >>> SignFeatures().draw(dim=3, num_features=9, rng=0).estimate(x, -5 * x[:1])[0].round(12)
    array([-1.])
    >>> SignFeatures(coupling="independent").variance(x[0], x[1], num_features=100).round(12)
    np.float64(0.01)
    """

    kernel: Kernel = field(default_factory=AngularKernel)

    bounded = True
    acronyms = ("SRP", "SimHash")
    kernel_type: ClassVar[type] = AngularKernel

    def query_features(self, arrays: Arrays, x: Array) -> Features:
        xp, rows = namespace(x), arrays["rows"]
        values = xp.sign(x @ xp.matrix_transpose(rows)) / math.sqrt(rows.shape[-2])
        return Features(values, xp.zeros_like(values[..., :1]))

    def relative_row_mean(self, x: np.ndarray, y: np.ndarray, law: PairLaw) -> np.ndarray:
        """`1 - 2θ/π`."""
        return self.kernel.relative(x, y) * radial_factor(law, 0, type(self).__name__)

    def relative_covariance(self, x: np.ndarray, y: np.ndarray, law: PairLaw, *, same_row: bool) -> np.ndarray:
        """`1 - (1 - 2θ/π)²`, of a row with itself or with its negative."""
        own_pair(law, type(self).__name__)
        return ProjectedPair(x, y, gram=False).nonzero - self.relative_row_mean(x, y, law) ** 2
