"""Clusters of queries, and groups of keys that all of them share: the fit of clustered attention."""

from dataclasses import dataclass

import numpy as np

from randfeat.compressed.means import SEEDING, k_means, nearest
from randfeat.compressed.metric import fisher, root, second_moment

QUERY_RIDGE, KEY_RIDGE = 0.05, 1e-3
FEWEST_PILOTS = 8


@dataclass(frozen=True, eq=False)
class Clusters:
    """Clusters of the queries of one head, in units in which logits are `x · y`.

    A query x belongs to the nearest of `query_centers` (C, d) in the metric `query_root` (d, d), and its cluster
    expands the logits at `centers` (C, d), the means of the members. A key y, less `key_mean` (d,), has the label of
    the nearest of `key_centers` (g, d) in the metric `key_root` (d, d).
    """

    centers: np.ndarray
    query_root: np.ndarray
    query_centers: np.ndarray
    key_mean: np.ndarray
    key_root: np.ndarray
    key_centers: np.ndarray

    def assign(self, queries: np.ndarray) -> np.ndarray:
        """The cluster of each query (n, d)."""
        return nearest(queries @ self.query_root, self.query_centers)

    def label(self, keys: np.ndarray) -> np.ndarray:
        """The label of each key (n, d), from which `key_mean` is subtracted already."""
        return nearest(keys @ self.key_root, self.key_centers)


def fit_clusters(
    queries: np.ndarray, keys: np.ndarray, num_clusters: int, num_merged: int, generator: np.random.Generator
) -> Clusters:
    """Clusters of queries (n, d) by k-means in the Fisher metric, and groups of keys (S, d) by k-means in the metric of
    the queries' displacements from their centers.
    """
    key_mean = np.mean(keys, axis=0)
    centered = keys - key_mean
    num_pilots = min(len(queries), max(FEWEST_PILOTS, num_clusters // 2))
    pilots = queries[generator.choice(len(queries), num_pilots, replace=False)]
    query_root = root(fisher(pilots, centered), QUERY_RIDGE)
    query_centers = k_means(sample(queries, num_clusters, generator) @ query_root, num_clusters, generator)
    assigned = nearest(queries @ query_root, query_centers)
    centers = means_of(queries, assigned, query_centers, query_root)
    key_root = root(second_moment(queries - centers[assigned]), KEY_RIDGE)
    key_centers = k_means(sample(centered, num_merged, generator) @ key_root, num_merged, generator)
    return Clusters(centers, query_root, query_centers, key_mean, key_root, key_centers)


def sample(points: np.ndarray, num_centers: int, generator: np.random.Generator) -> np.ndarray:
    """The points that k-means sees: a few for each center, drawn without replacement, or all."""
    num = SEEDING * num_centers
    return points if len(points) <= num else points[generator.choice(len(points), num, replace=False)]


def means_of(queries: np.ndarray, assigned: np.ndarray, centers: np.ndarray, root: np.ndarray) -> np.ndarray:
    """The mean of the members of each cluster; for one without members, its center in the units of the queries."""
    counts = np.bincount(assigned, minlength=len(centers))
    order = np.argsort(assigned, kind="stable")
    means = np.linalg.solve(root.astype(np.float64), centers.T.astype(np.float64)).T.astype(queries.dtype)
    filled = counts > 0
    starts = (np.cumsum(counts) - counts)[filled]
    means[filled] = np.add.reduceat(queries[order], starts, axis=0) / counts[filled, None].astype(queries.dtype)
    return means
