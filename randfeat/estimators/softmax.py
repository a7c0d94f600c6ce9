"""The common base of the estimators of the softmax family."""

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np

from randfeat.couplings.laws import NoClosedForm
from randfeat.estimators.base import Estimator
from randfeat.estimators.exponential_sum import ExponentialSum
from randfeat.kernels import SoftmaxFamily, SoftmaxKernel


@dataclass(frozen=True)
class SoftmaxEstimator(Estimator):
    """An estimator of `exp(x'·y')`, and with an envelope of every kernel of the softmax family.

    Moments are divided by powers of the kernel. They depend only on the inputs in kernel units.
    """

    kernel: SoftmaxFamily = field(default_factory=SoftmaxKernel)

    kernel_type: ClassVar[type] = SoftmaxFamily

    def with_kernel(self, kernel: SoftmaxFamily) -> Self:
        """This estimator, for another kernel of the softmax family."""
        return dataclasses.replace(self, kernel=kernel)

    def exponential_terms(self, x: np.ndarray, y: np.ndarray) -> ExponentialSum:
        """`S(w)/K` of one row as the real part of a sum of complex Gaussian exponentials, inputs in kernel units.

        It gives the covariance of different estimators that use the same rows (`HybridFeatures`).
        """
        raise NoClosedForm(
            f"the covariance of {type(self).__name__} with other estimators at common rows is not known; use "
            "shared_rows=False, or randfeat.montecarlo."
        )
