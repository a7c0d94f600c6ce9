"""Complex-exponential features."""

import functools
import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from randfeat._array import Array, Arrays, Drawn, namespace, squared_norm
from randfeat._hints import hinted, renamed_keywords
from randfeat.couplings import Coupling
from randfeat.couplings.base import sampled_rows
from randfeat.couplings.laws import GaussianPair, NoClosedForm, PairLaw, SpherePair
from randfeat.estimators.complex_parts import in_modulus_and_argument, real_and_imaginary
from randfeat.estimators.generalized_exponential import sphere_moment
from randfeat.estimators.parametric import Parametric, frozen_array
from randfeat.estimators.positive import PositiveFeatures
from randfeat.estimators.softmax import SoftmaxEstimator
from randfeat.estimators.statistics import or_default, unit_pair
from randfeat.estimators.trigonometric import TrigonometricFeatures
from randfeat.features import Features
from randfeat.kernels import SoftmaxFamily
from randfeat.variance import unit_inputs


@dataclass(frozen=True, eq=False, repr=False)
class ComplexExponentialFeatures(Parametric, SoftmaxEstimator):
    """Positive features of the complex vectors Mx and M^{-ᵀ}y, whose bilinear product is x·y.

    `f(w, x') = exp(w·x' - x'ᵀx'/2)` at x' = Mx for queries and y' = M^{-ᵀ}y for keys, without conjugates; the estimate
    is the mean over rows of Re[f(w, x') f(w, y')].

    matrix : M, invertible, real or complex: a number (times the identity), the diagonal (d,), or matrices (..., d, d),
        one for each head. Real matrices give positive features, one per row (1 is `PositiveFeatures`); imaginary ones
        are trigonometric (1j is `TrigonometricFeatures`). From data: `for_pair`, `fit`.

    x and y in kernel units, ζ = x' + y', σ = ζᵀζ (complex), η = ζᵀζ* >= |σ|.

    Shapes: (..., n, d) -> values and log_scale (..., n, m) for a real matrix; (..., n, 2m) else, the real and the
        imaginary part of each row. Queries and keys differ: the map is asymmetric.
    Exact: `E[φ_q(x)·φ_k(y)] = exp(x·y)` for every coupling with exact marginals.
    Error: relative variance `½ (Re e^σ + e^η) - 1` of one independent row: 0 where ζ = 0, as at the pair of `for_pair`.
        Gaussian rows of correlation ρ have the covariance `½ (Re e^{ρσ} + e^{ρη}) - 1`; other couplings have a closed
        form for real and for imaginary matrices.
    Limits: far from the pairs that M was made for it is no better than positive or trigonometric features.
    For: pairs near one known pair (x, y), at which the estimate is almost exact.
    Source: Choromanski et al. 2022, "Hybrid Random Features".

    >>> x, y = np.array([0.9, -0.5, 0.2]), np.array([0.4, 0.6, 0.5])
    >>> estimator = ComplexExponentialFeatures.for_pair(x, y, coupling="independent")
    >>> phi = estimator.draw(dim=3, num_features=2, rng=0)
    >>> bool(np.allclose(phi.estimate(x[None], y[None]), np.exp(x @ y)))
    True
    """

    matrix: complex | np.ndarray = 1.0

    symmetric = False
    acronyms = ("CE",)

    @classmethod
    def example(cls) -> Self:
        return cls(matrix=np.array([1.0, 1j, -0.8, 0.9 + 0.5j]))

    def __post_init__(self) -> None:
        super().__post_init__()
        matrix = frozen_array(self.matrix, "matrix", np.complex128)
        if matrix.ndim >= 2 and matrix.shape[-1] != matrix.shape[-2]:
            raise ValueError(f"matrix must be a number, a diagonal (d,) or (..., d, d), got {matrix.shape}.")
        square = np.diag(np.atleast_1d(matrix)) if matrix.ndim < 2 else matrix
        if not (matrix.size and np.all(np.linalg.cond(square) < 1e12)):
            raise ValueError("matrix must be invertible, well within float64: its condition number exceeds 1e12.")
        object.__setattr__(self, "matrix", matrix)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return np.shape(self.matrix)[:-2]

    @functools.cached_property
    def _is_real(self) -> bool:
        return not np.any(np.imag(self.matrix))

    @functools.cached_property
    def _is_imaginary(self) -> bool:
        return not np.any(np.real(self.matrix))

    @property
    def positive(self) -> bool:
        return self._is_real

    @property
    def bounded(self) -> bool:
        return self._is_imaginary

    @property
    def features_per_row(self) -> int:
        return 1 if self._is_real else 2

    @classmethod
    @hinted
    def for_pair(
        cls, x: Any, y: Any, *, kernel: SoftmaxFamily | None = None, coupling: Coupling | str | None = None
    ) -> Self:
        """The diagonal matrix of zero variance at one pair of inputs (..., d), the centers of two clusters for example.

        `μ_l = √|y_l/x_l|` where x_l y_l < 0 and `i √|y_l/x_l|` where x_l y_l > 0, so that μ_l x_l + y_l/μ_l = 0.
        """
        x, y = (np.asarray(side, dtype=np.float64)[..., None, :] for side in (x, y))
        return cls.fit(x, y, scale=1.0, kernel=kernel, coupling=coupling)

    @classmethod
    @renamed_keywords("0.2", "0.4", queries="query", keys="key")
    @hinted
    def fit(
        cls,
        query: Any,
        key: Any,
        *,
        scale: float | None = None,
        kernel: SoftmaxFamily | None = None,
        coupling: Coupling | str | None = None,
    ) -> Self:
        """The real or imaginary diagonal entries of least mean η over all pairs of (..., L, d) and (..., S, d).

        `|μ_l|⁴ = mean(y_l²)/mean(x_l²)`, real where the means of x_l and y_l have opposite signs, else imaginary. Raw
        inputs and the scale of `linear_attention`, 1/√d by default; `scale=1.0` for kernel estimates. For causal use
        fit on other data.
        """
        kernel, coupling = or_default(kernel, coupling)
        x, y = unit_pair(query, key, kernel=kernel, scale=scale)
        squares = [np.mean(side * side, axis=-2) for side in (x, y)]
        if np.any((squares[0] == 0) != (squares[1] == 0)):
            raise ValueError("an axis is zero for the queries or the keys only; leave it out, it adds nothing to x·y.")
        absent = squares[0] == 0
        size = np.where(absent, 1.0, squares[1]) / np.where(absent, 1.0, squares[0])
        alike = x.mean(axis=-2) * y.mean(axis=-2) > 0
        diagonal = size**0.25 * np.where(alike, 1j, 1.0)
        matrix = diagonal if diagonal.ndim == 1 else diagonal[..., None] * np.eye(x.shape[-1])
        return cls(matrix=matrix, kernel=kernel, coupling=coupling)

    def _matrices(self, dim: int) -> tuple[np.ndarray, np.ndarray]:
        """M and M^{-ᵀ}, (*batch_shape, d, d)."""
        matrix = np.asarray(self.matrix)
        if matrix.ndim < 2:
            matrix = np.diag(np.broadcast_to(matrix, dim if matrix.ndim == 0 else matrix.shape))
        if matrix.shape[-1] != dim:
            raise ValueError(f"matrix is for dimension {matrix.shape[-1]}, the inputs have dimension {dim}.")
        return matrix, np.swapaxes(np.linalg.inv(matrix), -1, -2)

    def draw_arrays(self, dim: int, num_rows: int, rng: np.random.Generator, batch_shape: tuple[int, ...]) -> Drawn:
        w = sampled_rows(self._coupling, num_rows, dim, rng=rng, batch_shape=batch_shape)
        arrays = {}
        for side, matrix in zip(("query", "key"), self._matrices(dim), strict=True):
            form = np.broadcast_to(np.swapaxes(matrix, -1, -2) @ matrix, (*batch_shape, dim, dim))
            for name, value in (("rows", w @ matrix), ("form", form)):
                arrays[f"{side}.{name}.real"] = np.ascontiguousarray(value.real)
                if not self._is_real:
                    arrays[f"{side}.{name}.imag"] = np.ascontiguousarray(value.imag)
        return arrays

    def query_features(self, arrays: Arrays, x: Array) -> Features:
        """`[Re f, Im f]` at Mx."""
        return self._parts(arrays, x, "query")

    def key_features(self, arrays: Arrays, y: Array) -> Features:
        """`[Re f, -Im f]` at M^{-ᵀ}y."""
        return self._parts(arrays, y, "key")

    def _parts(self, arrays: Arrays, v: Array, side: str) -> Features:
        xp = namespace(v)

        def exponent(part: str) -> Array:
            """Real or imaginary part of `w·v' - v'ᵀv'/2`."""
            square = xp.sum(v * (v @ arrays[f"{side}.form.{part}"]), axis=-1, keepdims=True)
            return v @ xp.matrix_transpose(arrays[f"{side}.rows.{part}"]) - square / 2

        num_rows = arrays[f"{side}.rows.real"].shape[-2]
        per_row: Any = self.kernel.log_envelope(squared_norm(v)) - math.log(num_rows) / 2
        log_scale = exponent("real") + per_row
        if self._is_real:
            return Features(xp.ones_like(log_scale), log_scale)
        return real_and_imaginary(log_scale, exponent("imag"), conjugate=side == "key")

    def _zeta(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """`Mx + M^{-ᵀ}y`, (..., d), complex."""
        query, key = (np.swapaxes(matrix, -1, -2) for matrix in self._matrices(x.shape[-1]))
        return x @ query + y @ key

    def pull_back(self, arrays: Arrays, x: Array, values: Array, gradient: Array, row: Any, *, keys: bool) -> Array:
        """`Σ_i Re(g_i w'_i) - Re(Σ_i g_i F) x`, g the derivatives in complex exponents, F the form; the envelope's."""
        side = "key" if keys else "query"

        def exponent(part: str, slopes: Array, total: Any) -> Array:
            """The gradient of the real or imaginary part of `w·v' - v'ᵀv'/2`."""
            return slopes @ arrays[f"{side}.rows.{part}"] - total * (x @ arrays[f"{side}.form.{part}"])

        envelope = 2 * self.kernel.envelope_slope(squared_norm(x)) * row * x
        if self._is_real:
            return exponent("real", gradient, row) + envelope
        modulus, argument = in_modulus_and_argument(values, gradient, conjugate=keys)
        total = namespace(x).sum(argument, axis=-1, keepdims=True)
        real = exponent("real", modulus, row)
        return real + exponent("imag", argument, total) + envelope

    def relative_row_mean(self, x: np.ndarray, y: np.ndarray, law: PairLaw) -> np.ndarray:
        sigma = np.sum(self._zeta(x, y) ** 2, axis=-1)
        if self._is_real or self._is_imaginary:
            return law.row_mean(sigma.real)
        if isinstance(law, SpherePair):
            return np.real(sphere_moment([], 1.0, sigma, law.dim) * np.exp(-sigma / 2))
        if self._coupling.exact_marginals:
            return np.exp(0 * sigma.real)
        raise NoClosedForm(
            f"complex-exponential features have no mean under {type(law).__name__}; use randfeat.montecarlo."
        )

    def relative_covariance(self, x: np.ndarray, y: np.ndarray, law: PairLaw, *, same_row: bool) -> np.ndarray:
        """`½ (Re E[S1 S2] + E[S1 S2*]) / K² - 1`."""
        zeta = self._zeta(x, y)
        sigma, eta = np.sum(zeta**2, axis=-1), np.sum(np.abs(zeta) ** 2, axis=-1)
        if self._is_real:
            return law.covariance(eta)
        if self._is_imaginary:
            return law.even_covariance(-eta)
        if isinstance(law, GaussianPair):
            rho = law.correlation
            return (np.expm1(rho * sigma).real + np.expm1(rho * eta)) / 2
        raise NoClosedForm(
            f"complex-exponential features of a general complex matrix have no covariance under {type(law).__name__}; "
            "use independent rows, or randfeat.montecarlo."
        )

    def log_joint_moment(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """`ζ_j·ζ_k` for a real matrix, `log cosh(ζ_j·ζ_k)` for an imaginary one."""
        zeta = self._zeta(x, y)
        if not (self._is_real or self._is_imaginary):
            return super().log_joint_moment(x, y)
        inner = (zeta @ zeta.T).real
        return inner if self._is_real else np.logaddexp(inner, -inner) - math.log(2)

    def row_kurtosis(self, x: Any, y: Any) -> np.ndarray:
        """Kurtosis of positive features at x + y = ζ for a real matrix, else of trigonometric ones at x - y = ζ/i."""
        zeta = self._zeta(*unit_inputs(self.kernel, x, y))
        if not (self._is_real or self._is_imaginary):
            return super().row_kurtosis(x, y)
        if self._is_real:
            return PositiveFeatures().row_kurtosis(zeta.real, np.zeros_like(zeta.real))
        return TrigonometricFeatures().row_kurtosis(zeta.imag, np.zeros_like(zeta.imag))
