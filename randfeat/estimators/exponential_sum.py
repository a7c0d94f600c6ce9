"""Estimates of one row that are real parts of sums of complex Gaussian exponentials, and their covariances."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from randfeat.couplings.hypergeometric import orthogonal_covariance
from randfeat.couplings.laws import GaussianPair, NoClosedForm, PairLaw, RadialPair

LARGEST_SQUARE = 200.0  # beyond, a quadrature over two angles takes many seconds
ROUNDING = 2.0**-40  # of slopes that are real or imaginary but for rounding


@dataclass(frozen=True, eq=False)
class ExponentialSum:
    """`S(w)/K = Re Σ_c exp(c_c + Σ_l α_l w_l² + ζ_c·w)`, w the row as the coupling draws it, N(0, I).

    log_coefficients : c (..., C). tilts : α (..., 1) or (..., d), the same for all terms, Re α < 1/4. slopes : ζ
        (..., C, d). All may be complex.

    This is what two estimators need to show of themselves for their covariance at common rows, whatever they are.
    """

    log_coefficients: np.ndarray
    tilts: np.ndarray
    slopes: np.ndarray

    @classmethod
    def of(cls, log_coefficient: Any, slopes: Sequence[np.ndarray], tilt: Any = 0.0) -> Self:
        """Terms of one common coefficient, split evenly among slopes (..., d); tilt a number, (..., 1) or (..., d)."""
        stacked = np.stack(slopes, axis=-2)
        coefficient = np.asarray(log_coefficient)[..., None] - np.log(len(slopes))
        return cls(np.broadcast_to(coefficient, stacked.shape[:-1]), np.atleast_1d(tilt), stacked)

    def log_means(self) -> np.ndarray:
        """`log E exp(...)` of each term under N(0, I): `c + Σ_l [ζ_l²/(2(1-2α_l)) - ½ log(1-2α_l)]`, (..., C)."""
        kept = 1 - 2 * self.tilts[..., None, :]
        return self.log_coefficients + np.sum(self.slopes**2 / kept - np.log(kept + 0 * self.slopes), axis=-1) / 2

    def conjugate(self) -> "ExponentialSum":
        """The complex conjugate of every term."""
        return ExponentialSum(np.conj(self.log_coefficients), np.conj(self.tilts), np.conj(self.slopes))

    def covariance(self, other: "ExponentialSum", law: PairLaw) -> np.ndarray:
        """`Cov(S(w1), S'(w2)) / K²`, this sum at the first row and the other one at the second.

        `Re A Re B = ½ Re (AB + AB*)`, and E AB is a Gaussian integral for jointly Gaussian rows, one row with itself
        included. For orthogonal rows with χ norms a two-dimensional quadrature.
        """
        if isinstance(law, RadialPair) and law.cosine == 0:
            return self._orthogonal_covariance(other, law)
        if not isinstance(law, GaussianPair):
            raise unknown(f"under {type(law).__name__}")
        plain, conjugate = (gaussian_covariance(self, side, law.correlation) for side in (other, other.conjugate()))
        return np.real(plain + conjugate) / 2

    def _orthogonal_covariance(self, other: "ExponentialSum", law: RadialPair) -> np.ndarray:
        """For orthogonal rows with χ norms, where an isotropic tilt is absorbed by a rescaling of the norm."""
        first, second = self._without_tilt()[..., :, None, :], other._without_tilt()[..., None, :, :]
        square = np.sum(first**2, axis=-1), np.sum(second**2, axis=-1)
        if any(np.any(np.abs(side[np.isfinite(side)]) > LARGEST_SQUARE) for side in square):
            raise unknown(f"under orthogonal rows for |x ± y|² above {LARGEST_SQUARE:g}")
        ratio = orthogonal_covariance(law.dim, *map(np.real, (*square, np.sum(first * second, axis=-1) ** 2)))
        means = [np.real(np.exp(side.log_means())) for side in (self, other)]
        return np.sum(means[0][..., :, None] * means[1][..., None, :] * ratio, axis=(-2, -1))

    def _without_tilt(self) -> np.ndarray:
        """`ζ/√(1-2α)`: real or imaginary slopes of plain exponentials with the same moments."""
        if not np.all(self.tilts == self.tilts[..., :1]):
            raise unknown("for orthogonal rows and tilts that differ from axis to axis")
        slopes = self.slopes / np.sqrt(1 - 2 * self.tilts[..., None, :])
        parts = np.max(np.abs(np.real(slopes)), axis=-1), np.max(np.abs(np.imag(slopes)), axis=-1)
        if np.any(np.minimum(*parts) > ROUNDING * np.maximum(*parts)):
            raise unknown("for orthogonal rows and slopes that are neither real nor imaginary")
        return slopes


def unknown(where: str) -> NoClosedForm:
    """The error for a covariance that is not known there."""
    return NoClosedForm(
        f"the covariance of different estimators at different rows is not known {where}; use independent or orthogonal "
        "rows, bases with rows of their own (shared_rows=False), or randfeat.montecarlo."
    )


def gaussian_covariance(a: ExponentialSum, b: ExponentialSum, correlation: float) -> np.ndarray:
    """`Cov(Σ A, Σ B)` without conjugation, rows of correlation ρ.

    With q = 2α and p = 1 - q, and coordinate by coordinate `det = p p' - ρ² q q'`,

        E AB / (E A E B) = Π_l (1 - ρ² q q'/p p')^{-1/2} exp[(ρ² (q'/p) ζ² + 2ρ ζζ' + ρ² (q/p') ζ'²) / 2 det].

    |q/p| < 1 for Re q < 1/2, so the root is the principal one; and expm1 keeps small covariances exact.
    """
    rho = correlation
    q, r = 2 * a.tilts[..., None, None, :], 2 * b.tilts[..., None, None, :]
    z, v = a.slopes[..., :, None, :], b.slopes[..., None, :, :]
    p, s = 1 - q, 1 - r
    exponent = (rho**2 * r / p * z**2 + 2 * rho * z * v + rho**2 * q / s * v**2) / (p * s - rho**2 * q * r)
    log_ratio = np.sum(exponent - np.log1p(-(rho**2) * q * r / (p * s)), axis=-1) / 2
    log_product = a.log_means()[..., :, None] + b.log_means()[..., None, :]
    return np.sum(np.exp(log_product) * np.expm1(log_ratio), axis=(-2, -1))
