"""Generalized exponential features."""

import cmath
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from randfeat._array import Array, namespace, squared_norm
from randfeat.couplings.laws import GaussianPair, NoClosedForm, PairLaw, RadialPair
from randfeat.estimators.base import Estimator
from randfeat.features import Features, concatenate

__all__ = ["GeneralizedExponentialFeatures"]


@dataclass(frozen=True)
class GeneralizedExponentialFeatures(Estimator):
    """Generalized exponential features with one complex parameter: GERF, CRT-DE.

    `f(w, x) = (1-4A)^{d/4} exp(A|w|² + B w·x - s|x|²/2)` for queries, with sB in place of B for keys, `B² = s(1-4A)`;
    the estimate is the mean over rows of Re[f(w, x) f(w, y)].

    parameter : A, complex, Re A < 1/8. sign : s, +1 or -1. A = 0 gives positive features for s = 1 and trigonometric
        ones for s = -1; real A < 0 with s = 1 `OptimalPositiveFeatures`.

    x and y in kernel units, `u_s = |x + s y|²`.

    Shapes: (..., n, d) -> values and log_scale (..., n, 2m), the real and the imaginary part of each row: modulus
        in the scale, cosine and sine of the argument in the values. Queries and keys differ: the map is asymmetric.
    Exact: `E[φ_q(x)·φ_k(y)] = exp(x·y)` for every coupling with exact marginals.
    Error: one independent row has `E S² = (1-4A)^d (1-8A)^{-d/2} exp(s(1 + 1/(1-8A)) u_s - sN)` and `E|S|² = |1-4A|^d
        (1-8 Re A)^{-d/2} exp((|1-4A| + s(1-4 Re A)) u_s/(1-8 Re A) - sN)`, N = |x|² + |y|²; the variance is
        `½ (Re E S² + E|S|²) - exp(2x·y)`. Rows with chi norms at fixed angles have the covariances of A = 0.
    Limits: not positive unless A is real and s = 1.
    Source: Likhosherstov et al. 2022, "Chefs' Random Tables".

    >>> x = np.full(4, 0.4)
    >>> positive, trigonometric = (GeneralizedExponentialFeatures(sign=s, coupling="independent") for s in (1, -1))
    >>> positive.relative_variance(x, x, num_features=2).round(4) == np.expm1(4 * x @ x).round(4)
    np.True_
    >>> trigonometric.relative_variance(x, x, num_features=2).round(4)
    np.float64(0.0)
    """

    parameter: complex = 0.0
    sign: int = 1

    symmetric: ClassVar[bool] = False
    features_per_row: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "parameter", complex(self.parameter))
        if not (cmath.isfinite(self.parameter) and self.parameter.real < 1 / 8):
            raise ValueError(f"parameter must be finite with a real part below 1/8, got {self.parameter}.")
        if self.sign not in (1, -1):
            raise ValueError(f"sign must be 1 or -1, got {self.sign!r}.")

    def draw_arrays(
        self, num_rows: int, dim: int, rng: np.random.Generator, batch_shape: tuple[int, ...]
    ) -> dict[str, np.ndarray]:
        """Rows, and logarithm of modulus and argument of `(1-4A)^{d/4} e^{A|w|²} / √m`."""
        w = super().draw_arrays(num_rows, dim, rng, batch_shape)["rows"]
        log = self.parameter * np.sum(w * w, axis=-1) + dim / 4 * cmath.log(1 - 4 * self.parameter)
        return {
            "rows": w,
            "log_weights": log.real[..., None, :] - math.log(num_rows) / 2,
            "arguments": log.imag[..., None, :],
        }

    @property
    def _slope(self) -> complex:
        """B."""
        return cmath.sqrt(self.sign * (1 - 4 * self.parameter))

    def query_features(self, arrays: Mapping[str, Array], x: Array) -> Features:
        """`[Re f, Im f]`."""
        return self._parts(arrays, x, self._slope, conjugate=False)

    def key_features(self, arrays: Mapping[str, Array], y: Array) -> Features:
        """`[Re f, -Im f]` with sB for B."""
        return self._parts(arrays, y, self.sign * self._slope, conjugate=True)

    def _parts(self, arrays: Mapping[str, Array], x: Array, slope: complex, *, conjugate: bool) -> Features:
        xp = namespace(x)
        sqnorm = squared_norm(x)
        projection = x @ xp.matrix_transpose(arrays["rows"])
        per_row: Any = self.kernel.log_envelope(sqnorm) - self.sign * sqnorm / 2
        log_scale = slope.real * projection + arrays["log_weights"] + per_row
        argument = slope.imag * projection + arrays["arguments"]
        sine = -xp.sin(argument) if conjugate else xp.sin(argument)
        return concatenate(Features(xp.cos(argument), log_scale), Features(sine, log_scale))

    def relative_row_mean(self, x: np.ndarray, y: np.ndarray, law: PairLaw) -> np.ndarray:
        """1 for exact marginals."""
        if isinstance(law, GaussianPair | RadialPair):
            return np.ones(np.broadcast_shapes(x.shape, y.shape)[:-1])
        raise NoClosedForm("the mean of generalized exponential features is known for exact marginals; use chi norms.")

    def relative_covariance(self, x: np.ndarray, y: np.ndarray, law: PairLaw, *, same_row: bool) -> np.ndarray:
        """`½ Re (E[S1 S2] + E[S1 S2*]) / kernel² - 1`."""
        s = np.sum((x + self.sign * y) ** 2, axis=-1)
        if isinstance(law, RadialPair):  # the tilt of each norm is absorbed by a complex rescaling
            return law.covariance(s) if self.sign == 1 else law.even_covariance(-s)
        if not isinstance(law, GaussianPair):
            raise NoClosedForm("generalized exponential features have closed forms for exact marginals; use chi norms.")
        a, dim, log_kernel = self.parameter, x.shape[-1], self.sign * s / 2
        moments = [
            gaussian_moment(law.correlation, (a, second), (b, slope), s, dim)
            for b in [self._slope]
            for second, slope in ((a, b), (a.conjugate(), b.conjugate()))
        ]
        return np.real(np.exp(moments[0] - 2 * log_kernel) + np.exp(moments[1] - 2 * log_kernel)) / 2 - 1


def gaussian_moment(
    rho: float, tilts: tuple[complex, complex], slopes: tuple[complex, complex], s: np.ndarray, dim: int
) -> np.ndarray:
    """`log E[T_1 T_2]`, `T_i = (1-4a_i)^{d/2} exp(2a_i|w_i|² + b_i w_i·v)`, |v|² = s, rows of correlation ρ.

    Coordinate by coordinate a Gaussian integral over (w1, w2) ~ N(0, Σ): with Q = diag(4a_1, 4a_2) and
    M = (I - ΣQ)^{-1} Σ it is `det(I - ΣQ)^{-1/2} exp(½ bᵀMb)`.
    """
    covariance, a, b = np.array([[1.0, rho], [rho, 1.0]]), np.array(tilts), np.array(slopes)
    kept = np.eye(2) - covariance @ np.diag(4 * a)
    log_constant = np.sum(np.log(1 - 4 * a)) - cmath.log(np.linalg.det(kept))
    return dim / 2 * log_constant + (b @ np.linalg.solve(kept, covariance) @ b) / 2 * s
