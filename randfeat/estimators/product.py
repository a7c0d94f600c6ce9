"""Features of a product of kernels."""

import functools
import math
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat.estimators.base import OPERATIONS
from randfeat.estimators.combined import CombinedEstimator
from randfeat.features import Features, tensor_product
from randfeat.kernels import Kernel
from randfeat.variance import times

MOST_UNEVEN = 4  # ratio of factors of the number of rows


@dataclass(frozen=True)
class ProductFeatures(CombinedEstimator):
    """Features of a product of kernels, `φ(x) = φ_1(x) ⊗ φ_2(x) ⊗ ...`, parts drawn independently; written `e1 * e2`.

    parts : an estimator for each kernel.
    shares : positive integers, the proportions of the widths D_i; equal by default.

    Widths multiply, `D = Π_i D_i`. D is `features_per_row`, which the least widths in these proportions make, times an
    integer, whose factors nearest to each other, the least first, multiply them. Where one factor had to be more than
    four times another, D is refused.

    Shapes: (..., n, d) -> values (..., n, D); log_scale (..., n, 1) or (..., n, D).
    Exact: `E[φ(x)·φ(y)] = Π_i k_i(x, y)` where all parts are unbiased: the means of independent factors multiply.
        Positive where all parts are.
    Error: with means M_i and variances V_i of the parts, `Var = Π_i (V_i + M_i²) - Π_i M_i²`. For unbiased parts with
        the relative variances v_i/D_i that is, relatively, `Π_i (1 + v_i/D_i) - 1`, least for D_i proportional to v_i.
    Limits: at equal D the relative error decays like D^{-1/2p} for p factors, not D^{-1/2}. An estimator of the product
        itself is better where there is one: Gaussian kernels multiply to a Gaussian kernel.
    For: kernels that compare several properties at once, such as place and time.
    Source: Kar & Karnick 2012, "Random Feature Maps for Dot Product Kernels"; Hamid et al. 2014, "Compact Random
        Feature Maps" (products of independent estimates).

    >>> from randfeat import GaussianKernel, PositiveFeatures, SoftmaxKernel, TrigonometricFeatures
    >>> estimator = PositiveFeatures(SoftmaxKernel(0.5)) * TrigonometricFeatures(GaussianKernel(2.0))
    >>> phi = estimator.draw(dim=3, num_features=256, rng=0)
    >>> estimator.widths(256), phi.queries(np.zeros((4, 3))).values.shape
    ((16, 16), (4, 256))
    >>> estimator.widths(244)  # 4 · 61
    Traceback (most recent call last):
        ...
    ValueError: ProductFeatures(...) cannot have 244 features; nearest: 240, 252.
    """

    @property
    def features_per_row(self) -> int:
        return math.prod(self.least_widths)

    def mean_over_reference(self, x: Any, y: Any, num_features: int | None) -> np.ndarray:
        x, y, parts = self._part_moments(x, y, num_features)
        return functools.reduce(operator.mul, (part.mean_over_reference(x, y, width) for part, width in parts))

    def variance_over_reference(self, x: Any, y: Any, num_features: int) -> np.ndarray:
        """`Π (V_i + M_i²) - Π M_i²`, factor by factor: all terms are positive, nothing cancels."""
        x, y, parts = self._part_moments(x, y, num_features)
        mean, variance = np.ones(()), np.zeros(())
        for part, width in parts:
            m = part.mean_over_reference(x, y, width)
            v = part.variance_over_reference(x, y, width or 0)
            mean, variance = mean * m, times(variance, v + m**2) + times(v, mean**2)
        return variance

    def _combine_kernels(self, kernels: tuple[Kernel, ...]) -> Kernel:
        return functools.reduce(operator.mul, kernels)

    def _combine_features(self, features: list[Features]) -> Features:
        return functools.reduce(tensor_product, features)

    def _multiples(self, num_rows: int) -> tuple[int, ...] | None:
        factors = even_factors(num_rows, len(self.parts))
        return factors if factors[-1] <= MOST_UNEVEN * factors[0] else None


def even_factors(number: int, count: int) -> tuple[int, ...]:
    """`number` as a product of `count` factors near to each other, in ascending order.

    Each takes the largest divisor that does not exceed the geometric mean of what is left.
    """
    if count == 1:
        return (number,)
    above = math.ceil(number ** (1 / count)) + 1
    first = next(f for f in range(above, 0, -1) if number % f == 0 and f**count <= number)
    return tuple(sorted((first, *even_factors(number // first, count - 1))))


OPERATIONS["product"] = ProductFeatures.of
