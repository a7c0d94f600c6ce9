"""Tables of clustered attention: for each cluster of queries, its heaviest keys and merged keys for the rest."""

from dataclasses import dataclass

import numpy as np

from randfeat.compressed.clusters import Clusters
from randfeat.compressed.merging import Rows
from randfeat.compressed.softmax import softmax_in_place

BLOCK = 1024  # queries at a time, whose weights stay in the cache
MOST_SECOND_ORDER = 1.0  # the expansion holds for small displacements only


@dataclass(frozen=True, eq=False)
class Tables:
    """The rows that the queries of each of C clusters read, of one head on the host; keys without `Clusters.key_mean`.

    near (C, b) : indices of the keys with the largest logits at the center.
    keys (C, g, d), values (C, g, dv), log_masses (C, g) : of the other keys with each label, means by their weights at
        the center, and the logarithm of the sum of these weights; `-inf` where there are none.
    spread (C, g) or None : variances of the merged keys in the metric of the queries' displacements, for the second
        order.
    """

    near: np.ndarray
    keys: np.ndarray
    values: np.ndarray
    log_masses: np.ndarray
    spread: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Division:
    """A division of the keys of one head, for each cluster: keys that it reads as they are, and keys to be merged.

    order (S,) : indices of the keys, sorted by label. counts (g,) : keys with each label, none of them 0.
    near (C, b) : positions in `order` of the keys with the largest logits at the center.
    logits (C, S) : of the other keys in this order, less `tops` (C, g), the largest for each label; `-inf` where near.
    """

    order: np.ndarray
    counts: np.ndarray
    near: np.ndarray
    logits: np.ndarray
    tops: np.ndarray

    @classmethod
    def of(cls, clusters: Clusters, keys: np.ndarray, num_exact: int) -> "Division":
        """The division of keys (S, d), from which `Clusters.key_mean` is subtracted already."""
        labels = clusters.label(keys)
        order = np.argsort(labels, kind="stable")
        counts = np.bincount(labels)
        counts = counts[counts > 0]
        logits = clusters.centers @ keys[order].T
        near = heaviest(logits, num_exact)
        np.put_along_axis(logits, near, -np.inf, axis=1)
        tops = np.maximum.reduceat(logits, np.cumsum(counts) - counts, axis=1)
        tops[tops == -np.inf] = 0
        logits -= np.repeat(tops, counts, axis=1)
        return cls(order, counts, near, logits, tops)


def tables_of(clusters: Clusters, rows: Rows, num_exact: int, *, second_order: bool) -> Tables:
    """The tables for keys from which `Clusters.key_mean` is subtracted already."""
    division = Division.of(clusters, rows.keys, num_exact)
    columns = [rows.keys, rows.values, np.ones_like(rows.keys[:, :1])]
    if second_order:
        columns.append(squares_in(clusters.key_root, rows.keys))
    sorted_columns = np.concatenate(columns, axis=1)[division.order]
    weights, counts = np.exp(division.logits), division.counts
    sums = np.empty((len(weights), len(counts), sorted_columns.shape[1]), weights.dtype)
    for label, (start, count) in enumerate(zip(np.cumsum(counts) - counts, counts, strict=True)):
        part = slice(start, start + count)
        np.matmul(weights[:, part], sorted_columns[part], out=sums[:, label])
    dim, value_dim = rows.keys.shape[1], rows.values.shape[1]
    total = sums[..., dim + value_dim]
    means = sums / np.where(total == 0, 1, total)[..., None]
    with np.errstate(divide="ignore"):
        log_masses = division.tops + np.log(total)
    keys, values = means[..., :dim], means[..., dim : dim + value_dim]
    spread = means[..., -1] - squares_in(clusters.key_root, keys)[..., 0] if second_order else None
    return Tables(division.order[division.near], keys, values, log_masses, spread)


def squares_in(root: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """`|root y|² / trace root²` of each key (..., d), as a column (..., 1)."""
    moved = keys @ root
    return np.sum(moved * moved, axis=-1, keepdims=True) / np.sum(root * root)


def heaviest(logits: np.ndarray, number: int) -> np.ndarray:
    """Indices of the `number` largest logits of each row; of equal ones, any."""
    length = logits.shape[1]
    if number >= length:
        return np.broadcast_to(np.arange(length), logits.shape)
    return np.argpartition(logits, length - number, axis=1)[:, length - number :]


def read_tables(tables: Tables, clusters: Clusters, queries: np.ndarray, rows: Rows) -> np.ndarray:
    """The outputs (n, dv) of queries (n, d): `softmax({x·y_j : near} ∪ {(x - c)·ŷ_h + log mass_h}) (v, v̂)`."""
    outputs = np.empty((len(queries), rows.values.shape[1]), queries.dtype)
    assigned = clusters.assign(queries)
    order = np.argsort(assigned, kind="stable")
    stops = np.cumsum(np.bincount(assigned, minlength=len(clusters.centers)))
    for cluster, (start, stop) in enumerate(zip(stops - np.diff(stops, prepend=0), stops, strict=True)):
        near = tables.near[cluster]
        near_keys, values = rows.keys[near], np.concatenate([rows.values[near], tables.values[cluster]])
        for first in range(start, stop, BLOCK):
            members = order[first : min(first + BLOCK, stop)]
            logits = logits_in(queries[members], clusters.centers[cluster], tables, cluster, near_keys)
            softmax_in_place(logits)
            outputs[members] = logits @ values
    return outputs


def logits_in(
    queries: np.ndarray, center: np.ndarray, tables: Tables, cluster: int, near_keys: np.ndarray
) -> np.ndarray:
    """The logits (n, b + g) of queries of one cluster to its near keys and its merged keys."""
    moved, far_keys, num_near = queries - center, tables.keys[cluster], len(near_keys)
    logits = np.empty((len(queries), num_near + len(far_keys)), queries.dtype)
    np.matmul(queries, near_keys.T, out=logits[:, :num_near])
    far = logits[:, num_near:]
    np.matmul(moved, far_keys.T, out=far)
    far += tables.log_masses[cluster]
    if tables.spread is not None:
        squares = np.sum(moved * moved, axis=-1, keepdims=True)
        far += np.minimum(0.5 * squares * tables.spread[cluster], MOST_SECOND_ORDER)
    return logits
