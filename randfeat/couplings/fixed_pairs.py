"""Mixtures of randomly rotated pairs of fixed rows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat.couplings.hypergeometric import hyp0f1, hyp0f1_minus_one, log_hyp0f1
from randfeat.couplings.laws import SMALL, PairLaw, is_isotropic

CHUNK = 2**20  # numbers held at once


@dataclass(frozen=True, eq=False)
class FixedPairs(PairLaw):
    """A mixture of Haar-rotated pairs of fixed rows, given by `|w1 + w2|²`, `|w1 - w2|²` and the weight of each pair.

    For one pair `E[exp(v·(w1 + w2))] = 0F1(; d/2; s|w1 + w2|²/4)`. The covariance is the weighted mean of these over
    the pairs, minus the squared mean of `row_law`, the law of one row averaged over rows. Summed over all pairs this
    gives the variance, even if rows have different lengths. Without `row_law`, each pair is a row with itself, w2 = w1.
    """

    dim: int
    sum_sqnorm: np.ndarray
    difference_sqnorm: np.ndarray
    weights: np.ndarray
    row_law: PairLaw | None = None

    @property
    def exact_marginals(self) -> bool:
        return self.row_law is not None and self.row_law.exact_marginals

    def covariance(self, s: Any) -> np.ndarray:
        """`E[0F1(; d/2; s|w1 + w2|²/4)] e^{-s}` minus the squared mean of a row."""
        return self._covariance(s, (self.sum_sqnorm,))

    def even_covariance(self, s: Any) -> np.ndarray:
        return self._covariance(s, (self.sum_sqnorm, self.difference_sqnorm))

    def row_mean(self, s: Any) -> np.ndarray:
        if self.row_law is not None:
            return self.row_law.row_mean(s)
        return self._moment(s, self.sum_sqnorm / 4, power=0.5)

    def second_moment(self, dim: int) -> float:
        """`E|w1|² / d`."""
        if self.row_law is not None:
            return self.row_law.second_moment(dim)
        return float(self.weights @ self.sum_sqnorm) / (4 * dim)

    def sqnorm_covariance(self, dim: int) -> float:
        return 0.0

    def tilted_covariance(self, v: np.ndarray, a: np.ndarray, *, even: bool = False) -> np.ndarray:
        """Covariance of plain exponentials of `(1-4a)^{1/2} v`, each pair times `(1-4a)^d e^{2a(|w1|² + |w2|²)}`."""
        if not is_isotropic(a):
            return super().tilted_covariance(v, a, even=even)
        lengths = (self.sum_sqnorm, self.difference_sqnorm) if even else (self.sum_sqnorm,)
        total = [self._tilted(v, a, z, self.sum_sqnorm + self.difference_sqnorm, power=1.0) for z in lengths]
        return np.mean(total, axis=0) - self.tilted_row_mean(v, a) ** 2

    def tilted_row_mean(self, v: np.ndarray, a: np.ndarray) -> np.ndarray:
        if self.row_law is not None:
            return self.row_law.tilted_row_mean(v, a)
        if not is_isotropic(a):
            return super().tilted_row_mean(v, a)
        return self._tilted(v, a, self.sum_sqnorm / 4, self.sum_sqnorm / 2, power=0.5)

    def negated(self) -> PairLaw:
        row_law = self if self.row_law is None else self.row_law
        return FixedPairs(self.dim, self.difference_sqnorm, self.sum_sqnorm, self.weights, row_law)

    def _covariance(self, s: Any, lengths: tuple[np.ndarray, ...]) -> np.ndarray:
        s = np.asarray(s, dtype=np.float64)
        result = np.empty_like(s)
        small = np.abs(s) <= SMALL  # where all moments are close to 1, their differences from 1 are subtracted
        near, far = s[small], s[~small]
        row = self._row_growth(near)
        growth = np.mean([self._growth(near, z) for z in lengths], axis=0)
        result[small] = (growth - row * (2 + row)) * np.exp(-near)
        moment = np.mean([self._moment(far, z, power=1.0) for z in lengths], axis=0)
        result[~small] = moment - self.row_mean(far) ** 2
        return result

    def _row_growth(self, s: np.ndarray) -> np.ndarray:
        """`E[exp(v·w1)] - 1` for |v|² = s."""
        if self.row_law is None:
            return self._growth(s, self.sum_sqnorm / 4)
        if isinstance(self.row_law, FixedPairs):
            return self.row_law._row_growth(s)
        return np.expm1(s / 2 + np.log(self.row_law.row_mean(s)))

    def _growth(self, s: np.ndarray, sqnorm: np.ndarray) -> np.ndarray:
        """`Σ weight · 0F1(; d/2; s sqnorm/4) - 1`, accurate near s = 0."""
        return self._mean(lambda part: hyp0f1_minus_one(self.dim / 2, part * sqnorm / 4), s)

    def _moment(self, s: Any, sqnorm: np.ndarray, *, power: float) -> np.ndarray:
        """`Σ weight · 0F1(; d/2; s sqnorm/4) e^{-power s}`."""
        return self._mean(lambda part: bessel_mean(self.dim, part * sqnorm, -power * part), s)

    def _tilted(
        self, v: np.ndarray, a: np.ndarray, sqnorm: np.ndarray, norms: np.ndarray, *, power: float
    ) -> np.ndarray:
        """Means with the factor `(1-4a)^{power d} e^{a norms}`; `norms` is 2(|w1|² + |w2|²), or 2|w1|² for one row."""
        tilt = np.asarray(a)[..., 0]
        s = np.sum(v**2 + 0 * a, axis=-1)
        log_factor = power * (self.dim * np.log1p(-4 * tilt) - s)

        def tilted(part: np.ndarray) -> np.ndarray:
            slope, exponent, log = part[:, 0], part[:, 1], part[:, 2]
            return bessel_mean(self.dim, slope * sqnorm, exponent * norms + log)

        parts = np.stack(np.broadcast_arrays((1 - 4 * tilt) * s, tilt, log_factor), axis=-1)
        return self._mean(tilted, parts, trailing=1)

    def _mean(self, function: Callable[[np.ndarray], np.ndarray], s: Any, trailing: int = 0) -> np.ndarray:
        """Weighted mean over pairs of `function` at each s (..., ·), in blocks of bounded memory."""
        s = np.asarray(s, dtype=np.float64)
        shape = s.shape[: s.ndim - trailing]
        flat = s.reshape(-1, *s.shape[s.ndim - trailing :])[..., None]
        result = np.empty(len(flat))
        size = max(1, CHUNK // self.weights.size)
        for start in range(0, len(flat), size):
            result[start : start + size] = function(flat[start : start + size]) @ self.weights
        return result.reshape(shape)


def bessel_mean(dim: int, z: np.ndarray, log_factor: np.ndarray) -> np.ndarray:
    """`0F1(; d/2; z/4) e^{log_factor}` for z of either sign."""
    b = dim / 2
    growing = np.exp(log_hyp0f1(b, np.maximum(z, 0.0) / 4) + log_factor)
    return np.where(z >= 0, growing, hyp0f1(b, np.minimum(z, 0.0) / 4) * np.exp(log_factor))
