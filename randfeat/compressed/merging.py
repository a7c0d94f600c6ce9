"""Merged keys: clusters of keys, each replaced by one row with a bias that keeps its mass."""

from dataclasses import dataclass, replace

import numpy as np

from randfeat.attention.cost_model.sizes import CLUSTERED, LEAST_REFERENCES
from randfeat.compressed.means import SEEDING, drawn_by_weight, k_means, nearest, weighted_sums
from randfeat.compressed.metric import covariance_factor
from randfeat.compressed.softmax import log_mean_exp, softmax_in_place

METRIC_RIDGE = 0.01
LEAST_SEEDING = 512
VALUE_WEIGHT = 0.25
"""Spread of the values over that of the keys where both are clustered: errors are 2 to 7 % lower than without."""
LEAST_MASS = 1e-12  # share of the mass that all keys get, those without any attention, too


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows that stand for keys, of one head on the host: keys (n, d), times √scale, bias (n,), values (n, dv)."""

    keys: np.ndarray
    bias: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.bias)

    def select(self, chosen: np.ndarray) -> "Rows":
        """The rows of these indices."""
        return Rows(self.keys[chosen], self.bias[chosen], self.values[chosen])

    def shifted(self, offset: np.ndarray) -> "Rows":
        """The rows with `offset` added to the keys, which cancels in the softmax if all keys move."""
        return replace(self, keys=self.keys + offset)


@dataclass(frozen=True, eq=False)
class References:
    """Typical queries, and how they attend to the keys that are to be compressed.

    queries (n, d), weights (n, S): rows of the softmax, log_total (n, 1): their log-normalizers.
    """

    queries: np.ndarray
    weights: np.ndarray
    log_total: np.ndarray

    @classmethod
    def of(cls, queries: np.ndarray, rows: Rows) -> "References":
        """The attention of the queries to the rows."""
        weights = queries @ rows.keys.T
        weights += rows.bias
        return cls(queries, weights, softmax_in_place(weights))

    def log_ratio(self, keys: np.ndarray) -> np.ndarray:
        """`E_ih = x_i · w_h - log Z_i`: the logarithm of the share of a key w_h, before its bias."""
        return self.queries @ keys.T - self.log_total


def num_references(num_keys: int, num_queries: int, *, fit: bool) -> int:
    """The number of reference queries: 2 for each row, 4 with a fit, at least 32, at most all."""
    return min(num_queries, max((4 if fit else 2) * num_keys, LEAST_REFERENCES))


@dataclass(frozen=True, eq=False)
class Merge:
    """A division of rows into new rows, and the share of each old row in its new one.

    labels (S,) : the new row of each old one. shares (S,) : its share of that; the shares of a new row sum to 1.
    bias (n,) : of the new rows. correction (n, dv) : added to the merged values, by a fit; or None.
    """

    labels: np.ndarray
    shares: np.ndarray
    bias: np.ndarray
    correction: np.ndarray | None = None

    @classmethod
    def identity(cls, rows: Rows) -> "Merge":
        """Every row is kept as it is."""
        return cls(np.arange(len(rows)), np.ones(len(rows), rows.keys.dtype), rows.bias)

    def rows(self, rows: Rows) -> Rows:
        """The new rows: means of keys and values by share."""
        columns = np.concatenate([rows.keys, rows.values], axis=1)
        sums, _ = weighted_sums(columns, self.shares, self.labels, len(self.bias))
        keys, values = np.split(sums, [rows.keys.shape[1]], axis=1)
        return Rows(keys, self.bias, values if self.correction is None else values + self.correction)

    def matrix(self, present: np.ndarray, num_keys: int) -> np.ndarray:
        """The shares as a matrix (n, num_keys), where the merged rows are the keys `present`."""
        matrix = np.zeros((len(self.bias), num_keys), self.shares.dtype)
        matrix[self.labels, present] = self.shares
        return matrix

    def corrections(self, value_dim: int) -> np.ndarray:
        """The corrections of the values, zero without a fit."""
        empty = np.zeros((len(self.bias), value_dim), self.shares.dtype)
        return empty if self.correction is None else self.correction


def merge_keys(
    references: References, queries: np.ndarray, rows: Rows, num_keys: int, generator: np.random.Generator
) -> Merge:
    """At most `num_keys` rows in place of `rows`, whose outputs are convex combinations of the values.

    Keys with weights t_j = mean_i P_ij² are clustered by k-means in the metric of the covariance of `queries`, with
    their values as further coordinates. The row of a cluster is the mean of its keys and values by mass
    a_j = mean_i P_ij, and its bias gives it their mean mass:

        b_h = log Σ_{j∈h} a_j - log mean_i exp(x_i · w_h - log Z_i).
    """
    weights = references.weights
    mass = np.mean(weights, axis=0) + weights.dtype.type(LEAST_MASS / len(rows))
    place = np.einsum("ns,ns->s", weights, weights) / weights.dtype.type(len(weights))
    place += LEAST_MASS * np.mean(place)
    points = with_values(rows.keys @ covariance_factor(queries, METRIC_RIDGE), rows.values, mass, place)
    seen, counts = drawn_by_weight(points, place, CLUSTERED * num_keys, generator)
    seeding = max(SEEDING * num_keys, LEAST_SEEDING)
    labels = nearest(points, k_means(seen, num_keys, generator, weights=counts, num_seeding=seeding))
    masses = np.bincount(labels, mass, minlength=num_keys)
    filled = masses > 0
    labels, masses = (np.cumsum(filled) - 1)[labels], masses[filled]
    shares = (mass / masses[labels]).astype(mass.dtype)
    merge = Merge(labels, shares, np.log(masses).astype(mass.dtype))
    bias = merge.bias - log_mean_exp(references.log_ratio(merge.rows(rows).keys), axis=0)
    return replace(merge, bias=bias)


def with_values(points: np.ndarray, values: np.ndarray, mass: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Points (..., n, d) with the values (..., n, dv) as further coordinates, which have a quarter of their spread.

    Keys whose logits are alike are merged at less cost if their values are alike, too. Spreads are roots of mean
    squares by the weights `place` (..., n). Values that are not finite, or all the same, add zeros.
    """
    is_finite = np.isfinite(values).all(axis=(-2, -1), keepdims=True)
    values = np.where(is_finite, values, 0)
    moved = values - mass[..., None, :] @ values / np.sum(mass, axis=-1)[..., None, None]
    size = np.max(np.abs(moved), axis=(-2, -1), keepdims=True, initial=0)
    moved = moved / np.where(size > 0, size, 1)
    ours, theirs = (np.sqrt(place[..., None, :] @ np.sum(x * x, axis=-1, keepdims=True)) for x in (points, moved))
    factor = points.dtype.type(VALUE_WEIGHT) * ours / np.where(theirs > 0, theirs, 1)
    return np.concatenate([points, factor * moved], axis=-1)
