"""The interface of an estimator: a law, with its closed-form moments; no arrays, no randomness."""

import abc
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from randfeat import variance
from randfeat._array import Array, as_floating, host_to
from randfeat.couplings import Coupling, Orthogonal, resolve_coupling
from randfeat.couplings.laws import PairLaw
from randfeat.features import Features
from randfeat.kernels import Kernel, SoftmaxKernel
from randfeat.maps import FeatureMap

__all__ = ["Estimator"]


@dataclass(frozen=True)
class Estimator(abc.ABC):
    """A random-feature estimator `K̂(x, y) = φ_q(x)·φ_k(y) = (1/m) Σ_i S(w_i; x, y)` of a kernel.

    kernel : which number is estimated.
    coupling : the joint law of the rows `w_1 .. w_m`, an object or its name ("orthogonal", "independent", ...).

    `num_features` is the length of φ(x) for every estimator, so equal `num_features` is equal cost; `num_rows` converts
    it to the number m of rows. In all closed forms x and y broadcast over (..., d) and results are float64 NumPy.
    """

    kernel: Kernel = field(default_factory=SoftmaxKernel)
    coupling: Coupling | str = field(default_factory=Orthogonal)

    symmetric: ClassVar[bool] = True
    """Whether query and key features are the same function."""

    positive: ClassVar[bool] = False
    """Whether every feature is positive, so that normalized attention is a convex combination of the values."""

    features_per_row: ClassVar[int] = 1
    """Features that one row makes."""

    def __post_init__(self) -> None:
        if not isinstance(self.kernel, Kernel):
            raise TypeError(f"kernel must be a Kernel such as SoftmaxKernel(), got {self.kernel!r}.")
        object.__setattr__(self, "coupling", resolve_coupling(self.coupling))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of parameter sets, `()` for a single law."""
        return ()

    @property
    def _coupling(self) -> Coupling:
        assert isinstance(self.coupling, Coupling)  # resolved in __post_init__
        return self.coupling

    # one page each -------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def query_features(self, arrays: Mapping[str, Array], x: Array) -> Features:
        """Features of queries in kernel units, from the drawn arrays; pure array API."""

    def key_features(self, arrays: Mapping[str, Array], y: Array) -> Features:
        """Features of keys in kernel units; those of queries unless the estimator is asymmetric."""
        return self.query_features(arrays, y)

    @abc.abstractmethod
    def relative_row_mean(self, x: np.ndarray, y: np.ndarray, law: PairLaw) -> np.ndarray:
        """`E[S(w)] / kernel` for one row, inputs in kernel units; 1 for exact marginals."""

    @abc.abstractmethod
    def relative_covariance(self, x: np.ndarray, y: np.ndarray, law: PairLaw, *, same_row: bool) -> np.ndarray:
        """`Cov(S(w1), S(w2)) / kernel²` under one joint law of two rows, inputs in kernel units.

        `same_row` says that both are one and the same row, with whatever else is drawn for it.
        """

    def log_joint_moment(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """`log E[S(w; x, y_j) S(w; x, y_k)] / (kernel_j kernel_k)` for one N(0, I) row and the keys of one query.

        x (d,), y (n, d), in kernel units; returns (n, n). This is what the variance of a normalized output is made of
        (`predict_attention_error`).
        """
        raise variance.NoClosedForm(f"{type(self).__name__} has no closed joint moment; use randfeat.montecarlo.")

    def row_kurtosis(self, x: Any, y: Any) -> np.ndarray:
        """Kurtosis of `S(w)` for one N(0, I) row: how many draws an empirical MSE needs (`montecarlo`)."""
        raise variance.NoClosedForm(f"{type(self).__name__} has no closed kurtosis.")

    def draw_arrays(
        self, num_rows: int, dim: int, rng: np.random.Generator, batch_shape: tuple[int, ...]
    ) -> dict[str, np.ndarray]:
        """Everything random, on the host in float64."""
        return {"rows": self._coupling.sample(num_rows, dim, rng=rng, batch_shape=batch_shape)}

    # the same for all ----------------------------------------------------------------------------------------------

    def draw(
        self,
        dim: int,
        num_features: int,
        *,
        rng: Any = None,
        like: Any = None,
        batch_shape: tuple[int, ...] | None = None,
    ) -> FeatureMap:
        """Draw a feature map.

        dim : length of the inputs.
        num_features : length of φ(x); a width that the estimator or its coupling cannot have is a ValueError.
        rng : seed of the draw, as in SPEC 7: an int, SeedSequence, BitGenerator or Generator; None for fresh entropy.
        like : an array whose namespace, device and dtype the map takes; NumPy float64 by default.
        batch_shape : draw a batch of independent maps, (8,) for one per head; by default one map, or one for each set
            of parameters of an estimator that was fitted to several heads.

        Everything is drawn on the host in float64 by NumPy and cast once: one seed, the same features everywhere.
        """
        dim, num_features = as_count(dim, "dim"), as_count(num_features, "num_features")
        batch_shape = self.batch_shape if batch_shape is None else batch_shape
        batch_shape = tuple(as_count(size, "batch_shape") for size in batch_shape)
        if not holds(batch_shape, self.batch_shape):
            raise ValueError(f"batch_shape {batch_shape} does not hold the {self.batch_shape} sets of parameters.")
        like = np.empty(0) if like is None else as_floating(like, "like")
        rows = self.num_rows(num_features)
        arrays = self.draw_arrays(rows, dim, as_generator(rng), batch_shape)
        return FeatureMap(self, dim, num_features, {name: host_to(array, like) for name, array in arrays.items()})

    def num_rows(self, num_features: int) -> int:
        """The number m of rows that make `num_features` features."""
        per_row = self.features_per_row
        rows = num_features / per_row
        widths = sorted(
            {
                per_row * n
                for guess in {max(int(np.floor(rows)), 1), int(np.ceil(rows))}
                for n in self._coupling.nearest_num_rows(guess)
            }
        )
        if num_features not in widths:
            raise ValueError(f"{self!r} cannot have {num_features} features; nearest: {', '.join(map(str, widths))}.")
        return num_features // per_row

    def mean(self, x: Any, y: Any) -> np.ndarray:
        """`E[K̂(x, y)]`: the kernel itself where the coupling has exact marginals."""
        return variance.times_kernel(self.kernel, variance.relative_mean(self, x, y), x, y, power=1)

    def variance(self, x: Any, y: Any, *, num_features: int) -> np.ndarray:
        """`Var[K̂(x, y)]`, exact."""
        relative = self.relative_variance(x, y, num_features=num_features)
        return variance.times_kernel(self.kernel, relative, x, y, power=2)

    def relative_variance(self, x: Any, y: Any, *, num_features: int) -> np.ndarray:
        """`Var[K̂(x, y)] / kernel(x, y)²`, exact and without overflow."""
        return variance.relative_variance(self, x, y, as_count(num_features, "num_features"))

    def mse(self, x: Any, y: Any, *, num_features: int) -> np.ndarray:
        """`E[(K̂(x, y) - kernel(x, y))²]`: variance plus squared bias, exact."""
        relative = variance.relative_mse(self, x, y, as_count(num_features, "num_features"))
        return variance.times_kernel(self.kernel, relative, x, y, power=2)


def holds(shape: tuple[int, ...], part: tuple[int, ...]) -> bool:
    """Whether `part` broadcasts to `shape`."""
    tail = shape[len(shape) - len(part) :]
    return len(part) <= len(shape) and all(small in (1, full) for small, full in zip(part, tail, strict=True))


def as_generator(rng: Any) -> np.random.Generator:
    """`rng` as a NumPy Generator (SPEC 7)."""
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"rng must be None, a non-negative int, or a NumPy SeedSequence, BitGenerator or Generator, got {rng!r}; "
            "features are drawn by NumPy on the host, so the seeds of other libraries do not apply."
        ) from error


def as_count(value: Any, name: str) -> int:
    """A positive integer, or an error that names it."""
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a positive integer, got {value!r}.") from None
    if count < 1 or isinstance(value, bool):
        raise ValueError(f"{name} must be a positive integer, got {value!r}.")
    return count
