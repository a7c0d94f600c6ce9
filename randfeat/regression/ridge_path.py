"""RidgePath: a ridge problem in a basis where every penalty is solved at once."""

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._hints import short

STEPS_PER_DECADE = 3  # of the coarse grid of penalties; GCV is a sum of functions that change over decades
SUBDIVISIONS = 10  # of the coarse steps beside the best penalty
HEAVIEST = 1e3  # largest penalty over the largest eigenvalue: it leaves at most 0.1 % of the unpenalized weights
LEAST_SHARE = 0.2  # of the degrees of freedom must be left for residuals; with less, GCV is not trusted


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

    Where features can fit nearly all rows, both factors of GCV tend to 0 with α, and a few rows that are nearly equal
    decide about their ratio (Wahba & Wang 1995, "Behavior near Zero of the Distribution of GCV Smoothing Parameter
    Estimates"). The likelihood of a Gaussian prior for the weights has no such limit. Up to constants, it is

        ML(α) = d log Σ (|y|² - Cᵀ(G + αI)^{-1} C) + Σ log(1 + s/α),

    -2 times the logarithm per target, at the best variance of the noise, which all targets share. Where features fit
    all rows, d is r: rows that repeat others, with the same targets, tell nothing about the noise of the others.
    Source: Wahba 1985, "A Comparison of GCV and GML for Choosing the Smoothing Parameter".
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

    @abc.abstractmethod
    def penalized_squares(self, alpha: Any) -> np.ndarray:
        """Squared residuals and α |W|² together, `|y|² - Cᵀ(G + αI)^{-1} C` of each target: (...) -> (..., k)."""

    @property
    def informative_degrees(self) -> float:
        """`degrees`, without those of rows that repeat others with the same targets, if the features fit all rows."""
        return self.degrees

    def residual_degrees(self, alpha: Any) -> np.ndarray:
        """Degrees of freedom of the residuals, `(d - r) + Σ α/(s+α)`, for penalties of any shape."""
        alpha = np.asarray(alpha, dtype=np.float64)[..., None]
        return self.degrees - len(self.values) + np.sum(alpha / (self.values + alpha), axis=-1)

    def gcv(self, alpha: Any) -> np.ndarray:
        """Generalized cross-validation score, summed over targets: penalties (...) -> (...); NaN if no degrees left."""
        degrees = self.residual_degrees(alpha)
        left = np.where(degrees > 0, degrees, math.nan)
        return self.count * np.sum(self.residual_squares(alpha), axis=-1) / left**2

    def likelihood(self, alpha: Any) -> np.ndarray:
        """The score ML: penalties (...) -> (...)."""
        spread = np.log1p(self.values / np.asarray(alpha, dtype=np.float64)[..., None])
        with np.errstate(divide="ignore"):
            squares = np.log(np.sum(self.penalized_squares(alpha), axis=-1))
        return self.informative_degrees * squares + np.sum(spread, axis=-1)

    def penalties(self) -> np.ndarray:
        """Grid of all penalties that make a difference, from heavy to light, 3 for each decade."""
        if not len(self.values) or self.values[-1] <= self.rounding:
            return np.ones(1)
        heaviest, lightest = HEAVIEST * float(self.values[-1]), self.rounding
        steps = math.ceil(STEPS_PER_DECADE * math.log10(heaviest / lightest))
        return np.geomspace(heaviest, lightest, steps + 1)

    def best(self, alphas: Any = None) -> float:
        """Penalty with the least GCV score: the heaviest such one of `alphas`, or of all, to 1/30 of a decade."""
        return self._search(self.gcv, alphas)

    def guarded(self, best: float) -> float:
        """`best`; or the penalty with the least ML, if `best` leaves less than a fifth of the degrees for residuals.

        Degrees of rows that repeat others do not count, where the features fit all rows: they have no residuals.
        """
        informative = min(self.degrees, self.informative_degrees)
        if self.residual_degrees(best) - (self.degrees - informative) < LEAST_SHARE * informative:
            return self._search(self.likelihood)
        return best

    def _search(self, score: Callable[[Any], np.ndarray], alphas: Any = None) -> float:
        if alphas is not None:
            alphas = -np.sort(-np.asarray(alphas, dtype=np.float64))
            return float(alphas[least(score(alphas))])
        coarse = self.penalties()
        first = least(score(coarse))
        around = coarse[max(first - 1, 0) : first + 2]
        fine = np.geomspace(around[0], around[-1], SUBDIVISIONS * (len(around) - 1) + 1)
        return float(fine[least(score(fine))])


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

    def penalized_squares(self, alpha: Any) -> np.ndarray:
        """`|y|² - uᵀc` of each target: penalties (...) -> (..., k)."""
        alpha = np.asarray(alpha, dtype=np.float64)
        explained = np.empty((*alpha.shape, len(self.target_squares)))
        for index in np.ndindex(alpha.shape):
            explained[index] = np.sum(self._solution(alpha[index]) * self.coordinates, axis=0)
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
        return self.unexplained + (alpha / (self.values + alpha)) ** 2 @ self.explained

    def penalized_squares(self, alpha: Any) -> np.ndarray:
        """`(|y|² - Σ c²/s) + Σ (c²/s) α/(s+α)` of each target: penalties (...) -> (..., k)."""
        alpha = np.asarray(alpha, dtype=np.float64)[..., None]
        return self.unexplained + (alpha / (self.values + alpha)) @ self.explained

    @property
    def explained(self) -> np.ndarray:
        """`c²/s` (r, k)."""
        return self.coordinates**2 / self.values[:, None]

    @property
    def unexplained(self) -> np.ndarray:
        """`|y|² - Σ c²/s` (k,), the squares that least squares leave; 0 where that is a rounding error."""
        if len(self.values) >= self.most_rank:  # features that can fit all rows leave no residual
            return np.zeros(len(self.target_squares))
        left = self.target_squares - np.sum(self.explained, axis=0)
        rounding = len(self.values) * np.finfo(np.float64).eps * self.target_squares
        return np.where(left > rounding, left, 0.0)

    @property
    def informative_degrees(self) -> float:
        """Features fit all rows if what is left is no more than an error of G by eps of its norm, `eps max(s) |W|²`."""
        squares = np.sum((self.coordinates / self.values[:, None]) ** 2, axis=0)
        rounding = np.finfo(np.float64).eps * np.max(self.values, initial=0.0) * squares
        return self.degrees if np.any(self.unexplained > rounding) else float(len(self.values))


def rotated(x: np.ndarray, reflections: np.ndarray, scales: np.ndarray, *, transpose: bool) -> np.ndarray:
    """`Q x` or `Qᵀ x` for the Q of a tridiagonal form, which does not change the first coordinate."""
    from scipy.linalg import lapack

    side, order, rest = "L", "T" if transpose else "N", np.asfortranarray(x[1:])
    workspace = int(lapack.dormqr(side, order, reflections, scales, rest, lwork=-1)[1][0])
    return np.concatenate([x[:1], lapack.dormqr(side, order, reflections, scales, rest, lwork=workspace)[0]])


def least(scores: np.ndarray) -> int:
    """Index of the first of the smallest scores; NaN is no score."""
    return int(np.argmin(np.where(np.isnan(scores), math.inf, scores)))


def check_alpha(alpha: float) -> float:
    """`alpha` as a float; ValueError unless it is finite and not negative."""
    if not 0 <= alpha < math.inf:
        raise ValueError(f"alpha must be a finite number, 0 or more, got {short(alpha)}.")
    return float(alpha)
