"""Weighted k-means on the host: the k-means++ start, sweeps of Lloyd's algorithm, nearest centers."""

import numpy as np

from randfeat.attention.cost_model.sizes import SWEEPS

SEEDING = 8
"""Points for each center that the start, or all of k-means, needs to see."""
BLOCK = 2048
"""Points at a time, so that their scores stay in the cache."""


def k_means(
    points: np.ndarray,
    num_centers: int,
    generator: np.random.Generator,
    *,
    weights: np.ndarray | None = None,
    num_seeding: int | None = None,
) -> np.ndarray:
    """Centers (num_centers or fewer, d) of points (n, d) with `weights` (n,), by k-means++ and two sweeps.

    num_seeding : points that the start is chosen from, drawn by weight if there are more.
    A center that no point is nearest to stays where it is. There are fewer centers than asked for if fewer points are
    different.

    Source: Arthur & Vassilvitskii 2007, "k-means++: The advantages of careful seeding"; Lloyd 1982.
    """
    if weights is None:
        weights = np.ones(len(points), points.dtype)
    centers = seeds(*drawn_by_weight(points, weights, num_seeding, generator), num_centers, generator)
    for _ in range(SWEEPS):
        labels = nearest(points, centers)
        sums, totals = weighted_sums(points, weights, labels, len(centers))
        filled = totals > 0
        centers[filled] = sums[filled] / totals[filled, None]
    return centers


def drawn_by_weight(
    points: np.ndarray, weights: np.ndarray, num_points: int | None, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """`num_points` points drawn with replacement by weight, each once, and how often it was drawn; or all points."""
    if num_points is None or len(points) <= num_points:
        return points, weights
    shares = np.cumsum(weights, dtype=np.float64)
    drawn = np.searchsorted(shares, generator.random(num_points) * shares[-1], side="right")
    counts = np.bincount(np.minimum(drawn, len(points) - 1), minlength=len(points))
    chosen = np.flatnonzero(counts)
    return points[chosen], counts[chosen].astype(points.dtype)


def seeds(points: np.ndarray, weights: np.ndarray, num_centers: int, generator: np.random.Generator) -> np.ndarray:
    """The k-means++ start: each center is a point, drawn by weight times squared distance to the nearest one so far."""
    squares = np.einsum("nd,nd->n", points, points)
    uniforms = generator.random(num_centers)
    chosen: list[int] = []
    masses = weights.astype(np.float64)
    distances = np.full(len(points), np.inf, points.dtype)
    for uniform in uniforms:
        shares = np.cumsum(masses)
        if not shares[-1] > 0:  # every point is a center
            break
        new = min(int(np.searchsorted(shares, uniform * shares[-1], side="right")), len(points) - 1)
        chosen.append(new)
        to_new = squares - 2 * (points @ points[new]) + squares[new]
        np.minimum(distances, to_new, out=distances)
        np.maximum(distances, 0, out=distances)
        distances[new] = 0
        masses = weights * distances
    return points[chosen].copy()


def nearest(points: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """The index of the nearest center of each point; of equally near ones, the first."""
    return most_similar(points, centers, -0.5 * np.einsum("cd,cd->c", centers, centers))


def most_similar(points: np.ndarray, directions: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """`argmax_c points · directions_c + offsets_c` for each point; of equal ones, the first."""
    labels = np.empty(len(points), np.intp)
    for start in range(0, len(points), BLOCK):
        scores = directions @ points[start : start + BLOCK].T
        scores += offsets[:, None]
        np.argmax(scores, axis=0, out=labels[start : start + BLOCK])
    return labels


def weighted_sums(
    points: np.ndarray, weights: np.ndarray, labels: np.ndarray, num_labels: int
) -> tuple[np.ndarray, np.ndarray]:
    """For each label the sums of weight times point (num_labels, d), and of the weights (num_labels,)."""
    from scipy.sparse import csc_array  # not needed by those who only import

    ends = np.arange(len(points) + 1)
    selection = csc_array((weights, labels, ends), shape=(num_labels, len(points)))
    return selection @ points, selection @ np.ones(len(points), points.dtype)
