"""The generic passes over a sequence: every key into the state, or chunk by chunk in causal order."""

from collections.abc import Callable
from typing import Any

from randfeat._array import Array, cumulative_sum, device_of, fold, namespace
from randfeat.attention.generic.causal import Square, attend_square, causal_partial
from randfeat.attention.generic.gates import decayed_square, gates_between, remaining, vanishing
from randfeat.attention.inputs import Inputs
from randfeat.attention.partial import PartialOutput
from randfeat.attention.state import AttentionState
from randfeat.features import Features
from randfeat.maps import FeatureMap

CHUNK = 256  # positions at a time: features of a chunk are the only arrays of size positions × features
CAUSAL_CHUNK = 128

Passed = tuple[list[PartialOutput], AttentionState]
"""Partial outputs of consecutive queries, and the state after all keys."""


def full_pass(inputs: Inputs, features: FeatureMap, state: AttentionState) -> Passed:
    """Full attention: append all keys to the state, then read it with every query."""
    state = append(inputs, features, state)
    return read(inputs.query, features, state), state


def causal_pass(
    inputs: Inputs, features: FeatureMap, state: AttentionState, *, offset: int = 0, log_gates: Any = None
) -> Passed:
    """Query i over the keys 0 .. i + offset: read what came before, attend within the chunk, then append it.

    With `log_gates` (..., S or 1, 1 or f), what is remembered is multiplied by the gate of a position as it is reached.
    """
    gates = None if log_gates is None else gates_between(log_gates, 0, inputs.num_keys)
    before, paired, rest = inputs.around(offset)
    outputs = read(before.query, features, state) if before.num_queries else []
    state = append(before, features, state, rows(gates, 0, before.num_keys))

    def step(state: AttentionState, query: Array, key: Array, value: Array, mask: Any, gates: Any) -> tuple:
        num = value.shape[-2]
        size = power_of_two(num)
        queries, keys = features.queries(query), keys_of(features, key, mask)
        square: Square = attend_square
        seen = queries
        if gates is not None:
            square = decayed_square(pad(gates, size, 0.0))
            seen = queries.scaled(cumulative_sum(gates, -2))
        within = causal_partial(pad_queries(queries, size), pad_keys(keys, size), pad(value, size, 0.0), square)
        output = state.partial(seen).merge(within.first(num))
        return append_keys(state, keys, value, gates), output.columns

    end = before.num_keys + paired.num_keys
    columns = (paired.query, *paired.key_columns, rows(gates, before.num_keys, end))
    state, found = fold_state(step, state, columns, CAUSAL_CHUNK)
    outputs += [PartialOutput(*part) for part in found]
    if rest.num_queries or not outputs:
        outputs += read(rest.query, features, state if log_gates is None else beyond_the_keys(state, log_gates))
    return outputs, append(rest, features, state, rows(gates, end, inputs.num_keys))


def beyond_the_keys(state: AttentionState, log_gates: Array) -> AttentionState:
    """The state as queries behind the last key read it: a gate of 0 leaves nothing, any other one cancels."""
    return state if log_gates.shape[-2] != 1 else state.scaled(vanishing(log_gates))


def read(query: Array, features: FeatureMap, state: AttentionState) -> list[PartialOutput]:
    """Outputs of queries that all read one state."""
    found = each_part(lambda query: state.partial(features.queries(query)).columns, (query,), CHUNK)
    return [PartialOutput(*part) for part in found]


def append(
    inputs: Inputs, features: FeatureMap, state: AttentionState, log_gates: Array | None = None
) -> AttentionState:
    """The state after all keys, with their gates (..., S, 1 or f)."""

    def step(state: AttentionState, key: Array, value: Array, mask: Any, gates: Any) -> tuple:
        return append_keys(state, keys_of(features, key, mask), value, gates), ()

    return fold_state(step, state, (*inputs.key_columns, log_gates), CHUNK)[0]


def append_keys(state: AttentionState, keys: Features, values: Array, log_gates: Array | None) -> AttentionState:
    """The state after keys whose gates act on it and on the earlier of them."""
    if log_gates is None:
        return state.append(keys, values)
    until_the_end = remaining(log_gates)
    total = until_the_end[..., :1, :] + log_gates[..., :1, :]
    return state.scaled(total).append(keys.scaled(until_the_end), values)


def fold_state(
    step: Callable[..., tuple[AttentionState, tuple]], state: AttentionState, columns: tuple, size: int, **options: bool
) -> tuple[AttentionState, list[tuple]]:
    """`fold` that carries a state: `state, results = step(state, *parts)`."""

    def on_arrays(carry: tuple, parts: tuple) -> tuple[tuple, tuple]:
        after, results = step(AttentionState(*carry), *parts)
        return (after.log_max, after.weighted, after.total), results

    start = state.log_max, state.weighted, state.total
    (log_max, weighted, total), found = fold(on_arrays, start, columns, size, **options)
    return AttentionState(log_max, weighted, total, state.origin), found


def each_part(step: Callable[..., tuple[Array, ...]], columns: tuple, size: int) -> list[tuple[Array, ...]]:
    """`fold` that carries nothing: `step(*parts)`, of one part at the least, which may be empty."""
    _, found = fold(lambda carry, parts: (carry, step(*parts)), (), columns, size)
    return found or [step(*columns)]


def rows(x: Array | None, start: int, stop: int) -> Array | None:
    """The rows of `x` (..., n, c) from `start` to `stop`; None for None."""
    return None if x is None else x[..., start:stop, :]


def keys_of(features: FeatureMap, key: Array, weights: Array | None) -> Features:
    """Features of keys times their weights (..., k, 1): a mask, or logarithms, -inf for a masked key."""
    keys = features.keys(key)
    if weights is None:
        return keys
    xp = namespace(weights)
    if weights.dtype != xp.bool:
        return keys.scaled(weights)
    return Features(keys.values, xp.where(weights, keys.log_scale, -xp.inf))


def power_of_two(num: int) -> int:
    """The smallest power of two that is not below `num`; found by comparisons, which leave `num` open to a compiler."""
    size = 1
    while size < num:
        size *= 2
    return size


def pad(x: Array, size: int, fill: float) -> Array:
    """`x` (..., n, c) filled up to `size` rows."""
    missing = size - x.shape[-2]
    if missing == 0:
        return x
    xp = namespace(x)
    filler = xp.full((*x.shape[:-2], missing, x.shape[-1]), fill, dtype=x.dtype, device=device_of(x))
    return xp.concat([x, filler], axis=-2)


def pad_queries(queries: Features, size: int) -> Features:
    """Queries filled up with rows that nobody reads."""
    return Features(pad(queries.values, size, 0.0), pad(queries.log_scale, size, 0.0))


def pad_keys(keys: Features, size: int) -> Features:
    """Keys filled up with absent ones."""
    return Features(pad(keys.values, size, 0.0), pad(keys.log_scale, size, float("-inf")))
