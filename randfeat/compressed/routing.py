"""Rows of arrays by index, and the reading of caches with a route: each query reads the rows of its cluster."""

import math
from functools import partial

import numpy as np

from randfeat._array import (
    Array,
    broadcast_shapes,
    cumulative_sum,
    device_of,
    exp_in_place,
    from_host,
    host_twins,
    namespace,
    peak,
    replace_minus_inf,
    stop_gradient,
)
from randfeat._numpy.threads import resolve_num_threads, run_tasks
from randfeat.attention.partial import PartialOutput


def clusters_of(queries: Array, route: Array) -> Array:
    """The cluster of each query (..., L, d): the index of the largest `route · (q, 1)`."""
    xp = namespace(queries, route)
    scores = queries @ xp.matrix_transpose(route[..., :-1]) + xp.matrix_transpose(route[..., -1:])
    return xp.argmax(scores, axis=-1)


def read_routed(
    queries: Array, keys: Array, bias: Array, values: Array, assigned: Array, scale: float
) -> PartialOutput:
    """Partial outputs of queries (..., L, d) that read the rows (..., C, n, ·) of their clusters `assigned` (..., L).

    On the host, cluster by cluster. In other libraries, shapes must not depend on numbers: a query is one row of a
    piece of its cluster, and all pieces are multiplied at once.
    """
    twins = host_twins(queries, keys, bias, values, assigned)
    if twins is not None:
        part = read_by_cluster(*(x for x in twins if x is not None), scale=scale)
        return part if namespace(queries) is np else PartialOutput(*(from_host(x, queries) for x in part.columns))
    xp = namespace(queries)
    lead = broadcast_shapes(queries.shape[:-2], keys.shape[:-3])
    num_heads, (length, dim) = math.prod(lead), queries.shape[-2:]
    num_clusters = keys.shape[-3]
    flat = xp.reshape(xp.broadcast_to(queries, (*lead, length, dim)), (num_heads, length, dim))
    assigned = xp.reshape(xp.broadcast_to(assigned, (*lead, length)), (num_heads, length))
    if length <= 2 * num_clusters:  # a piece for each query, in order
        members, owner, place = flat[..., None, :], assigned, None
    else:
        positions, owner, place = pieces_of(assigned, num_clusters)
        members = rows_at(flat, positions)
    num_tables = math.prod(keys.shape[:-3])
    heads = xp.reshape(xp.arange(num_tables, device=device_of(keys)), tuple(keys.shape[:-3]))
    heads = xp.reshape(xp.broadcast_to(heads, lead), (num_heads, 1))  # heads that share tables take from them
    index = xp.reshape(num_clusters * heads + owner, (math.prod(owner.shape),))
    tables = (xp.reshape(x, (num_tables * num_clusters, *x.shape[-2:])) for x in (keys, bias[..., None], values))
    keys, bias, values = (xp.reshape(xp.take(x, index, axis=0), (*owner.shape, *x.shape[-2:])) for x in tables)
    part = partial_of(scale * (members @ xp.matrix_transpose(keys)) + xp.matrix_transpose(bias), values)
    columns = [xp.reshape(x, (num_heads, math.prod(x.shape[1:-1]), x.shape[-1])) for x in part.columns]
    if place is not None:
        columns = [rows_at(x, place) for x in columns]
    return PartialOutput(*(xp.reshape(x, (*lead, length, x.shape[-1])) for x in columns))


def pieces_of(assigned: Array, num_groups: int) -> tuple[Array, Array, Array]:
    """`Pieces` of positions (H, L) that belong to the groups `assigned`, computed in the library of the array.

    positions (H, 2 G, p) : of the members of each piece, and any where there are fewer than p = ⌈L / G⌉ of them.
    owner (H, 2 G) : the group of each piece. place (H, L) : where each position stands among the flattened pieces.
    """
    xp, length = namespace(assigned), assigned.shape[-1]
    options = {"device": device_of(assigned)}
    size = -(-length // num_groups)
    order = xp.argsort(assigned, axis=-1, stable=True)
    rank = xp.argsort(order, axis=-1, stable=True)
    groups = xp.arange(num_groups, **options)
    counts = xp.sum(xp.astype(assigned[..., None] == groups, order.dtype), axis=-2)  # (H, G)
    numbers = (counts + size - 1) // size
    starts, ends = cumulative_sum(counts, -1) - counts, cumulative_sum(numbers, -1)
    first = ends - numbers
    pieces = xp.arange(2 * num_groups, **options)
    owner = xp.sum(xp.astype(pieces[:, None] >= ends[..., None, :], order.dtype), axis=-1)  # (H, 2 G)
    owner = xp.where(owner < num_groups, owner, num_groups - 1)
    of_piece = entries_at(starts, owner) + size * (pieces - entries_at(first, owner))
    sorted_positions = of_piece[..., None] + xp.arange(size, **options)
    sorted_positions = xp.where(sorted_positions < length, sorted_positions, length - 1)
    place = size * entries_at(first, assigned) + rank - entries_at(starts, assigned)
    return entries_at(order, sorted_positions), owner, place


def entries_at(row: Array, index: Array) -> Array:
    """The entries of rows (H, n) at indices (H, ...)."""
    return rows_at(row[..., None], index)[..., 0]


def read_by_cluster(
    queries: np.ndarray, keys: np.ndarray, bias: np.ndarray, values: np.ndarray, assigned: np.ndarray, *, scale: float
) -> PartialOutput:
    """Partial outputs on the host, for the queries of one cluster at a time."""
    lead = np.broadcast_shapes(queries.shape[:-2], keys.shape[:-3])
    queries, assigned = (np.broadcast_to(x, (*lead, *x.shape[k:])) for x, k in ((queries, -2), (assigned, -1)))
    keys, values = (np.broadcast_to(x, (*lead, *x.shape[-3:])) for x in (keys, values))
    bias = np.broadcast_to(bias, (*lead, *bias.shape[-2:]))
    length = queries.shape[-2]
    whole = PartialOutput(*(np.empty((*lead, length, width), queries.dtype) for width in (values.shape[-1], 1, 1)))

    def task(index: tuple[int, ...], _: None) -> None:
        order = np.argsort(assigned[index], kind="stable")
        stops = np.cumsum(np.bincount(assigned[index], minlength=keys.shape[-3]))
        for cluster, members in enumerate(np.split(order, stops[:-1])):
            row = (*index, cluster)
            part = partial_of(scale * (queries[index][members] @ keys[row].T) + bias[row], values[row])
            for target, column in zip(whole.columns, part.columns, strict=True):
                target[index][members] = column

    tasks = [partial(task, index) for index in np.ndindex(lead)]
    run_tasks(tasks, lambda: None, resolve_num_threads(None))
    return whole


def partial_of(logits: Array, values: Array) -> PartialOutput:
    """The partial outputs of logits (..., n, k), which are overwritten on the host, and values (..., k, dv)."""
    xp = namespace(logits)
    top = stop_gradient(peak(logits, -1))
    weights = exp_in_place(logits - replace_minus_inf(top))
    return PartialOutput(weights @ values, xp.sum(weights, axis=-1, keepdims=True), top)


def rows_at(columns: Array, index: Array) -> Array:
    """The rows of columns (H, n, c) at indices (H, ...), of the host or the library of the columns: (H, ..., c)."""
    xp, (heads, length, width) = namespace(columns), columns.shape
    index = xp.asarray(index, device=device_of(columns)) if isinstance(index, np.ndarray) else index
    first = length * xp.arange(heads, device=device_of(columns))
    flat = index + xp.reshape(first, (-1, *(1 for _ in index.shape[1:])))
    taken = xp.take(xp.reshape(columns, (heads * length, width)), xp.reshape(flat, (-1,)), axis=0)
    return xp.reshape(taken, (*index.shape, width))
