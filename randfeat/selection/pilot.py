"""Exact attention on a sample of the queries, and the error of one draw of an estimator against it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import as_bool, as_host
from randfeat._numpy.elementary import ratio
from randfeat.attention import linear_attention
from randfeat.estimators import Estimator
from randfeat.kernels import SoftmaxFamily
from randfeat.maps import FeatureMap
from randfeat.selection.heads import as_mask

SMALLEST = 1e-250
"""Sums of estimates over the largest kernel value below which digits are lost."""


@dataclass(frozen=True, eq=False)
class Sequences:
    """Queries (..., L, d), keys (..., S, d) and values (..., S, dv) of the same leading dimensions, zero where masked.

    query_mask (..., L), key_mask (..., S) : which of them take part.
    """

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    query_mask: np.ndarray
    key_mask: np.ndarray

    @classmethod
    def of(cls, query: Any, key: Any, value: Any, *, key_mask: Any, query_mask: Any, enable_gqa: bool) -> "Sequences":
        """Checked host copies; the keys stand in for missing values, and serve all queries of their group."""
        enable_gqa = as_bool(enable_gqa, "enable_gqa")
        q, k = as_host(query, "query"), as_host(key, "key")
        v = k if value is None else as_host(value, "value")
        for name, array in (("query", q), ("key", k), ("value", v)):
            if array.ndim < 2 or 0 in array.shape:
                raise ValueError(f"{name} must have shape (..., length >= 1, dim), got {array.shape}.")
        if q.shape[-1] != k.shape[-1] or k.shape[:-1] != v.shape[:-1]:
            raise ValueError(f"query, key and value do not fit together: {q.shape}, {k.shape}, {v.shape}.")
        query_present, key_present = as_mask(query_mask, q, "query_mask"), as_mask(key_mask, k, "key_mask")
        if enable_gqa and min(q.ndim, k.ndim) > 2 and q.shape[-3] % k.shape[-3] == 0:
            group = q.shape[-3] // k.shape[-3]
            k, v, key_present = (np.repeat(x, group, axis=x.ndim - n) for x, n in ((k, 3), (v, 3), (key_present, 2)))
        try:
            lead = np.broadcast_shapes(q.shape[:-2], k.shape[:-2])
        except ValueError:
            raise ValueError(
                f"query, key and value do not fit together (grouped heads: enable_gqa=True): {q.shape}, {k.shape}, "
                f"{v.shape}."
            ) from None
        masks = [np.broadcast_to(mask, lead + mask.shape[-1:]) for mask in (query_present, key_present)]
        sides = [np.broadcast_to(x, lead + x.shape[-2:]) for x in (q, k, v)]
        for i, (name, mask) in enumerate(zip(("query", "key", "value"), (*masks, masks[1]), strict=True)):
            sides[i] = np.where(mask[..., None], sides[i], 0.0)
            if not np.all(np.isfinite(sides[i])):
                raise ValueError(f"{name} holds NaN or infinity; leave out padding, by key_mask or query_mask.")
        return cls(*sides, *masks)


@dataclass(frozen=True, eq=False)
class Pilot:
    """Sampled queries, all keys after √scale, and the exact outputs."""

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    visible: np.ndarray
    """(..., queries, keys), what each query sees."""
    counted: np.ndarray
    """(..., queries, 1), which queries take part and see a key."""
    log_top: np.ndarray
    """Largest exact logarithm of a weight for each query, (..., queries, 1)."""
    exact: np.ndarray
    options: dict[str, Any]
    """Keywords of `linear_attention` for what each query sees."""

    @classmethod
    def of(
        cls, sequences: Sequences, rows: np.ndarray, *, kernel: SoftmaxFamily, scale: float, is_causal: bool
    ) -> "Pilot":
        """The sample of these rows."""
        x, y = np.sqrt(scale) * sequences.query[..., rows, :], np.sqrt(scale) * sequences.key
        visible = np.broadcast_to(sequences.key_mask[..., None, :], (*x.shape[:-1], y.shape[-2]))
        if is_causal:
            visible = visible & (rows[:, None] >= np.arange(y.shape[-2]))
        counted = (sequences.query_mask[..., rows] & visible.any(axis=-1))[..., None]
        logits = np.where(visible, kernel.log_gram(x, y), -np.inf)
        top = np.where(counted, np.max(logits, axis=-1, keepdims=True, initial=-np.inf), 0.0)
        weights = np.where(counted, np.exp(logits - top), 1.0)
        exact = weights @ sequences.value / weights.sum(axis=-1, keepdims=True)
        options: dict[str, Any] = {"scale": 1.0, "key_mask": sequences.key_mask}
        if is_causal:
            options["key_ends"] = np.minimum(rows + 1, y.shape[-2])
        return cls(x, y, sequences.value, visible, counted, top, exact, options)

    def error(self, estimator: Estimator, num_features: int, rng: np.random.Generator) -> np.ndarray:
        """Relative error of one draw for each head, (heads,)."""
        return self.error_of(estimator.draw(self.query.shape[-1], num_features, rng=rng))

    def error_of(self, phi: FeatureMap) -> np.ndarray:
        """Relative error of a map for each head, (heads,)."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # signed features may do all of these
            weights = phi.queries(self.query).scaled(-self.log_top).dot(phi.keys(self.key))
            weights = np.where(self.visible, weights, 0.0)
            size = np.abs(weights).sum(axis=-1, keepdims=True)[self.counted]
            if not np.all((size > SMALLEST) & (size < np.inf)):  # estimates far from the kernel, in units of the kernel
                return self.relative(linear_attention(self.query, self.key, self.value, phi, **self.options))
            return self.relative(weights @ self.value / weights.sum(axis=-1, keepdims=True))

    def average_error(self) -> float:
        """The error of the baseline that returns the mean of the visible values."""
        with np.errstate(invalid="ignore"):
            average = self.visible @ self.value / self.visible.sum(axis=-1, keepdims=True)
        return float(np.median(self.relative(average)))

    def largest_error(self) -> float:
        """The error of the worst averages of the visible values, `√(Σ_i max_j |v_j - o_i|² / Σ_i |o_i|²)`."""
        worst = np.zeros_like(self.counted, dtype=float)
        for i in range(worst.shape[-2]):
            squares = np.sum((self.value - self.exact[..., i, None, :]) ** 2, axis=-1)
            worst[..., i, 0] = np.max(squares, axis=-1, where=self.visible[..., i, :], initial=0.0)
        return float(np.median(ratio(self.norms(np.sqrt(worst)), self.norms(self.exact))))

    def relative(self, output: np.ndarray) -> np.ndarray:
        """`|output - exact| / |exact|` in the Frobenius norm, (heads,): pooled over the dimensions before the heads."""
        return ratio(self.norms(output - self.exact), self.norms(self.exact))

    def norms(self, x: np.ndarray) -> np.ndarray:
        """Frobenius norm over the counted queries of each head, (heads,)."""
        squares = np.where(self.counted, x * x, 0.0).sum(axis=(-2, -1))
        return np.sqrt(np.atleast_1d(squares.sum(axis=tuple(range(squares.ndim - 1)))))
