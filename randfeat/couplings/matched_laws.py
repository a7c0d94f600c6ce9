"""Joint laws of moment-matched rows: Gaussian rows with variance σ², and rows of a uniform tight frame."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat.couplings.laws import PairLaw, SpherePair


@dataclass(frozen=True)
class ScaledGaussianPair(PairLaw):
    """Jointly Gaussian rows, N(0, σ² I) each, with `E[w1 w2ᵀ] = correlation · σ² I`.

    `covariance(s) = e^{(σ²-1)s} (e^{ρσ²s} - 1)` and `row_mean(s) = e^{(σ²-1)s/2}`. A row with itself has ρ = 1.
    """

    variance: float
    correlation: float

    @property
    def exact_marginals(self) -> bool:
        return self.variance == 1.0

    def covariance(self, s: Any) -> np.ndarray:
        """`e^{(σ²-1)s} (e^{ρσ²s} - 1)`."""
        s = np.asarray(s, dtype=np.float64)
        return np.exp((self.variance - 1) * s) * np.expm1(self.correlation * self.variance * s)

    def even_covariance(self, s: Any) -> np.ndarray:
        """`e^{(σ²-1)s} (cosh(ρσ²s) - 1)`."""
        s = np.asarray(s, dtype=np.float64)
        return 2 * np.exp((self.variance - 1) * s) * np.sinh(self.correlation * self.variance * s / 2) ** 2

    def row_mean(self, s: Any) -> np.ndarray:
        """`e^{(σ²-1)s/2}`."""
        return np.exp((self.variance - 1) / 2 * np.asarray(s, dtype=np.float64))

    def second_moment(self, dim: int) -> float:
        """`σ²`."""
        return self.variance

    def sqnorm_covariance(self, dim: int) -> float:
        """`Cov(|w1|², |w2|²) = 2dρ²σ⁴`."""
        return 2 * dim * (self.correlation * self.variance) ** 2

    def tilted_covariance(self, v: np.ndarray, a: np.ndarray, *, even: bool = False) -> np.ndarray:
        """`E[T(w1) T(w2)] e^{-s} - (E[T(w1)] e^{-s/2})²`, a Gaussian integral for each axis.

        w1 + w2 and w1 - w2 are independent with variances 2λ± = 2σ²(1 ± ρ); the logarithm of the mean of the product is
        `Σ_l log(1-4a_l) - ½ log(1-4a_lλ₊) - ½ log(1-4a_lλ₋) + v_l² ((1-4a_l) λ₊/(1-4a_lλ₊) - 1)`. It is infinite
        unless 4a_l and both 4a_lλ± are below 1.
        """
        both = [self.variance * (1 + sign * self.correlation) for sign in (1, -1)]
        finite = 4 * a * max(1.0, *both) < 1
        if not np.all(finite):
            inside = self.tilted_covariance(v, np.where(finite, a, 0.0), even=even)
            return np.where(np.all(finite, axis=-1), inside, np.inf)
        normalizer = np.log1p(-4 * a) - sum(np.log1p(-4 * a * each) for each in both) / 2
        mean = self._log_tilted_mean(v, a)
        signs = [np.sum(normalizer + v**2 * tilted_excess(each, a), axis=-1) for each in (both if even else both[:1])]
        return np.exp(2 * mean) * np.mean([np.expm1(log - 2 * mean) for log in signs], axis=0)

    def tilted_row_mean(self, v: np.ndarray, a: np.ndarray) -> np.ndarray:
        """`Π_l ((1-4a_l)/(1-4a_lσ²))^{1/2} exp(½ v_l² ((1-4a_l)σ²/(1-4a_lσ²) - 1))`."""
        return np.exp(self._log_tilted_mean(v, a))

    def _log_tilted_mean(self, v: np.ndarray, a: np.ndarray) -> np.ndarray:
        normalizer = np.log1p(-4 * a) - np.log1p(-4 * a * self.variance)
        return np.sum(normalizer + v**2 * tilted_excess(self.variance, a), axis=-1) / 2

    def negated(self) -> PairLaw:
        return ScaledGaussianPair(self.variance, -self.correlation)


def tilted_excess(variance: float, a: np.ndarray) -> np.ndarray:
    """`(1-4a)λ/(1-4aλ) - 1` for λ = `variance`."""
    return (variance - 1) / (1 - 4 * a * variance)


@dataclass(frozen=True)
class WhitenedPair(PairLaw):
    """Two of m rows in R^d whose sample mean is exactly 0 and whose sample second moment is exactly I.

    The m × d matrix of such rows is √m times a uniform orthonormal frame orthogonal to (1, .., 1), so that v·w_1, v·w_2
    are |v| √(m-1) times the components of one uniform unit vector of R^{m-1} along two directions that meet at
    `cosine` = -1/(m-1). Exponentials of v·w therefore have the moments of constant norms in dimension m-1
    (`SpherePair`), whatever d is. The lengths vary: |w_i|² is m-1 times a Beta(d/2, (m-1-d)/2) variable. A row with
    itself has cosine 1.
    """

    num_rows: int
    cosine: float

    exact_marginals = False

    @property
    def _sphere(self) -> SpherePair:
        return SpherePair(self.num_rows - 1, self.cosine)

    def covariance(self, s: Any) -> np.ndarray:
        """Covariance of `SpherePair` for rows of length √(m-1) in dimension m-1."""
        return self._sphere.covariance(s)

    def even_covariance(self, s: Any) -> np.ndarray:
        """The mean of `covariance` over both signs of w2."""
        return self._sphere.even_covariance(s)

    def row_mean(self, s: Any) -> np.ndarray:
        """`0F1(; n/2; ns/4) e^{-s/2}`, n = m-1."""
        return self._sphere.row_mean(s)

    def second_moment(self, dim: int) -> float:
        return 1.0

    def sqnorm_covariance(self, dim: int) -> float:
        """`2d(n-d)/(n+2) · (nc² - 1)/(n-1)`, n = m-1: the squared norms have a constant sum."""
        n = self.num_rows - 1
        return 0.0 if n == dim else 2 * dim * (n - dim) / (n + 2) * (n * self.cosine**2 - 1) / (n - 1)

    def negated(self) -> PairLaw:
        return WhitenedPair(self.num_rows, -self.cosine)
