"""QueryClusters: frozen clusters of queries, fitted once and used on many keys."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from randfeat._array import as_count, as_floating, cast, host_to
from randfeat._hints import hinted
from randfeat.attention.cost_model.sizes import NUM_CLUSTERS
from randfeat.attention.inputs import Inputs
from randfeat.compressed.cache import KeyCache
from randfeat.compressed.clusters import Clusters, fit_clusters
from randfeat.compressed.heads import Head, check_loaded, check_query_mask, head_seeds, heads_of, stacked
from randfeat.compressed.merging import Rows
from randfeat.compressed.tables import tables_of
from randfeat.kernels import SoftmaxKernel

MANY_CENTERS = 1 << 12


@dataclass(frozen=True, eq=False)
class QueryClusters:
    """Clusters of the queries of each head, and groups of its keys: the parameters of clustered attention.

    Fitted to typical queries and keys, they are used on others: `rf.clustered_attention(..., clusters=clusters)`, or
    `clusters.compress(k, v)` for keys that are read more than once. The parameters are NumPy arrays with leading
    dimensions `batch_shape`, one entry for each key head.

    centers (C, d), query_root (d, d), query_centers (C, d) : a query q belongs to the cluster whose query center is
        nearest to `√scale q · query_root`; the logits of the cluster are expanded at its center.
    key_mean (d,), key_root (d, d), key_centers (g, d) : a key k has the label whose key center is nearest to
        `(√scale k - key_mean) · key_root`.
    scale : of the logits; None is 1/√d.

    >>> import numpy as np, randfeat as rf
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 2, 500, 16))
    >>> clusters = rf.QueryClusters.fit(q[:, :400], k, num_clusters=8, rng=0)
    >>> clusters
    QueryClusters(num_clusters=8, dim=16, batch_shape=(2,))
    >>> clusters.compress(k, v)
    KeyCache(num_keys=32, dim=16, num_clusters=8, batch_shape=(2,))
    """

    centers: np.ndarray
    query_root: np.ndarray
    query_centers: np.ndarray
    key_mean: np.ndarray
    key_root: np.ndarray
    key_centers: np.ndarray
    scale: float | None = None

    def __repr__(self) -> str:
        batch = f", batch_shape={self.batch_shape}" if self.batch_shape else ""
        return f"QueryClusters(num_clusters={self.num_clusters}, dim={self.dim}{batch})"

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading dimensions: one set of clusters for each key head."""
        return self.centers.shape[:-2]

    @property
    def num_clusters(self) -> int:
        """The number of clusters C."""
        return self.centers.shape[-2]

    @property
    def dim(self) -> int:
        """The dimension of queries and keys."""
        return self.centers.shape[-1]

    @classmethod
    @hinted
    @np.errstate(under="ignore")
    def fit(
        cls,
        query: Any,
        key: Any,
        *,
        num_clusters: int = NUM_CLUSTERS,
        num_merged: int | None = None,
        scale: float | None = None,
        key_mask: Any = None,
        query_mask: Any = None,
        enable_gqa: bool = False,
        rng: Any = 0,
    ) -> "QueryClusters":
        """Clusters of typical queries (..., L, d), for keys like (..., S, d); in linear time, on the host.

        num_clusters : C. With grouped query heads it should be well above the number of query heads of a group.
        num_merged : groups of keys; 2 C by default.
        Other arguments are those of `clustered_attention`.

        If fewer queries or keys are different than there are centers, the last center is repeated. ValueError if a head
        has no query or no key that takes part, and for thousands of centers that are more than queries or keys.
        """
        num_clusters = as_count(num_clusters, "num_clusters")
        num_merged = 2 * num_clusters if num_merged is None else as_count(num_merged, "num_merged")
        inputs = Inputs.of(
            query, key, key, kernel=SoftmaxKernel(), scale=scale, key_mask=key_mask, enable_gqa=enable_gqa
        )
        check_loaded(inputs)
        check_number("num_clusters", num_clusters, inputs.num_queries * (inputs.group or 1))
        check_number("num_merged", num_merged, inputs.num_keys)
        lead, heads = heads_of(inputs, check_query_mask(query_mask, inputs))
        found = []
        if not heads:
            raise ValueError(f"there are no heads to fit clusters to: the leading shape is {lead}.")
        for head, seed in zip(heads, head_seeds(rng, lead), strict=True):
            if not (len(head.references) and len(head.rows)):
                raise ValueError("every head needs a query and a key that take part, to fit clusters to.")
            generator = np.random.default_rng(seed)
            fitted = fit_clusters(head.references, head.rows.keys, num_clusters, num_merged, generator)
            found.append(padded(fitted, num_clusters, num_merged))
        arrays = {
            name: np.stack([getattr(clusters, name) for clusters in found]).reshape(
                *lead, *getattr(found[0], name).shape
            )
            for name in NAMES
        }
        return cls(**arrays, scale=scale)

    @hinted
    @np.errstate(under="ignore")
    def compress(self, key: Any, value: Any, *, num_exact: int | None = None, key_mask: Any = None) -> KeyCache:
        """A cache with a set of rows for each cluster: its heaviest keys, and the merged ones.

        key (..., S, d), value (..., S, dv), whose leading dimensions are the `batch_shape` of the clusters. A query
        reads `num_exact` (2 C by default) keys and as many merged ones as the clusters have groups of keys. It is
        computed on the host, and not differentiable.
        """
        num_exact = 2 * self.num_clusters if num_exact is None else as_count(num_exact, "num_exact")
        key = as_floating(key, "key")
        inputs = Inputs.of(key[..., :0, :], key, value, kernel=SoftmaxKernel(), scale=self.scale, key_mask=key_mask)
        check_loaded(inputs)
        lead, heads = heads_of(inputs, None)
        if lead != self.batch_shape or inputs.key.shape[-1] != self.dim:
            raise ValueError(
                f"key has the shape {tuple(inputs.key.shape)}, expected {self.batch_shape} as leading dimensions and "
                f"dimension {self.dim}, those of the clusters."
            )
        found = [self.rows_of(index, head, num_exact) for index, head in zip(np.ndindex(lead), heads, strict=True)]
        keys = np.swapaxes(stacked([rows.keys for rows in found], lead), -3, -2) / inputs.root
        values = np.swapaxes(stacked([rows.values for rows in found], lead), -3, -2)
        bias = np.swapaxes(stacked([rows.bias for rows in found], lead, -np.inf), -2, -1)
        like, dtype = inputs.key, inputs.dtype
        return KeyCache(
            cast(host_to(keys, like), dtype), host_to(bias, like), cast(host_to(values, like), dtype),
            host_to(self.route(inputs.root), like), self.scale,
        )  # fmt: skip

    def route(self, root: float) -> np.ndarray:
        """The route (*batch_shape, C, d + 1) of caches, whose largest score is that of the nearest query center."""
        directions = root * self.query_centers @ np.swapaxes(self.query_root, -2, -1)
        offsets = -0.5 * np.sum(self.query_centers**2, axis=-1, keepdims=True)
        return np.concatenate([directions, offsets], axis=-1)

    def rows_of(self, index: tuple[int, ...], head: Head, num_exact: int) -> Rows:
        """The rows that each cluster of one head reads: keys (n, C, d), bias (n, C), values (n, C, dv)."""
        clusters = self.of_head(index)
        if head.is_spoiled:
            dtype, widths = head.rows.keys.dtype, (self.dim, head.rows.values.shape[-1])
            keys, values = (np.zeros((1, self.num_clusters, width), dtype) for width in widths)
            return Rows(keys, np.full(keys.shape[:2], np.nan, dtype), values)
        rows = head.rows.shifted(-clusters.key_mean)
        if len(rows) == 0:
            empty = np.zeros((0, self.num_clusters, self.dim), rows.keys.dtype)
            return Rows(empty, empty[..., 0], np.zeros((*empty.shape[:2], rows.values.shape[-1]), rows.values.dtype))
        tables = tables_of(clusters, rows, num_exact, second_order=False)
        merged_bias = tables.log_masses - np.einsum("cd,cgd->cg", clusters.centers, tables.keys)
        keys = np.concatenate([rows.keys[tables.near], tables.keys], axis=1) + clusters.key_mean
        bias = np.concatenate([np.zeros(tables.near.shape, merged_bias.dtype), merged_bias], axis=1)
        values = np.concatenate([rows.values[tables.near], tables.values], axis=1)
        return Rows(np.swapaxes(keys, 0, 1), bias.T, np.swapaxes(values, 0, 1))

    def of_head(self, index: tuple[int, ...]) -> Clusters:
        """The clusters of one head."""
        return Clusters(**{name: getattr(self, name)[index] for name in NAMES})


NAMES = tuple(field.name for field in fields(Clusters))


def check_number(name: str, number: int, length: int) -> None:
    """ValueError for many more centers than vectors, which would fill the memory with copies of the last one."""
    if number > (most := max(length, MANY_CENTERS)):
        raise ValueError(f"{name} must be at most {most} for {length} vectors, got {number}.")


def padded(clusters: Clusters, num_clusters: int, num_merged: int) -> Clusters:
    """The clusters with the last center repeated, where there are fewer different queries or keys than centers."""

    def repeated(centers: np.ndarray, number: int) -> np.ndarray:
        return centers[np.minimum(np.arange(number), len(centers) - 1)]

    return replace(
        clusters,
        centers=repeated(clusters.centers, num_clusters),
        query_centers=repeated(clusters.query_centers, num_clusters),
        key_centers=repeated(clusters.key_centers, num_merged),
    )
