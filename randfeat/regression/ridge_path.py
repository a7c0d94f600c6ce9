"""RidgePath: a ridge problem in a basis where every penalty is solved at once."""

import abc
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._hints import short

STEPS_PER_DECADE = 3  # of the coarse grid of penalties; GCV is a sum of functions that change over decades
SUBDIVISIONS = 10  # of the coarse steps beside the best penalty
HEAVIEST = 1e3  # largest penalty over the largest eigenvalue: it leaves at most 0.1 % of the unpenalized weights


@dataclass(frozen=True, eq=False)
class RidgePath(abc.ABC):
    """A `RidgeProblem` in an orthonormal basis where every penalty α is solved in O(m k).

        values (r,)    eigenvalues s_i of G, ascending,
        coordinates (r, k)    C in that basis,
        target_squares, count, degrees, most_rank, rounding    as in `RidgeProblem`.

    The hat matrix has the trace `Σ s/(s+α)`, and 1 more for an intercept. Let d be `degrees`: n, or n - 1 with an
    intercept. Then the residuals have `d - Σ s/(s+α) = (d - r) + Σ α/(s+α)` degrees of freedom; in the second form
    nothing cancels. Like the sum of squares they need no row of the data, so neither does generalized cross-validation

        GCV(α) = n (residual sum of squares) / (residual degrees of freedom)²,

    the mean squared error of leaving one row out, with all leverages `h_jj` replaced by their mean.
    Source: Golub, Heath & Wahba 1979, "Generalized Cross-Validation as a Method for Choosing a Good Ridge Parameter".
    """

    values: np.ndarray
    coordinates: np.ndarray
    target_squares: np.ndarray
    count: float
    degrees: float
    most_rank: int
    rounding: float

    @abc.abstractmethod
    def weights(self, alpha: float) -> np.ndarray:
        """`(G + αI)^{-1} C` (m, k)."""

    @abc.abstractmethod
    def residual_squares(self, alpha: Any) -> np.ndarray:
        """The sum of squared residuals of each target: penalties (...) -> (..., k)."""

    def residual_degrees(self, alpha: Any) -> np.ndarray:
        """Degrees of freedom of the residuals, `(d - r) + Σ α/(s+α)`, for penalties of any shape."""
        alpha = np.asarray(alpha, dtype=np.float64)[..., None]
        return self.degrees - len(self.values) + np.sum(alpha / (self.values + alpha), axis=-1)

    def gcv(self, alpha: Any) -> np.ndarray:
        """Generalized cross-validation score, summed over targets: penalties (...) -> (...); NaN if no degrees left."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.count * np.sum(self.residual_squares(alpha), axis=-1) / self.residual_degrees(alpha) ** 2

    def penalties(self) -> np.ndarray:
        """Grid of all penalties that make a difference, from heavy to light, 3 for each decade."""
        if not len(self.values) or self.values[-1] <= self.rounding:
            return np.ones(1)
        heaviest, lightest = HEAVIEST * float(self.values[-1]), self.rounding
        steps = math.ceil(STEPS_PER_DECADE * math.log10(heaviest / lightest))
        return np.geomspace(heaviest, lightest, steps + 1)

    def best(self, alphas: Any = None) -> float:
        """Penalty with the least GCV score: the heaviest such one of `alphas`, or of all, to 1/30 of a decade."""
        if alphas is not None:
            alphas = -np.sort(-np.asarray(alphas, dtype=np.float64))
            return float(alphas[self._least(alphas)])
        coarse = self.penalties()
        first = self._least(coarse)
        around = coarse[max(first - 1, 0) : first + 2]
        fine = np.geomspace(around[0], around[-1], SUBDIVISIONS * (len(around) - 1) + 1)
        return float(fine[self._least(fine)])

    def _least(self, alphas: np.ndarray) -> int:
        scores = self.gcv(alphas)
        return int(np.argmin(np.where(np.isnan(scores), math.inf, scores)))


@dataclass(frozen=True, eq=False)
class RidgeTridiagonal(RidgePath):
    """The path from `G = Q T Qᵀ`, T tridiagonal and Q a product of reflections: a fourth of the work of eigenvectors.

        diagonal (m,), off_diagonal (m - 1,)    of T, whose eigenvalues are `values`, r = m,
        reflections (m - 1, m - 1), scales (m - 1,)    Householder reflections as LAPACK stores them,
        coordinates    c = Qᵀ C.

    With `u = (T + αI)^{-1} c` the weights are `Q u`, and the sum of squared residuals is `|y|² - uᵀ(c + αu)`, up to
    rounding of |y|². For α >= `rounding`; below it NaN if T + αI is not positive definite.
    Source: Eldén 1984, "A Note on the Computation of the Generalized Cross-Validation Function for Ill-Conditioned
    Least Squares Problems", who makes the data bidiagonal.
    """

    diagonal: np.ndarray
    off_diagonal: np.ndarray
    reflections: np.ndarray
    scales: np.ndarray

    def weights(self, alpha: float) -> np.ndarray:
        """`Q (T + αI)^{-1} c` (m, k)."""
        return rotated(self._solution(check_alpha(alpha)), self.reflections, self.scales, transpose=False)

    def residual_squares(self, alpha: Any) -> np.ndarray:
        """`|y|² - uᵀ(c + αu)` of each target: penalties (...) -> (..., k)."""
        alpha = np.asarray(alpha, dtype=np.float64)
        explained = np.empty((*alpha.shape, len(self.target_squares)))
        for index in np.ndindex(alpha.shape):
            solution = self._solution(alpha[index])
            explained[index] = np.sum(solution * (self.coordinates + alpha[index] * solution), axis=0)
        return np.maximum(self.target_squares - explained, 0.0)

    def _solution(self, alpha: float) -> np.ndarray:
        from scipy.linalg import lapack

        *_, solution, failed = lapack.dptsv(self.diagonal + alpha, self.off_diagonal, self.coordinates)
        return np.full_like(solution, math.nan) if failed else solution


@dataclass(frozen=True, eq=False)
class RidgeSpectrum(RidgePath):
    """The path from `G = V diag(s) Vᵀ`, without eigenvalues that are zero up to rounding: r <= min(m, most_rank).

        vectors (m, r)    V; coordinates    c = Vᵀ C.

    Weights are `V β`, β = c/(s+α), and the sum of squared residuals is

        |y|² - 2 cᵀβ + βᵀ S β = |y|² - Σ c² (s+2α)/(s+α)² = (|y|² - Σ c²/s) + Σ (c²/s) (α/(s+α))²,

    where all terms of the last form are non-negative; only `|y|² - Σ c²/s`, the part of least squares (α = 0), cancels.
    """

    vectors: np.ndarray

    def weights(self, alpha: float) -> np.ndarray:
        """`V c/(s+α)` (m, k)."""
        return self.vectors @ (self.coordinates / (self.values + check_alpha(alpha))[:, None])

    def residual_squares(self, alpha: Any) -> np.ndarray:
        """`(|y|² - Σ c²/s) + Σ (c²/s) (α/(s+α))²` of each target: penalties (...) -> (..., k)."""
        alpha = np.asarray(alpha, dtype=np.float64)[..., None]
        explained = self.coordinates**2 / self.values[:, None]
        unexplained: Any = self.target_squares - np.sum(explained, axis=0)
        rounding = len(self.values) * np.finfo(np.float64).eps * self.target_squares
        if len(self.values) >= self.most_rank:  # features that can fit all rows leave no residual
            unexplained = 0.0
        unexplained = np.where(unexplained > rounding, unexplained, 0.0)
        return unexplained + (alpha / (self.values + alpha)) ** 2 @ explained


def rotated(x: np.ndarray, reflections: np.ndarray, scales: np.ndarray, *, transpose: bool) -> np.ndarray:
    """`Q x` or `Qᵀ x` for the Q of a tridiagonal form, which does not change the first coordinate."""
    from scipy.linalg import lapack

    side, order, rest = "L", "T" if transpose else "N", np.asfortranarray(x[1:])
    workspace = int(lapack.dormqr(side, order, reflections, scales, rest, lwork=-1)[1][0])
    return np.concatenate([x[:1], lapack.dormqr(side, order, reflections, scales, rest, lwork=workspace)[0]])


def check_alpha(alpha: float) -> float:
    """`alpha` as a float; ValueError unless it is finite and not negative."""
    if not 0 <= alpha < math.inf:
        raise ValueError(f"alpha must be a finite number, 0 or more, got {short(alpha)}.")
    return float(alpha)
