"""The generic passes over a sequence: every key into the state, or chunk by chunk in causal order."""

from typing import Any

from randfeat._array import Array, cumulative_sum, device_of, namespace
from randfeat.attention.causal import Square, attend_square, causal_partial
from randfeat.attention.decay import decayed_square, gates_between, remaining
from randfeat.attention.inputs import AttentionInputs, pieces
from randfeat.attention.partial import PartialOutput
from randfeat.attention.state import AttentionState
from randfeat.features import Features
from randfeat.maps import FeatureMap

__all__ = ["causal_pass", "full_pass", "keys_of", "pad", "pad_keys", "pad_queries"]

CHUNK = 256  # positions at a time: features of a chunk are the only arrays of size positions × features
CAUSAL_CHUNK = 128

Passed = tuple[list[PartialOutput], AttentionState]
"""Outputs of consecutive pieces along L, and the state after all keys."""


def full_pass(inputs: AttentionInputs, features: FeatureMap, state: AttentionState) -> Passed:
    """All keys into the state, then every query reads it."""
    state = append(inputs, features, state, 0, inputs.num_keys)
    return read(inputs, features, state, 0, inputs.num_queries), state


def causal_pass(
    inputs: AttentionInputs, features: FeatureMap, state: AttentionState, *, offset: int = 0, log_gates: Any = None
) -> Passed:
    """Query i over the keys 0 .. i + offset: read what came before, attend within the chunk, then append it.

    With `log_gates` (..., S or 1, 1 or f), what is remembered is multiplied by the gate of a position as it is reached.
    """
    before, ahead = min(max(offset, 0), inputs.num_keys), min(max(-offset, 0), inputs.num_queries)
    state = append(inputs, features, state, 0, before, log_gates)  # these every query sees
    outputs = read(inputs, features, state, 0, ahead) if ahead else []  # these queries come before every key
    for start, stop in pieces(ahead, inputs.num_queries, CAUSAL_CHUNK):
        queries = features.queries(inputs.query[..., start:stop, :])
        first, last = start + offset, min(stop + offset, inputs.num_keys)
        if first >= last:
            outputs.append(state.partial(queries))
            continue
        keys, values = keys_of(inputs, features, first, last)
        size = 1 << (stop - start - 1).bit_length()
        square: Square = attend_square
        seen = queries
        if log_gates is not None:
            gates = pad(gates_between(log_gates, first, last), size, 0.0)
            square = decayed_square(gates)
            seen = queries.scaled(cumulative_sum(gates, -2)[..., : stop - start, :])
        within = causal_partial(pad_queries(queries, size), pad_keys(keys, size), pad(values, size, 0.0), square)
        outputs.append(state.partial(seen).merge(within.first(stop - start)))
        state = append_keys(state, keys, values, log_gates, first, last)
    rest = min(max(inputs.num_queries + offset, before), inputs.num_keys)
    state = append(inputs, features, state, rest, inputs.num_keys, log_gates)  # keys that no query sees
    return outputs or read(inputs, features, state, 0, 0), state


def read(
    inputs: AttentionInputs, features: FeatureMap, state: AttentionState, start: int, stop: int
) -> list[PartialOutput]:
    """Outputs of the queries from `start` to `stop`, which all see the state."""
    return [
        state.partial(features.queries(inputs.query[..., first:last, :]))
        for first, last in pieces(start, stop, CHUNK) or [(start, start)]
    ]


def append(
    inputs: AttentionInputs, features: FeatureMap, state: AttentionState, start: int, stop: int, log_gates: Any = None
) -> AttentionState:
    """The state after the keys from `start` to `stop`."""
    for first, last in pieces(start, stop, CHUNK):
        state = append_keys(state, *keys_of(inputs, features, first, last), log_gates, first, last)
    return state


def append_keys(
    state: AttentionState, keys: Features, values: Array, log_gates: Any, first: int, last: int
) -> AttentionState:
    """The state after the keys at `first` .. `last - 1`, whose gates act on it and on the earlier of them."""
    if log_gates is None:
        return state.append(keys, values)
    gates = gates_between(log_gates, first, last)
    until_the_end = remaining(gates)
    total = until_the_end[..., :1, :] + gates[..., :1, :]
    return state.scaled(total).append(keys.scaled(until_the_end), values)


def keys_of(inputs: AttentionInputs, features: FeatureMap, start: int, stop: int) -> tuple[Features, Array]:
    """Features and values of the keys from `start` to `stop`; masked keys have log_scale -inf."""
    keys = features.keys(inputs.key[..., start:stop, :])
    values = inputs.value[..., start:stop, :]
    if inputs.key_mask is None:
        return keys, values
    xp = namespace(values)
    log_scale = xp.where(inputs.key_mask[..., start:stop, None], keys.log_scale, -xp.inf)
    return Features(keys.values, log_scale), values


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
