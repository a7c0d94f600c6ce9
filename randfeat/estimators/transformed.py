"""Estimators of the same kernel at transformed inputs: what centering and balancing share."""

import abc
import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from randfeat._array import Array, namespace, squared_norm
from randfeat.couplings import Coupling, Independent
from randfeat.couplings.laws import PairLaw
from randfeat.estimators.delegating import DelegatingEstimator
from randfeat.estimators.exponential_sum import ExponentialSum
from randfeat.estimators.parametric import ParametricEstimator
from randfeat.estimators.positive import PositiveFeatures
from randfeat.estimators.softmax import SoftmaxEstimator
from randfeat.features import ExponentialForm, Features
from randfeat.kernels import SoftmaxFamily, SoftmaxKernel
from randfeat.variance import unit_inputs

__all__ = ["TransformedEstimator"]


@dataclass(frozen=True, eq=False, repr=False)
class TransformedEstimator(ParametricEstimator, DelegatingEstimator):
    """An estimator of `exp(x·y)` through an identity `exp(x·y) = e^{p(x)} e^{r(y)} exp(x'·y')`, exact for all x, y.

    base : the estimator that is applied to (x', y'); its kernel and coupling are those of the whole.

    The weights e^p and e^r go into the scale of the features, so nothing is approximated, and relative errors are those
    of the base at (x', y').
    """

    kernel: SoftmaxFamily = field(init=False, default_factory=SoftmaxKernel)
    coupling: Coupling | str = field(init=False, default_factory=Independent)
    base: SoftmaxEstimator = field(default_factory=PositiveFeatures)

    symmetric = False

    def __post_init__(self) -> None:
        if not isinstance(self.base, SoftmaxEstimator):
            raise TypeError(f"base must be an estimator of the softmax family, got {type(self.base).__name__}.")
        object.__setattr__(self, "kernel", self.base.kernel)
        object.__setattr__(self, "coupling", self.base.coupling)
        super().__post_init__()

    @abc.abstractmethod
    def transform_arrays(self) -> dict[str, np.ndarray]:
        """The parameters that features need, by names of their own, (*batch_shape, ·, ·)."""

    @abc.abstractmethod
    def transform(self, arrays: Mapping[str, Any], x: Any, *, keys: bool) -> tuple[Any, Any]:
        """x' (or y') and its log-weight (..., n, 1), or 0.0; pure array API, for inputs in kernel units."""

    @abc.abstractmethod
    def transform_pull_back(self, arrays: Mapping[str, Any], gradient: Any, log_gradient: Any, *, keys: bool) -> Any:
        """The gradient in x (or y), from those in x' (or y') and in its log-weight; both are linear in x."""

    @abc.abstractmethod
    def pull_back_rows(
        self, arrays: Mapping[str, Array], rows: Array, origin: Array | None, *, keys: bool
    ) -> tuple[Array, Array | None]:
        """Rows and origin with `(x' - origin)·rows = (x - its origin)·(its rows)`; pure array API."""

    @property
    def batch_shape(self) -> tuple[int, ...]:
        own = (array.shape[:-2] for array in self.transform_arrays().values())
        return np.broadcast_shapes(self.base.batch_shape, *own)

    @functools.cached_property
    def _core(self) -> SoftmaxEstimator:
        """The base for the plain softmax kernel: envelopes are those of the untransformed inputs."""
        return self.base.with_kernel(SoftmaxKernel())

    def with_kernel(self, kernel: SoftmaxFamily) -> Self:
        return dataclasses.replace(self, base=self.base.with_kernel(kernel))

    def draw_arrays(
        self, dim: int, num_rows: int, rng: np.random.Generator, batch_shape: tuple[int, ...]
    ) -> dict[str, np.ndarray]:
        drawn = self.base.draw_arrays(dim, num_rows, rng, batch_shape)
        own = self.transform_arrays()
        if set(own) & set(drawn):
            raise ValueError(f"{type(self).__name__} cannot be applied twice; combine its parameters into one.")
        return drawn | {name: np.broadcast_to(a, (*batch_shape, *a.shape[-2:])) for name, a in own.items()}

    def query_features(self, arrays: Mapping[str, Array], x: Array) -> Features:
        moved, log_weight = self.transform(arrays, x, keys=False)
        return self._core.query_features(arrays, moved).scaled(log_weight + self.kernel.log_envelope(squared_norm(x)))

    def key_features(self, arrays: Mapping[str, Array], y: Array) -> Features:
        moved, log_weight = self.transform(arrays, y, keys=True)
        return self._core.key_features(arrays, moved).scaled(log_weight + self.kernel.log_envelope(squared_norm(y)))

    def pull_back(
        self, arrays: Mapping[str, Array], x: Array, values: Array, gradient: Array, row: Any, *, keys: bool
    ) -> Array:
        moved, _ = self.transform(arrays, x, keys=keys)
        moved_gradient = self._core.pull_back(arrays, moved, values, gradient, row, keys=keys)
        own = 2 * self.kernel.envelope_slope(squared_norm(x)) * row * x
        return self.transform_pull_back(arrays, moved_gradient, row, keys=keys) + own

    def exponential_form(self, arrays: Mapping[str, Array], *, keys: bool) -> ExponentialForm | None:
        core = self._core.exponential_form(arrays, keys=keys)
        if core is None or not self._core.form_is_of_features("exponential_form"):
            return None
        core = core.written_out()
        base_per_row, base_row_slope = core.per_row, core.row_slope

        def per_row(x: Array) -> Array:
            moved, log_weight = self.transform(arrays, x, keys=keys)
            return base_per_row(moved) + log_weight + self.kernel.log_envelope(squared_norm(x))

        def row_slope(x: Array) -> Array:
            moved, _ = self.transform(arrays, x, keys=keys)
            own = 2 * self.kernel.envelope_slope(squared_norm(x)) * x
            return self.transform_pull_back(arrays, base_row_slope(moved), 1.0, keys=keys) + own

        rows, origin = self.pull_back_rows(arrays, core.rows, core.origin, keys=keys)
        return ExponentialForm(rows, core.log_weights, per_row, row_slope, origin)

    def moved_pair(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(x', y') of a pair in kernel units, broadcasting over (..., d)."""
        arrays = self.transform_arrays()
        if self.batch_shape:
            return tuple(self.transform(arrays, side, keys=keys)[0] for keys, side in enumerate((x, y)))  # type: ignore
        flat = ((np.atleast_2d(side), bool(keys)) for keys, side in enumerate((x, y)))
        moved = [self.transform(arrays, side, keys=keys)[0] for side, keys in flat]
        return moved[0].reshape(x.shape), moved[1].reshape(y.shape)

    def relative_row_mean(self, x: np.ndarray, y: np.ndarray, law: PairLaw) -> np.ndarray:
        return self._core.relative_row_mean(*self.moved_pair(x, y), law)

    def relative_covariance(self, x: np.ndarray, y: np.ndarray, law: PairLaw, *, same_row: bool) -> np.ndarray:
        return self._core.relative_covariance(*self.moved_pair(x, y), law, same_row=same_row)

    def mean_over_reference(self, x: Any, y: Any, num_features: int | None) -> np.ndarray:
        return self._core.mean_over_reference(*self.moved_pair(*unit_inputs(self.kernel, x, y)), num_features)

    def variance_over_reference(self, x: Any, y: Any, num_features: int) -> np.ndarray:
        return self._core.variance_over_reference(*self.moved_pair(*unit_inputs(self.kernel, x, y)), num_features)

    def exponential_terms(self, x: np.ndarray, y: np.ndarray) -> ExponentialSum:
        return self._core.exponential_terms(*self.moved_pair(x, y))

    def log_joint_moment(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self._core.log_joint_moment(*self.moved_pair(x, y))

    def row_kurtosis(self, x: Any, y: Any) -> np.ndarray:
        return self._core.row_kurtosis(*self.moved_pair(self.kernel.unit(x), self.kernel.unit(y)))


def matvec(matrix: Any, x: Any) -> Any:
    """`matrix @ x` for every row of x: (..., d, d), (..., n, d) -> (..., n, d)."""
    return x @ namespace(x).matrix_transpose(matrix)
