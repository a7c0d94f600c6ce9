"""Joint laws of two rows, and the covariances of exponentials, hyperbolic cosines and cosines under them.

For two rows w1, w2 in R^d with a rotation-invariant law, a variance needs only, for a vector v with s = |v|²,

    covariance(s)       Cov(exp(v·w1), exp(v·w2)) / e^s,
    even_covariance(s)  Cov(cosh(v·w1), cosh(v·w2)) / e^s,
    row_mean(s)         E[exp(v·w1)] / e^{s/2},
    sqnorm_covariance() Cov(|w1|², |w2|²),
    tilted_covariance(v, a)  covariance of exponentials with a quadratic tilt, T(w) = Π_l (1-4a_l)^{1/2}
                        exp(Σ_l 2a_l w_l² + (1-4a_l)^{1/2} v_l w_l), of mean e^{s/2} for w ~ N(0, I);
                        inf where E[T(w1) T(w2)] is infinite, for a row with itself at a_l >= 1/8.

A negative s stands for an imaginary v: cosh becomes cos, and s = -|v|². Dividing by e^s, the squared mean under
N(0, I), makes them *relative* covariances, accurate for small s and finite up to s of about 700. The pair of a row with
itself (w2 = w1) has a law, too, so one formula gives variances and covariances.

All functions take and return float64 NumPy arrays.
"""

import abc
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat.couplings.hypergeometric import hyp0f1, kummer_minus_half, log_hyp0f1

SMALL = 2.0  # power series below, transformed series above: both are accurate to about 1e-14 here
CHUNK = 2**20  # numbers held at once by a series evaluated on many arguments


class NoClosedForm(ValueError):
    """Error: no closed form is known for this estimator and coupling; the message says what to use instead."""


class PairLaw(abc.ABC):
    """The joint law of two rows, invariant under a common rotation of both."""

    @property
    def exact_marginals(self) -> bool:
        """Whether each of the two rows is N(0, I); if not, the law defines `row_mean` and `second_moment` itself."""
        return True

    @abc.abstractmethod
    def covariance(self, s: Any) -> np.ndarray:
        """`Cov(exp(v·w1), exp(v·w2)) / e^s` with s = |v|²."""

    @abc.abstractmethod
    def even_covariance(self, s: Any) -> np.ndarray:
        """`Cov(cosh(v·w1), cosh(v·w2)) / e^s` with s = |v|²; for s < 0, the same with cosines and |v|² = -s."""

    @abc.abstractmethod
    def sqnorm_covariance(self, dim: int) -> float:
        """`Cov(|w1|², |w2|²)`."""

    @abc.abstractmethod
    def negated(self) -> "PairLaw":
        """The pair law of (w1, -w2); this law is that of the rows (w1, w2)."""

    def second_moment(self, dim: int) -> float:
        """`E[(v·w1)²] / |v|²`: 1 for N(0, I), and for every other law with `E[w1 w1ᵀ] = I`."""
        self._expect_exact("second moment")
        return 1.0

    def row_mean(self, s: Any) -> np.ndarray:
        """`E[exp(v·w1)] / e^{s/2}`: 1 where each row alone is N(0, I)."""
        self._expect_exact("mean of exponentials")
        return np.ones_like(np.asarray(s, dtype=np.float64))

    def tilted_covariance(self, v: np.ndarray, a: np.ndarray, *, even: bool = False) -> np.ndarray:
        """`Cov(T(w1), T(w2)) / e^s` for v, a (..., d), a_l < 1/4; with `even`, T is averaged over both signs of v.

        np.inf where the moment is infinite.
        """
        raise NoClosedForm(
            f"the covariance of exponentials with an anisotropic tilt is not known under {type(self).__name__}; use "
            "independent rows, or randfeat.montecarlo."
        )

    def tilted_row_mean(self, v: np.ndarray, a: np.ndarray) -> np.ndarray:
        """`E[T(w1)] / e^{s/2}`: 1 where each row alone is N(0, I)."""
        self._expect_exact("mean of tilted exponentials")
        return np.ones(np.broadcast_shapes(np.shape(v), np.shape(a))[:-1])

    def _expect_exact(self, what: str) -> None:
        if not self.exact_marginals:
            raise NoClosedForm(
                f"the {what} of a row is not known under {type(self).__name__}; use randfeat.montecarlo."
            )


@dataclass(frozen=True)
class GaussianPair(PairLaw):
    """Jointly Gaussian rows, N(0, I) each, with `E[w1 w2ᵀ] = correlation · I`.

    `covariance(s) = e^{ρs} - 1` and `even_covariance(s) = cosh(ρs) - 1`. A row with itself has ρ = 1, a row with its
    negative ρ = -1.
    """

    correlation: float

    def covariance(self, s: Any) -> np.ndarray:
        """`e^{ρs} - 1`."""
        return np.expm1(self.correlation * np.asarray(s, dtype=np.float64))

    def even_covariance(self, s: Any) -> np.ndarray:
        """`cosh(ρs) - 1 = 2 sinh²(ρs/2)`."""
        return 2 * np.sinh(self.correlation * np.asarray(s, dtype=np.float64) / 2) ** 2

    def tilted_covariance(self, v: np.ndarray, a: np.ndarray, *, even: bool = False) -> np.ndarray:
        """`exp(Σ_l [v_l² ρ/(1-4a_l(1+ρ)) - ½ log(1 - (4a_lρ/(1-4a_l))²)]) - 1`.

        w1 ± w2 have variances 2(1 ± ρ) along each axis, and T(w1) T(w2) has the factor exp(a_l (w1 ± w2)_l²) for either
        sign, so the moment is finite if `4a_l(1 + |ρ|) < 1` for all l, and infinite if not.
        """
        rho = self.correlation
        finite = 4 * a * (1 + abs(rho)) < 1
        if not np.all(finite):
            inside = self.tilted_covariance(v, np.where(finite, a, 0.0), even=even)
            return np.where(np.all(finite, axis=-1), inside, np.inf)
        normalizer = -np.sum(np.log1p(-((4 * a * rho / (1 - 4 * a)) ** 2)) + 0 * v, axis=-1) / 2
        plus, minus = (np.sum(v**2 * r / (1 - 4 * a * (1 + r)), axis=-1) for r in (rho, -rho))
        if not even:
            return np.expm1(normalizer + plus)
        return (np.expm1(normalizer + plus) + np.expm1(normalizer + minus)) / 2

    def sqnorm_covariance(self, dim: int) -> float:
        """`2dρ²`."""
        return 2 * dim * self.correlation**2

    def negated(self) -> PairLaw:
        return GaussianPair(-self.correlation)


@dataclass(frozen=True)
class RadialPair(PairLaw):
    """Rows `r1 u1, r2 u2` with independent χ_d norms and unit directions that meet at a fixed cosine, Haar rotated.

    Write (r1, r2) = R (cos φ, sin φ): R² ~ χ²_{2d} is independent of φ and |w1 + w2|² = R² (1 + c sin 2φ), so that

        E[exp(v·(w1 + w2))] = Σ_k s^k/k! · p_k h_k,   p_k = Π_{j<k} (d+j)/(d+2j),   h_k = E[(1 + c sin 2φ)^k],

    and `covariance(s) = E_K[p_K h_K - 1]` for K ~ Poisson(s): a sum of terms of one sign when c <= 0, so
    that no digits are lost. For c = 0 it is `1F1(d; d/2; s/2) e^{-s} - 1` (orthogonal rows); c = -1/(b-1) gives the
    simplex.
    """

    dim: int
    cosine: float

    def covariance(self, s: Any) -> np.ndarray:
        """`E[exp(v·(w1 + w2))] / e^s - 1`."""
        return self._evaluate(s, (self.cosine,))

    def even_covariance(self, s: Any) -> np.ndarray:
        """The mean of `covariance` over both signs of w2."""
        return self._evaluate(s, (self.cosine, -self.cosine) if self.cosine else (0.0,))

    def tilted_covariance(self, v: np.ndarray, a: np.ndarray, *, even: bool = False) -> np.ndarray:
        if not is_isotropic(a):
            return super().tilted_covariance(v, a, even=even)
        s = np.sum(v**2 + 0 * a, axis=-1)
        return self.even_covariance(s) if even else self.covariance(s)

    def sqnorm_covariance(self, dim: int) -> float:
        return 0.0

    def negated(self) -> PairLaw:
        return RadialPair(self.dim, -self.cosine)

    def _evaluate(self, s: Any, cosines: tuple[float, ...]) -> np.ndarray:
        s = np.asarray(s, dtype=np.float64)
        flat = s.ravel()
        result = np.full_like(flat, np.nan)
        top = 1 + max(cosines)
        far = self._is_negligible(flat, max(cosines))
        series = (flat >= -SMALL) & (flat < np.inf) & ~far
        for low, high in ((0.0, 8.0), (8.0, 64.0), (64.0, np.inf)):  # so that small arguments stay cheap
            chosen = np.flatnonzero(series & (np.abs(flat) >= low) & (np.abs(flat) < high))
            if chosen.size:
                rate = float(np.max(np.abs(flat[chosen]))) * max(top, 1.0)
                excess = self._excess(cosines, num=int(rate + 12 * np.sqrt(rate) + 40))
                for part in np.array_split(chosen, 1 + chosen.size * excess.size // CHUNK):
                    result[part] = poisson_mean(excess, flat[part])
        chosen = np.flatnonzero((flat < -SMALL) & (flat > -np.inf))
        if chosen.size:
            result[chosen] = self._oscillating(cosines, -flat[chosen])
        result[flat == np.inf] = np.inf if max(cosines) > 0 else -1.0
        result[far] = -1.0
        return result.reshape(s.shape)

    def _is_negligible(self, s: np.ndarray, cosine: float) -> np.ndarray:
        """Whether `E[exp(v·(w1 + w2))] / e^s <= 1F1(d; d/2; x) e^{-s}`, x = s(1+c)/2, is below rounding.

        By the first term of the expansion for large x, `1F1 ~ Γ(d/2)/Γ(d) e^x x^{d/2}`, with room for the others.
        """
        half = self.dim / 2
        x = np.where((s > SMALL) & np.isfinite(s), s, 1.0) * (1 + cosine) / 2
        log_bound = x - s + half * np.log1p(x) + math.lgamma(half) - math.lgamma(self.dim)
        return (s > 100.0 * self.dim) & np.isfinite(s) & (log_bound < -50.0)

    def _excess(self, cosines: tuple[float, ...], num: int) -> np.ndarray:
        """`p_k h_k - 1` for k < num, h averaged over `cosines`."""
        k = np.arange(num, dtype=np.float64)
        log_p = np.concatenate([[0.0], np.cumsum(np.log1p(-k[:-1] / (self.dim + 2 * k[:-1])))])
        if cosines == (0.0,):
            return np.expm1(log_p)
        sine, weight = angle_quadrature(self.dim)
        log_terms = np.stack([np.log1p(c * sine) for c in cosines]).ravel()
        weights = np.tile(weight, len(cosines)) / len(cosines)
        exponents = k[:, None] * log_terms
        top = np.maximum(np.max(exponents, axis=1), 0.0)
        # Small exponents keep their digits through expm1; large ones are shifted by their maximum.
        with np.errstate(divide="ignore"):  # h_k may vanish to rounding
            gentle = np.log1p(np.expm1(np.minimum(exponents, 100.0)) @ weights)
        steep = top + np.log(np.exp(exponents - top[:, None]) @ weights)
        return np.expm1(log_p + np.where(top < 1.0, gentle, steep))

    def _oscillating(self, cosines: tuple[float, ...], t: np.ndarray) -> np.ndarray:
        """`e^t E[1F1(d; d/2; -t a/2)] - 1`, a = 1 + c sin 2φ, by Kummer's transformation."""
        if cosines == (0.0,):
            return np.exp(t / 2) * kummer_minus_half(self.dim, t / 2) - 1
        sine, weight = angle_quadrature(self.dim)
        total = np.zeros_like(t)
        for cosine in cosines:
            for a, w in zip(1 + cosine * sine, weight, strict=True):
                total += w * np.exp(t * (1 - a / 2)) * kummer_minus_half(self.dim, t * a / 2)
        return total / len(cosines) - 1


@dataclass(frozen=True)
class SpherePair(PairLaw):
    """Rows of length √d whose directions meet at a fixed cosine, Haar rotated.

    With `Φ(s²) = E[exp(s u·e)] = 0F1(; d/2; s²/4)` for a uniform unit vector u: `row_mean(s) = Φ(ds) e^{-s/2}` and
    `covariance(s) = [Φ(2d(1 + c)s) - Φ(ds)²] e^{-s}`. A row with itself has c = 1.
    """

    dim: int
    cosine: float

    exact_marginals = False

    def second_moment(self, dim: int) -> float:
        return 1.0

    def covariance(self, s: Any) -> np.ndarray:
        """`[Φ(2d(1 + c)s) - Φ(ds)²] / e^s`."""
        return self._evaluate(np.asarray(s, dtype=np.float64), (self.cosine,))

    def even_covariance(self, s: Any) -> np.ndarray:
        """The mean of `covariance` over both signs of w2."""
        return self._evaluate(np.asarray(s, dtype=np.float64), (self.cosine, -self.cosine))

    def tilted_covariance(self, v: np.ndarray, a: np.ndarray, *, even: bool = False) -> np.ndarray:
        """`(1-4a)^d e^{4ad}` times the covariance of plain exponentials of `(1-4a)^{1/2} v`, for an isotropic tilt."""
        if not is_isotropic(a):
            return super().tilted_covariance(v, a, even=even)
        s, tilt, factor = self._isotropic(v, a)
        return factor**2 * (self.even_covariance(tilt * s) if even else self.covariance(tilt * s))

    def tilted_row_mean(self, v: np.ndarray, a: np.ndarray) -> np.ndarray:
        """`(1-4a)^{d/2} e^{2ad}` times the mean of plain exponentials of `(1-4a)^{1/2} v`, for an isotropic tilt."""
        if not is_isotropic(a):
            raise NoClosedForm(
                "the mean under an anisotropic tilt is not known for constant norms; use chi norms, or "
                "randfeat.montecarlo."
            )
        s, tilt, factor = self._isotropic(v, a)
        return factor * self.row_mean(tilt * s)

    def _isotropic(self, v: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`s = |v|²`, `1-4a`, and the factor `(1-4a)^{d/2} e^{2a(d-s)}` of a relative mean, for an isotropic tilt."""
        s, first = np.sum(v**2 + 0 * a, axis=-1), np.asarray(a)[..., 0]
        return s, 1 - 4 * first, np.exp(self.dim / 2 * (np.log1p(-4 * first) + 4 * first) - 2 * first * s)

    def sqnorm_covariance(self, dim: int) -> float:
        return 0.0

    def negated(self) -> PairLaw:
        return SpherePair(self.dim, -self.cosine)

    def row_mean(self, s: Any) -> np.ndarray:
        """`Φ(ds) / e^{s/2}`."""
        return self._moment(np.asarray(s, dtype=np.float64), ratio=1.0, power=0.5)

    def _moment(self, s: np.ndarray, *, ratio: float, power: float) -> np.ndarray:
        """`0F1(; d/2; ratio · ds/4) e^{-power · s}`."""
        b, z = self.dim / 2, ratio * self.dim * s / 4
        positive = np.exp(log_hyp0f1(b, np.maximum(z, 0.0)) - power * np.maximum(s, 0.0))
        return np.where(s >= 0, positive, hyp0f1(b, np.minimum(z, 0.0)) * np.exp(-power * np.minimum(s, 0.0)))

    def _evaluate(self, s: np.ndarray, cosines: tuple[float, ...]) -> np.ndarray:
        total = np.mean([self._moment(s, ratio=2 * (1 + c), power=1.0) for c in cosines], axis=0)
        large = total - self._moment(s, ratio=1.0, power=0.5) ** 2
        # For small s the two are alike; subtract their power series in z = ds/4 term by term instead:
        # 0F1(;b;z)² = Σ_k z^k/(k! (b)_k) · 4^k (b - 1/2)_k/(2b - 1)_k.
        small = np.clip(s, -SMALL, SMALL)
        b, k = self.dim / 2, np.arange(1.0, 64.0)
        j = k[1:] - 1  # the factor of j = 0 is 2 for every b
        square = np.cumprod(np.concatenate([[2.0], 4 * (b - 0.5 + j) / (2 * b - 1 + j)]))
        product = np.mean([(2 * (1 + c)) ** k for c in cosines], axis=0)
        powers = np.cumprod(self.dim * small[..., None] / 4 / (k * (b + k - 1)), axis=-1)
        series = (powers @ (product - square)) * np.exp(-small)
        return np.where(np.abs(s) <= SMALL, series, large)


def is_isotropic(a: np.ndarray) -> bool:
    """Whether a tilt (..., d) is the same along all axes."""
    return bool(np.all(a == a[..., :1]))


def poisson_mean(values: np.ndarray, s: np.ndarray) -> np.ndarray:
    """`e^{-s} Σ_k s^k/k! · values[k]` for each s, of either sign."""
    from scipy.special import gammaln, xlogy

    k = np.arange(values.size, dtype=np.float64)
    size = np.abs(s)[:, None]
    weights = np.exp(xlogy(k, size) - gammaln(k + 1) - s[:, None])
    signs = np.where((s[:, None] < 0) & (k % 2 == 1), -1.0, 1.0)
    return (signs * weights) @ values


def angle_quadrature(dim: int, order: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Nodes sin ψ and weights for the mean over ψ in [0, π] with density proportional to sin^{dim-1} ψ.

    This is the law of ψ = 2φ, tan φ the ratio of two independent χ_dim variables.
    """
    nodes, weights = np.polynomial.legendre.leggauss(order)
    half_width = min(np.pi / 2, 9 / np.sqrt(dim))  # beyond, the density is below 1e-17 of its peak
    sine = np.cos(half_width * nodes)
    weights = weights * sine ** (dim - 1)
    return sine, weights / weights.sum()
