"""Estimators that change the inputs or the values of one other: what multiples and length-scales share."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from randfeat import variance
from randfeat._array import Array
from randfeat.couplings import Coupling, Independent
from randfeat.couplings.laws import PairLaw
from randfeat.estimators.base import Estimator
from randfeat.estimators.delegating import DelegatingEstimator
from randfeat.features import Features
from randfeat.kernels import Kernel, SoftmaxKernel

__all__ = ["WrappedEstimator"]


@dataclass(frozen=True)
class WrappedEstimator(DelegatingEstimator):
    """An estimator that draws what its base draws, and has the base's relative moments at the inputs that it passes on.

    base : the estimator; coupling, widths, batches and signs are its own.
    """

    kernel: Kernel = field(init=False, repr=False, default_factory=SoftmaxKernel)
    coupling: Coupling | str = field(init=False, repr=False, default_factory=Independent)
    base: Estimator

    def __post_init__(self) -> None:
        if not isinstance(self.base, Estimator):
            raise TypeError(f"base must be an Estimator, got {self.base!r}.")
        object.__setattr__(self, "kernel", self._wrap_kernel(self.base.kernel))
        object.__setattr__(self, "coupling", self.base.coupling)
        super().__post_init__()

    @abc.abstractmethod
    def _wrap_kernel(self, kernel: Kernel) -> Kernel:
        """The kernel of the whole, from the base's."""

    def _inputs(self, x: Array) -> Array:
        """The inputs that the base sees, before its own units."""
        return x

    def _features(self, features: Features) -> Features:
        """The features of the whole, from the base's."""
        return features

    @property
    def symmetric(self) -> bool:
        return self.base.symmetric

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self.base.batch_shape

    @property
    def parameter_dim(self) -> int | None:
        return self.base.parameter_dim

    def draw_arrays(
        self, dim: int, num_rows: int, rng: np.random.Generator, batch_shape: tuple[int, ...]
    ) -> dict[str, np.ndarray]:
        return self.base.draw_arrays(dim, num_rows, rng, batch_shape)

    def query_features(self, arrays: Mapping[str, Array], x: Array) -> Features:
        return self._features(self.base.query_features(arrays, self.base.kernel.unit(self._inputs(x))))

    def key_features(self, arrays: Mapping[str, Array], y: Array) -> Features:
        return self._features(self.base.key_features(arrays, self.base.kernel.unit(self._inputs(y))))

    def relative_row_mean(self, x: np.ndarray, y: np.ndarray, law: PairLaw) -> np.ndarray:
        x, y = (self.base.kernel.unit(self._inputs(side)) for side in (x, y))
        return self.base.relative_row_mean(x, y, law)

    def relative_covariance(self, x: np.ndarray, y: np.ndarray, law: PairLaw, *, same_row: bool) -> np.ndarray:
        x, y = (self.base.kernel.unit(self._inputs(side)) for side in (x, y))
        return self.base.relative_covariance(x, y, law, same_row=same_row)

    def mean_over_reference(self, x: Any, y: Any, num_features: int | None) -> np.ndarray:
        x, y = variance.unit_inputs(self.kernel, x, y)
        return self.base.mean_over_reference(self._inputs(x), self._inputs(y), num_features)

    def variance_over_reference(self, x: Any, y: Any, num_features: int) -> np.ndarray:
        x, y = variance.unit_inputs(self.kernel, x, y)
        return self.base.variance_over_reference(self._inputs(x), self._inputs(y), num_features)

    def row_kurtosis(self, x: Any, y: Any) -> np.ndarray:
        x, y = variance.unit_inputs(self.kernel, x, y)
        return self.base.row_kurtosis(self._inputs(x), self._inputs(y))
