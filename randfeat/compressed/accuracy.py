"""The number of clusters for an accuracy: doubled until the estimated error is below."""

from dataclasses import dataclass, replace

import numpy as np

from randfeat.compressed.audit import draw, summary
from randfeat.compressed.clusters import Clusters
from randfeat.compressed.heads import Head
from randfeat.compressed.merging import Rows
from randfeat.compressed.options import Options
from randfeat.compressed.softmax import softmax_in_place
from randfeat.compressed.tables import Tables, read_tables, tables_of

NUM_ROWS = 64  # exact rows that the error is estimated from
K_MEANS = 200  # multiplications for each unit of d, times the square of the number of clusters


@dataclass(frozen=True, eq=False)
class Fit:
    """Clusters of one head, and their tables for its keys."""

    options: Options
    clusters: Clusters
    rows: Rows
    tables: Tables

    @classmethod
    def of(cls, head: Head, options: Options, index: tuple[int, ...], seed: np.random.SeedSequence) -> "Fit":
        """The fit of one head, which has more keys than a cluster reads as they are."""
        clusters = options.clusters_of(head, index, seed)
        rows = head.rows.shifted(-clusters.key_mean)
        tables = tables_of(clusters, rows, options.num_exact, second_order=options.second_order)
        return cls(options, clusters, rows, tables)

    def read(self, queries: np.ndarray) -> np.ndarray:
        """The outputs (n, dv) of queries (n, d)."""
        return read_tables(self.tables, self.clusters, queries, self.rows)


def chosen(head: Head, options: Options, seed: np.random.SeedSequence) -> Fit | None:
    """The fit with the fewest clusters that keep the accuracy, as estimated; None where exact attention is cheaper.

    The exact rows are computed once, and every number of clusters is tried on them, as long as all trials together take
    fewer multiplications than exact attention. No more clusters are tried than the root of the number of queries and
    keys, so that the tables are not larger than these.
    """
    queries, num = head.references, len(head.references)
    if num == 0:
        return None
    generator = np.random.default_rng(np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, 1)))
    index, weights = draw(queries.astype(np.float64), np.ones(num, np.bool_), NUM_ROWS, generator)
    sample = queries[index]
    logits = sample @ head.rows.keys.T
    softmax_in_place(logits)
    exact = logits @ head.rows.values
    sizes = weights * np.sum(exact**2, axis=-1)
    assert options.accuracy is not None
    spent, num_keys = 0, len(head.rows)
    while options.num_clusters**2 <= num + num_keys and options.num_exact < num_keys:
        spent += options.work(num, num_keys) + K_MEANS * options.num_clusters**2
        if spent > 2 * num * num_keys:
            break
        fit = Fit.of(head, options, (), seed)
        errors = weights * np.sum((fit.read(sample) - exact) ** 2, axis=-1)
        _, upper = summary(errors[None], sizes[None], weights[None] > 0, np.array([num]))
        if upper[0] <= options.accuracy:
            return fit
        number = 2 * options.num_clusters
        options = replace(options, num_clusters=number, num_exact=2 * number, num_merged=2 * number)
    return None


def options_for(head: Head, options: Options, seed: np.random.SeedSequence) -> Options | None:
    """The options that a head has alone, without what is masked; None where exact attention is cheaper."""
    if len(head.rows) == 0:
        return None
    if options.accuracy is not None:
        fit = chosen(head, options, seed)
        return None if fit is None else fit.options
    return None if options.is_dearer_than_exact(len(head.references), len(head.rows)) else options
