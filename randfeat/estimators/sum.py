"""Features of a sum of kernels."""

import functools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from randfeat._array import as_count
from randfeat._hints import hinted
from randfeat.estimators.base import OPERATIONS, Estimator
from randfeat.estimators.combined import CombinedEstimator, least_width
from randfeat.features import Features, concatenate
from randfeat.kernels import Kernel
from randfeat.variance import times_exp, unit_inputs


@dataclass(frozen=True)
class SumFeatures(CombinedEstimator):
    """Features of a sum of kernels, `φ(x) = [φ_1(x), φ_2(x), ...]`, each part drawn independently; written `e1 + e2`.

    parts : an estimator for each kernel.
    shares : positive integers, the proportions of the widths; equal by default, `for_pairs` finds the best.

    Shapes: (..., n, d) -> values and log_scale (..., n, D), D = Σ_i D_i, the parts one after the other. D is a multiple
        of `features_per_row`, the least width in these proportions.
    Exact: `E[φ(x)·φ(y)] = Σ_i k_i(x, y)` where all parts are unbiased; biases add. Positive where all parts are.
    Error: variances add, `Var = Σ_i V_i(D_i)`. For independent rows it is least where D_i is proportional to the
        standard deviation of one of its features (Neyman 1934).
    For: functions that are sums of parts, such as a trend and a season.
    Source: Rahimi & Recht 2007, "Random Features for Large-Scale Kernel Machines" (features of mixtures); Duvenaud,
        Nickisch & Rasmussen 2011, "Additive Gaussian Processes" (where sums are of use).

    >>> from randfeat import GaussianKernel, PositiveFeatures, TrigonometricFeatures
    >>> estimator = TrigonometricFeatures(GaussianKernel(0.5)) + 3 * PositiveFeatures(GaussianKernel(2.0))
    >>> estimator.widths(96), estimator.kernel.pairwise(np.zeros(2), np.zeros(2))
    ((48, 48), np.float64(4.0))
    >>> x, y = np.array([0.3, 0.0]), np.array([0.0, 0.4])
    >>> bool(np.isclose(estimator.variance(x, y, num_features=96),
    ...      sum(part.variance(x, y, num_features=D) for part, D in zip(estimator.parts, (48, 48)))))
    True
    """

    @classmethod
    @hinted
    def for_pairs(cls, parts: Sequence[Estimator], x: Any, y: Any, *, num_features: int) -> Self:
        """The shares with the least variance at `num_features`, in the mean over pairs x, y, relative to log_reference.

        Optimal for independent rows, whose variance is proportional to 1/D_i; for other couplings the variance at equal
        shares stands for it. Draw it at `num_features`, less the few that fit no part; that is a multiple of its
        `features_per_row`. Needs the closed-form variances of all parts.
        """
        equal = cls(tuple(parts))
        steps, left = [least_width(part) for part in equal.parts], as_count(num_features, "num_features")
        if left < sum(steps):
            raise ValueError(f"{equal!r} needs at least {sum(steps)} features, got {num_features}.")
        reference = max(left // equal.features_per_row, 1) * equal.features_per_row
        x, y = unit_inputs(equal.kernel, x, y)
        log_reference = equal.kernel.log_reference(x, y)
        single = []  # variance of one feature, as if features were independent
        for part, width in zip(parts, equal.widths(reference), strict=True):
            relative = part.variance_over_reference(x, y, width)
            log_ratio = part.kernel.log_reference(x, y) - log_reference
            single.append(width * float(np.mean(times_exp(relative, 2 * log_ratio))))
        widths, left = list(steps), left - sum(steps)
        while fitting := [i for i, step in enumerate(steps) if step <= left]:
            best = max(fitting, key=lambda i: single[i] / (widths[i] * (widths[i] + steps[i])))
            widths[best] += steps[best]
            left -= steps[best]
        divisor = math.gcd(*widths)
        return cls(equal.parts, tuple(width // divisor for width in widths))

    @property
    def features_per_row(self) -> int:
        return sum(self.least_widths)

    def mean_over_reference(self, x: Any, y: Any, num_features: int | None) -> np.ndarray:
        x, y, parts = self._part_moments(x, y, num_features)
        means = (part.mean_over_reference(x, y, width) for part, width in parts)
        return self._added(means, x, y, power=1)

    def variance_over_reference(self, x: Any, y: Any, num_features: int) -> np.ndarray:
        x, y, parts = self._part_moments(x, y, num_features)
        variances = (part.variance_over_reference(x, y, width or 0) for part, width in parts)
        return self._added(variances, x, y, power=2)

    def _added(self, moments: Any, x: np.ndarray, y: np.ndarray, *, power: int) -> np.ndarray:
        """`Σ_i moment_i (reference_i/reference)^power`."""
        log_reference = self.kernel.log_reference(x, y)
        logs = (power * (part.kernel.log_reference(x, y) - log_reference) for part in self.parts)
        return functools.reduce(operator.add, (times_exp(m, log) for m, log in zip(moments, logs, strict=True)))

    def _combine_kernels(self, kernels: tuple[Kernel, ...]) -> Kernel:
        return functools.reduce(operator.add, kernels)

    def _combine_features(self, features: list[Features]) -> Features:
        return concatenate(*features)

    def _multiples(self, num_rows: int) -> tuple[int, ...]:
        return (num_rows,) * len(self.parts)


OPERATIONS["sum"] = SumFeatures.of
