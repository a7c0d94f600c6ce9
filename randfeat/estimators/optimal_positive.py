"""Optimal positive features."""

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from randfeat._array import Drawn, as_bool
from randfeat._hints import hinted, renamed_keywords, short
from randfeat.couplings import Coupling
from randfeat.couplings.base import sampled_rows
from randfeat.couplings.laws import PairLaw
from randfeat.estimators.exponential import ExponentialEstimator
from randfeat.estimators.exponential_sum import ExponentialSum
from randfeat.estimators.parametric import Parametric, frozen_array
from randfeat.estimators.statistics import or_default, unit_pair
from randfeat.kernels import SoftmaxFamily


@dataclass(frozen=True, eq=False, repr=False)
class OptimalPositiveFeatures(Parametric, ExponentialEstimator):
    """Optimal positive features, `φ_i(x) = (1-4a)^{d/4} exp(a|w_i|² + √(1-4a) w_i·x - |x|²/2) / √m`: OPRF.

    exponent : a < 1/8; a < 0 makes the features bounded. One number, or an array with one for each head. 0 gives
        `PositiveFeatures`. `fit` chooses it from data, `for_sqnorm` for a given |x + y|².
    antithetic : if True, two features per row, from w_i and -w_i, as in `HyperbolicFeatures`. `fit` still chooses the
        exponent that is optimal for `antithetic=False`.

    Positive features whose rows are drawn from N(0, (1-4a) I) instead of N(0, I) and weighted by the density ratio.
    x and y in kernel units, `u = |x + y|²`, `ρ = 1/(1-8a)`.

    Shapes: (..., n, d) -> values (all 1) and log_scale (..., n, m), or 2m for antithetic rows.
    Exact: `E[φ(x)·φ(y)] = exp(x·y)` for every coupling with exact marginals.
    Error: relative variance `((1+ρ)²/4ρ)^{d/2} e^{ρu} - 1` of one independent row. It is smallest at
        `ρ* = 2d / (√((2u+d)² + 8du) + 2u + d)`. There it grows like a polynomial in u, while the variance of positive
        features grows exponentially. Antithetic: `½ ((1+ρ)²/4ρ)^{d/2} (e^{ρu} + e^{-u}) - 1`. For rows with independent
        chi-distributed lengths and fixed angles (as of orthogonal rows), the covariance of two different rows does not
        depend on a: it is that of positive features.
    For: attention with long queries and keys, after the fit of a single number.
    Source: Likhosherstov et al. 2022, "Chefs' Random Tables" (OPRF; with orthogonal rows FAVOR++).

    >>> x = np.full(16, 0.5)
    >>> estimator = OptimalPositiveFeatures.for_sqnorm(16.0, dim=16, coupling="independent")
    >>> estimator.relative_variance(x, x, num_features=1).round()
    np.float64(1849.0)
    """

    exponent: float | np.ndarray = 0.0
    antithetic: bool = False

    acronyms = ("OPRF", "FAVOR++")

    @classmethod
    def example(cls) -> Self:
        return cls(exponent=-0.05)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "antithetic", as_bool(self.antithetic, "antithetic"))
        exponent = frozen_array(self.exponent, "exponent")
        if not np.all(exponent < 1 / 8):
            raise ValueError(f"exponent must be below 1/8 for the second moment to exist, got {short(exponent)}.")
        object.__setattr__(self, "exponent", exponent)

    @property
    def bounded(self) -> bool:
        return bool(np.all(np.asarray(self.exponent) < 0))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return np.shape(self.exponent)

    @classmethod
    def for_sqnorm(cls, sqnorm: Any, dim: int, **options: Any) -> Self:
        """The estimator of least variance at pairs with |x + y|² = `sqnorm` (in kernel units)."""
        return cls(exponent=optimal_exponent(np.asarray(sqnorm, dtype=np.float64) / dim), **options)

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
        antithetic: bool = False,
    ) -> Self:
        """The estimator for the mean of |x + y|² over all pairs of (..., L, d) queries and (..., S, d) keys.

        `mean |x_i + y_j|² = mean |x|² + mean |y|² + 2 mean(x)·mean(y)`, linear in the length; one exponent for each of
        the leading dimensions. Raw inputs and the scale of `linear_attention`, 1/√d by default; `scale=1.0` for kernel
        estimates. For causal use fit on other data than it is used on.
        """
        kernel, coupling = or_default(kernel, coupling)
        x, y = unit_pair(query, key, kernel=kernel, scale=scale)
        means = [np.mean(np.sum(side * side, axis=-1), axis=-1) for side in (x, y)]
        sqnorm = means[0] + means[1] + 2 * np.sum(x.mean(axis=-2) * y.mean(axis=-2), axis=-1)
        return cls.for_sqnorm(sqnorm, x.shape[-1], kernel=kernel, coupling=coupling, antithetic=antithetic)

    def draw_arrays(self, dim: int, num_rows: int, rng: np.random.Generator, batch_shape: tuple[int, ...]) -> Drawn:
        """Rows `√(1-4a) w_i` and weights `a|w_i|² + d/4 log(1-4a) - ½ log m`."""
        w = sampled_rows(self._coupling, num_rows, dim, rng=rng, batch_shape=batch_shape)
        a = np.asarray(self.exponent)[..., None, None]
        sqnorm = np.swapaxes(np.sum(w * w, axis=-1, keepdims=True), -1, -2)
        log_weights = a * sqnorm + dim / 4 * np.log1p(-4 * a) - math.log(self.features_per_row * num_rows) / 2
        return {"rows": np.sqrt(1 - 4 * a) * w, "log_weights": log_weights}

    def relative_row_mean(self, x: np.ndarray, y: np.ndarray, law: PairLaw) -> np.ndarray:
        """`E[T(w)] e^{-u/2}`, with T(w) as in `PairLaw.tilted_covariance` for v = x + y."""
        return law.tilted_row_mean(x + y, self._tilt())

    def relative_covariance(self, x: np.ndarray, y: np.ndarray, law: PairLaw, *, same_row: bool) -> np.ndarray:
        """`Cov(T(w1), T(w2)) e^{-u}`."""
        return law.tilted_covariance(x + y, self._tilt(), even=self.antithetic)

    def exponential_terms(self, x: np.ndarray, y: np.ndarray) -> ExponentialSum:
        """`(1-4a)^{d/2} exp(2a|w|² ± √(1-4a) w·(x+y) - u/2)`."""
        z, a = x + y, self._tilt()
        return tilted_terms(z, np.broadcast_to(a, z.shape), even=self.antithetic)

    def log_joint_moment(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """`d/2 log((1+ρ)²/4ρ) + (ρ-1)/4 (|z_j|² + |z_k|²) ± (1+ρ)/2 z_j·z_k`, z_j = x + y_j; the mean over signs."""
        z = x + y
        return tilted_joint_moment(z, np.broadcast_to(self.exponent, x.shape), even=self.antithetic)

    def _tilt(self) -> np.ndarray:
        return self.per_pair(np.asarray(self.exponent)[..., None])


def optimal_exponent(mean_square: Any) -> np.ndarray:
    """The optimal a for `mean_square` = |x + y|²/d (per axis: the mean square of x + y): 0 at 0, towards -∞ beyond.

    `a = (1 - 1/ρ)/8` with `1/ρ = ½ (√((2ū+1)² + 8ū) + 2ū + 1)`.
    """
    u = np.asarray(mean_square, dtype=np.float64)
    # 1 - 1/ρ = ½ (1 - 2ū - √((2ū+1)² + 8ū)) = -8ū / (√(...) + 1 - 2ū), the sum of like signs for 2ū < 1
    root = np.sqrt((2 * u + 1) ** 2 + 8 * u)
    return np.where(2 * u < 1, -u / np.where(2 * u < 1, root + 1 - 2 * u, 1.0), (1 - 2 * u - root) / 16)


def tilted_terms(z: np.ndarray, a: np.ndarray, *, even: bool = False) -> ExponentialSum:
    """`Π_l (1-4a_l)^{1/2} exp(Σ_l 2a_l w_l² + √(1-4a_l) w_l z_l - |z|²/2)`, or its mean over both signs of z."""
    slope = np.sqrt(1 - 4 * a) * z
    return ExponentialSum.of(np.sum(np.log1p(-4 * a) - z**2, axis=-1) / 2, [slope, -slope] if even else [slope], 2 * a)


def tilted_joint_moment(z: np.ndarray, a: np.ndarray, *, even: bool = False) -> np.ndarray:
    """`log E[T_j T_k] / e^{(|z_j|² + |z_k|²)/2}` for z (n, d), a (d,), under one N(0, I) row: (n, n)."""
    rho = 1 / (1 - 8 * a)
    own = np.sum((rho - 1) / 4 * z**2, axis=-1)
    cross = (z * (1 + rho) / 2) @ z.T
    constant = np.sum(np.log((1 + rho) ** 2 / (4 * rho))) / 2
    if even:
        cross = np.logaddexp(cross, -cross) - math.log(2)
    return constant + own[:, None] + own[None, :] + cross
