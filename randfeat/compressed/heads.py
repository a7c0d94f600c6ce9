"""The heads of a call on the host: reference queries and rows of each key head, without what is masked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from randfeat._array import (
    Array,
    as_generator,
    cast,
    check_in_memory,
    compute_dtype,
    host_twins,
    is_compiling,
    namespace,
    stop_gradient,
    to_numpy,
)
from randfeat.attention.inputs import Inputs, is_for_positions
from randfeat.compressed.merging import Rows

TRACED = (
    "a fit needs numbers, but the arrays are traced by a compiler; make a KeyCache outside of the traced function "
    "(compress, QueryClusters.compress), and read it inside."
)


@dataclass(frozen=True, eq=False)
class Head:
    """One key head: its queries and keys, times √scale, and values, as NumPy arrays.

    queries (n, d) : of all query heads that share the keys, zero where masked.
    references (n', d) : the queries that take part and are finite, for the fit.
    present (S',) : indices of the keys that take part; rows (S',) : keys, biases and values of these.
    is_spoiled : whether a key that takes part, or its bias, is not finite, which spoils every output; 0 in `rows`.
    """

    queries: np.ndarray
    references: np.ndarray
    present: np.ndarray
    rows: Rows
    is_spoiled: bool


def heads_of(inputs: Inputs, query_mask: np.ndarray | None) -> tuple[tuple[int, ...], list[Head]]:
    """The leading shape of the key heads, and the heads in the order of their index."""
    root = inputs.root
    query, key, value = (on_host(x) for x in (inputs.query, inputs.key, inputs.value))
    mask = None if inputs.key_mask is None else to_numpy(inputs.key_mask)
    bias = None if inputs.key_bias is None else on_host(inputs.key_bias)
    if inputs.group is not None:  # the group is one more dimension of the queries' length
        key, value = key[..., 0, :, :], value[..., 0, :, :]
        mask, bias = (x[..., 0, :] if x is not None and x.ndim > 1 else x for x in (mask, bias))
    lead = key_lead(inputs)
    own = query.shape[query.ndim - (2 if inputs.group is None else 3) :]
    query = np.broadcast_to(query, (*lead, *own))
    key, value = (np.broadcast_to(x, (*lead, *x.shape[-2:])) for x in (key, value))
    mask, bias = (None if x is None else np.broadcast_to(x, (*lead, x.shape[-1])) for x in (mask, bias))
    seen = None if query_mask is None else np.broadcast_to(query_mask, (*lead, *own[:-1]))

    def head(index: tuple[int, ...]) -> Head:
        queries = references = query[index].reshape(math.prod(own[:-1]), own[-1]) * root
        if seen is not None:
            used = seen[index].reshape(-1)
            queries, references = np.where(used[:, None], queries, 0), queries[used]
        if not np.all(finite := np.isfinite(references).all(axis=-1)):
            references = references[finite]
        present = np.arange(key.shape[-2]) if mask is None else np.flatnonzero(mask[index])
        everything = len(present) == key.shape[-2]
        keys, values = (x[index] if everything else x[index][present] for x in (key, value))
        biases = np.zeros(len(present), key.dtype) if bias is None else bias[index][present]
        is_spoiled = not (np.all(np.isfinite(keys)) and np.all(np.isfinite(biases)))
        biases = np.zeros_like(biases) if is_spoiled else biases
        keys = np.where(np.isfinite(keys), keys, 0) if is_spoiled else keys
        return Head(queries, references, present, Rows(keys * root, biases, values), is_spoiled)

    return lead, [head(index) for index in np.ndindex(lead)]


def on_host_if_possible(inputs: Inputs) -> Inputs | None:
    """The inputs as NumPy arrays in the computing dtype, without a copy of float32 and float64; None for others."""
    if isinstance(inputs.value, np.ndarray):
        return inputs
    wide = inputs.computing()
    twins = host_twins(wide.query, wide.key, wide.value, wide.key_mask, wide.key_bias)
    if twins is None:
        return None
    query, key, value, mask, bias = twins
    assert query is not None
    assert key is not None
    assert value is not None
    return replace(wide, query=query, key=key, value=value, key_mask=mask, key_bias=bias, dtype=value.dtype)


def key_lead(inputs: Inputs) -> tuple[int, ...]:
    """The leading shape of the key heads."""
    shapes = [x.shape[: -2 if inputs.group is None else -3] for x in (inputs.query, inputs.key, inputs.value)]
    return np.broadcast_shapes(*map(tuple, shapes))


def check_loaded(inputs: Inputs) -> None:
    """TypeError for arrays that are still to be computed, which would silently be loaded as a whole."""
    for name, x in (("key", inputs.key), ("value", inputs.value), ("query", inputs.query)):
        if not is_compiling(x):
            check_in_memory(x, name)


def on_host(x: Array) -> np.ndarray:
    """`x` in NumPy, in the computing dtype; TypeError while a function is traced, as there are no numbers yet."""
    if is_compiling(x):
        raise TypeError(TRACED)
    wide = stop_gradient(cast(x, compute_dtype(namespace(x), x.dtype)))
    try:
        return to_numpy(wide)
    except (TypeError, RuntimeError) as error:
        raise TypeError(TRACED) from error


def check_query_mask(query_mask: Any, inputs: Inputs) -> np.ndarray | None:
    """A boolean mask over queries on the host, with heads grouped as the queries are."""
    if query_mask is None:
        return None
    if not is_compiling(query_mask):
        check_in_memory(query_mask, "query_mask")
    mask = to_numpy(query_mask) if not isinstance(query_mask, list | tuple) else np.asarray(query_mask)
    if mask.dtype != np.bool_:
        raise TypeError(f"query_mask must be boolean, True = take part, got dtype {mask.dtype}.")
    shape = tuple(inputs.query.shape[:-1])
    expected = shape if inputs.group is None else (*shape[:-3], shape[-3] * shape[-2], shape[-1])
    if not is_for_positions(mask.shape, expected):
        raise ValueError(
            f"query_mask must have shape ({expected[-1]},) or {expected} (1 broadcasts), got {mask.shape}."
        )
    if inputs.group is None or mask.ndim == 1:
        return mask
    return np.broadcast_to(mask, (*mask.shape[:-2], expected[-2], mask.shape[-1])).reshape(
        *mask.shape[:-2], *shape[-3:]
    )


def head_numbers(batch_shape: tuple[int, ...]) -> list[int]:
    """The number of each head in its sequence, its place along the last dimension: sequences of a batch are alike."""
    sequences, heads = math.prod(batch_shape[:-1]), batch_shape[-1] if batch_shape else 1
    return [*range(heads)] * sequences


def head_seeds(rng: Any, batch_shape: tuple[int, ...]) -> list[np.random.SeedSequence]:
    """A seed for each head, by its number alone: no sequence of a batch depends on the others, or on its place.

    Numbers and seed sequences are not used up: equal ones give equal seeds. A generator goes on to other numbers.
    """
    generator = as_generator(rng)
    root: Any = generator.bit_generator.seed_seq
    if isinstance(rng, np.random.Generator | np.random.BitGenerator):
        root = np.random.SeedSequence(generator.integers(2**32, size=4).tolist())
    return [np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, n)) for n in head_numbers(batch_shape)]


def stacked(arrays: Sequence[np.ndarray], lead: tuple[int, ...], filler: float = 0.0) -> np.ndarray:
    """The arrays of the heads with leading dimensions `lead`, filled up to the length of the longest."""
    longest = max((len(array) for array in arrays), default=0)
    first = arrays[0]
    whole = np.full((len(arrays), longest, *first.shape[1:]), filler, first.dtype)
    for target, array in zip(whole, arrays, strict=True):
        target[: len(array)] = array
    return whole.reshape(*lead, longest, *first.shape[1:])
