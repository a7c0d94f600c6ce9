"""Rows of arrays by index, and the reading of caches with a route: each query reads the rows of its cluster."""

import numpy as np

from randfeat._array import Array, device_of, exp_in_place, namespace, peak, replace_minus_inf, stop_gradient
from randfeat.attention.inputs import intervals
from randfeat.attention.partial import PartialOutput

BLOCK = 512  # queries at a time, so that memory is linear in the length


def clusters_of(queries: Array, route: Array) -> Array:
    """The cluster of each query (..., L, d): the index of the largest `route · (q, 1)`."""
    xp = namespace(queries, route)
    scores = queries @ xp.matrix_transpose(route[..., :-1]) + xp.matrix_transpose(route[..., -1:])
    return xp.argmax(scores, axis=-1)


def read_routed(
    queries: Array, keys: Array, bias: Array, values: Array, assigned: Array, scale: float
) -> PartialOutput:
    """Partial outputs of queries (..., L, d) that read the rows (..., C, n, ·) of their clusters `assigned` (..., L).

    On the host, cluster by cluster. In other libraries, shapes must not depend on numbers: every query meets the rows
    of all clusters, and those of others get the weight 0.
    """
    xp = namespace(queries)
    if xp is np:
        return read_by_cluster(queries, keys, bias, values, assigned, scale)
    num_clusters, num_rows = keys.shape[-3:-1]
    owner = xp.arange(num_clusters * num_rows, device=device_of(queries)) // num_rows
    keys, values = (xp.reshape(x, (*x.shape[:-3], num_clusters * num_rows, x.shape[-1])) for x in (keys, values))
    bias = xp.reshape(bias, (*bias.shape[:-2], 1, num_clusters * num_rows))
    parts = []
    for start, stop in intervals(0, queries.shape[-2], BLOCK) or [(0, 0)]:
        logits = scale * (queries[..., start:stop, :] @ xp.matrix_transpose(keys)) + bias
        own = assigned[..., start:stop, None] == owner
        parts.append(partial_of(xp.where(own, logits, -xp.inf), values))
    return PartialOutput.concat(parts)


def read_by_cluster(
    queries: np.ndarray, keys: np.ndarray, bias: np.ndarray, values: np.ndarray, assigned: np.ndarray, scale: float
) -> PartialOutput:
    """Partial outputs on the host, for the queries of one cluster at a time."""
    lead = np.broadcast_shapes(queries.shape[:-2], keys.shape[:-3])
    queries, assigned = (np.broadcast_to(x, (*lead, *x.shape[k:])) for x, k in ((queries, -2), (assigned, -1)))
    keys, values = (np.broadcast_to(x, (*lead, *x.shape[-3:])) for x in (keys, values))
    bias = np.broadcast_to(bias, (*lead, *bias.shape[-2:]))
    length = queries.shape[-2]
    whole = PartialOutput(*(np.empty((*lead, length, width), queries.dtype) for width in (values.shape[-1], 1, 1)))
    for index in np.ndindex(lead):
        order = np.argsort(assigned[index], kind="stable")
        stops = np.cumsum(np.bincount(assigned[index], minlength=keys.shape[-3]))
        for cluster, members in enumerate(np.split(order, stops[:-1])):
            row = (*index, cluster)
            part = partial_of(scale * (queries[index][members] @ keys[row].T) + bias[row], values[row])
            for target, column in zip(whole.columns, part.columns, strict=True):
                target[index][members] = column
    return whole


def partial_of(logits: Array, values: Array) -> PartialOutput:
    """The partial outputs of logits (..., n, k), which are overwritten on the host, and values (..., k, dv)."""
    xp = namespace(logits)
    top = stop_gradient(peak(logits, -1))
    weights = exp_in_place(logits - replace_minus_inf(top))
    return PartialOutput(weights @ values, xp.sum(weights, axis=-1, keepdims=True), top)


def rows_at(columns: Array, index: np.ndarray) -> Array:
    """The rows of columns (H, n, c) at indices (H, ...) of the host: (H, ..., c)."""
    xp, (heads, length, width) = namespace(columns), columns.shape
    flat = index + length * np.arange(heads).reshape(-1, *(1 for _ in index.shape[1:]))
    whole = xp.reshape(columns, (heads * length, width))
    taken = xp.take(whole, xp.asarray(flat.reshape(-1), device=device_of(columns)), axis=0)
    return xp.reshape(taken, (*index.shape, width))
