"""Ridge regression on features from their moments, for one penalty or for all penalties at once."""

import functools
import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from randfeat._array import as_host, dtype_name
from randfeat._hints import warn_caller
from randfeat._numpy.threads import SingleThreadedBlas
from randfeat.regression.feature_moments import FeatureMoments
from randfeat.regression.ridge_path import RidgePath, RidgeSpectrum, RidgeTridiagonal, check_alpha, rotated

UNPENALIZED = 10  # times `rounding`: a lighter penalty is none; then features may fit all rows, some of them repeated


@dataclass(frozen=True, eq=False)
class RidgeProblem:
    """Minimize `Σ_j |y_j - b - Wᵀ φ(x_j)|² + α |W|²` over the intercept b (k,) and the weights W (m, k).

    For n rows of m features and k targets, in float64 on the host. With an intercept, means are subtracted:

        gram (m, m)    G = Φᵀ Φ - n φ̄ φ̄ᵀ,   cross (m, k)    C = Φᵀ Y - n φ̄ ȳᵀ,
        target_squares (k,)    diag YᵀY - n ȳ²,
        count, degrees    n, and n - 1 with an intercept or n without; with sample weights, n is their sum,
        feature_mean (m,), target_mean (k,)    φ̄ and ȳ, or zeros without an intercept,
        most_rank    rank that G can have: rows of positive weight, one less with an intercept,
        rounding    eigenvalues of G below this are rounding errors: m eps times the trace of Φᵀ Φ.

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
        if residual_degrees <= len(root) * np.finfo(np.float64).eps:  # a difference of numbers up to m
            return np.full(squares.shape, math.nan)
        return np.maximum(squares, 0.0) / residual_degrees

    def intercept(self, weights: np.ndarray) -> np.ndarray:
        """The intercept `b = ȳ - Wᵀ φ̄` (k,)."""
        return self.target_mean - weights.T @ self.feature_mean

    def path(self, alphas: Any = None) -> RidgePath:
        """The problem for all penalties at once (all of at least `rounding`, or the given ones).

        The tridiagonal form is faster. The eigenvectors of G are used where exact zeros matter: if the features can fit
        all rows, or a penalty is below `rounding`.
        """
        if 1 < len(self.gram) < self.most_rank and (alphas is None or np.min(alphas) >= self.rounding):
            return self.tridiagonal
        return self.spectrum

    def best_path(self, alphas: Any = None, *, guarded: bool = False) -> tuple[float, RidgePath]:
        """The penalty with the least GCV score, `guarded` if so wished, and the path that solves for it.

        Where features fit all rows, the residuals of the tridiagonal form are rounding errors; then the eigenvectors
        are used, whose residuals are exact zeros. The guard asks them, too, where the best penalty is none and G is
        singular: they tell whether rows that repeat others are all that is left.
        """
        path = self.path(alphas)
        best = path.best(alphas)
        if isinstance(path, RidgeTridiagonal):
            noise = len(self.gram) * np.finfo(np.float64).eps * self.target_squares
            if np.any(path.residual_squares(best) < noise):
                path = self.spectrum
                best = path.best(alphas)
        if not guarded:
            return best, path
        is_singular = isinstance(path, RidgeTridiagonal) and path.values[0] <= self.rounding
        guard = self.spectrum if is_singular and best < UNPENALIZED * self.rounding else path
        return guard.guarded(best), path

    @functools.cached_property
    def tridiagonal(self) -> RidgeTridiagonal:
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
    def spectrum(self) -> RidgeSpectrum:
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
