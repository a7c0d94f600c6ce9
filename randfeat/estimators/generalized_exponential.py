"""Generalized exponential features."""

import cmath
import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from randfeat._array import Array, Arrays, Drawn, namespace, squared_norm
from randfeat._hints import short
from randfeat.couplings.base import sampled_rows
from randfeat.couplings.laws import GaussianPair, NoClosedForm, PairLaw, RadialPair, SpherePair
from randfeat.couplings.matched_laws import ScaledGaussianPair
from randfeat.estimators.complex_parts import in_modulus_and_argument, real_and_imaginary
from randfeat.estimators.exponential_sum import ExponentialSum
from randfeat.estimators.softmax import SoftmaxEstimator
from randfeat.features import Features


@dataclass(frozen=True)
class GeneralizedExponentialFeatures(SoftmaxEstimator):
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
        Constant norms bias it; mean and variance are complex Bessel functions.
    Limits: not positive unless A is real and s = 1.
    For: research on the family that joins positive and trigonometric features.
    Source: Likhosherstov et al. 2022, "Chefs' Random Tables".

    >>> x = np.full(4, 0.4)
    >>> positive, trigonometric = (
    ...     GeneralizedExponentialFeatures(sign=sign, coupling="independent") for sign in (1, -1)
    ... )
    >>> positive.relative_variance(x, x, num_features=2).round(4) == np.expm1(4 * x @ x).round(4)
    np.True_
    >>> trigonometric.relative_variance(x, x, num_features=2).round(4)
    np.float64(0.0)
    """

    parameter: complex = 0.0
    sign: int = 1

    symmetric = False
    features_per_row = 2
    acronyms = ("GERF", "CRT")

    @classmethod
    def example(cls) -> Self:
        return cls(parameter=-0.03 + 0.04j)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "parameter", complex(self.parameter))
        if not (cmath.isfinite(self.parameter) and self.parameter.real < 1 / 8):
            raise ValueError(f"parameter must be finite with a real part below 1/8, got {short(self.parameter)}.")
        if self.sign not in (1, -1):
            raise ValueError(f"sign must be 1 or -1, got {short(self.sign)}.")

    @property
    def bounded(self) -> bool:
        return self.parameter.real < 0 or (self.parameter.real == 0 and self._slope.real == 0)

    def draw_arrays(self, dim: int, num_rows: int, rng: np.random.Generator, batch_shape: tuple[int, ...]) -> Drawn:
        """Rows, and logarithm of modulus and argument of `(1-4A)^{d/4} e^{A|w|²} / √m`."""
        w = sampled_rows(self._coupling, num_rows, dim, rng=rng, batch_shape=batch_shape)
        log = self.parameter * np.sum(w * w, axis=-1) + dim / 4 * cmath.log(1 - 4 * self.parameter)
        return {
            "rows": w,
            "log_weights": log.real[..., None, :] - math.log(num_rows) / 2,
            "arguments": log.imag[..., None, :],
        }

    @property
    def _slope(self) -> complex:
        """`B = √(s(1-4A))`."""
        return cmath.sqrt(self.sign * (1 - 4 * self.parameter))

    def query_features(self, arrays: Arrays, x: Array) -> Features:
        """`[Re f, Im f]`."""
        return self._parts(arrays, x, self._slope, conjugate=False)

    def key_features(self, arrays: Arrays, y: Array) -> Features:
        """`[Re f, -Im f]` with sB for B."""
        return self._parts(arrays, y, self.sign * self._slope, conjugate=True)

    def _parts(self, arrays: Arrays, x: Array, slope: complex, *, conjugate: bool) -> Features:
        xp = namespace(x)
        sqnorm = squared_norm(x)
        projection = x @ xp.matrix_transpose(arrays["rows"])
        per_row: Any = self.kernel.log_envelope(sqnorm) - self.sign * sqnorm / 2
        log_scale = slope.real * projection + arrays["log_weights"] + per_row
        argument = slope.imag * projection + arrays["arguments"]
        return real_and_imaginary(log_scale, argument, conjugate=conjugate)

    def pull_back(self, arrays: Arrays, x: Array, values: Array, gradient: Array, row: Any, *, keys: bool) -> Array:
        """`Σ_i (Re B g_i + Im B h_i) w_i - s r x`, g and h those in log-modulus and argument; the envelope's."""
        slope = self.sign * self._slope if keys else self._slope
        modulus, argument = in_modulus_and_argument(values, gradient, conjugate=keys)
        slopes = slope.real * modulus + slope.imag * argument
        return slopes @ arrays["rows"] + row * (2 * self.kernel.envelope_slope(squared_norm(x)) - self.sign) * x

    def relative_row_mean(self, x: np.ndarray, y: np.ndarray, law: PairLaw) -> np.ndarray:
        s = np.sum((x + self.sign * y) ** 2, axis=-1)
        if law.exact_marginals or self.parameter == 0:
            return law.row_mean(self.sign * s)
        if isinstance(law, SpherePair):
            return np.real(sphere_moment([self.parameter], self._slope**2, s, law.dim) * np.exp(-self.sign * s / 2))
        if isinstance(law, ScaledGaussianPair):
            kept = 1 - 4 * self.parameter * law.variance
            exponent = self._slope**2 * law.variance / kept - self.sign
            ratio = cmath.log(1 - 4 * self.parameter) - cmath.log(kept)
            return np.real(np.exp(x.shape[-1] / 2 * ratio + exponent * s / 2))
        raise no_moments(law)

    def relative_covariance(self, x: np.ndarray, y: np.ndarray, law: PairLaw, *, same_row: bool) -> np.ndarray:
        """`½ Re (E[S1 S2] + E[S1 S2*]) / kernel²` less the squared relative mean."""
        s = np.sum((x + self.sign * y) ** 2, axis=-1)
        if isinstance(law, RadialPair) or self.parameter == 0:  # a complex rescaling of each norm absorbs its tilt
            return law.covariance(s) if self.sign == 1 else law.even_covariance(-s)
        a, b, shift = self.parameter, self._slope, self.sign * s
        moments = []
        for second, slope in ((a, b), (a.conjugate(), b.conjugate())):
            if isinstance(law, GaussianPair | ScaledGaussianPair):
                variance = law.variance if isinstance(law, ScaledGaussianPair) else 1.0
                covariance = variance * np.array([[1.0, law.correlation], [law.correlation, 1.0]])
                log_moment = gaussian_moment(covariance, (a, second), (b, slope), s, x.shape[-1])
                moments.append(np.exp(log_moment - shift))
            elif isinstance(law, SpherePair):
                total = b * b + slope * slope + 2 * law.cosine * b * slope
                moments.append(sphere_moment([a, second], total, s, law.dim) * np.exp(-shift))
            else:
                raise no_moments(law)
        return np.real(moments[0] + moments[1]) / 2 - self.relative_row_mean(x, y, law) ** 2

    def exponential_terms(self, x: np.ndarray, y: np.ndarray) -> ExponentialSum:
        """`Re (1-4A)^{d/2} exp(2A|w|² + B w·(x + sy) - s u_s/2)`."""
        v = x + self.sign * y
        constant = x.shape[-1] / 2 * cmath.log(1 - 4 * self.parameter)
        return ExponentialSum.of(
            constant - self.sign * np.sum(v**2, axis=-1) / 2, [self._slope * v], 2 * self.parameter
        )


def no_moments(law: PairLaw) -> NoClosedForm:
    """The error for a law under which moments are not known."""
    return NoClosedForm(
        f"generalized exponential features have no closed moments under {type(law).__name__}; use randfeat.montecarlo."
    )


def sphere_moment(tilts: list[complex], total: complex, s: np.ndarray, dim: int) -> np.ndarray:
    """`E Π T_i = Π (1-4a_i)^{d/2} e^{2a_i d} · 0F1(; d/2; d total s/4)`, rows of length √d, |Σ b_i w_i|² = d total."""
    from scipy.special import hyp0f1

    constant = sum(dim / 2 * cmath.log(1 - 4 * a) + 2 * a * dim for a in tilts)
    return np.exp(constant) * hyp0f1(dim / 2, dim * total * s / 4 + 0j)


def gaussian_moment(
    covariance: np.ndarray, tilts: tuple[complex, complex], slopes: tuple[complex, complex], s: np.ndarray, dim: int
) -> np.ndarray:
    """`log E[T_1 T_2]`, `T_i = (1-4a_i)^{d/2} exp(2a_i|w_i|² + b_i w_i·v)`, |v|² = s, (w1, w2) of covariance Σ.

    Coordinate by coordinate a Gaussian integral over (w1, w2) ~ N(0, Σ): with Q = diag(4a_1, 4a_2) and
    M = (I - ΣQ)^{-1} Σ it is `det(I - ΣQ)^{-1/2} exp(½ bᵀMb)`.
    """
    a, b = np.array(tilts), np.array(slopes)
    kept = np.eye(2) - covariance @ np.diag(4 * a)
    log_constant = np.sum(np.log(1 - 4 * a)) - cmath.log(np.linalg.det(kept))
    return dim / 2 * log_constant + (b @ np.linalg.solve(kept, covariance) @ b) / 2 * s
