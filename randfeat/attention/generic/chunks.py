"""One chunk of causal attention, and loops over chunks that carry a state."""

from collections.abc import Callable

from randfeat._array import Array, cumulative_sum, device_of, fold, is_compiling, namespace
from randfeat.attention.generic.causal import Square, attend_square, causal_partial
from randfeat.attention.generic.gates import decayed_square, remaining
from randfeat.attention.partial import PartialOutput
from randfeat.attention.state import AttentionState
from randfeat.features import Features

CHUNK = 256  # positions at a time: features of a chunk are the only arrays of size positions × features
CAUSAL_CHUNK = 128


def rows_at_once(x: Array, size: int) -> int | None:
    """`size`, or None for all rows where PyTorch compiles `x`, so that one graph serves every length."""
    return None if is_compiling(x) else size


def attend_chunk(
    state: AttentionState, queries: Features, keys: Features, value: Array, log_gates: Array | None
) -> tuple[AttentionState, PartialOutput]:
    """The state after a chunk, and its outputs: query i sees the keys of the state, and those of the chunk up to i."""
    num = value.shape[-2]
    size = power_of_two(num)
    square: Square = attend_square
    seen = queries
    if log_gates is not None:
        square = decayed_square(pad(log_gates, size, 0.0))
        seen = queries.scaled(cumulative_sum(log_gates, -2))
    within = causal_partial(pad_queries(queries, size), pad_keys(keys, size), pad(value, size, 0.0), square)
    return append_keys(state, keys, value, log_gates), state.partial(seen).merge(within.first(num))


def append_keys(state: AttentionState, keys: Features, values: Array, log_gates: Array | None) -> AttentionState:
    """The state after keys whose gates act on it and on the earlier of them."""
    if log_gates is None:
        return state.append(keys, values)
    until_the_end = remaining(log_gates)
    total = until_the_end[..., :1, :] + log_gates[..., :1, :]
    return state.scaled(total).append(keys.scaled(until_the_end), values)


def fold_state(
    step: Callable[..., tuple[AttentionState, tuple]],
    state: AttentionState,
    columns: tuple,
    size: int | None,
    **options: bool,
) -> tuple[AttentionState, list[tuple]]:
    """`fold` that carries a state: `state, results = step(state, *parts)`."""

    def on_arrays(carry: tuple, parts: tuple) -> tuple[tuple, tuple]:
        after, results = step(AttentionState(*carry), *parts)
        return (after.log_max, after.weighted, after.total), results

    start = state.log_max, state.weighted, state.total
    (log_max, weighted, total), found = fold(on_arrays, start, columns, size, **options)
    return AttentionState(log_max, weighted, total, state.origin), found


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
