"""The generic passes over a sequence: every key into the state, or chunk by chunk in causal order."""

from collections.abc import Callable
from typing import Any

from randfeat._array import Array, fold, is_compiling, is_transformed, namespace
from randfeat.attention.generic import chunks
from randfeat.attention.generic.chunks import append_keys, attend_chunk, fold_state, rows_at_once
from randfeat.attention.generic.gates import gates_between, vanishing
from randfeat.attention.inputs import Inputs
from randfeat.attention.partial import PartialOutput
from randfeat.attention.state import AttentionState
from randfeat.features import Features
from randfeat.maps import FeatureMap

Passed = tuple[list[PartialOutput], AttentionState]
"""Partial outputs of consecutive queries, and the state after all keys."""


def full_pass(inputs: Inputs, features: FeatureMap, state: AttentionState) -> Passed:
    """Full attention: append all keys to the state, then read it with every query."""
    state = append(inputs, features, state)
    outputs = read(inputs.query, features, state)
    return outputs if inputs.num_keys else [*outputs, of_no_key(outputs[0], inputs)], state


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

    end = before.num_keys + paired.num_keys
    found, state = attend_pairs(paired, features, state, rows(gates, before.num_keys, end))
    outputs += found
    if rest.num_queries or not outputs:
        outputs += read(rest.query, features, state if log_gates is None else beyond_the_keys(state, log_gates))
    if end == 0:
        outputs.append(of_no_key(outputs[0], inputs, log_gates))
    return outputs, append(rest, features, state, rows(gates, end, inputs.num_keys))


def attend_pairs(inputs: Inputs, features: FeatureMap, state: AttentionState, log_gates: Array | None) -> Passed:
    """Query i over the keys 0 .. i, as many as there are queries."""

    def step(state: AttentionState, query: Array, key: Array, value: Array, mask: Any, gates: Any) -> tuple:
        state, output = attend(state, features.queries(query), keys_of(features, key, mask), value, gates)
        return state, output.columns

    attend: Callable[..., tuple] = attend_chunk
    size: int | None = chunks.CAUSAL_CHUNK
    if is_compiling(inputs.query) and not is_transformed(inputs.query):
        from randfeat.attention.generic.causal_operator import attend_chunks as attend

        size = None  # all rows at once: the operation has the loop over chunks inside
    state, found = fold_state(step, state, (inputs.query, *inputs.key_columns, log_gates), size)
    return [PartialOutput(*part) for part in found], state


def of_no_key(like: PartialOutput, inputs: Inputs, *others: Array | None) -> PartialOutput:
    """The outputs of no query: behind others that see no key, they make the gradients in all keys zeros, not absent."""
    xp = namespace(inputs.value)
    nothing = inputs.value[..., :0, :]
    for x in (inputs.key, None if inputs.key_bias is None else inputs.key_bias[..., None], *others):
        if x is not None:
            nothing = nothing + xp.sum(x[..., :0, :], axis=-1, keepdims=True)
    columns = like.columns
    numerator = xp.broadcast_to(nothing, (*columns[0].shape[:-2], *nothing.shape[-2:]))
    return PartialOutput(numerator, *(x[..., :0, :] for x in columns[1:]))


def beyond_the_keys(state: AttentionState, log_gates: Array) -> AttentionState:
    """The state as queries behind the last key read it: a gate of 0 leaves nothing, any other one cancels."""
    return state if log_gates.shape[-2] != 1 else state.scaled(vanishing(log_gates))


def read(query: Array, features: FeatureMap, state: AttentionState) -> list[PartialOutput]:
    """Outputs of queries that all read one state."""
    found = each_part(
        lambda query: state.partial(features.queries(query)).columns, (query,), rows_at_once(query, chunks.CHUNK)
    )
    return [PartialOutput(*part) for part in found]


def append(
    inputs: Inputs, features: FeatureMap, state: AttentionState, log_gates: Array | None = None
) -> AttentionState:
    """The state after all keys, with their gates (..., S, 1 or f)."""

    def step(state: AttentionState, key: Array, value: Array, mask: Any, gates: Any) -> tuple:
        return append_keys(state, keys_of(features, key, mask), value, gates), ()

    return fold_state(step, state, (*inputs.key_columns, log_gates), rows_at_once(inputs.key, chunks.CHUNK))[0]


def each_part(step: Callable[..., tuple[Array, ...]], columns: tuple, size: int | None) -> list[tuple[Array, ...]]:
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
