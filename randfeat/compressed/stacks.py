"""Merged keys of several heads at once, as arrays (H, ...): for few rows, where calls cost more than their work."""

import numpy as np

from randfeat.attention.cost_model.sizes import CLUSTERED, SWEEPS
from randfeat.compressed.means import SEEDING
from randfeat.compressed.merging import LEAST_MASS, LEAST_SEEDING, METRIC_RIDGE, with_values
from randfeat.compressed.metric import covariance_factor
from randfeat.compressed.softmax import log_mean_exp, softmax_in_place


def is_small(num_rows: int, num_keys: int) -> bool:
    """Whether `merge_stack` takes heads with so many rows: k-means sees all of them, and so does its start."""
    return num_rows <= min(CLUSTERED * num_keys, LEAST_SEEDING, max(SEEDING * num_keys, LEAST_SEEDING))


def merge_stack(
    keys: np.ndarray, bias: np.ndarray, values: np.ndarray, queries: np.ndarray, num_keys: int, uniforms: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`merge_keys` for H heads: the shares (H, n', n) of rows in n' new rows, and the biases (H, n') of these.

    keys (H, n, d), bias (H, n), values (H, n, dv) : rows, more than `num_keys` in each head; those with bias `-inf` are
        none.
    queries (H, r, d) : the references. uniforms (H, num_keys) : numbers from 0 to 1 for the start of k-means.
    There are always num_keys new rows. Those without members come last, with the bias `-inf`.
    """
    dtype, present = keys.dtype, bias != -np.inf
    counts = np.sum(present, axis=1, keepdims=True).astype(dtype)
    keys = keys - np.sum(keys, axis=1, keepdims=True, where=present[..., None]) / counts[..., None]
    weights = queries @ keys.mT
    weights += bias[:, None, :]
    log_total = softmax_in_place(weights)
    mass = np.mean(weights, axis=1) + np.where(present, dtype.type(LEAST_MASS) / counts, 0)
    place = np.einsum("hrn,hrn->hn", weights, weights) / dtype.type(weights.shape[1])
    place += np.where(present, dtype.type(LEAST_MASS) * np.sum(place, axis=1, keepdims=True) / counts, 0)
    points = with_values(keys @ covariance_factor(queries, METRIC_RIDGE), values, mass, place)
    labels = nearest(points, *k_means(points, place, uniforms))
    masses = np.zeros((len(keys), num_keys))
    heads = np.arange(len(keys))[:, None]
    np.add.at(masses, (heads, labels), mass)
    filled = masses > 0
    labels = (np.cumsum(filled, axis=1) - 1)[heads, labels]  # rows with members first
    masses = np.take_along_axis(masses, np.argsort(~filled, axis=1, kind="stable"), axis=1).astype(dtype)
    shares = selection(labels, np.where(present, mass / masses[heads, labels], 0), num_keys)
    log_ratio = queries @ (shares @ keys).mT - log_total
    with np.errstate(divide="ignore"):
        return shares, np.log(masses) - log_mean_exp(log_ratio, axis=1)


def selection(labels: np.ndarray, weights: np.ndarray, number: int) -> np.ndarray:
    """The matrices (H, number, n) that sum the rows of each label with these weights (H, n)."""
    matrix = np.zeros((len(labels), number, labels.shape[1]), weights.dtype)
    np.put_along_axis(matrix, labels[:, None, :], weights[:, None, :], axis=1)
    return matrix


def k_means(points: np.ndarray, weights: np.ndarray, uniforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`means.k_means` of points (H, n, d) with weights (H, n): centers (H, m, d), and which of them exist (H, m)."""
    centers, exist = start(points, weights, uniforms)
    for _ in range(SWEEPS):
        shares = selection(nearest(points, centers, exist), weights, centers.shape[1])
        totals = np.sum(shares, axis=2, keepdims=True)
        filled = totals > 0
        centers = np.where(filled, shares @ points / np.where(filled, totals, 1), centers)
    return centers, exist


def start(points: np.ndarray, weights: np.ndarray, uniforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The k-means++ start, and which of the centers exist: as many as there are different points."""
    squares, (num_heads, num_points, _) = np.einsum("hnd,hnd->hn", points, points), points.shape
    to_all = squares[:, :, None] - 2 * (points @ points.mT)
    to_all += squares[:, None, :]
    np.maximum(to_all, 0, out=to_all)
    to_all[:, np.arange(num_points), np.arange(num_points)] = 0
    heads = np.arange(num_heads)
    chosen, totals = np.empty((uniforms.shape[1], num_heads), np.intp), np.empty((uniforms.shape[1], num_heads, 1))
    masses, distances = weights, np.full_like(weights, np.inf)
    for new, total, uniform in zip(chosen, totals, uniforms.T[..., None], strict=True):
        shares = np.cumsum(masses, axis=1)
        total[:] = shares[:, -1:]
        np.argmax(shares > uniform * total, axis=1, out=new)
        np.minimum(distances, to_all[heads, new], out=distances)
        masses = weights * distances
    return np.take_along_axis(points, chosen.T[..., None], axis=1), totals[..., 0].T > 0


def nearest(points: np.ndarray, centers: np.ndarray, exist: np.ndarray) -> np.ndarray:
    """The index (H, n) of the nearest center of each point; of equally near ones, the first."""
    scores = points @ centers.mT
    offsets = -0.5 * np.einsum("hmd,hmd->hm", centers, centers)
    scores += np.where(exist, offsets, -np.inf)[:, None, :]
    return np.argmax(scores, axis=2)
