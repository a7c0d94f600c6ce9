"""Options of clustered attention: how many clusters, and what they read."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import as_count
from randfeat.attention.cost_model.sizes import NUM_CLUSTERS
from randfeat.attention.inputs import Inputs
from randfeat.compressed.clusters import Clusters, fit_clusters
from randfeat.compressed.heads import Head, key_lead
from randfeat.compressed.query_clusters import QueryClusters, padded
from randfeat.kernels.base import check_positive

FEWEST_CLUSTERS = 4  # where an accuracy is asked for


@dataclass(frozen=True, eq=False)
class Options:
    """Numbers of clusters, of keys as they are, and of merged keys; `frozen` are clusters that were fitted before."""

    num_clusters: int
    num_exact: int
    num_merged: int
    second_order: bool
    frozen: QueryClusters | None = None
    accuracy: float | None = None
    """The error to stay below; then the other numbers are those to begin with."""

    @classmethod
    def of(
        cls,
        num_clusters: int | None,
        num_exact: int | None,
        num_merged: int | None,
        frozen: QueryClusters | None,
        accuracy: float | None,
        *,
        second_order: bool,
    ) -> "Options":
        """The options of a call, with the defaults C = 21 and b = g = 2 C."""
        if accuracy is not None:
            accuracy = check_positive("accuracy", accuracy)
            chosen = {
                "num_clusters": num_clusters,
                "num_exact": num_exact,
                "num_merged": num_merged,
                "clusters": frozen,
            }
            if given := [name for name, option in chosen.items() if option is not None]:
                raise ValueError(f"accuracy chooses {given[0]}; give one of the two.")
            return cls.with_clusters(FEWEST_CLUSTERS, second_order=second_order, accuracy=accuracy)
        if frozen is not None:
            number, groups = frozen.num_clusters, frozen.key_centers.shape[-2]
        else:
            number = NUM_CLUSTERS if num_clusters is None else as_count(num_clusters, "num_clusters")
            groups = 2 * number if num_merged is None else as_count(num_merged, "num_merged")
        near = 2 * number if num_exact is None else as_count(num_exact, "num_exact")
        return cls(number, near, groups, second_order, frozen)

    @classmethod
    def with_clusters(cls, number: int, *, second_order: bool, accuracy: float | None) -> "Options":
        """The options for C clusters and b = g = 2 C."""
        return cls(number, 2 * number, 2 * number, second_order, accuracy=accuracy)

    def is_dearer_than_exact(self, length: int, num_keys: int) -> bool:
        """Whether exact attention takes fewer multiplications, or all keys would be read as they are."""
        return self.num_exact >= num_keys or self.work(length, num_keys) >= 2 * length * num_keys

    def work(self, length: int, num_keys: int) -> int:
        """Multiplications for each unit of d: assignments and reads of queries, logits, sums and labels of keys."""
        for_query = self.num_clusters + 2 * (self.num_exact + self.num_merged)
        for_key = 3 * self.num_clusters + self.num_merged
        return length * for_query + num_keys * for_key

    def clusters_of(self, head: Head, index: tuple[int, ...], seed: np.random.SeedSequence) -> Clusters:
        """The clusters of a head, fitted to a query 0 and a key 0 where all are masked."""
        if self.frozen is not None:
            return self.frozen.of_head(index)
        queries = head.references if len(head.references) else np.zeros_like(head.queries[:1])
        keys = head.rows.keys if len(head.rows) else np.zeros_like(queries[:1])
        generator = np.random.default_rng(seed)
        fitted = fit_clusters(queries, keys, self.num_clusters, self.num_merged, generator)
        return padded(fitted, self.num_clusters, self.num_merged)


def shared_scale(clusters: Any, scale: float | None, num_clusters: int | None, num_merged: int | None) -> float | None:
    """The scale that the clusters were fitted for; an error if the call asks for something else."""
    if not isinstance(clusters, QueryClusters):
        raise TypeError(f"clusters must be QueryClusters, got {type(clusters).__name__}; QueryClusters.fit makes them.")
    for name, given, own in (
        ("num_clusters", num_clusters, clusters.num_clusters),
        ("num_merged", num_merged, clusters.key_centers.shape[-2]),
        ("scale", scale, clusters.dim**-0.5 if clusters.scale is None else clusters.scale),
    ):
        if given is not None and given != own:
            raise ValueError(f"clusters were fitted with {name} = {own}, got {given}; leave it out.")
    return clusters.scale


def check_fit(clusters: QueryClusters | None, inputs: Inputs) -> None:
    """ValueError if clusters were fitted for other heads, or another dimension."""
    if clusters is None:
        return
    lead = key_lead(inputs)
    if clusters.batch_shape != lead or clusters.dim != inputs.query.shape[-1]:
        raise ValueError(
            f"clusters have batch_shape {clusters.batch_shape} and dimension {clusters.dim}, expected {lead}, that of "
            f"the key heads, and {inputs.query.shape[-1]}."
        )
