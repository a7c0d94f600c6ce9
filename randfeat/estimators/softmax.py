"""What estimators of the softmax family share."""

from dataclasses import dataclass, field
from typing import ClassVar

from randfeat.estimators.base import Estimator
from randfeat.kernels import SoftmaxFamily, SoftmaxKernel

__all__ = ["SoftmaxEstimator"]


@dataclass(frozen=True)
class SoftmaxEstimator(Estimator):
    """An estimator of `exp(x'·y')`, and with an envelope of every kernel of the softmax family.

    Moments are relative to the kernel, and depend on the inputs in kernel units only.
    """

    kernel: SoftmaxFamily = field(default_factory=SoftmaxKernel)

    kernel_type: ClassVar[type] = SoftmaxFamily
