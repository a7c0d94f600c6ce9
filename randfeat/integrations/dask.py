"""Dask: features, their moments and linear attention of arrays in chunks, larger than memory or on several machines."""

import functools
from dataclasses import fields, replace
from typing import Any

import numpy as np

from randfeat._hints import needs

try:
    import dask.array as da
    from dask.base import normalize_token
    from dask.sizeof import sizeof
except ImportError as error:
    raise ImportError(needs("dask", "Dask", "dask")) from error

from randfeat._array import as_bool, as_floating, check_in_memory
from randfeat.attention.linear import linear_attention as attention_in_memory
from randfeat.attention.problem import Problem
from randfeat.attention.state import AttentionState
from randfeat.integrations.dask_blocks import (
    Argument,
    Grid,
    blockwise,
    branches,
    chained,
    in_graph,
    in_whole_rows,
    is_known,
    lengths_like,
    maps_at,
    reduced,
)
from randfeat.maps import FeatureMap
from randfeat.regression.feature_moments import FeatureMoments

__all__ = ["feature_moments", "features", "linear_attention"]

SPLIT_EVERY = 8


def features(phi: FeatureMap, x: Any) -> Any:
    """The plain features `phi(x)` of a dask array, block by block: (..., n, d) -> (..., n, num_features), lazily.

    x : blocks of NumPy arrays. The result has the chunks of x along n (of known or unknown sizes) and along the leading
        dimensions. d and num_features have one chunk each; if x has several along d, it is rechunked.

    Each block is `phi(block)`, to the last bit. Other chunks of x change the features of a row by rounding only: `phi`
    and the matrix products choose their algorithm by the number of rows.

    >>> import randfeat as rf
    >>> x = da.random.default_rng(0).standard_normal((10_000, 3), chunks=(4_000, 3))
    >>> phi = rf.TrigonometricFeatures(rf.GaussianKernel()).draw(dim=3, num_features=64, rng=0)
    >>> z = features(phi, x)
    >>> z.shape, z.chunks
    ((10000, 64), ((4000, 4000, 2000), (64,)))
    """
    phi_in_graph, x = in_graph(phi), in_whole_rows(x, "x")
    z = phi(stand_in(x, 0))  # for its shape and dtype, and for the error if it does not fit
    grid = Grid.of(x.chunks[:-2], one_chunk_each(phi.batch_shape))
    lead = z.shape[:-2]
    chunks = dict(zip((*grid.names(len(lead)), "n", "f"), (*grid.over(lead), x.chunks[-2], z.shape[-1:]), strict=True))
    arguments = [(phi_in_graph, None), grid.place(x, x.chunks[-2:], "n", "d"), *grid.maps(phi)]
    return blockwise(block_features, chunks, arguments, z.dtype)


def feature_moments(
    phi: FeatureMap, x: Any, y: Any = None, *, dtype: str | None = "float64", split_every: int = SPLIT_EVERY
) -> Any:
    """`FeatureMoments.of(phi, x, y)` of dask arrays, lazily: a `Delayed` whose `compute()` gives the FeatureMoments.

    x (n, d), y (n, k) or (n,) : dask arrays of NumPy blocks; y is rechunked like x along n; if sizes are
        unknown, it must have as many chunks as x.
    dtype : of the sums, as in `FeatureMoments`; float64 by default, also for float32 data.
    split_every : number of moments, m² numbers each, that one task merges.

    Features are computed for part of a block at a time and never leave the worker. Moments are merged in a tree, always
    in the order of the data. Other chunks change the result by rounding only.

    >>> import randfeat as rf
    >>> x = da.linspace(-2.0, 2.0, 5_000, chunks=700)[:, None]
    >>> phi = rf.TrigonometricFeatures(rf.GaussianKernel()).draw(dim=1, num_features=20, rng=0)
    >>> moments = feature_moments(phi, x, da.sin(x)).compute()
    >>> weights = np.linalg.solve(moments.gram + 1e-6 * np.eye(20), moments.cross)
    >>> moments.count, bool(abs(features(phi, x) @ weights - da.sin(x)).max().compute() < 1e-3)
    (5000, True)
    """
    phi_in_graph, x, split_every = in_graph(phi), in_whole_rows(x, "x"), branches(split_every)
    if x.ndim != 2:
        raise ValueError(f"x must have shape (n, {phi.dim}), got {x.shape}.")
    targets: Argument = (None, None)
    if y is not None:
        y = in_whole_rows(y[:, None] if isinstance(y, da.Array) and y.ndim == 1 else y, "y")
        if y.ndim != 2:
            raise ValueError(f"y must have shape (n, k), or (n,) for one target, got {y.shape}.")
        targets = y.rechunk((lengths_like(x.chunks[0], y.chunks[0], "x and y"), y.chunks[1])), ("n", "k")
    phi(stand_in(x, 0))  # for the errors of what does not fit
    FeatureMoments.of(phi, stand_in(x, 0), None if y is None else stand_in(y, 0), dtype=dtype)
    arguments = [(phi_in_graph, None), (x, ("n", "d")), targets]
    parts = blockwise(block_moments, {"n": (1,) * x.numblocks[0]}, arguments, sums_in=dtype)
    return reduced(parts, merged_moments, split_every).to_delayed().item()


def linear_attention(
    query: Any,
    key: Any,
    value: Any,
    features: FeatureMap,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    key_mask: Any = None,
    split_every: int = SPLIT_EVERY,
    **unsupported: Any,
) -> Any:
    """`randfeat.linear_attention` of dask arrays, lazily; the length may be spread over workers.

    query (..., L, d), key (..., S, d), value (..., S, dv) : dask arrays of NumPy blocks, in one dtype. Any leading
        dimensions that broadcast, with any chunks. The result (..., L, dv) has the chunks of the query. Values and
        masks are rechunked like the keys along S; in causal attention keys, values and masks are rechunked like the
        query. If sizes are unknown, the numbers of chunks must agree.
    features, scale, is_causal : as in `randfeat.linear_attention`; causal attention needs L = S.
    key_mask : bool, dask or NumPy, (S,) or as many dimensions as `key` less one, True = take part.
    split_every : number of states that one task merges.

    Each block of keys becomes an `AttentionState`, num_features × (dv + 1) numbers for each head and its scales; only
    states are merged and moved. In full attention they are merged in a tree, and all queries read the final state. In
    causal attention they are merged in a chain, since a block of queries starts from the state of all earlier blocks;
    only this merging is not parallel. Causal attention computes the features of keys twice: once for the state of
    their block, once within the block.

    Exactness: equal to `randfeat.linear_attention` in memory up to rounding. Causal outputs never depend on later keys,
    to the last bit. Decay, windows, biases, packing, grouped heads and states are refused.

    >>> import randfeat as rf
    >>> rng = da.random.default_rng(0)
    >>> q, k, v = (rng.standard_normal((2, 3_000, 16), chunks=(2, 1_000, 16)) / 2 for _ in range(3))
    >>> phi = rf.PositiveFeatures().draw(dim=16, num_features=64, rng=0, batch_shape=(2,))
    >>> out = linear_attention(q, k, v, phi, is_causal=True)
    >>> expected = rf.linear_attention(q.compute(), k.compute(), v.compute(), phi, is_causal=True)
    >>> out.chunks == q.chunks, bool(np.allclose(out.compute(), expected))
    (True, True)
    """
    if unsupported:
        raise TypeError(
            f"{', '.join(unsupported)}: attention of dask arrays takes only is_causal, scale, key_mask and "
            "split_every; for more call randfeat.linear_attention on arrays in memory."
        )
    is_causal = as_bool(is_causal, "is_causal")
    phi_in_graph, split_every = in_graph(features), branches(split_every)
    query, key, value = (in_whole_rows(x, name) for x, name in ((query, "query"), (key, "key"), (value, "value")))
    mask = None if key_mask is None else as_mask(key_mask)
    dtype, lead, state_lead = checked(query, key, value, mask, features, scale)
    key_chunks = key.chunks[-2]
    if is_causal:
        key_chunks = lengths_like(query.chunks[-2], key_chunks, "query and key of causal attention")
    value_chunks = lengths_like(key_chunks, value.chunks[-2], "key and value")

    grid = Grid.of(query.chunks[:-2], key.chunks[:-2], value.chunks[:-2], one_chunk_each(features.batch_shape))
    along = "l" if is_causal else "s"
    queries = grid.place(query, query.chunks[-2:], "l", "d")
    keys = [
        grid.place(key, (key_chunks, key.chunks[-1]), along, "d"),
        grid.place(value, (value_chunks, value.chunks[-1]), along, "e"),
        (None, None),
    ]
    if mask is not None:
        keys[2] = grid.place(mask, (lengths_like(key_chunks, mask.chunks[-1], "key and key_mask"),), along)
    maps = grid.maps(features)

    state_axes = dict(zip(grid.names(len(state_lead)), grid.over(state_lead), strict=True))
    state_chunks = {**state_axes, along: (1,) * len(key_chunks)}
    states = blockwise(block_state, state_chunks, [(phi_in_graph, None), *keys, *maps], scale=scale)
    chunks = dict(zip(grid.names(len(lead)), grid.over(lead), strict=True))
    chunks |= {"l": query.chunks[-2], "e": value.chunks[-1]}
    if is_causal:
        earlier_states = chained(states, merged_states), tuple(state_chunks)
        return blockwise(
            block_causal, chunks, [(phi_in_graph, None), queries, *keys, earlier_states, *maps], dtype, scale=scale
        )
    state = reduced(states, merged_states, split_every), tuple(state_axes)
    return blockwise(block_read, chunks, [(phi_in_graph, None), queries, state, *maps], dtype, scale=scale)


def one_chunk_each(shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Chunks of dimensions that are not divided."""
    return tuple((size,) for size in shape)


def as_mask(key_mask: Any) -> Any:
    """The mask as a dask array (..., S), in which only S may be unknown."""
    if not isinstance(key_mask, da.Array):
        check_in_memory(key_mask, "key_mask")
    mask = key_mask if isinstance(key_mask, da.Array) else da.asarray(np.asarray(key_mask))
    if mask.ndim == 0 or not all(map(is_known, mask.shape[:-1])):
        raise ValueError(f"key_mask must have shape (S,) or (..., S) with known leading dimensions, got {mask.shape}.")
    return mask


def stand_in(x: Any, num_rows: int) -> np.ndarray:
    """An array with the shape (but `num_rows` rows) and dtype of `x` that takes no memory, to check inputs early."""
    return np.broadcast_to(np.zeros((), as_floating(x._meta, "x").dtype), (*x.shape[:-2], num_rows, x.shape[-1]))


def checked(
    query: Any, key: Any, value: Any, mask: Any, phi: FeatureMap, scale: float | None
) -> tuple[np.dtype, tuple[int, ...], tuple[int, ...]]:
    """Dtype of the output and leading dimensions of output and states; raises the errors of bad inputs early."""
    lengths = [key.shape[-2], value.shape[-2], *([] if mask is None else mask.shape[-1:])]
    lengths_known = all(map(is_known, lengths))
    queries = stand_in(query, query.shape[-2] if is_known(query.shape[-2]) else 0)
    keys, values = (stand_in(x, x.shape[-2] if lengths_known else 0) for x in (key, value))
    if mask is not None:
        mask = np.broadcast_to(np.zeros((), mask.dtype), (*mask.shape[:-1], mask.shape[-1] if lengths_known else 0))
    problem = Problem.of(queries, keys, values, phi, scale=scale, key_mask=mask)
    return problem.inputs.dtype, np.broadcast_shapes(queries.shape[:-2], problem.lead), problem.lead


def block_features(phi: FeatureMap, x: np.ndarray, *map_indices: np.ndarray) -> np.ndarray:
    """Features of one block, on one thread: Dask has a task for every core."""
    return maps_at(phi, map_indices)(x, num_threads=1)


def block_moments(phi: FeatureMap, x: np.ndarray, y: np.ndarray | None, *, sums_in: str | None) -> FeatureMoments:
    """Moments of one block of rows."""
    num_targets = 0 if y is None else y.shape[1]
    return FeatureMoments.empty(phi, num_targets, dtype=sums_in).append(x, y, num_threads=1)


def merged_moments(parts: list[FeatureMoments]) -> FeatureMoments:
    """Moments of consecutive blocks, merged in order."""
    return functools.reduce(FeatureMoments.merge, parts)


def block_state(
    phi: FeatureMap,
    key: np.ndarray,
    value: np.ndarray,
    mask: np.ndarray | None,
    *map_indices: np.ndarray,
    scale: float | None,
) -> AttentionState:
    """Attention state of one block of keys."""
    _, state = attention_in_memory(
        key[..., :1, :],  # one query, as attention without any takes a slower way
        key,
        value,
        maps_at(phi, map_indices),
        scale=scale,
        key_mask=mask,
        return_state=True,
        num_threads=1,
    )
    return replace(state, origin=None)  # a map would travel along with every state


def merged_states(parts: list[AttentionState | None]) -> AttentionState:
    """State of consecutive blocks, merged in order; a leading None (no earlier block) is skipped."""
    return functools.reduce(AttentionState.merge, (part for part in parts if part is not None))


def block_read(
    phi: FeatureMap, query: np.ndarray, state: AttentionState, *map_indices: np.ndarray, scale: float | None
) -> np.ndarray:
    """Outputs of one block of queries that all see `state`: attention to one more key, which is masked out."""
    lead, value_dim = state.total.shape[:-2], state.weighted.shape[-1]
    return attention_in_memory(
        query,
        np.zeros((*lead, 1, query.shape[-1]), query.dtype),
        np.zeros((*lead, 1, value_dim), query.dtype),
        maps_at(phi, map_indices),
        scale=scale,
        key_mask=np.zeros(1, bool),
        initial_state=state,
        num_threads=1,
    )


def block_causal(
    phi: FeatureMap,
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    mask: np.ndarray | None,
    before: AttentionState | None,
    *map_indices: np.ndarray,
    scale: float | None,
) -> np.ndarray:
    """Outputs of one block of queries that see the state before it, and causally the keys of the block."""
    if query.shape[-2] != key.shape[-2]:
        raise ValueError(
            f"causal attention needs chunks of queries and keys of the same lengths, got {query.shape[-2]} and "
            f"{key.shape[-2]} in one of them."
        )
    return attention_in_memory(
        query,
        key,
        value,
        maps_at(phi, map_indices),
        is_causal=True,
        scale=scale,
        key_mask=mask,
        initial_state=before,
        num_threads=1,
    )


@normalize_token.register(FeatureMap)
def tokens(phi: FeatureMap) -> tuple[Any, ...]:
    """The fields that determine a map, for the names that Dask gives to computations."""
    return "randfeat.FeatureMap", phi.estimator, phi.dim, phi.num_features, dict(phi.arrays)


@sizeof.register(FeatureMap)
def size_of_map(phi: FeatureMap) -> int:
    """Bytes of the arrays of a map."""
    return sum(array.nbytes for array in phi.arrays.values())


@sizeof.register((AttentionState, FeatureMoments))
def size_of_sums(sums: AttentionState | FeatureMoments) -> int:
    """Bytes of the arrays of a state or moments, for the memory accounting of Dask."""
    return sum(getattr(getattr(sums, field.name), "nbytes", 0) for field in fields(sums))
