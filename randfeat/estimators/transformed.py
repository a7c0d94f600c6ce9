"""Estimators of the same kernel at transformed inputs: what centering and balancing share."""

import abc
import dataclasses
import functools
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from randfeat._array import Array, Arrays, device_of, namespace, squared_norm
from randfeat._hints import described
from randfeat.estimators.delegating import DelegatingEstimator
from randfeat.estimators.exponential import known_factor
from randfeat.estimators.exponential_sum import ExponentialSum
from randfeat.estimators.positive import PositiveFeatures
from randfeat.estimators.softmax import SoftmaxEstimator
from randfeat.features import ExponentialForm, Quadratic
from randfeat.kernels import Kernel, SoftmaxFamily, SoftmaxKernel
from randfeat.kernels.base import stated_for
from randfeat.maps import FEATURES, check_pull_back


@dataclass(frozen=True, eq=False, repr=False)
class TransformedEstimator(DelegatingEstimator, SoftmaxEstimator):
    """An estimator of `exp(x·y)` through an identity `exp(x·y) = e^{p(x)} e^{r(y)} exp(x'·y')`, exact for all x, y.

    base : the estimator that is applied to (x', y'). This estimator has the same kernel and coupling.

    The weights e^p and e^r are put into the `log_scale` of the features, so nothing is approximated. The relative error
    is the relative error of `base` at (x', y').
    """

    kernel: SoftmaxFamily = field(init=False, default_factory=SoftmaxKernel)
    base: SoftmaxEstimator = field(default_factory=PositiveFeatures)

    symmetric = False

    def __post_init__(self) -> None:
        if not isinstance(self.base, SoftmaxEstimator):
            raise TypeError(f"base must be an estimator of the softmax family, got {described(self.base)}.")
        super().__post_init__()
        object.__setattr__(self, "_core", self.base.with_kernel(SoftmaxKernel()))  # compilers cannot compute it later

    def _wrap_kernel(self, kernel: Kernel) -> Kernel:
        return kernel

    @abc.abstractmethod
    def transform(self, arrays: Arrays, x: Any, *, keys: bool) -> tuple[Any, Any]:
        """x' (or y') and its log-weight (..., n, 1), or 0.0; pure array API, for inputs in kernel units."""

    @abc.abstractmethod
    def transform_pull_back(self, arrays: Arrays, gradient: Any, log_gradient: Any, *, keys: bool) -> Any:
        """The gradient in x (or y), from those in x' (or y') and in its log-weight; both are linear in x."""

    @abc.abstractmethod
    def pull_back_rows(self, arrays: Arrays, rows: Array, origin: Any, *, keys: bool) -> tuple[Array, Array | None]:
        """New rows and new origin: `(x' - origin)·rows = (x - new_origin)·new_rows` for all x; pure array API."""

    @functools.cached_property
    def _core(self) -> SoftmaxEstimator:
        """`base` with the plain softmax kernel; envelopes are computed from the inputs before the transformation."""
        return self.base.with_kernel(SoftmaxKernel())

    def with_kernel(self, kernel: SoftmaxFamily) -> Self:
        return dataclasses.replace(self, base=self.base.with_kernel(kernel))

    def move(self, arrays: Arrays, x: Any, *, keys: bool) -> tuple[Any, Any]:
        """x' or y', and its log-weight with the envelope of x or y."""
        moved, log_weight = self.transform(arrays, x, keys=keys)
        return moved, log_weight + self.kernel.log_envelope(squared_norm(x))

    def pull_back(self, arrays: Arrays, x: Array, values: Array, gradient: Array, row: Any, *, keys: bool) -> Array:
        check_pull_back(self._core)
        moved, _ = self.transform(arrays, x, keys=keys)
        moved_gradient = self._core.pull_back(arrays, moved, values, gradient, row, keys=keys)
        own = 2 * self.kernel.envelope_slope(squared_norm(x)) * row * x
        return self.transform_pull_back(arrays, moved_gradient, row, keys=keys) + own

    def exponential_form(self, arrays: Arrays, *, keys: bool) -> ExponentialForm | None:
        core = self._core.exponential_form(arrays, keys=keys)
        if core is None or not stated_for(self._core, "exponential_form", *FEATURES):
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
        quadratic = self._quadratic(arrays, core, origin, keys=keys)
        return ExponentialForm(rows, core.log_weights, per_row, row_slope, origin, quadratic=quadratic)

    def _quadratic(self, arrays: Arrays, core: ExponentialForm, origin: Any, *, keys: bool) -> Quadratic | None:
        """The term of the core at x' with the log-weight and the envelope of x, as a function of x."""
        term, factor = core.quadratic, known_factor(self.kernel)
        if term is None or factor is None:
            return None
        xp, nothing = namespace(core.rows), namespace(core.rows).zeros_like(core.rows[..., :1, :])
        slope = self.transform_pull_back(arrays, nothing, 1.0, keys=keys)
        if term.slope is not None:
            slope = slope + self.pull_back_rows(arrays, term.slope, core.origin, keys=keys)[0]
        matrix = term.matrix
        if matrix is None:
            matrix = xp.eye(core.rows.shape[-1], dtype=core.rows.dtype, device=device_of(core.rows))
        turned, _ = self.pull_back_rows(arrays, matrix, core.origin, keys=keys)
        _, log_weight = self.transform(arrays, nothing if origin is None else origin, keys=keys)
        return Quadratic(
            factor, None if turned is matrix and term.matrix is None else turned, slope, term.constant + log_weight
        )

    def exponential_terms(self, x: np.ndarray, y: np.ndarray) -> ExponentialSum:
        return self._core.exponential_terms(*self.moved_pair(x, y))


def matvec(matrix: Any, x: Any) -> Any:
    """`matrix @ x` for every row of x: (..., d, d), (..., n, d) -> (..., n, d)."""
    return x @ namespace(x).matrix_transpose(matrix)
