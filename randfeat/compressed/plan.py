"""Plan of clustered attention: everything that a fit decides, as arrays of fixed shapes."""

from dataclasses import dataclass

import numpy as np

from randfeat.compressed.clusters import Clusters
from randfeat.compressed.heads import Head
from randfeat.compressed.pieces import Pieces
from randfeat.compressed.tables import Division


@dataclass(frozen=True, eq=False)
class Plan:
    """The constants of one head: indices of its keys and queries, and logarithms that keep weights in range.

    centers (C, d), key_mean (d,), key_root (d, d) : as in `Clusters`.
    near (C, b) : indices of keys; near_bias (C, b) : 0, or `-inf` where there is none.
    keys (2 g, p) : indices of the keys of each piece of a label.
    shift (2 g, C, p) : minus the largest logit of the label, or `-inf` for keys that the cluster does not merge.
    merges (g, 2 g) : 1 where the piece is of the label. tops (C, g) : the largest logits.
    queries (2 C, r) : indices of the queries of each piece of a cluster; owner (2 C,) : its cluster.
    place (L,) : where each query stands among the flattened pieces.
    """

    centers: np.ndarray
    key_mean: np.ndarray
    key_root: np.ndarray
    near: np.ndarray
    near_bias: np.ndarray
    keys: np.ndarray
    shift: np.ndarray
    merges: np.ndarray
    tops: np.ndarray
    queries: np.ndarray
    owner: np.ndarray
    place: np.ndarray


def plan_of(clusters: Clusters, head: Head, num_keys: int, num_exact: int) -> Plan:
    """The plan for one head, whose `num_keys` keys do not all take part, and all its queries."""
    num_clusters, num_labels = len(clusters.centers), len(clusters.key_centers)
    dtype, present = clusters.centers.dtype, head.present
    keys = head.rows.keys - clusters.key_mean
    is_empty = len(present) == 0
    if is_empty:  # one key that no cluster reads
        keys, present = np.zeros((1, keys.shape[-1]), dtype), np.zeros(1, np.intp)
    division = Division.of(clusters, keys, min(num_exact, len(present)))
    near = np.zeros((num_clusters, num_exact), np.intp)
    near_bias = np.full(near.shape, -np.inf, dtype)
    found = division.near.shape[1]
    near[:, :found], near_bias[:, :found] = present[division.order[division.near]], -np.inf if is_empty else 0
    counts = np.pad(division.counts, (0, num_labels - len(division.counts)))
    pieces = Pieces.of(counts, num_labels, num_keys)
    order = present[division.order]
    tops = np.pad(division.tops, ((0, 0), (0, num_labels - division.tops.shape[1])))
    merged = pieces.filled & (division.logits[:, pieces.positions] > -np.inf)  # (C, 2 g, p)
    shift = np.where(merged, -tops[:, pieces.owner, None], -np.inf)
    merges = (np.arange(num_labels)[:, None] == pieces.owner) & pieces.filled.any(axis=1)
    assigned = clusters.assign(head.queries)
    by_cluster = np.argsort(assigned, kind="stable")
    groups = Pieces.of(np.bincount(assigned, minlength=num_clusters), num_clusters, len(head.queries))
    place = np.empty(len(head.queries), np.intp)
    place[by_cluster[groups.positions[groups.filled]]] = np.flatnonzero(groups.filled)
    return Plan(
        clusters.centers, clusters.key_mean, clusters.key_root, near, near_bias, order[pieces.positions],
        np.swapaxes(shift, 0, 1).astype(dtype), merges.astype(dtype), tops.astype(dtype),
        by_cluster[groups.positions], groups.owner, place,
    )  # fmt: skip
