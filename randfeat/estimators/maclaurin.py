"""Random Maclaurin features."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from randfeat._array import Array, Arrays, Drawn, namespace, squared_norm
from randfeat._hints import short
from randfeat.couplings.laws import NoClosedForm
from randfeat.estimators.projection_products import fourth_moments, random_signs
from randfeat.estimators.uncoupled import UncoupledEstimator
from randfeat.features import Features
from randfeat.kernels import DotProductKernel, Kernel, SoftmaxFamily, SoftmaxKernel
from randfeat.kernels.base import check_positive
from randfeat.kernels.norms import split_norm
from randfeat.variance import unit_inputs


@dataclass(frozen=True)
class MaclaurinFeatures(UncoupledEstimator):
    """Random Maclaurin features of a power series `Σ_n a_n (x·y)^n`: `φ_i(x) = √(a_n/(q_n m)) Π_{k<=n} (w_ik·x)`.

    Each feature draws its degree n with probability q_n, and n independent rows w_ik of fair signs.

    kernel : a `DotProductKernel`, or a kernel of the softmax family, with the whole series `a_n = 1/n!`.
    degree_law : "series", `q_n ∝ a_n rate^n`, for the softmax family Poisson(rate); or "geometric", `q_n ∝ rate^n`.
        Degrees with a_n = 0 are never drawn.
    rate : positive; 1 for "series" unless given. For "geometric" below 1, and 1/2 unless given: `q_n = 2^{-(n+1)}`.

    x and y in kernel units, `T = |x|²|y|² + 2 Σ_{j≠k} x_j y_j x_k y_k`.

    Shapes: (..., n, d) -> values (..., n, m), of either sign, and log_scale `n_i log|x|`, (..., n, m). Any width.
        Features come in the order of falling degrees, and the number of drawn arrays is the largest degree.
    Exact: `E[φ(x)·φ(y)] = k(x, y)`, also for infinite series.
    Error: variance `(Σ_n a_n² T^n/q_n - k²)/m`. With f the series, the law "series" has `f(rate) f(T/rate)` for the
        sum, for the softmax kernel `e^{rate + T/rate}`; best is `rate = √T`, with `f(√T)²`, which no law of degrees
        goes below. "geometric" has `I_0(2√(T/rate))/(1 - rate)` for the softmax kernel.
    Limits: for the softmax kernel the relative variance `e^{1+T-2x·y} - 1` of one feature grows as x·y falls.
    For: kernels that are power series in x·y, with terms that are not negative.
    Source: Kar & Karnick 2012, "Random Feature Maps for Dot Product Kernels" (geometric law); Wacker, Kanagawa &
        Filippone 2022, "Improved Random Features for Dot Product Kernels" (degrees matched to the series).

    >>> x = np.array([0.6, 0.0, 0.8])
    >>> for degree_law in ("series", "geometric"):
    ...     estimator = MaclaurinFeatures(degree_law=degree_law)
    ...     print(estimator.relative_variance(x, x, num_features=100).round(4))
    0.0151
    0.0186
    """

    kernel: Kernel = field(default_factory=SoftmaxKernel)
    degree_law: Literal["series", "geometric"] = "series"
    rate: float | None = None

    acronyms = ("RM",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.kernel, DotProductKernel | SoftmaxFamily):
            raise TypeError(
                "kernel must be a DotProductKernel or of the softmax family for MaclaurinFeatures, got "
                f"{self.kernel!r}."
            )
        if self.degree_law not in ("series", "geometric"):
            raise ValueError(f"degree_law must be 'series' or 'geometric', got {short(self.degree_law)}.")
        default = 1.0 if self.degree_law == "series" else 0.5
        object.__setattr__(self, "rate", default if self.rate is None else check_positive("rate", self.rate))
        if self.degree_law == "geometric" and self._rate >= 1:
            raise ValueError(f"rate must be below 1 for the geometric law, got {short(self.rate)}.")

    @property
    def _rate(self) -> float:
        assert isinstance(self.rate, float)  # resolved in __post_init__
        return self.rate

    def draw_arrays(self, dim: int, num_rows: int, rng: np.random.Generator, batch_shape: tuple[int, ...]) -> Drawn:
        """Degrees, weights, and the k-th factor of the features that have one, `rows_k·x + constants_k`.

        Sorted by degree, they are the first ones. Where the maps of a batch differ in how many, the factor 1 fills up.
        """
        degrees = -np.sort(-self._draw_degrees(rng, (*batch_shape, num_rows)), axis=-1)
        arrays = {
            "degrees": degrees[..., None, :].astype(np.float64),
            "weights": np.exp(self._log_ratio(degrees) / 2)[..., None, :] / math.sqrt(num_rows),
        }
        for k in range(max(int(degrees.max()), 1)):
            present = degrees > k
            width = int(np.max(np.sum(present, axis=-1))) if k else num_rows
            present = present[..., :width]
            arrays[f"rows_{k}"] = random_signs(rng, (*batch_shape, width, dim)) * present[..., None]
            arrays[f"constants_{k}"] = np.where(present, 0.0, 1.0)[..., None, :]
        return arrays

    def query_features(self, arrays: Arrays, x: Array) -> Features:
        """Weighted products of the projections of `x/|x|`; `n log|x|` in the scale."""
        xp, sqnorm = namespace(x), squared_norm(x)
        x, log_norm = split_norm(x)
        values = arrays["weights"]
        for k in range(sum(name.startswith("rows_") for name in arrays)):
            factor = x @ xp.matrix_transpose(arrays[f"rows_{k}"]) + arrays[f"constants_{k}"]
            width = factor.shape[-1]
            values = xp.concat([values[..., :width] * factor, values[..., width:]], axis=-1) if k else values * factor
        log_scale = arrays["degrees"] * log_norm
        return Features(values, log_scale + self._log_envelope(sqnorm))

    def variance_over_reference(self, x: Any, y: Any, num_features: int) -> np.ndarray:
        """`(Σ_n a_n² T^n/q_n - k²) / m`, divided by the squared reference."""
        x, y = unit_inputs(self.kernel, x, y)
        a, b, c = fourth_moments(x, y)
        log_moment = self._log_second_moment(a + b + c)
        num = self.num_rows(num_features)
        if isinstance(self.kernel, DotProductKernel):
            relative = np.exp(log_moment - 2 * self.kernel.log_reference(x, y))
            return np.maximum(relative - self.kernel.relative(x, y) ** 2, 0.0) / num
        return np.maximum(np.expm1(log_moment - 2 * np.sum(x * y, axis=-1)), 0.0) / num

    def log_joint_moment(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """`rate + T_jk/rate - x·y_j - x·y_k`, `T_jk = E[(w·x)² (w·y_j)(w·y_k)]`; for Poisson degrees."""
        if isinstance(self.kernel, DotProductKernel) or self.degree_law != "series":
            raise NoClosedForm(
                "the joint moment has a logarithm for the softmax family and degree_law='series' only; use "
                "randfeat.montecarlo for others."
            )
        inner = y @ x
        moment = (x @ x) * (y @ y.T) + 2 * (np.outer(inner, inner) - (y * x**2) @ y.T)
        return self._rate + moment / self._rate - inner[:, None] - inner[None, :]

    def _log_envelope(self, sqnorm: Array) -> Any:
        return self.kernel.log_envelope(sqnorm) if isinstance(self.kernel, SoftmaxFamily) else 0.0

    def _draw_degrees(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        if isinstance(self.kernel, DotProductKernel):
            return rng.choice(len(self.kernel.coefficients), size=shape, p=np.exp(self._log_probabilities()))
        return (
            rng.poisson(self._rate, shape) if self.degree_law == "series" else rng.geometric(1 - self._rate, shape) - 1
        )

    def _log_probabilities(self) -> np.ndarray:
        """`log q_n` for a finite series; -inf where a_n = 0."""
        assert isinstance(self.kernel, DotProductKernel)
        log_terms = self.kernel.log_terms(self._rate)
        if self.degree_law == "geometric":
            log_terms = np.where(log_terms > -np.inf, np.arange(log_terms.size) * math.log(self._rate), -np.inf)
        return log_terms - np.logaddexp.reduce(log_terms)

    def _log_ratio(self, degrees: np.ndarray) -> np.ndarray:
        """`log a_n/q_n` at degrees that have a probability."""
        from scipy.special import gammaln

        if isinstance(self.kernel, DotProductKernel):
            return self.kernel.log_terms(1.0)[degrees] - self._log_probabilities()[degrees]
        ratio = -degrees * math.log(self._rate)
        return (
            ratio + self._rate
            if self.degree_law == "series"
            else ratio - gammaln(degrees + 1) - math.log1p(-self._rate)
        )

    def _log_second_moment(self, moment: np.ndarray) -> np.ndarray:
        """`log Σ_n a_n² T^n/q_n`: `moment` is T, a_n are the coefficients, q_n the probabilities of the degrees."""
        from scipy.special import i0e, xlogy

        if isinstance(self.kernel, DotProductKernel):
            degrees = np.flatnonzero(self.kernel.coefficients)
            terms = self.kernel.log_terms(1.0)[degrees] + self._log_ratio(degrees)
            return np.logaddexp.reduce(terms + xlogy(degrees, moment[..., None]), axis=-1)
        if self.degree_law == "series":
            return self._rate + moment / self._rate
        z = 2 * np.sqrt(moment / self._rate)
        return z + np.log(i0e(z)) - math.log1p(-self._rate)
