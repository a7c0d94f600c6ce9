"""Queries, keys and values (..., heads, length, dim) as one set of matrices for each head, to fit estimators to."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import as_bool, as_host, mask_on_host


@dataclass(frozen=True, eq=False)
class Head:
    """Raw inputs of one head: queries (L, d), keys (S, d), values (S, dv), and which keys are there."""

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    present: np.ndarray


@dataclass(frozen=True, eq=False)
class PooledHeads:
    """All heads, and whether the inputs had a dimension for them."""

    heads: list[Head]
    batched: bool


def pooled_heads(query: Any, key: Any, value: Any, key_mask: Any, query_mask: Any, enable_gqa: bool) -> PooledHeads:
    """Inputs (..., heads, length, dim) as one pair of matrices for each head."""
    q, k = as_host(query, "query"), as_host(key, "key")
    v = k if value is None else as_host(value, "value")
    for name, array in (("query", q), ("key", k), ("value", v)):
        if array.ndim < 2 or 0 in array.shape:
            raise ValueError(f"{name} must have shape (..., length >= 1, dim), got {array.shape}.")
    if q.shape[-1] != k.shape[-1] or k.shape[:-1] != v.shape[:-1]:
        raise ValueError(f"query, key and value do not fit together: {q.shape}, {k.shape}, {v.shape}.")
    enable_gqa = as_bool(enable_gqa, "enable_gqa")
    batched = max(q.ndim, k.ndim) > 2
    masks = [as_mask(query_mask, q, "query_mask"), as_mask(key_mask, k, "key_mask")]
    q, k, v = (a if a.ndim > 2 else a[None] for a in (q, k, v))
    query_present, key_present = (np.atleast_2d(mask) for mask in masks)
    heads, key_heads = q.shape[-3], k.shape[-3]
    if heads != key_heads and not (enable_gqa and heads % key_heads == 0) and 1 not in (heads, key_heads):
        raise ValueError(f"{heads} query heads and {key_heads} key heads do not fit (grouped heads: enable_gqa=True).")
    count = max(heads, key_heads)
    result = []
    for i in range(count):
        a, b = i * heads // count, i * key_heads // count
        queries = flat(q[..., a, :, :])[query_present[..., a, :].ravel()]
        present = key_present[..., b, :].ravel()
        if not len(queries) or not present.any():
            raise ValueError(f"head {i} has no query or no key that takes part.")
        keys = np.where(present[:, None], flat(k[..., b, :, :]), 0.0)
        result.append(Head(queries, keys, np.where(present[:, None], flat(v[..., b, :, :]), 0.0), present))
    return PooledHeads(result, batched)


def as_mask(mask: Any, side: np.ndarray, name: str) -> np.ndarray:
    """A mask (..., n) of the queries or keys (..., n, d) that take part; all of them if `mask` is None."""
    given = mask_on_host(mask, name)
    if given is None:
        return np.ones(side.shape[:-1], bool)
    given = given.astype(bool)
    try:
        return np.broadcast_to(given, side.shape[:-1])
    except ValueError:
        raise ValueError(f"{name} must have the shape {side.shape[:-1]} (1 broadcasts), got {given.shape}.") from None


def flat(x: np.ndarray) -> np.ndarray:
    """(..., n, d) -> (everything, d)."""
    return x.reshape(-1, x.shape[-1])
