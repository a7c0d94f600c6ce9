"""Estimators made from one other: multiples, length-scales, centering and balancing."""

import abc
import dataclasses
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from randfeat._array import Array, Arrays, Drawn
from randfeat._hints import shown
from randfeat.couplings import Coupling, Independent
from randfeat.couplings.laws import PairLaw
from randfeat.estimators.base import Estimator
from randfeat.estimators.parametric import Parametric
from randfeat.features import Features
from randfeat.kernels import Kernel, SoftmaxKernel
from randfeat.variance import unit_inputs


@dataclass(frozen=True, eq=False, repr=False)
class DelegatingEstimator(Parametric, Estimator):
    """An estimator made from another one: the features of `base` at transformed inputs, times a number for each input.

    base : the other estimator. This one has the same signs, possible numbers of features, and rows. Its moments are the
        moments of `base` at the transformed inputs.
    """

    kernel: Kernel = field(init=False, repr=False, default_factory=SoftmaxKernel)
    coupling: Coupling | str = field(init=False, repr=False, default_factory=Independent)
    base: Estimator

    def __post_init__(self) -> None:
        if not isinstance(self.base, Estimator):
            raise TypeError(f"base must be an Estimator, got {shown(self.base)}.")
        object.__setattr__(self, "kernel", self._wrap_kernel(self.base.kernel))
        object.__setattr__(self, "coupling", self.base.coupling)
        super().__post_init__()

    @abc.abstractmethod
    def _wrap_kernel(self, kernel: Kernel) -> Kernel:
        """The kernel of this estimator, made from the kernel of `base`."""

    @property
    def _core(self) -> Estimator:
        """The estimator that is evaluated at transformed inputs."""
        return self.base

    def move(self, arrays: Arrays, x: Any, *, keys: bool) -> tuple[Any, Any]:
        """The transformed input for x (..., n, d), and the logarithm of the factor.

        x is in the units of this estimator's kernel; the result is not yet in the units of `base`. The logarithm is
        (..., n, 1), or a number. Pure array API.
        """
        return x, 0.0

    def own_arrays(self) -> Drawn:
        """The parameters that `move` needs, by names of their own, (*batch_shape, ·, ·)."""
        return {}

    @property
    def symmetric(self) -> bool:
        return self.base.symmetric

    @property
    def positive(self) -> bool:
        return self.base.positive

    @property
    def bounded(self) -> bool:
        return self.base.bounded

    @property
    def batch_shape(self) -> tuple[int, ...]:
        own = (array.shape[:-2] for array in self.own_arrays().values())
        return np.broadcast_shapes(self.base.batch_shape, *own)

    @property
    def parameter_dim(self) -> int | None:
        return self.base.parameter_dim

    @property
    def has_coupling(self) -> bool:
        return self.base.has_coupling

    def with_coupling(self, coupling: Coupling | str) -> Self:
        changes: Any = {"base": self.base.with_coupling(coupling)}
        return dataclasses.replace(self, **changes)

    @property
    def features_per_row(self) -> int:
        return self.base.features_per_row

    def num_features(self, num_rows: int, dim: int | None = None) -> int:
        return self.base.num_features(num_rows, dim)

    def nearest_num_features(self, num_features: int, dim: int | None = None) -> tuple[int, ...]:
        return self.base.nearest_num_features(num_features, dim)

    def draw_arrays(self, dim: int, num_rows: int, rng: np.random.Generator, batch_shape: tuple[int, ...]) -> Drawn:
        drawn = self.base.draw_arrays(dim=dim, num_rows=num_rows, rng=rng, batch_shape=batch_shape)
        own = self.own_arrays()
        if set(own) & set(drawn):
            raise ValueError(f"{type(self).__name__} cannot be applied twice; combine its parameters into one.")
        return drawn | {name: np.broadcast_to(a, (*batch_shape, *a.shape[-2:])) for name, a in own.items()}

    def query_features(self, arrays: Arrays, x: Array) -> Features:
        moved, log_factor = self.move(arrays, x, keys=False)
        return self._core.query_features(arrays, self._core.kernel.unit(moved)).scaled(log_factor)

    def key_features(self, arrays: Arrays, y: Array) -> Features:
        moved, log_factor = self.move(arrays, y, keys=True)
        return self._core.key_features(arrays, self._core.kernel.unit(moved)).scaled(log_factor)

    def moved_pair(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The two transformed inputs, for a pair (x, y) in kernel units; x and y are (..., d) and broadcast."""
        arrays, single = self.own_arrays(), not self.batch_shape
        moved = [
            self.move(arrays, np.atleast_2d(side) if single else side, keys=bool(keys))[0]
            for keys, side in enumerate((x, y))
        ]
        return (moved[0].reshape(x.shape), moved[1].reshape(y.shape)) if single else (moved[0], moved[1])

    def _unit_pair(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The transformed pair in the units of `base`."""
        x, y = self.moved_pair(x, y)
        return self._core.kernel.unit(x), self._core.kernel.unit(y)

    def relative_row_mean(self, x: np.ndarray, y: np.ndarray, law: PairLaw) -> np.ndarray:
        return self._core.relative_row_mean(*self._unit_pair(x, y), law)

    def relative_covariance(self, x: np.ndarray, y: np.ndarray, law: PairLaw, *, same_row: bool) -> np.ndarray:
        return self._core.relative_covariance(*self._unit_pair(x, y), law, same_row=same_row)

    def mean_over_reference(self, x: Any, y: Any, num_features: int | None) -> np.ndarray:
        return self._core.mean_over_reference(*self.moved_pair(*unit_inputs(self.kernel, x, y)), num_features)

    def variance_over_reference(self, x: Any, y: Any, num_features: int) -> np.ndarray:
        return self._core.variance_over_reference(*self.moved_pair(*unit_inputs(self.kernel, x, y)), num_features)

    def log_joint_moment(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self._core.log_joint_moment(*self._unit_pair(x, y))

    def row_kurtosis(self, x: Any, y: Any) -> np.ndarray:
        return self._core.row_kurtosis(*self.moved_pair(*unit_inputs(self.kernel, x, y)))
