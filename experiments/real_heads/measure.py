"""What is computed: errors of feature maps of several widths, and of compressed attention of several sizes."""

import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np

import randfeat as rf
from experiments.experiment import Cell, Record, Settings, Tables
from experiments.heads import Head, average_of_values, head_names, linear_error, load_head, relative_error

LEVELS = ("center", "balance", "dense", "weighted", "posterior")
SEEDS = {"center": "centre", "dense": "exponent"}  # the words that levels are seeded by, where they were renamed
METHODS = ("FAVOR+", "OPRF", "SADERF", *LEVELS)

OPERATORS = {"clustered": (5, 11, 21), "cache": (16, 32, 64), "cache, fitted": (16, 32, 64)}
"""Numbers of clusters, and of merged keys."""

COSTS = {"clustered": 3.5, "cache": 1.25, "cache, fitted": 2.75}
"""Features that linear attention could have for the multiplications of one cluster, or of one merged key.

For L queries on L keys: 4 m L d multiplications with m features, 14 C L d with C clusters, 5 D L d with a cache of D
keys that is made and read once, about 11 D L d where it is fitted.
"""


@dataclass(frozen=True)
class RealHeadsSettings(Settings):
    """Sizes: heads, widths, and independent fits and draws for each.

    operators : how many of the sizes of each kind of compressed attention are measured, the smallest first.
    """

    heads: tuple[str, ...] = head_names()
    num_features: tuple[int, ...] = (64, 256, 1024)
    num_draws: int = 5
    operators: int = 3


def fitted(method: str, query: np.ndarray, key: np.ndarray, num_features: int, rng: Any) -> rf.Estimator:
    """The estimator of this name for queries and keys."""
    if method == "FAVOR+":
        return rf.PositiveFeatures()
    if method == "OPRF":
        return rf.OptimalPositiveFeatures.fit(query, key)
    if method == "SADERF":
        balanced = rf.BalancedFeatures.fit(query, key, kind="diagonal")
        root = query.shape[-1] ** -0.25
        base = rf.OptimalPositiveFeatures.fit(*balanced.moved_pair(root * query, root * key), scale=1.0)
        return rf.BalancedFeatures(base=base, matrix=balanced.matrix)
    return rf.adapt(query, key, level=method, num_features=num_features, rng=rng)  # type: ignore[arg-type]


def family(head: Head) -> str:
    """The model, with the three uses of Whisper apart."""
    return f"{head.model} {head.name.split('/')[1].split('_')[0]}" if head.model == "Whisper" else head.model


@dataclass(frozen=True)
class HeadCell(Cell):
    """All methods on one head."""

    head: str

    def measure(self, settings: RealHeadsSettings) -> Tables:
        head = load_head(self.head)
        names = {"family": family(head), "head": head.name}
        errors: list[Record] = []
        for method in METHODS:
            for num_features in settings.num_features:
                values = [self.error(head, method, num_features, draw, settings) for draw in range(settings.num_draws)]
                row = {"method": method, "num_features": num_features, "median": statistics.median(values)}
                errors.append(names | row | {"low": min(values), "high": max(values)})
        average = relative_error(average_of_values(head), head.exact)
        return {"heads": [names | {"average_of_values_error": average}], "errors": errors, "operators": []}

    def error(self, head: Head, method: str, num_features: int, draw: int, settings: RealHeadsSettings) -> float:
        rng = settings.rng(self.head, SEEDS.get(method, method), num_features, draw)
        estimator = fitted(method, head.query, head.key, num_features, rng)
        return linear_error(head, estimator.draw(head.dim, num_features, rng=rng))


@dataclass(frozen=True)
class OperatorCell(Cell):
    """Compressed attention of one head that is not causal."""

    head: str

    def measure(self, settings: RealHeadsSettings) -> Tables:
        """The error on the queries that tables and caches are made for, and on queries that were held out."""
        head = load_head(self.head)
        names = {"family": family(head), "head": head.name, "num_queries": len(head.query)}
        rows: list[Record] = []
        for method, sizes in OPERATORS.items():
            for size in sizes[: settings.operators]:
                rngs = list(settings.rngs(settings.num_draws, self.head, method, size))
                own = [relative_error(compressed(method, size, head, rng), head.exact) for rng in rngs]
                fresh = [held_out_error(method, size, head, rng) for rng in rngs]
                row = {"method": method, "size": size, "cost": COSTS[method] * size, "median": statistics.median(own)}
                row |= {"low": min(own), "high": max(own), "held_out": statistics.median(fresh)}
                rows.append(names | row)
        return {"heads": [], "errors": [], "operators": rows}


def compressed(method: str, size: int, head: Head, rng: np.random.Generator) -> np.ndarray:
    """The output of compressed attention that is made for the queries of the head."""
    if method == "clustered":
        return rf.clustered_attention(head.query, head.key, head.value, num_clusters=size, rng=rng)
    cache = rf.compress(head.key, head.value, num_keys=size, queries=head.query, fit=method == "cache, fitted", rng=rng)
    return cache.read(head.query).normalized()


def held_out_error(method: str, size: int, head: Head, rng: np.random.Generator) -> float:
    """The error on a random half of the queries, when tables and caches are made for the other half."""
    made_for, read_by = np.array_split(rng.permutation(len(head.query)), 2)
    query, key, value = head.query[made_for], head.key, head.value
    if method == "clustered":
        cache = rf.QueryClusters.fit(query, key, num_clusters=size, rng=rng).compress(key, value)
    else:
        cache = rf.compress(key, value, num_keys=size, queries=query, fit=method == "cache, fitted", rng=rng)
    return relative_error(cache.read(head.query[read_by]).normalized(), head.exact[read_by])


def cells(settings: RealHeadsSettings) -> list[Cell]:
    seen_at_once = [head for head in settings.heads if not load_head(head).is_causal]
    return [*(HeadCell(head) for head in settings.heads), *(OperatorCell(head) for head in seen_at_once)]
