"""Spectral error of an estimated Gram matrix, which controls ridge regression, and the rows that bound it."""

from typing import Any

import numpy as np

from randfeat.bounds.arguments import positive, probability, square


def effective_dimension(gram: Any, ridge: float) -> float:
    """Effective dimension `tr (K + λI)^{-1} K` of a symmetric positive semi-definite matrix."""
    gram = square(gram, "gram")
    return float(np.trace(np.linalg.solve(gram + float(positive(ridge, "ridge")) * np.eye(len(gram)), gram)))


def spectral_error(gram: Any, estimate: Any, ridge: float) -> float:
    """The smallest Δ with `(1-Δ)(K + λI) <= K̂ + λI <= (1+Δ)(K + λI)`: `|(K+λI)^{-1/2} (K̂ - K) (K+λI)^{-1/2}|₂`."""
    gram, estimate = square(gram, "gram"), square(estimate, "estimate")
    factor = np.linalg.cholesky(gram + float(positive(ridge, "ridge")) * np.eye(len(gram)))
    half = np.linalg.solve(factor, estimate - gram)
    return float(np.max(np.abs(np.linalg.eigvalsh(np.linalg.solve(factor, half.T)))))


def spectral_num_rows(error: Any, num_points: Any, ridge: Any, effective_dim: Any, *, failure: float) -> np.ndarray:
    """Rows of sine-cosine pairs with `P[spectral_error <= error] >= 1 - failure`.

    `(8/3) Δ^{-2} (n/λ) log(16 s/failure)`, s the effective dimension; for kernels with k(x, x) = 1, independent rows,
    Δ <= 1/2 and a ridge of at most the largest eigenvalue of K.
    Source: Avron et al. 2017, "Random Fourier Features for Kernel Ridge Regression", Theorem 7.
    """
    error, points = positive(error, "error"), positive(num_points, "num_points")
    ridge, dimension = positive(ridge, "ridge"), positive(effective_dim, "effective_dim")
    if np.any(error > 0.5):
        raise ValueError(f"error must be at most 1/2, where the theorem holds, got {np.max(error):g}.")
    return np.ceil(8 / 3 * points / ridge * np.log(16 * dimension / probability(failure)) / error**2)
