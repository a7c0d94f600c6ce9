"""Ridge regression on features from their moments, for one penalty or for all penalties at once."""

import abc
import functools
import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from randfeat._array import as_host, dtype_name
from randfeat._hints import warn_caller
from randfeat._numpy.threads import SingleThreadedBlas
from randfeat.regression.feature_moments import FeatureMoments

STEPS_PER_DECADE = 3  # of the coarse grid of penalties; GCV is a sum of functions that change over decades
SUBDIVISIONS = 10  # of the coarse steps beside the best penalty
HEAVIEST = 1e3  # largest penalty over the largest eigenvalue: it leaves at most 0.1 % of the unpenalized weights


@dataclass(frozen=True, eq=False)
class RidgeProblem:
    """Minimize `Σ_j |y_j - b - Wᵀ φ(x_j)|² + α |W|²` over the intercept b (k,) and the weights W (m, k).

    For n rows of m features and k targets, in float64 on the host. With an intercept, means are subtracted:

        gram (m, m)    G = Φᵀ Φ - n φ̄ φ̄ᵀ,   cross (m, k)    C = Φᵀ Y - n φ̄ ȳᵀ,   target_squares (k,)    diag YᵀY - n ȳ²,
        count, degrees    n, and n - 1 with an intercept or n without; feature_mean (m,), target_mean (k,)    φ̄ and ȳ,
            or zeros without an intercept; with sample weights, n is their sum,
        most_rank    rank that G can have: rows of positive weight, one less with an intercept,
        rounding    eigenvalues of G below this are rounding errors: m eps times the trace of Φᵀ Φ, in its dtype.

    Then `W = (G + αI)^{-1} C` and `b = ȳ - Wᵀ φ̄`.
    The moments have targets about an origin near their mean, so C and the squares lose no digits to a large ȳ.
    Limits: subtracting n φ̄ φ̄ᵀ loses digits if means of features are large.
    """

    gram: np.ndarray
    cross: np.ndarray
    target_squares: np.ndarray
    count: float
    degrees: float
    most_rank: int
    feature_mean: np.ndarray
    target_mean: np.ndarray
    rounding: float

    @classmethod
    def of(cls, moments: FeatureMoments, *, intercept: bool = True) -> Self:
        """Make the ridge problem from the moments of a single map (no batch) and at least one row of data."""
        if moments.features.batch_shape:
            raise ValueError(f"expected moments of a single map, got batch_shape {moments.features.batch_shape}.")
        if not moments.count:
            raise ValueError("expected the moments of at least one row, got none; append the data first.")
        if moments.count < 1:
            raise ValueError(
                f"the weights of the rows sum to {moments.count:g}, but they are numbers of equal rows, at least 1 "
                "together: multiply them, so that their mean is 1 for example."
            )
        gram, count = as_host(moments.gram, "moments"), moments.count
        eps = np.finfo(dtype_name(moments.gram.dtype)).eps  # of the sums, which may be float32
        rounding = float(len(gram) * eps * np.trace(gram))
        if intercept:
            sums = moments.centered_cross, moments.centered_gram, moments.centered_sum, moments.feature_sum
            cross, squares, target_sum, feature_sum = (as_host(x, "moments") for x in sums)
            feature_mean, centered_mean = feature_sum / count, target_sum / count
            target_mean = as_host(moments.origin, "moments") + centered_mean
        else:
            cross, squares = (as_host(x, "moments") for x in (moments.cross, moments.target_gram))
            feature_mean, centered_mean = np.zeros(gram.shape[0]), np.zeros(cross.shape[1])
            target_mean = centered_mean
        return cls(
            gram=gram - count * np.outer(feature_mean, feature_mean),
            cross=cross - count * np.outer(feature_mean, centered_mean),
            target_squares=np.maximum(np.diagonal(squares) - count * centered_mean**2, 0.0),
            count=moments.count,
            degrees=moments.count - bool(intercept),
            most_rank=moments.num_rows - bool(intercept),
            feature_mean=feature_mean,
            target_mean=target_mean,
            rounding=rounding,
        )

    def weights(self, alpha: float) -> np.ndarray:
        """`(G + αI)^{-1} C` (m, k), by Cholesky's factorization.

        If the factorization fails or would lose all digits, a LinAlgWarning is given and eigenvectors are used instead;
        weights along eigenvectors with rounding-size eigenvalues are then zero.
        """
        from scipy.linalg import cho_solve

        factor = self._cholesky(alpha)
        return self.spectrum.weights(alpha) if factor is None else cho_solve((factor, True), self.cross)

    def inverse_root(self, alpha: float) -> np.ndarray:
        """R (m, r) with `R Rᵀ = (G + αI)^{-1}`, or its pseudo-inverse for α = 0; the variance of `φᵀW` is σ²|Rᵀφ|²."""
        from scipy.linalg import solve_triangular

        factor = self._cholesky(alpha)
        if factor is not None:
            return solve_triangular(factor, np.eye(len(factor)), lower=True, trans="T")
        if alpha == 0:
            return self.spectrum.vectors / np.sqrt(self.spectrum.values)
        values, vectors = np.linalg.eigh(self.gram)
        return vectors / np.sqrt(np.where(values > self.rounding, values, 0.0) + alpha)

    def noise_variance(self, alpha: float, weights: np.ndarray, root: np.ndarray) -> np.ndarray:
        """Sum of squared residuals over their degrees of freedom, (k,), from `weights` and `inverse_root` at α.

        `(|y|² - Wᵀ C - α |W|²) / (d - tr G (G + αI)^{-1})`, with some cancellation, which `RidgeSpectrum` avoids; NaN
        if no degrees of freedom are left. Source: Wahba 1983, "Bayesian 'Confidence Intervals' for the Cross-Validated
        Smoothing Spline".
        """
        squares = self.target_squares - np.sum(weights * (self.cross + alpha * weights), axis=0)
        residual_degrees = self.degrees - (root.shape[1] - alpha * float(np.sum(root * root)))
        if residual_degrees <= 0:
            return np.full(squares.shape, math.nan)
        return np.maximum(squares, 0.0) / residual_degrees

    def intercept(self, weights: np.ndarray) -> np.ndarray:
        """The intercept `b = ȳ - Wᵀ φ̄` (k,)."""
        return self.target_mean - weights.T @ self.feature_mean

    def path(self, alphas: Any = None) -> "RidgePath":
        """The problem for all penalties at once (all of at least `rounding`, or the given ones).

        The tridiagonal form is faster. The eigenvectors of G are used where exact zeros matter: if the features can fit
        all rows, or a penalty is below `rounding`.
        """
        if 1 < len(self.gram) < self.most_rank and (alphas is None or np.min(alphas) >= self.rounding):
            return self.tridiagonal
        return self.spectrum

    def best_path(self, alphas: Any = None) -> tuple[float, "RidgePath"]:
        """The penalty with the least GCV score, and the path that solves for it.

        Where features fit all rows, the residuals of the tridiagonal form are rounding errors; then the eigenvectors
        are used, whose residuals are exact zeros.
        """
        path = self.path(alphas)
        best = path.best(alphas)
        if isinstance(path, RidgeTridiagonal):
            noise = len(self.gram) * np.finfo(np.float64).eps * self.target_squares
            if np.any(path.residual_squares(best) < noise):
                path = self.spectrum
                best = path.best(alphas)
        return best, path

    @functools.cached_property
    def tridiagonal(self) -> "RidgeTridiagonal":
        """The problem in a basis where G is tridiagonal."""
        from scipy.linalg import eigvalsh_tridiagonal, lapack

        size = len(self.gram)
        workspace, _ = lapack.dsytrd_lwork(size, lower=1)
        with SingleThreadedBlas():  # half of the work is m matrix-vector products, where threads wait for one another
            reflections, diagonal, off_diagonal, scales, _ = lapack.dsytrd(self.gram, lower=1, lwork=int(workspace))
        reflections = np.asfortranarray(reflections[1:, :-1])
        values = eigvalsh_tridiagonal(diagonal, off_diagonal, lapack_driver="sterf")
        return RidgeTridiagonal(
            values=np.maximum(values, 0.0),
            coordinates=rotated(self.cross, reflections, scales, transpose=True),
            target_squares=self.target_squares,
            count=self.count,
            degrees=self.degrees,
            most_rank=self.most_rank,
            rounding=self.rounding,
            diagonal=diagonal,
            off_diagonal=off_diagonal,
            reflections=reflections,
            scales=scales,
        )

    @functools.cached_property
    def spectrum(self) -> "RidgeSpectrum":
        """The problem in the basis of eigenvectors of G."""
        values, vectors = np.linalg.eigh(self.gram)
        present = values > self.rounding
        present[: max(len(values) - self.most_rank, 0)] = False  # G has no higher rank, and values ascend
        vectors = vectors[:, present]
        return RidgeSpectrum(
            values=values[present],
            coordinates=vectors.T @ self.cross,
            target_squares=self.target_squares,
            count=self.count,
            degrees=self.degrees,
            most_rank=self.most_rank,
            rounding=self.rounding,
            vectors=vectors,
        )

    def _cholesky(self, alpha: float) -> np.ndarray | None:
        """Lower Cholesky factor of `G + αI`; None, with a warning, if the matrix is singular up to rounding."""
        from scipy.linalg import LinAlgWarning, lapack

        matrix = self.gram + check_alpha(alpha) * np.eye(len(self.gram))
        norm = float(np.max(np.sum(np.abs(matrix), axis=0)))
        factor, failed = lapack.dpotrf(matrix, lower=1, clean=1)
        if not failed:
            reciprocal_condition, failed = lapack.dpocon(factor, norm, uplo="L")
            if not failed and reciprocal_condition > np.finfo(np.float64).eps:
                return factor
        warn_caller(
            f"the Gram matrix of features plus the penalty {alpha:g} is singular up to rounding: its eigenvalues above "
            "rounding are used instead of Cholesky's factorization. A larger penalty makes this unnecessary.",
            LinAlgWarning,
        )
        return None


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
        raise ValueError(f"alpha must be a finite number, 0 or more, got {alpha!r}.")
    return float(alpha)
