"""Metrics in which keys and queries are compared: square roots of positive semidefinite matrices."""

import numpy as np

from randfeat.compressed.softmax import softmax_in_place

ABSOLUTE_RIDGE = 1e-12  # so that a matrix of zeros has a root; far below the logits that it is about


def root(matrix: np.ndarray, ridge: float) -> np.ndarray:
    """The square root of `matrix + ridge · mean eigenvalue · I` (..., d, d), computed in float64."""
    values, vectors = np.linalg.eigh(matrix.astype(np.float64))
    values = np.maximum(values, 0)  # those of a difference of moments may be negative by rounding
    values += ridge * np.mean(values, axis=-1, keepdims=True) + ABSOLUTE_RIDGE
    return ((vectors * np.sqrt(values)[..., None, :]) @ vectors.mT).astype(matrix.dtype)


def covariance_factor(x: np.ndarray, ridge: float) -> np.ndarray:
    """A factor R (..., d, d) of the covariance of rows x (..., n, d) with a ridge, R Rᵀ, computed in float64.

    Points y R have the distances of points times the root: `|Rᵀ(y - z)|² = (y - z)ᵀ cov (y - z)`. It takes a tenth of
    the time.
    """
    size = np.max(np.abs(x), axis=(-2, -1), keepdims=True, initial=0)
    size = np.where(size > 0, size, 1)
    matrix = covariance(x / size).astype(np.float64)
    mean = np.trace(matrix, axis1=-2, axis2=-1)[..., None, None] / x.shape[-1]
    factor = np.linalg.cholesky(matrix + (ridge * mean + ABSOLUTE_RIDGE) * np.eye(x.shape[-1]))
    return (size * factor).astype(x.dtype)


def second_moment(x: np.ndarray) -> np.ndarray:
    """`mean x xᵀ` of rows x (..., n, d)."""
    return x.mT @ x / x.dtype.type(x.shape[-2])


def covariance(x: np.ndarray) -> np.ndarray:
    """The covariance of rows x (..., n, d), divided by n."""
    return second_moment(x - np.mean(x, axis=-2, keepdims=True))


def fisher(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The mean covariance of centered keys (S, d) under the attention of pilot queries (r, d).

    `½ δᵀ F δ` is the Kullback-Leibler divergence of the attention weights of two queries that differ by δ, to second
    order: the metric in which queries of one cluster should be close.
    """
    weights = queries @ keys.T
    softmax_in_place(weights)
    means = (weights @ keys).astype(np.float64)
    share = np.mean(weights, axis=0)
    moment = ((keys * share[:, None]).T @ keys).astype(np.float64)
    return (moment - second_moment(means)).astype(keys.dtype)
