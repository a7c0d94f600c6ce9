"""Features of a positive multiple of a kernel."""

import math
from dataclasses import dataclass
from typing import Any, Self

from randfeat._array import Arrays
from randfeat.estimators.base import OPERATIONS
from randfeat.estimators.delegating import DelegatingEstimator
from randfeat.estimators.positive import PositiveFeatures
from randfeat.kernels import Kernel
from randfeat.kernels.algebra import ScaledKernel
from randfeat.kernels.base import check_positive


@dataclass(frozen=True)
class ScaledFeatures(DelegatingEstimator):
    """Features of a positive multiple of a kernel, `√factor · φ(x)`; written `factor * e`.

    base : an estimator of any kernel. factor : positive.

    Shapes: as the base's.
    Exact: `E[φ(x)·φ(y)] = factor · k(x, y)` where the base is unbiased.
    Error: the base's variance times factor²; relative errors are the base's.
    For: weights of the parts in a sum of kernels.
    Source: bilinearity of the inner product. Weighted sums, `0.3 * e1 + 0.7 * e2`, are multiple kernel learning:
        Lanckriet et al. 2004, "Learning the Kernel Matrix with Semidefinite Programming".

    >>> import numpy as np
    >>> from randfeat import GaussianKernel, TrigonometricFeatures
    >>> phi = (4 * TrigonometricFeatures(GaussianKernel())).draw(dim=2, num_features=8, rng=0)
    >>> print(phi.estimate(np.ones((1, 2)), np.ones((1, 2))).round(12))
    [[4.]]
    """

    factor: float

    @classmethod
    def example(cls) -> Self:
        return cls(PositiveFeatures(), 2.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", check_positive("factor", self.factor))
        super().__post_init__()

    def _wrap_kernel(self, kernel: Kernel) -> Kernel:
        return ScaledKernel(kernel, self.factor)

    def move(self, arrays: Arrays, x: Any, *, keys: bool) -> tuple[Any, Any]:
        """x, and `½ log factor`."""
        return x, math.log(self.factor) / 2


OPERATIONS["multiple"] = ScaledFeatures
