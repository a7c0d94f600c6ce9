"""The interface of an estimator: a description of random features, with its closed-form moments and no arrays."""

import abc
import math
import numbers
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np

from randfeat import variance
from randfeat._array import Array, Arrays, Drawn, as_count, as_floating, as_generator, as_shape, broadcasts_to, host_to
from randfeat._hints import Hinted, hinted, shown
from randfeat.couplings import Coupling, Orthogonal
from randfeat.couplings.base import if_coupling, resolve_coupling, sampled_rows
from randfeat.couplings.laws import NoClosedForm, PairLaw
from randfeat.features import ExponentialForm, Features, FourierForm
from randfeat.kernels import Kernel
from randfeat.maps import FeatureMap

OPERATIONS: dict[str, Callable[..., "Estimator"]] = {}
"""The estimators that `+`, `*` and a factor make, "sum", "product" and "multiple": their modules name them here."""


@dataclass(frozen=True)
class Estimator(Hinted, abc.ABC):
    """A random-feature estimator `K̂(x, y) = φ_q(x)·φ_k(y) = (1/m) Σ_i S(w_i; x, y)` of a kernel.

    kernel : the kernel that is estimated.
    coupling : the joint distribution of the rows `w_1 .. w_m`: an object or its name ("orthogonal", "independent",
        ...).

    `num_features` is the length of φ(x) for every estimator, so equal `num_features` means equal cost. `num_rows`
    converts it to the number m of rows. In all closed forms, x and y are (..., d) and broadcast, and results are
    float64 NumPy arrays.

    Estimators add and multiply as their kernels do: `e1 + e2` concatenates the features, `e1 * e2` has their tensor
    products as features, and `2.5 * e` scales them.

    A subclass must define `query_features`, and the two moments below if they are known; otherwise they raise
    `NoClosedForm`. These are all parts that it can define:

    - features: `draw_arrays`, `query_features`, `key_features`; `symmetric`, `positive`, `bounded`;
    - two moments: `relative_row_mean` and `relative_covariance`; or `mean_over_reference` and
      `variance_over_reference`, if the estimate is not an average over rows;
    - possible numbers of features: `features_per_row`, or `num_features` and `nearest_num_features`;
    - closed forms, all optional: `pull_back`, `exponential_form`, `fourier_form`, `log_joint_moment`, `row_kurtosis`.
    """

    kernel: Kernel
    coupling: Coupling | str = field(default_factory=Orthogonal)

    kernel_type: ClassVar[type] = Kernel
    """The class of the kernels that can be estimated."""

    def __post_init__(self) -> None:
        if not isinstance(self.kernel, self.kernel_type):
            raise TypeError(
                f"kernel must be a {self.kernel_type.__name__} (an object, not a name) for {type(self).__name__}, "
                f"got {shown(self.kernel)}{if_coupling(self.kernel)}."
            )
        object.__setattr__(self, "coupling", resolve_coupling(self.coupling))

    __array_ufunc__ = None  # so that NumPy numbers leave `number * estimator` to the estimator

    def __add__(self, other: Any) -> "Estimator":
        return OPERATIONS["sum"](self, other) if isinstance(other, Estimator) else NotImplemented

    def __mul__(self, other: Any) -> "Estimator":
        if isinstance(other, numbers.Real):
            return OPERATIONS["multiple"](self, other)
        return OPERATIONS["product"](self, other) if isinstance(other, Estimator) else NotImplemented

    def __rmul__(self, other: Any) -> "Estimator":
        return self * other if isinstance(other, numbers.Real) else NotImplemented

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of parameter sets, `()` for a single set."""
        return ()

    @property
    def _coupling(self) -> Coupling:
        assert isinstance(self.coupling, Coupling)  # resolved in __post_init__
        return self.coupling

    @property
    def has_coupling(self) -> bool:
        """True if the estimator has rows, and so a coupling to choose."""
        return True

    def with_coupling(self, coupling: Coupling | str) -> Self:
        """This estimator, with another coupling of its rows."""
        return replace(self, coupling=resolve_coupling(coupling))

    @property
    def parameter_dim(self) -> int | None:
        """The length of the inputs that the parameters are for; None if they are for all lengths."""
        return None

    def check_dim(self, dim: int) -> None:
        """Raise ValueError if the parameters are for inputs of another length."""
        if self.parameter_dim not in (None, dim):
            raise ValueError(
                f"the parameters of {type(self).__name__} are for dimension {self.parameter_dim}, got inputs of "
                f"dimension {dim}; draw with dim={self.parameter_dim}."
            )

    @classmethod
    def example(cls) -> Self:
        """The instance that `catalogue` uses for the class; it has the default parameters, if there are any."""
        return cls()  # type: ignore[call-arg]

    @property
    def acronyms(self) -> tuple[str, ...]:
        """Names that papers use for the estimator."""
        return ()

    @property
    def symmetric(self) -> bool:
        """Whether query and key features are the same function."""
        return True

    @property
    def positive(self) -> bool:
        """Whether every feature is positive; the outputs of attention are then convex combinations of the values."""
        return False

    @property
    def bounded(self) -> bool:
        """Whether the features of given inputs are bounded over all rows, so that estimates have no heavy tails."""
        return False

    def draw_arrays(self, dim: int, num_rows: int, rng: np.random.Generator, batch_shape: tuple[int, ...]) -> Drawn:
        """Draw everything that is random: arrays (*batch_shape, ·, ·) by name, float64 NumPy."""
        return {"rows": sampled_rows(self._coupling, num_rows, dim, rng=rng, batch_shape=batch_shape)}

    @abc.abstractmethod
    def query_features(self, arrays: Arrays, x: Array) -> Features:
        """Features of queries x (..., n, d) in kernel units, from the drawn arrays; pure array API.

        The batch comes first in the arrays: rows are (*batch_shape, m, d). Transpose them by `xp.matrix_transpose`.
        """

    def key_features(self, arrays: Arrays, y: Array) -> Features:
        """Features of keys in kernel units; the same function as `query_features` unless it is overridden."""
        return self.query_features(arrays, y)

    def relative_row_mean(self, x: np.ndarray, y: np.ndarray, law: PairLaw) -> np.ndarray:
        """`E[S(w)]` for one row, divided by the reference (`kernel.log_reference`); inputs (..., d) in kernel units."""
        raise NoClosedForm(f"the mean of {type(self).__name__} is not known; use randfeat.montecarlo.")

    def relative_covariance(self, x: np.ndarray, y: np.ndarray, law: PairLaw, *, same_row: bool) -> np.ndarray:
        """`Cov(S(w1), S(w2))` under the law of two rows, divided by the squared reference; inputs in kernel units.

        same_row : True if w1 and w2 are the same row. Everything else that is drawn for the row is then the same, too.

        An infinite moment is np.inf. For an unknown moment NoClosedForm is raised.
        """
        raise NoClosedForm(f"the variance of {type(self).__name__} is not known; use randfeat.montecarlo.")

    def mean_over_reference(self, x: Any, y: Any, num_features: int | None) -> np.ndarray:
        """`E[K̂(x, y)]` divided by the reference; overridden by estimators that are not averages over rows."""
        return variance.assemble_mean(self, x, y, num_features)

    def variance_over_reference(self, x: Any, y: Any, num_features: int) -> np.ndarray:
        """`Var[K̂(x, y)]` divided by the squared reference; overridden like `mean_over_reference`."""
        return variance.assemble_variance(self, x, y, num_features)

    @property
    def features_per_row(self) -> int:
        """The number of features of one row; each block of features has one per row, in the order of the rows."""
        return 1

    def num_features(self, num_rows: int, dim: int | None = None) -> int:
        """The number of features of `num_rows` rows; the inverse function of `num_rows`."""
        return self.features_per_row * num_rows

    def nearest_num_features(self, num_features: int, dim: int | None = None) -> tuple[int, ...]:
        """`(num_features,)` if it is a possible number, else the nearest possible numbers below and above.

        Few estimators and couplings need `dim`; their error message asks for it. Raises ValueError if no number is
        possible.

        >>> from randfeat import TrigonometricFeatures
        >>> TrigonometricFeatures().nearest_num_features(7), TrigonometricFeatures().nearest_num_features(8)
        ((6, 8), (8,))
        """
        none, per_row = self.num_features(0, dim), self.num_features(1, dim) - self.num_features(0, dim)
        rows = (as_count(num_features, "num_features") - none) / per_row
        guesses = {max(math.floor(rows), 1), max(math.ceil(rows), 1)}
        possible = {n for guess in guesses for n in self._coupling.nearest_num_rows(guess, dim)}
        return neighbors(num_features, [self.num_features(n, dim) for n in possible])

    def num_rows(self, num_features: int, dim: int | None = None) -> int:
        """The number m of rows of a map with `num_features` features; ValueError if this number is not possible."""
        nearest = self.nearest_num_features(num_features, dim)
        if nearest != (num_features,):
            listing = ", ".join(map(str, nearest)) or "unknown"
            raise ValueError(f"{self!r} cannot have {num_features} features; nearest: {listing}.")
        none = self.num_features(0, dim)
        return (num_features - none) // (self.num_features(1, dim) - none)

    def pull_back(self, arrays: Arrays, x: Array, values: Array, gradient: Array, row: Any, *, keys: bool) -> Array:
        """The gradient in x, in kernel units, from the gradient in the features at x; pure array API.

        values : the values of the query or key features at x. gradient (..., n, f) : the derivatives in these values.
        row : the derivatives in the logarithm of a common factor of the features of one x, `Σ_f values_f gradient_f`
            (..., n, 1); or 0.0 if such a factor is known to change nothing. It is used for the part of `log_scale`
            that all features of one x share.
        """
        raise ValueError(
            f"{type(self).__name__} has no analytic gradient; differentiate linear_attention itself, by the automatic "
            "differentiation of PyTorch or JAX."
        )

    def exponential_form(self, arrays: Arrays, *, keys: bool) -> ExponentialForm | None:
        """The features of queries or keys as exponentials of affine maps of inputs in kernel units, or None.

        Attention and plain features are faster with this form. `ExponentialEstimator` computes its features from it.
        """
        return None

    def fourier_form(self, arrays: Arrays) -> FourierForm | None:
        """The features as cosines and sines of affine maps of the inputs in kernel units, or None.

        `FourierEstimator` computes its features from this form.
        """
        return None

    def log_joint_moment(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """`log E[S(w; x, y_j) S(w; x, y_k)] / (kernel_j kernel_k)` for one N(0, I) row and the keys of one query.

        x (d,) and y (n, d) are in kernel units; returns (n, n). `predict_attention_error` computes the variance of
        attention outputs from it.
        """
        raise NoClosedForm(f"{type(self).__name__} has no closed joint moment; use randfeat.montecarlo.")

    def row_kurtosis(self, x: Any, y: Any) -> np.ndarray:
        """Kurtosis of `S(w)` for one N(0, I) row; `montecarlo` judges by it how many draws a measured MSE needs."""
        raise NoClosedForm(f"{type(self).__name__} has no closed kurtosis.")

    @hinted
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
        num_features : length of φ(x); ValueError if the estimator or its coupling cannot have this number.
        rng : seed of the draw, as in SPEC 7: an int, SeedSequence, BitGenerator or Generator; None for fresh entropy.
        like : an array; the map gets its namespace, device and dtype. NumPy float64 by default.
        batch_shape : shape of a batch of independent maps, (8,) for one per head. The default is one map, or one for
            each set of parameters of an estimator that was fitted to several heads.

        NumPy draws everything on the host in float64, and the result is cast once. So one seed gives the same features
        in every array library.
        """
        dim, num_features = as_count(dim, "dim"), as_count(num_features, "num_features")
        batch_shape = self.batch_shape if batch_shape is None else as_shape(batch_shape, "batch_shape")
        if not broadcasts_to(self.batch_shape, batch_shape):
            raise ValueError(
                f"batch_shape {batch_shape} must end with {self.batch_shape}, the shape of the sets of parameters; "
                "give one that does, or leave it out."
            )
        like = np.empty(0) if like is None else as_floating(like, "like")
        self.check_dim(dim)
        rows = self.num_rows(num_features, dim)
        arrays = self.draw_arrays(dim=dim, num_rows=rows, rng=as_generator(rng), batch_shape=batch_shape)
        weights = self._coupling.weights(rows, dim)
        if weights is not None:  # the features have 1/√m inside, so each is off by √(m weight)
            log_weights = np.tile(np.log(rows * weights) / 2, num_features // rows)
            arrays |= {"log_row_weights": np.broadcast_to(log_weights, (*batch_shape, 1, num_features))}
        return FeatureMap(self, dim, num_features, {name: host_to(array, like) for name, array in arrays.items()})

    @hinted
    def mean(self, x: Any, y: Any, *, num_features: int | None = None) -> np.ndarray:
        """`E[K̂(x, y)]`, exact: the kernel itself for unbiased estimators and couplings with exact marginals.

        num_features : needed only if the bias depends on it (`MomentMatched`, `GaussHermite`).
        """
        num_features = None if num_features is None else as_count(num_features, "num_features")
        relative = self.mean_over_reference(*self._pair(x, y), num_features)
        return variance.times_reference(self.kernel, relative, x, y, power=1)

    @hinted
    def variance(self, x: Any, y: Any, *, num_features: int) -> np.ndarray:
        """`Var[K̂(x, y)]`, exact.

        In the softmax family it is computed from the relative variance, and it is inf if the relative variance
        overflows. In kernel units this begins at about |x + y|² = 700 for positive features, and at about |x - y|² =
        700 for trigonometric features.
        """
        relative = self.variance_over_reference(*self._pair(x, y), as_count(num_features, "num_features"))
        return variance.times_reference(self.kernel, relative, x, y, power=2)

    @hinted
    def relative_variance(self, x: Any, y: Any, *, num_features: int) -> np.ndarray:
        """`Var[K̂(x, y)] / kernel(x, y)²`, exact; inf (or NaN) where the kernel is 0.

        In the softmax family large and small kernel values cause no overflow.
        """
        relative = self.variance_over_reference(*self._pair(x, y), as_count(num_features, "num_features"))
        with np.errstate(divide="ignore", invalid="ignore"):
            return relative / self.kernel.relative(x, y) ** 2

    @hinted
    def relative_mse(self, x: Any, y: Any, *, num_features: int) -> np.ndarray:
        """`E[(K̂(x, y) / kernel(x, y) - 1)²]`: relative variance plus squared relative bias, exact."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._mse_over_reference(x, y, num_features) / self.kernel.relative(x, y) ** 2

    @hinted
    def mse(self, x: Any, y: Any, *, num_features: int) -> np.ndarray:
        """`E[(K̂(x, y) - kernel(x, y))²]`: variance plus squared bias, exact."""
        return variance.times_reference(self.kernel, self._mse_over_reference(x, y, num_features), x, y, power=2)

    def _pair(self, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """x and y as NumPy arrays, after a check of their dimension."""
        x, y = variance.host_pair(x, y)
        self.check_dim(x.shape[-1])
        return x, y

    def _mse_over_reference(self, x: Any, y: Any, num_features: int) -> np.ndarray:
        x, y = self._pair(x, y)
        num_features = as_count(num_features, "num_features")
        bias = self.mean_over_reference(x, y, num_features) - self.kernel.relative(x, y)
        return self.variance_over_reference(x, y, num_features) + bias**2


def neighbors(width: int, possible: Iterable[int]) -> tuple[int, ...]:
    """`(width,)` if it is possible, else the nearest possible below and above."""
    below, above = ([n for n in possible if n <= width], [n for n in possible if n >= width])
    return tuple(sorted({*([max(below)] if below else ()), *([min(above)] if above else ())}))
